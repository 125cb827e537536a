"""CoPhy's task (Baradel et al., ICLR 2020): from clip AB and C, the first frame of CD, predict D's object positions.

The score is that of the authors' code (get_mse in cf_learning/main.py, github.com/fabienbaradel/cophy), see `mse`. It
covers every frame except the first, and x, y and z in the simulator's units. For ballsCF it covers x and y only.
Smaller is better. The protocol is given information that the authors' own model has to infer: which objects are in C
(presence), where the objects are in the pictures of AB and C (masks), and, for the interventional readout, which object
was changed.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.data import pipeline, transforms
from cjepa_jax.data.sources import cophy
from cjepa_jax.errors import DataError
from cjepa_jax.evals import heads, ridge
from cjepa_jax.evals.base import TRAINED, Bench, Hidden, Model, Result, Score, integer, over_inits, pool, require
from cjepa_jax.evals.finetune import FIXED, check_options, finetune, in_batches, mlp, mlp_init
from cjepa_jax.masks import objects

AXES = {"ballsCF": 2}  # number of coordinates that are scored, 3 for the other scenarios
SEEN = ("ab", "ab_objects", "c", "c_objects")
NOTHING = Model("no encoder", None, None)
STILL = 1e-4  # units: an object that was not moved differs by less than this between two files


def mse(prediction: Any, truth: Any, present: Any) -> Any:
    """Each pair's error [n], from predicted and true positions [n, T, K, C] and the present objects, bool [n, K].

    Squared errors are averaged (not summed) over coordinates, summed over frames and present objects, and divided by
    (number of present objects x T). The score is the mean over pairs. The authors use the presence that their model
    predicts, in the sum and in the divisor. No head predicts presence here, so both use the true one. A pair without
    objects has error 0.
    """
    error = ((prediction - truth) ** 2).mean(-1) * present[:, None]
    return error.sum((1, 2)) / (present.sum(1) * truth.shape[1]).clip(1)


@dataclasses.dataclass(frozen=True)
class CoPhy:
    """Predicts the positions of each object at all frames of D, with one MLP for all object slots.

    Its inputs are the mean tokens of AB and of C (the frame of C repeated to a clip), the mean tokens of the slot's
    object in each, and the slot's number (its colour).

    Metrics:
      "mse/fine-tuned": MLP and encoder are trained end to end (METHOD, Algorithm 3, line 3).
      "mse/frozen": only the MLP is trained.
      "mse/interventional": only the MLP is trained. Its further inputs are the model's outputs for AB with the changed
        object hidden. The changed object is the one that is absent from C, or else the one that is furthest from its
        place in A. The outputs are the mean prediction at its tokens and, if the predicted change was trained, the
        mean over all other tokens of s_full minus that change. The object is hidden at all times (anchor 0), even if
        the model was trained with the first times visible.

    An MLP that is trained alone has the rate heads.RATE, independent of the model's rate. So floors and ceilings are
    the same for all models.

    Floors are random initialisations, "copy C" (the true positions in C at all times), "copy B" (the true trajectories
    of AB), and the mean position at each frame. The ceiling is the MLP on the true states of AB and C. It predicts the
    displacement from C.

    Attributes:
      finetune, interventional: whether these metrics are scored.
      hidden: number of hidden units (GELU) of the MLP.
      steps: the largest number of training steps.
      batch: pairs per step.
      share, head_share, stop: as in `finetune`. head_share applies to "mse/fine-tuned" only.
    """

    finetune: bool = True
    interventional: bool = True
    hidden: int = 256
    steps: int = 4000
    batch: int = 32
    share: float = 0.1
    head_share: float = 0.1
    stop: bool = True

    def __post_init__(self):
        check_options(
            "cophy", self, dict(hidden=integer(self.hidden, 1)), dict(hidden="must be an integer of at least 1")
        )

    def run(self, bench: Bench) -> Result:
        """Raises ConfigError for data other than whole clips of CoPhy, DataError for fewer than 4 readable pairs."""
        fit = load(bench, bench.fit_split, bench.fit, "fit")
        test = load(bench, bench.test_split, bench.test, "test")
        seen = [[features(model, pairs, bench.batch) for pairs in (fit, test)] for model in bench.models]
        learn = functools.partial(self._learn, bench, fit, test)
        found, notes = {}, [self._note(bench, fit, test)]
        if self.finetune:
            found["fine-tuned"] = [learn(*x, model) for model, x in zip(bench.models, seen, strict=True)]
        found["frozen"] = [learn(*x) for x in seen]
        if self.interventional:
            more = [[readouts(model, pairs, bench.batch) for pairs in (fit, test)] for model in bench.models]
            if more[0][0] is None:
                notes.append("no interventional readout: the model predicts nothing that is hidden")
            else:
                both = [[np.concatenate(x, -1) for x in zip(*m, strict=True)] for m in zip(seen, more, strict=True)]
                found["interventional"] = [learn(*x) for x in both]
        stones = {
            "copy C": np.repeat(test["start"][:, None], test["truth"].shape[1], 1),
            "copy B": test["factual"],
            "mean position": np.broadcast_to(moments(fit, fit["truth"])[0][:, None], test["truth"].shape),
            "true states": learn(fit["states"], test["states"], moved=True),
        }
        return report(test, found, stones, notes)

    def _learn(self, bench, fit, test, x_fit, x_test, model=None, moved=False) -> np.ndarray:
        """The predicted positions [m, T, K, C] of the test pairs, after training on features [n, K, F].

        If a model is given, its encoder computes the features and is trained too. With `moved`, the target is the
        displacement from C.
        """
        present = fit["present"]
        mean, scale = ridge.moments(x_fit[present])
        centre, spread = moments(fit, fit["truth"] - fit["start"][:, None] if moved else fit["truth"])
        fixed = dict(mean=mean, gain=1 / scale, centre=centre, spread=spread)
        fixed = {name: jnp.asarray(value, jnp.float32) for name, value in fixed.items()}
        widths = (x_fit.shape[-1], self.hidden, centre.size)

        def arrays(pairs, x):
            names = ("truth", "present", *(SEEN if model else ()), *(("start",) if moved else ()))
            return {name: pairs[name] for name in names} | ({} if model else {"x": x})

        options = {name: getattr(self, name) for name in ("steps", "batch", "share", "stop")}
        options |= dict(rate=bench.rate if model else heads.RATE, head_share=self.head_share if model else 1.0)
        init = lambda key: {FIXED: fixed, **mlp_init(key, widths)}  # noqa: E731
        pairs = arrays(fit, x_fit)
        fitted = finetune(model or NOTHING, init, _positions, _error, pairs, seed=bench.seed, **options)
        return fitted(arrays(test, x_test))

    def _note(self, bench: Bench, fit: Mapping, test: Mapping) -> str:
        unchanged = int((test["changed"] < 0).sum())
        rates = (
            f"encoder {self.share * bench.rate:.2g}, MLP {self.head_share * bench.rate:.2g} (alone {heads.RATE:.2g})"
        )
        return (
            f"mean squared error over {test['truth'].shape[-1]} coordinates, smaller is better. {len(fit['present'])} "
            f"fitting pairs, at most {self.steps} steps of {self.batch}, peak rates: {rates}. True presence and masks. "
            f"{unchanged} test pairs in which no object of AB was moved or taken away"
        )


def load(bench: Bench, split: str, count: int, field: str) -> dict[str, np.ndarray]:
    """The first `count` pairs of a split (0: all) in memory, without unreadable ones.

    There are N tokens, K slots and C coordinates. The model sees T of the L frames of a clip.

    Returns:
      ab uint8 [n, T, H, W, 3], c uint8 [n, 1, H, W, 3]: the pictures.
      ab_objects, c_objects bool [n, K, N]: the tokens that each object touches.
      truth, factual float32 [n, L - 1, K, C]: positions in CD and in AB, without the first frame.
      start [n, K, C]: positions in C.
      present bool [n, K]: the objects that are in C.
      changed int [n]: the slot of the object that was moved or removed in C, -1 for none.
      states float32 [n, K, F]: the states of AB and C.
    Raises: ConfigError for data other than whole clips of CoPhy, DataError for too few pairs.
    """
    source = bench.source(split, 0)
    require(isinstance(source, cophy.CoPhy), "cophy", "pairs: data.source = cjepa_jax.data.sources.cophy:CoPhy")
    span = f"data.frames x data.options.stride = {source.frames} x {source.stride}"
    require(source.frames > 1, "cophy", f"clips, not data.frames = {source.frames}")
    require(
        source.per_clip == 1, "cophy", f"one scene a clip. {span} makes {source.per_clip} of {source.length} frames"
    )
    scenes = bench.prepare(dataclasses.replace(source, video="both", count=0))
    have = len(scenes.source) // 2
    if count > have:
        raise DataError(f"evals.{field} = {count}: the split {split!r} has {have} pairs")
    found = []
    for i in range(count or have):
        try:
            found.append(read(scenes, i))
        except DataError as problem:
            logging.warning("pair %d left out: %s", i, problem)
    if len(found) < 4:
        raise DataError(f"evals: the split {split!r} has {len(found)} readable pairs, at least 4 are needed")
    return {name: np.stack([pair[name] for pair in found]) for name in found[0]}


def read(scenes: pipeline.SceneMap, i: int) -> dict[str, np.ndarray]:
    """Pair i in the format of `load`, without the axis n. Raises DataError if it cannot be read."""
    source = scenes.source
    pair, ab, cd = source.pair(2 * i), source[2 * i], source[2 * i + 1]
    axes = AXES.get(source.scenario, 3)
    truth, factual = (pair[f"states_{which}"][..., :axes] for which in ("cd", "ab"))
    first = pair["states_cd"][:1]
    own = np.concatenate([ab["states"], first]).swapaxes(0, 1).reshape(len(pair["present_cd"]), -1)
    everyone = np.broadcast_to(own.reshape(-1), (len(own), own.size))
    moved = np.linalg.norm(pair["states_ab"][0, :, :3] - first[0, :, :3], axis=-1)
    moved = np.where(pair["present_ab"], np.where(pair["present_cd"], moved, np.inf), 0.0)
    clip, its_objects = _prepared(scenes, ab["video"], ab["masks"])
    frame, shown = _prepared(scenes, cd["video"][:1], np.repeat(cd["masks"][:, :1], scenes.frames, 1))
    return dict(
        ab=clip, ab_objects=its_objects, c=frame, c_objects=shown, truth=truth[1:], factual=factual[1:], start=truth[0],
        present=pair["present_cd"], changed=np.int32(moved.argmax() if moved.max() > STILL else -1),
        states=np.concatenate([own, everyone, np.eye(len(own), dtype=np.float32)], -1),
    )  # fmt: skip


def _prepared(scenes: pipeline.SceneMap, video: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prepares a clip like SceneMap, but keeps object rows in the order of slots."""
    window = transforms.centre_square(*video.shape[1:3])
    tubelet = scenes.frames // scenes.grid[0]
    return window.frames(video, scenes.size), objects.patches(window.masks(masks, scenes.size), scenes.patch, tubelet)


def moments(pairs: Mapping, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean at each frame [T, C], and overall standard deviation [], of the present objects' positions [n, T, K, C]."""
    there = positions.swapaxes(1, 2)[pairs["present"]]
    mean = there.mean(0)
    return mean, np.maximum((there - mean).std(), 1e-6)


def describe(encode: Any, pairs: Mapping) -> jax.Array:
    """The MLP's inputs for each slot, [b, K, 4 D + K]. encode: video [b, T, H, W, 3] -> tokens [b, N, D]."""
    still = jnp.repeat(pairs["c"], pairs["ab"].shape[1], 1)
    tokens = [jnp.asarray(encode(video), jnp.float32) for video in (pairs["ab"], still)]
    slots = pairs["ab_objects"].shape[:2]
    parts = [jnp.broadcast_to(x.mean(1)[:, None], (*slots, x.shape[-1])) for x in tokens]
    for x, where in zip(tokens, (pairs["ab_objects"], pairs["c_objects"]), strict=True):
        weights = jnp.asarray(where, jnp.float32)
        parts.append(jnp.einsum("bnd,bkn->bkd", x, weights / weights.sum(-1, keepdims=True).clip(1)))
    return jnp.concatenate([*parts, jnp.broadcast_to(jnp.eye(slots[1]), (*slots, slots[1]))], -1)


def features(model: Model, pairs: Mapping, batch: int) -> np.ndarray:
    """`describe` with the frozen encoder: float32 [n, K, F]."""
    return in_batches(functools.partial(describe, model.encode), {name: pairs[name] for name in SEEN}, batch)


def readouts(model: Model, pairs: Mapping, batch: int) -> np.ndarray | None:
    """The model's outputs for AB with the changed object hidden, equal for all slots of a pair.

    Returns: float32 [n, K, D], or [n, K, 2 D] with the predicted change. None if the model has no prediction.
    """
    slots = pairs["present"].shape[1]
    parts = []
    for start in range(0, len(pairs["ab"]), batch):
        video, patches, changed = (pairs[name][start : start + batch] for name in ("ab", "ab_objects", "changed"))
        removed = np.arange(slots) == changed[:, None]
        gone = (patches & removed[..., None]).any(1)
        gone &= ~gone.all(1, keepdims=True)  # at least one token has to stay visible
        seen = model.hide(Hidden(video, ~gone, patches, removed))
        if seen.prediction is None:
            return None
        found = [pool(seen.prediction, gone)]
        if seen.change is not None:
            found.append(pool((model.target or model.encode)(video) - seen.change, ~gone))
        parts.append(np.concatenate(found, -1))
    return np.repeat(np.concatenate(parts)[:, None], slots, 1)


def report(
    test: Mapping, found: Mapping[str, Sequence[np.ndarray]], stones: Mapping[str, np.ndarray], notes: Sequence[str]
) -> Result:
    """The scores of predictions [m, T, K, C].

    found: metric -> predictions of the model, then of the random initialisations. stones: row -> predictions of floors
    and ceilings.
    """
    count, frames = test["truth"].shape[:2]

    def score(metric, row, prediction, kind):
        errors = mse(prediction, test["truth"], test["present"])
        return Score(
            metric=metric,
            row=row,
            value=float(errors.mean()),
            interval=float(1.96 * errors.std() / np.sqrt(count)),
            count=count,
            kind=kind,
        )

    def by_frame(prediction):
        at = [mse(prediction[:, [t]], test["truth"][:, [t]], test["present"]).mean() for t in range(frames)]
        return np.array(at)

    scores = []
    for name, (trained, *randoms) in found.items():
        metric = f"mse/{name}"
        scores.append(score(metric, TRAINED, trained, "result"))
        scores.append(over_inits(metric, [score(metric, "", x, "floor").value for x in randoms], count))
        scores += [score(metric, row, x, "ceiling" if row == "true states" else "floor") for row, x in stones.items()]
    lines = {name: predictions[0] for name, predictions in found.items()} | dict(stones)
    curves = {label: (np.arange(1, frames + 1), by_frame(x)) for label, x in lines.items()}
    return Result(scores, curves={"mean squared error by frame": curves}, notes=notes)


def _positions(encode, head, arrays):
    """Positions [b, T, K, C] from the arrays of `load`, or from features "x" if they are given."""
    fixed = head[FIXED]
    x = arrays["x"] if "x" in arrays else describe(encode, arrays)
    out = mlp(head, (x - fixed["mean"]) * fixed["gain"]).reshape(*x.shape[:2], *fixed["centre"].shape)
    out = fixed["centre"][:, None] + fixed["spread"] * out.swapaxes(1, 2)
    return out + arrays["start"][:, None] if "start" in arrays else out


def _error(out, arrays):
    return mse(out, arrays["truth"], arrays["present"])
