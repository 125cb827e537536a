"""The interface of evaluation protocols. A protocol gets models as functions and held-out scenes, and returns scores.

A protocol is a frozen dataclass that config.evals.protocols names, with one method:

    run(bench: Bench) -> Result

A class attribute `kinds` names the kinds of scenes (data/kinds) that it takes. By default these are kinds.FILMED.

It scores `bench.model`, the same network at random initialisation (`bench.randoms`), and baselines for comparison:
floors (lower bounds) and ceilings (upper bounds).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy import special

from cjepa_jax.data import pipeline
from cjepa_jax.data.base import Source
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.parts import Parts

TRAINED, RANDOM = "trained", "random init"  # rows that every protocol has
KINDS = ("result", "floor", "ceiling")
POOLINGS = ("mean", "max", "mean+max")  # of a scene's tokens, see `whole`


class Hidden(NamedTuple):
    """A batch of masked inputs."""

    video: np.ndarray  # uint8 [B, T, H, W, 3]
    context: np.ndarray  # bool [B, N] tokens that stay visible
    object_patches: np.ndarray  # bool [B, K, N] tokens that each object touches
    removed: np.ndarray  # bool [B, K] objects that are removed


class Seen(NamedTuple):
    """Model outputs for masked inputs, float32 [B, N, D] each. None if the model lacks that output."""

    context: np.ndarray | None  # the visible tokens, encoded without the hidden ones. 0 at hidden tokens
    prediction: np.ndarray | None  # the predicted tokens, which are trained at hidden tokens
    change: np.ndarray | None  # the predicted s_full - s_int, the change of the rest. None if it was not trained


class Inside(NamedTuple):
    """The layers of an encoder as functions (models/inside.py). Layer 0 is the tokenizer, layer l the l-th block.

    Attributes:
      layers: L, the number of blocks.
      states: uint8 [B, T, H, W, 3] -> float32 [L + 1, B, N, D], the tokens after each layer.
      tokens: (video, layer) -> float32 [B, N, D], the tokens of one layer, without the blocks after it.
      resume: (tokens [B, N, D] of a layer, layer, grid) -> float32 [B, N, D], the encoder's output from there.
      attention: (video, groups of tokens bool [B, K, N]) -> float32 [B, L, K, K], see models.inside.attention.
      params: the encoder's parameters.
      before, after: the differentiable functions (params, video, layer) -> tokens [B, N, D] of the layer, and
        (params, tokens, layer, grid) -> [B, N, D]. grid = (times, rows, columns) of the tokens.
    """

    layers: int
    states: Callable[[np.ndarray], np.ndarray]
    tokens: Callable[[np.ndarray, int], np.ndarray]
    resume: Callable[[np.ndarray, int, tuple[int, int, int]], np.ndarray]
    params: Any
    before: Callable
    after: Callable
    attention: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Model:
    """One model as functions on NumPy arrays of any number of scenes B. They are compiled for one batch size.

    Attributes:
      name: the name of its row in the tables.
      encode: uint8 [B, T, H, W, 3] -> float32 [B, N, D], the trained encoder on whole scenes.
      hide: Hidden -> Seen, the outputs for masked inputs.
      target: like `encode`, by the EMA target encoder. None if the model has none.
      params, apply: the trained parameters, and the differentiable function (params, video) -> [B, N, D]. Fine-tuning
        uses them.
      target_norm: normalisation of the tokens that `hide` predicts: "layer_norm" (zero mean and unit variance over D)
        or "none".
      fresh_predictor: outputs -> (init, apply) of an untrained predictor of the training's architecture (or of a small
        one) for one removed object: init(key, *told, grid) -> params, apply(params, *told, grid) -> (prediction,
        residual) [B, N, outputs] each, with told = tokens [B, N, D], context [B, N], patches [B, 1, N], removed [B, 1].
      latents, advance: of world models, else None. uint8 [B, T, H, W, 3] -> float32 [B, T, D], and (latents [B, t, D],
        actions [B, t, A], proprio [B, t, S] or None) -> the next latents [B, D]. See objectives.base.World.
      influence: of models of slots, else None. Hidden -> by name graphs [B, K, K] of what slot i (axis 1) depends on.
      ahead: of models of slots that were trained with actions, else None. (slots float32 [B, h, K, D], actions
        [B, h + n - 1, A], proprio [B, h, P] or None) -> the next n frames' slots [B, n, K, D]. actions[:, i] leads from
        frame i to the next one. Each prediction is the next one's input.
      flow: of models of optical flow, else None. Pairs of frames uint8 [B, 2, H, W, 3] -> float32 [B, H, W, 2], how far
        each pixel of the first moves, (x, y) in pixels, y down.
      segment, segments: of models that assign each pixel to a slot, else None and 0. Video -> each pixel's slot, int32
        [B, T, H, W], and the number of slots. See objectives.base.Segmenting.
      inside: the encoder's layers. None if `encode` is not one of this package's Transformers alone.
    """

    name: str
    encode: Callable[[np.ndarray], np.ndarray]
    hide: Callable[[Hidden], Seen]
    target: Callable[[np.ndarray], np.ndarray] | None = None
    params: Any = None
    apply: Callable | None = None
    target_norm: str = "none"
    fresh_predictor: Callable[[int], tuple[Callable, Callable]] | None = None
    latents: Callable[[np.ndarray], np.ndarray] | None = None
    advance: Callable[..., np.ndarray] | None = None
    influence: Callable[[Hidden], dict[str, np.ndarray]] | None = None
    ahead: Callable[..., np.ndarray] | None = None
    flow: Callable[[np.ndarray], np.ndarray] | None = None
    segment: Callable[[np.ndarray], np.ndarray] | None = None
    segments: int = 0
    inside: Inside | None = None


class Score(NamedTuple):
    """One number of a table."""

    metric: str  # such as "accuracy/masked". Larger is better unless the protocol says otherwise
    row: str  # TRAINED, RANDOM, or the name of a floor or ceiling
    value: float
    interval: float = float("nan")  # half of the 95 % interval over `of`
    count: int = 0  # number of test items
    kind: str = "result"  # or "floor", "ceiling"
    of: str = "items"  # the interval is over test items ("items") or random initialisations ("inits")


@dataclasses.dataclass(frozen=True)
class Result:
    """The output of a protocol.

    Attributes:
      scores: the numbers of its tables.
      images: title -> uint8 [H, W, 3].
      curves: title -> label -> (x [n], y [n]).
      notes: remarks.
    """

    scores: Sequence[Score]
    images: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


class Evaluation(Protocol):
    """A protocol, built from a section of config.evals.protocols."""

    def run(self, bench: "Bench") -> Result:
        """Computes the scores. Raises ConfigError, in one line, for data that do not suit the protocol."""


class Scenes(NamedTuple):
    """Scenes of one split: the source, its preparation, and n of its scenes as arrays with a first axis n.

    arrays: scene [n], video uint8 [n, T, H, W, 3], labels [n, P], object_patches [n, K, N], object_valid [n, K],
    objects int32 [n, K] (the source's numbers, -1 for none). If the source has states: states [n, T, K, S].
    """

    source: Source
    map: pipeline.SceneMap
    arrays: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Bench:
    """The input of a protocol.

    Attributes:
      model: the model to be evaluated.
      randoms: the same network at random initialisations.
      source: (split, count) -> Source, with the evaluation's own seed. Count 0 takes all scenes of the data.
      prepare: Source -> SceneMap, with centre crops and with_objects.
      fit_split, fit: the split on which heads are fitted, and its number of scenes.
      test_split, test: the split on which heads are scored, and its number of scenes.
      batch: number of scenes that are encoded at a time.
      seed: the seed of every random draw of a protocol, and of generated scenes.
      rate: the peak learning rate of the model's training.
      anchor: times at the start of a clip that the training's masks left visible.
      lengths: of models of slots: `history` and `future` of the objective, and the `skip` between frames in training.
        What is not known is left out.
      parts: keeps parts of results that take long, under the setting of this evaluation. None: nothing is kept.
    """

    model: Model
    randoms: tuple[Model, ...]
    source: Callable[[str, int], Source]
    prepare: Callable[[Source], pipeline.SceneMap]
    fit_split: str
    fit: int
    test_split: str
    test: int
    batch: int
    seed: int
    rate: float
    anchor: int = 0
    lengths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    parts: Parts | None = None

    @property
    def models(self) -> tuple[Model, ...]:
        """The model and the random initialisations."""
        return (self.model, *self.randoms)

    @functools.cached_property
    def fitting(self) -> Scenes:
        """The scenes that heads are fitted on. Raises DataError if fewer than 4 are readable."""
        return self.scenes(self.fit_split, self.fit)

    @functools.cached_property
    def testing(self) -> Scenes:
        """The scenes that heads are scored on. Raises DataError if fewer than 4 are readable."""
        return self.scenes(self.test_split, self.test)

    def scenes(self, split: str, count: int) -> Scenes:
        """The first `count` scenes of a split (0: all), without unreadable ones. Raises DataError if fewer than 4."""
        source = self.source(split, count)
        scenes = self.prepare(source)
        found = pipeline.held_out(scenes, 0, count or len(source))
        if len(found) < 4:
            raise DataError(f"evals: the split {split!r} has {len(found)} readable scenes, at least 4 are needed")
        return Scenes(source, scenes, {name: np.stack([s[name] for s in found]) for name in found[0]})


def encoded(model: Model, video: np.ndarray, batch: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows, tokens [b, N, D]) of videos uint8 [n, T, H, W, 3], `batch` at a time.

    The tokens of all scenes together would not fit in memory.
    """
    for start in range(0, len(video), batch):
        rows = slice(start, min(start + batch, len(video)))
        yield rows, model.encode(video[rows])


def pooled(model: Model, video: np.ndarray, batch: int) -> np.ndarray:
    """The standard features, mean tokens of whole scenes: float32 [n, D]."""
    return np.concatenate([tokens.mean(1) for _, tokens in encoded(model, video, batch)])


def whole(tokens: np.ndarray, pooling: str = "mean") -> np.ndarray:
    """One vector of each scene: tokens [n, N, D] -> [n, D], or [n, 2 D] of "mean+max". See POOLINGS.

    "mean+max" puts both side by side, as Point-JEPA's probe.
    """
    parts = {"mean": ("mean",), "max": ("max",), "mean+max": ("mean", "max")}[pooling]
    return np.concatenate([getattr(tokens, name)(1) for name in parts], axis=-1)


def pool(tokens: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The mean over selected tokens: [n, N, D], bool [n, N] -> [n, D]. 0 if none is selected."""
    weights = where / np.maximum(where.sum(-1, keepdims=True), 1)
    return np.einsum("nld,nl->nd", tokens, weights.astype(tokens.dtype))


def binomial(share: float, count: int) -> float:
    """Half of the 95 % interval (normal approximation) of a share of `count` independent items."""
    return float(1.96 * np.sqrt(max(share * (1 - share), 0.0) / max(count, 1)))


def over_inits(metric: str, values: Sequence[float], count: int) -> Score:
    """The row of the random initialisations: their mean, and half of its 95 % interval (Student's t)."""
    values = np.asarray(values, float)
    half = student(len(values)) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return Score(
        metric=metric,
        row=RANDOM,
        value=float(values.mean()),
        interval=float(half),
        count=count,
        kind="floor",
        of="inits",
    )


def mean(each: np.ndarray) -> tuple[float, float]:
    """The mean of independent values [n] and half of its 95 % interval (normal approximation). NaN for one value."""
    half = 1.96 * each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else float("nan")
    return float(each.mean()), float(half)


def student(count: int) -> float:
    """The 97.5 % quantile of Student's t for `count` values, with count - 1 degrees of freedom. NaN below 2 values."""
    return float(special.stdtrit(count - 1, 0.975)) if count > 1 else float("nan")


def integer(value: Any, least: int) -> bool:
    """Whether an option is an integer (not True or False) of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def number(value: Any) -> bool:
    """Whether an option is a number (not True or False)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_lengths(bench: Bench, section: str, **lengths: int) -> None:
    """Raises ConfigError where options of a protocol are not the run's lengths of the same names (Bench.lengths)."""
    for name, value in lengths.items():
        if (known := bench.lengths.get(name, value)) != value:
            raise ConfigError(f"{section}.{name} = {value}: must be the run's {name}, {known}")


def require(condition: bool, protocol: str, missing: str) -> None:
    """Raises ConfigError "evals.protocols: PROTOCOL needs MISSING" unless the condition holds."""
    if not condition:
        raise ConfigError(f"evals.protocols: {protocol} needs {missing}")
