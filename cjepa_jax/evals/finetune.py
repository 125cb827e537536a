"""Fine-tuning: trains an encoder together with a task head, by default at a tenth of the encoder's training rate."""

import dataclasses
import functools
import itertools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cjepa_jax import optim, schedules
from cjepa_jax.configuration import seeds
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import heads, ridge
from cjepa_jax.evals.base import (
    TRAINED,
    Bench,
    Model,
    Result,
    Scenes,
    Score,
    binomial,
    integer,
    number,
    over_inits,
    pooled,
    require,
)  # fmt: skip
from cjepa_jax.evals.classify import classes_of

FIXED = "batch_stats"  # subtrees of this name are statistics, which are not trained
OPTIMISER = optim.make(types.SimpleNamespace(clip=0.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.05))  # as in training
WARMUP = 0.1  # share of the steps
LOOKS, PATIENCE = 20, 5  # evaluations on the held-out part, and how many without improvement stop the fit
HEAD = 22  # folded into the key of the head's initialisation
RESAMPLES = 1000


def finetune(
    model: Model,
    head_init: Callable,
    head_apply: Callable,
    loss: Callable,
    arrays: Mapping[str, np.ndarray],
    seed: int,
    rate: float,
    steps: int,
    batch: int,
    share: float = 0.1,
    stop: bool = False,
    head_share: float = 1.0,
    layer_decay: float = 1.0,
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Trains an encoder and a head end to end (METHOD, Algorithm 3, line 3).

    The optimiser is AdamW as in training. The rate has a linear warm-up over a tenth of the steps and then follows a
    cosine to 0. The same seed gives the same bits. head_apply and loss are compiled once for all calls with equal
    functions (module-level functions, or methods of equal protocols).

    Args:
      model: gives the initial parameters of the encoder. The model itself is not changed.
      head_init: key -> the head's parameters. Subtrees named "batch_stats" are not trained, in head and encoder.
      head_apply: (encode, head, arrays of b items) -> output [b, ...], with encode: video [b, T, H, W, 3] -> [b, N, D].
      loss: (output, arrays of b items) -> [b].
      arrays: n items, name -> [n, ...]. Each epoch takes them in a new order, without the last n % batch.
      seed: the seed of the head's initialisation and of the order of items.
      rate, steps, batch: the peak rate of the model's training, the number of steps, the items per step.
      share, head_share: the peak rates of encoder and head, as shares of `rate`.
      layer_decay: of the encoder's rate, per block from the last to the first (`optim.layer_scales`).
      stop: early stopping. The last fifth of the items is held out. The parameters with the least loss there are
        returned, and training ends when this loss stops improving.
    Returns: (arrays of any number m of items) -> output float32 [m, ...].
    Raises: ConfigError if the loss becomes infinite or NaN.
    """
    items = len(next(iter(arrays.values())))
    held = items // 5 if stop else 0
    kept = {name: a[: items - held] for name, a in arrays.items()}
    last = {name: a[items - held :] for name, a in arrays.items()}
    functions = model.apply, head_apply, loss
    params = {"encoder": model.params or {}, "head": head_init(jax.random.fold_in(jax.random.key(seed), HEAD))}
    best, least, waited, state = params, np.inf, 0, OPTIMISER.init(params)
    shares = dict(share=share, head_share=head_share, layer_decay=layer_decay)
    every = max(steps // LOOKS, 1)
    rates = np.asarray(schedules.learning_rate(np.arange(1, steps + 1), rate, round(WARMUP * steps), steps + 1))
    for step, rows in enumerate(_order(seed, items - held, batch, steps), 1):
        chosen = {name: a[rows] for name, a in kept.items()}
        params, state, value = _step(functions, params, state, arrays=chosen, rate=rates[step - 1], **shares)
        if step % every and step < steps:
            continue
        if not np.isfinite(value):
            raise ConfigError(f"evals: fine-tuning at rate {rate:g} diverged within {step} steps: loss = {value}")
        if held:
            error = float(in_batches(functools.partial(_losses, functions, params), last, batch).mean())
            best, least, waited = (params, error, 0) if error < least else (best, least, waited + 1)
            if waited == PATIENCE:
                break
    found = best if held else params
    return lambda asked: in_batches(functools.partial(_outputs, functions, found), asked, batch)


@functools.partial(jax.jit, static_argnums=0, static_argnames="layer_decay")
def _step(functions, params, state, arrays, rate, share, head_share, layer_decay):
    value, gradient = jax.value_and_grad(lambda params: _losses(functions, params, arrays).mean())(params)
    updates, state = OPTIMISER.update(gradient, state, params)
    if layer_decay < 1:
        updates = jax.tree.map(jnp.multiply, updates, optim.layer_scales(updates, layer_decay))

    def scaled(path, update):
        names = [key.key for key in path if hasattr(key, "key")]
        return -rate * (0.0 if FIXED in names else share if names[0] == "encoder" else head_share) * update

    return optax.apply_updates(params, jax.tree_util.tree_map_with_path(scaled, updates)), state, value


@functools.partial(jax.jit, static_argnums=0)
def _losses(functions, params, arrays):
    return functions[2](_outputs(functions, params, arrays), arrays)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(functions, params, arrays):
    apply, head_apply, _ = functions
    encode = functools.partial(apply, params["encoder"]) if apply else None
    return head_apply(encode, params["head"], arrays)


def _order(seed: int, items: int, batch: int, steps: int) -> Iterator[np.ndarray]:
    """Yields the items of each step, int [batch]. If there are fewer items than `batch`, each step takes all."""
    batch = min(batch, items)

    def endless():
        for epoch in itertools.count():
            order = seeds.generator(seed, "order of fine-tuning", epoch).permutation(items)
            yield from order[: items // batch * batch].reshape(-1, batch)

    return itertools.islice(endless(), steps)


def in_batches(function: Callable, arrays: Mapping[str, np.ndarray], batch: int) -> np.ndarray:
    """Applies `function` to `batch` items at a time. The last batch is padded, so that only one shape is compiled."""
    items, parts = len(next(iter(arrays.values()))), []
    for start in range(0, items, batch):
        rows = np.minimum(np.arange(start, start + batch), items - 1)
        parts.append(np.asarray(function({n: a[rows] for n, a in arrays.items()}), np.float32)[: items - start])
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Predicts the source's labels with an encoder that is trained further with a head on its mean token.

    Metrics: "accuracy" for classification. For regression (classes = 0), "r2/GROUP" for every group of labels, from one
    regression of all labels. R2 is relative to the mean of the fitting scenes.

    Rows: the encoder fine-tuned from the checkpoint. Floors are the encoder fine-tuned from random initialisations, a
    linear (ridge) probe of the frozen checkpoint and, for classification, the most frequent class.

    Attributes:
      classes: number of classes, 0 for regression.
      label: "class" if the source gives each scene's class (ImageNet). Otherwise the name or the index of a label,
        which is rounded to a class.
      hidden: number of hidden units (GELU) between mean token and output. 0: a linear head.
      steps, batch: number of training steps, and scenes per step.
      share, head_share: the peak rates of encoder and head, as shares of the peak rate of the model's training.
      layer_decay: of the encoder's rate, per block from the last to the first. 1: none. 0.65 to 0.75 are common.
      stop: early stopping, see `finetune`.
    """

    classes: int = 0
    label: str | int = "class"
    hidden: int = 0
    steps: int = 1000
    batch: int = 32
    share: float = 0.1
    head_share: float = 0.1
    stop: bool = False
    layer_decay: float = 1.0

    def __post_init__(self):
        limits = dict(classes=integer(self.classes, 0) and self.classes != 1, hidden=integer(self.hidden, 0))
        limits["layer_decay"] = number(self.layer_decay) and 0 < self.layer_decay <= 1
        texts = dict(classes="must be 0 (regression) or at least 2", hidden="must be an integer of at least 0")
        texts["layer_decay"] = "must be above 0 and at most 1"
        check_options("finetune", self, limits, texts)

    def run(self, bench: Bench) -> Result:
        """Raises ConfigError for scenes without labels, or with classes outside 0 .. classes - 1."""
        require(bench.model.apply is not None, "finetune", "a model whose parameters can be trained")
        if self.classes:
            return self._accuracy(bench, *(self._classes(scenes) for scenes in (bench.fitting, bench.testing)))
        fit, test = ({name: s.arrays[name] for name in ("video", "labels")} for s in (bench.fitting, bench.testing))
        require(fit["labels"].shape[1] > 0, "finetune", "labels, which the scenes of data.source do not have")
        return self._r2(bench, fit, test)

    def _classes(self, scenes: Scenes) -> dict[str, np.ndarray]:
        """The scenes' videos, and their classes as "labels", int32 [n]."""
        y = classes_of(scenes.arrays, scenes.source.label_names, self.label, "finetune")
        known = f"classes 0 to {self.classes - 1} (classes = {self.classes})"
        require(y.max() < self.classes, "finetune", f"{known}. The data have {y.max()}")
        return {"video": scenes.arrays["video"], "labels": y.astype(np.int32)}

    def _accuracy(self, bench: Bench, fit: dict, test: dict) -> Result:
        truth, count = test["labels"], len(test["labels"])

        def share(row: str, scores: np.ndarray, kind: str = "floor") -> Score:
            right = float((scores.argmax(-1) == truth).mean())
            return Score(
                metric="accuracy", row=row, value=right, interval=binomial(right, count), count=count, kind=kind
            )

        tuned = [self._fit(bench, model, fit, self.classes)(test) for model in bench.models]
        frozen = heads.ridge_classify(*self._frozen(bench, fit, test))
        common = np.bincount(fit["labels"], minlength=self.classes)
        scores = [
            share(TRAINED, tuned[0], "result"),
            over_inits("accuracy", [share("", out).value for out in tuned[1:]], count),
            share("frozen, linear", frozen),
            share("most frequent class", np.tile(common, (count, 1))),
        ]
        return Result(scores, notes=[self._note(bench)])

    def _r2(self, bench: Bench, fit: dict, test: dict) -> Result:
        centre, scale = ridge.moments(fit["labels"])
        fit, test = ({**a, "labels": ((a["labels"] - centre) / scale).astype(np.float32)} for a in (fit, test))
        truth, count = test["labels"], len(test["labels"])
        tuned = [self._fit(bench, model, fit, truth.shape[1])(test) for model in bench.models]
        frozen = ridge.predict(*self._frozen(bench, fit, test))
        names = [name.partition("/")[0] for name in bench.testing.source.label_names]
        scores = []
        for group in dict.fromkeys(names):
            of = [p for p, name in enumerate(names) if name == group and truth[:, p].std() > 0]
            if not of:  # all targets are constant in the test scenes
                continue
            values = [explained(out[:, of], truth[:, of], bench.seed) for out in (*tuned, frozen)]
            metric = f"r2/{group}"
            scores.append(Score(metric, TRAINED, *values[0], count))
            scores.append(over_inits(metric, [value for value, _ in values[1:-1]], count))
            scores.append(Score(metric, "frozen, linear", *values[-1], count, "floor"))
        return Result(scores, notes=[self._note(bench)])

    def _fit(self, bench: Bench, model: Model, fit: dict, outputs: int) -> Callable:
        width = jax.eval_shape(model.apply, model.params, fit["video"][:1]).shape[-1]
        widths = (width, *([self.hidden] if self.hidden else []), outputs)
        init = functools.partial(mlp_init, widths=widths)
        loss = _cross_entropy if self.classes else _squared_error
        options = {name: getattr(self, name) for name in ("steps", "batch", "share", "stop", "head_share")}
        options["layer_decay"] = self.layer_decay
        return finetune(model, init, _mean_token, loss, fit, seed=bench.seed, rate=bench.rate, **options)

    def _frozen(self, bench: Bench, fit: dict, test: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        features = [pooled(bench.model, arrays["video"], bench.batch) for arrays in (fit, test)]
        return features[0], fit["labels"], features[1]

    def _note(self, bench: Bench) -> str:
        rates = f"encoder {self.share * bench.rate:.2g}, head {self.head_share * bench.rate:.2g}"
        rates += f", layer-wise decay {self.layer_decay:g}" if self.layer_decay < 1 else ""
        return f"{self.steps} steps of {self.batch} scenes. Peak rates: {rates}"


def check_options(protocol: str, options: Any, limits: Mapping[str, bool], texts: Mapping[str, str]) -> None:
    """Raises ConfigError for the first option outside its limits.

    limits: option -> whether it is within its limits. texts: option -> what is required. The limits of steps, batch,
    share and head_share are the same for all protocols and are added here.
    """
    limits = limits | dict(steps=integer(options.steps, 1), batch=integer(options.batch, 1))
    shares = {name: getattr(options, name) for name in ("share", "head_share")}
    limits |= {name: number(share) and 0 <= share <= 1 for name, share in shares.items()}
    texts = texts | dict.fromkeys(("steps", "batch"), "must be an integer of at least 1")
    texts |= dict.fromkeys(("share", "head_share"), "must be between 0 and 1")
    for name, held in limits.items():
        if not held:
            raise ConfigError(f"evals.protocols: {protocol}.{name} = {getattr(options, name)!r}: {texts[name]}")


def explained(prediction: np.ndarray, truth: np.ndarray, seed: int) -> tuple[float, float]:
    """The mean over targets of R2, 1 - squared error / squared truth, and half of its 95 % interval.

    Targets [m, P] are centred by their fitting rows. The interval is from a bootstrap over rows.
    """
    error, variance = np.square(prediction - truth, dtype=np.float64), np.square(truth, dtype=np.float64)
    rng = seeds.generator(seed, "bootstrap of fine-tuning's rows")
    times = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), RESAMPLES)
    drawn = (1 - times @ error / np.maximum(times @ variance, 1e-12)).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float((1 - error.sum(0) / variance.sum(0)).mean()), float(high - low) / 2


def _mean_token(encode, head, arrays):
    return mlp(head, encode(arrays["video"]).astype(jnp.float32).mean(1))


def _cross_entropy(out, arrays):
    return optax.softmax_cross_entropy_with_integer_labels(out, arrays["labels"])


def _squared_error(out, arrays):
    return jnp.square(out - arrays["labels"]).mean(-1)


def mlp_init(key: Any, widths: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Layers widths[0] -> ... -> widths[-1]. Kernels have variance 1 / fan-in. The last kernel and the biases are 0."""
    params = {}
    for index, (rows, columns) in enumerate(itertools.pairwise(widths)):
        scale = rows**-0.5 if index < len(widths) - 2 else 0.0
        kernel = scale * jax.random.normal(jax.random.fold_in(key, index), (rows, columns))
        params[f"dense{index}"] = {"kernel": kernel, "bias": jnp.zeros(columns)}
    return params


def mlp(params: Mapping[str, Mapping[str, Any]], x: Any) -> Any:
    """The layers of `mlp_init` with GELUs between them: [..., widths[0]] -> [..., widths[-1]]."""
    layers = [params[name] for name in sorted(params) if name.startswith("dense")]
    for layer in layers[:-1]:
        x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"])
    return x @ layers[-1]["kernel"] + layers[-1]["bias"]
