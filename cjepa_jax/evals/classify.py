"""Classification from frozen features: linear probe, low-shot linear probe, nearest neighbours, attentive probe."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.formats.resize import resize
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import heads
from cjepa_jax.evals.base import (
    POOLINGS,
    TRAINED,
    Bench,
    Result,
    Score,
    binomial,
    integer,
    number,
    over_inits,
    require,
    whole,
)
from cjepa_jax.evals.probe import pixel_components

TEMPERATURE = 0.07  # for the weights of the neighbours' votes
CACHED = 20_000  # largest number of scenes of a split whose pixels are kept in memory and shared with other protocols
SIDE, FITTED = 32, 4096  # pixel PCA: pixels per side, and scenes on which the components are fitted
HEADS, THREADS = 8, 8
PIXELS, MAJORITY = "pixel PCA", "majority class"


class Read(NamedTuple):
    """n scenes as features. Lists have one array per model, and are empty if they were not requested.

    y: classes, int [n]. small: shrunk videos, uint8 [n, T, s, s, 3]. pooled: one vector each, [n, D] (or [n, 2 D]).
    tokens: the tokens of the first m scenes, float16 [m, N, D]. guesses: the classes that the attentive probe predicts,
    int [n].
    """

    y: np.ndarray
    small: np.ndarray
    pooled: list[np.ndarray]
    tokens: list[np.ndarray]
    guesses: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Classify:
    """Top-1 accuracy on held-out scenes.

    Metrics:
      "accuracy/linear": softmax regression on the mean token (or on what `pooling` says, as the next two).
      "accuracy/linear, few": ridge regression on the share `low_shot` of the fitting set. It has at least one scene of
        each class, and is drawn class by class from bench.seed.
      "accuracy/k-NN": votes of `neighbours` by cosine similarity with weights exp(similarity / 0.07), as in DINO (arXiv
        2104.14294, arXiv 1805.01978).
      "accuracy/attentive": cross-attention of one learned query to all tokens, then softmax regression (V-JEPA, arXiv
        2404.08471, without its MLP). It is fitted on the first scenes, whose float16 tokens fit into `limit` bytes.

    Attributes:
      label: "class" if the source gives each scene's class (ImageNet). Otherwise the name or the index of a label that
        is rounded to a class, such as "count".
      classes: number of classes. 0: one more than the largest class of the fitting set.
      low_shot: share of the fitting set for "accuracy/linear, few". 0: not scored.
      neighbours: number of neighbours for "accuracy/k-NN". 0: not scored.
      attentive: whether "accuracy/attentive" is scored.
      steps: the largest number of training steps of the linear and the attentive probe, of 256 scenes each
        (evals/heads.py).
      limit: bytes of memory for one model's tokens, on which its attentive probe is fitted.
      pooling: one vector of a scene's tokens, "mean", "max" or "mean+max" (Point-JEPA's published probe). The
        attentive probe pools by itself.
    """

    label: str | int = "class"
    classes: int = 0
    low_shot: float = 0.01
    neighbours: int = 20
    attentive: bool = True
    steps: int = 1000
    limit: int = 2**30
    pooling: str = "mean"

    kinds: ClassVar[tuple[str, ...]] = ("video", "episodes", "points", "spectrogram")

    def __post_init__(self):
        for name, least in (("classes", 0), ("neighbours", 0), ("steps", 1), ("limit", 1)):
            value = getattr(self, name)
            if not integer(value, least):
                raise ConfigError(
                    f"evals.protocols: Classify.{name} = {value!r}: must be an integer of at least {least}"
                )
        if not number(self.low_shot) or not 0 <= self.low_shot < 1:
            raise ConfigError(f"evals.protocols: Classify.low_shot = {self.low_shot!r}: must be at least 0 and below 1")
        if self.pooling not in POOLINGS:
            raise ConfigError(
                f"evals.protocols: Classify.pooling = {self.pooling!r}: must be one of {', '.join(POOLINGS)}"
            )
        if not isinstance(self.attentive, bool):
            raise ConfigError(f"evals.protocols: Classify.attentive = {self.attentive!r}: must be True or False")

    def run(self, bench: Bench) -> Result:
        """Rows: trained, random init, majority class, pixel PCA. Raises ConfigError for data without such classes."""
        fit = self._read(bench, "fitting", None)
        seen = np.unique(fit.y)
        require(len(seen) > 1, "Classify", "two classes or more in the fitting set")
        classes = self.classes or int(seen[-1]) + 1
        if seen[-1] >= classes:
            raise ConfigError(f"evals.protocols: Classify.classes = {classes}: the fitting set has class {seen[-1]}")
        rng = seeds.generator(bench.seed, "order of classified scenes", len(fit.y))
        order, few = rng.permutation(len(fit.y)), stratified(fit.y, self.low_shot, rng)
        attention = [self._attention(tokens, fit.y, order, classes, bench.seed) for tokens in fit.tokens]
        test = self._read(bench, "testing", attention)
        pixels = pixel_components(np.concatenate([fit.small, test.small]), min(FITTED, len(fit.y)))
        features = {model.name: pair for model, *pair in zip(bench.models, fit.pooled, test.pooled, strict=True)}
        features[PIXELS] = np.split(pixels, [len(fit.y)])
        found = {}
        for row, (train, of) in features.items():
            guesses = self._guesses(train, fit.y, of, order=order, few=few, classes=classes, seed=bench.seed)
            found[row] = {metric: float((guess == test.y).mean()) for metric, guess in guesses.items()}
        for i, guess in enumerate(test.guesses):
            found[bench.models[i].name]["accuracy/attentive"] = float((guess == test.y).mean())
        common = float((test.y == np.bincount(fit.y).argmax()).mean())
        notes = [f"{classes} classes. Heads are fitted on {len(fit.y)} scenes."]
        if self.low_shot:
            notes.append(
                f"linear, few: fitted on {len(few)} scenes, {self.low_shot:.0%} and at least one of each class."
            )
        if self.attentive and not fit.tokens:
            notes.append(f"No attentive probe: a batch of tokens takes more than Classify.limit = {self.limit} bytes.")
        if fit.tokens and len(fit.tokens[0]) < len(fit.y):
            notes.append(f"The attentive probe is fitted on {len(fit.tokens[0])} scenes: Classify.limit.")
        return Result(_scores(bench, found, common, len(test.y)), notes=notes)

    def _guesses(self, train, y, of, order, few, classes, seed) -> dict[str, np.ndarray]:
        """The classes that each probe of pooled features predicts: metric -> int [m]."""
        linear = heads.mlp(train[order], y[order], of, classes, seed, hidden=0, steps=self.steps, inits=1)
        guesses = {"accuracy/linear": linear.argmax(1)}
        if self.low_shot:
            guesses["accuracy/linear, few"] = heads.ridge_classify(train[few], y[few], of).argmax(1)
        if self.neighbours:
            guesses["accuracy/k-NN"] = nearest(train, y, of, self.neighbours, classes).argmax(1)
        return guesses

    def _attention(self, tokens, y, order, classes, seed) -> Any:
        """The fitted attentive probe."""
        order = order[order < len(tokens)]
        params = attention_init(jax.random.key(seed), tokens.shape[-1], classes)
        return heads.learn(attend, params, tokens[order], y=y[order], seed=seed, steps=self.steps)

    def _read(self, bench: Bench, part: str, attention: Sequence[Any] | None) -> Read:
        """The scenes of a part as features of every model.

        attention: the fitted attentive probes, which then give `guesses`. None: `tokens` are returned.
        """
        models, names = bench.models, bench.source(*where(bench, part)).label_names
        y, small, pooled, tokens, guesses = [], [], *([[] for _ in models] for _ in range(3))
        left = self.limit if self.attentive and attention is None else 0
        for arrays in chunks(bench, part):
            y.append(classes_of(arrays, names, self.label, "Classify"))
            small.append(shrink(arrays["video"]))
            for i, model in enumerate(models):
                found = model.encode(arrays["video"])
                pooled[i].append(whole(found, self.pooling))
                if 2 * found.size <= left:
                    tokens[i].append(found.astype(np.float16))
                if attention:
                    guesses[i].append(heads.predict(attend, attention[i], found)[0].argmax(1))
            left -= 2 * found.size
        if not y:
            raise DataError(f"evals: the split {where(bench, part)[0]!r} has no readable scenes")
        joined = ([np.concatenate(parts) for parts in lists if parts] for lists in (pooled, tokens, guesses))
        return Read(np.concatenate(y), np.concatenate(small), *joined)


def classes_of(arrays: Mapping[str, np.ndarray], names: Sequence[str], label: str | int, protocol: str) -> np.ndarray:
    """The scenes' classes, int64 [b]: "class", or the label of this name or index, rounded.

    names: the names of all labels. Raises ConfigError, which names PROTOCOL.label, if the scenes have no such class or
    one below 0.
    """
    if label == "class":
        require("class" in arrays, protocol, f"a class of each scene, or {protocol}.label = one of {list(names)}")
        y = arrays["class"].astype(np.int64)
    else:
        known = label in names or (integer(label, 0) and label < len(names))
        require(known, f"{protocol}.label = {label!r}", f"a label of that name. The source has {list(names)}")
        index = label if isinstance(label, int) else list(names).index(label)
        y = np.rint(arrays["labels"][:, index]).astype(np.int64)
    require((y >= 0).all(), protocol, "a class of every scene, 0 or more. This split says -1 of some")
    return y


def where(bench: Bench, part: str) -> tuple[str, int]:
    """The split and the number of scenes of a part, "fitting" or "testing"."""
    return (bench.fit_split, bench.fit) if part == "fitting" else (bench.test_split, bench.test)


def chunks(bench: Bench, part: str) -> Iterator[dict[str, np.ndarray]]:
    """Yields the scenes of a part as arrays of at most bench.batch scenes. Pixels of a large part are not kept."""
    split, count = where(bench, part)
    if 0 < count <= CACHED:
        arrays = getattr(bench, part).arrays
        for start in range(0, len(arrays["video"]), bench.batch):
            yield {name: array[start : start + bench.batch] for name, array in arrays.items()}
        return
    source = bench.source(split, count)
    scenes, total = bench.prepare(source), count or len(source)
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, total, bench.batch):
            found = pool.map(lambda i: scenes(i, 0), range(start, min(start + bench.batch, total)))
            found = [scene for scene in found if not scene["replaced"]]
            if found:
                yield {name: np.stack([scene[name] for scene in found]) for name in found[0]}


def shrink(video: np.ndarray) -> np.ndarray:
    """Shrinks videos [n, T, H, W, C] to [n, T, s, s, C], s = 32 or less. Other scenes than square ones stay."""
    if video.shape[2] <= SIDE or video.shape[2] != video.shape[3]:
        return video
    return np.array([[resize(frame, (SIDE, SIDE)) for frame in clip] for clip in video])


def stratified(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draws a share of the rows of each class, at least one of each: int [k], in random order."""
    rows = [rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)]
    return rng.permutation(np.concatenate([r[: max(1, round(share * len(r)))] for r in rows]))


def nearest(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, neighbours: int, classes: int, rows: int = 0
) -> np.ndarray:
    """Votes of the nearest rows: [n, D], int [n], [m, D] -> [m, classes].

    A neighbour with cosine similarity s has a weight proportional to exp(s / 0.07). `rows` test rows are compared at a
    time. 0: as many as give 64 M similarities.
    """
    rows = rows or max(1, 2**26 // len(train_x))
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (train_x, test_x)]
    votes = np.zeros((len(test_x), classes))
    neighbours = min(neighbours, len(train_x))
    for start in range(0, len(test_x), rows):
        similarity = unit[1][start : start + rows] @ unit[0].T
        best = np.argpartition(-similarity, neighbours - 1, 1)[:, :neighbours]
        weights = np.exp((np.take_along_axis(similarity, best, 1) - 1) / TEMPERATURE)
        np.add.at(votes[start : start + rows], (np.arange(len(best))[:, None], train_y[best]), weights)
    return votes


def attention_init(key: jax.Array, width: int, classes: int) -> dict[str, jax.Array]:
    """Parameters of `attend` for tokens of this width, each with a first axis of length 1."""
    score, value = jax.random.split(key)
    heads_count = math.gcd(width, HEADS)
    params = {
        "score": jax.random.normal(score, (width, heads_count)) * width**-0.5,
        "value": jax.random.normal(value, (width, width)) * width**-0.5,
        "head": jnp.zeros((width, classes)),
        "bias": jnp.zeros(classes),
    }
    return jax.tree.map(lambda leaf: leaf[None], params)


def attend(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Logits [b, classes] of tokens [b, N, D].

    The query is learned, so its product with the key matrix is one learned direction per head ("score").
    """
    x = _standardise(x.astype(jnp.float32))
    weights = jax.nn.softmax(x @ params["score"], axis=1)  # [b, N, heads]
    mixed = jnp.einsum("bnh,bnd->bhd", weights, x)  # before the value matrix, which is linear: far fewer operations
    values = params["value"].reshape(x.shape[-1], weights.shape[-1], -1)
    pooled = jnp.einsum("bhd,dhe->bhe", mixed, values).reshape(len(x), -1)
    return _standardise(pooled) @ params["head"] + params["bias"]


def _standardise(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)


def _scores(bench: Bench, found: dict[str, dict[str, float]], common: float, count: int) -> list[Score]:
    """The rows of the trained model, the random initialisations and the floors, for each metric."""
    scores = []
    for metric, value in found[bench.model.name].items():
        scores.append(Score(metric, TRAINED, value, binomial(value, count), count))
        if bench.randoms:
            scores.append(over_inits(metric, [found[model.name][metric] for model in bench.randoms], count))
        floors = {MAJORITY: common} | ({PIXELS: found[PIXELS][metric]} if metric in found[PIXELS] else {})
        scores += [
            Score(metric=metric, row=row, value=v, interval=binomial(v, count), count=count, kind="floor")
            for row, v in floors.items()
        ]
    return scores
