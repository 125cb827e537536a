"""Answers questions in natural language from frozen features. The protocols with questions share this module."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import heads
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Scenes, Score, encoded, over_inits, require
from cjepa_jax.evals.benchmarks.words import Words
from cjepa_jax.evals.probe import pixel_components

HEADS = ("linear", "mlp")
MOMENTS = 4  # number of frames that give pixels and true states, evenly spaced from the first to the last
NAMED = 3  # number of objects named by a question whose states are separate features
QUESTION_ONLY, MOST_FREQUENT, PIXELS, STATES = "question only", "most frequent", "pixel PCA", "true states"


class Items(NamedTuple):
    """Q items to be answered, questions or options, in the order of their scenes."""

    row: np.ndarray  # int64 [Q] row of the item's scene in Scenes.arrays
    texts: list[tuple[str, ...]]  # (question,) or (question, option)
    kind: np.ndarray  # str [Q] type of question
    answer: np.ndarray  # str [Q]
    source: list[dict[str, Any]]  # the questions in the format of the data
    number: np.ndarray  # int64 [Q] number of the item's question

    @classmethod
    def of(cls, rows: Sequence[tuple]) -> "Items":
        """The items of at least one row (row, texts, kind, answer, source, number)."""
        row, texts, kind, answer, source, number = map(list, zip(*rows, strict=True))
        return cls(
            row=np.array(row),
            texts=texts,
            kind=np.array(kind),
            answer=np.array(answer),
            source=source,
            number=np.array(number),
        )

    def take(self, where: np.ndarray) -> "Items":
        """The items at which `where`, bool [Q], is True."""
        places = np.nonzero(where)[0]
        lists = [[column[i] for i in places] for column in (self.texts, self.source)]
        return Items(
            row=self.row[where],
            texts=lists[0],
            kind=self.kind[where],
            answer=self.answer[where],
            source=lists[1],
            number=self.number[where],
        )


class Row(NamedTuple):
    """One row of the tables: features of the fitting and of the test items, [Q, D] each. D may be 0."""

    name: str
    kind: str  # "result", "floor" or "ceiling"
    fit: np.ndarray
    test: np.ndarray


class Judged(NamedTuple):
    """Which test items one row gets right, bool [Q]."""

    name: str
    kind: str
    right: np.ndarray


class Reader:
    """Fits heads on [features, words] of the fitting items, and answers the test items with the fitting items' answers.

    "linear" is a one-against-all ridge on [features, words, products]. The products are those of the first `components`
    principal components of the features with the first `components` of the words, each of unit variance. Without them,
    a linear head would use the features in the same way for every question. "mlp" has one hidden layer on [features,
    words].
    """

    def __init__(self, fit: Items, test: Items, components: int, steps: int, seed: int):
        columns = [list(zip(*items.texts, strict=True)) for items in (fit, test)]
        counts = [Words.of(texts) for texts in columns[0]]
        self._words = [np.concatenate([count(t) for count, t in zip(counts, c, strict=True)], 1) for c in columns]
        self._answers, self._labels = np.unique(fit.answer, return_inverse=True)
        self._truth, self._components, self._steps, self._seed = test.answer, components, steps, seed

    @property
    def terms(self) -> int:
        """The number of words and pairs of words in the vocabulary."""
        return self._words[0].shape[1]

    @functools.cached_property
    def _main_words(self) -> tuple[np.ndarray, np.ndarray]:
        return main_components(*self._words, self._components)

    def __call__(self, head: str, row: Row) -> Judged:
        """Which test items `head` answers correctly from the row's features.

        A test item whose answer no fitting item has counts as wrong in every row.
        """
        inputs = [np.concatenate(pair, 1) for pair in zip((row.fit, row.test), self._words, strict=True)]
        if head == "linear":
            main = zip(main_components(row.fit, row.test, self._components), self._main_words, strict=True)
            products = [np.einsum("qf,qw->qfw", *pair).reshape(len(pair[0]), -1) for pair in main]
            inputs = [np.concatenate(pair, 1) for pair in zip(inputs, products, strict=True)]
            scores = heads.ridge_classify(inputs[0], self._labels, inputs[1])
        else:
            fit, test = inputs
            scores = heads.mlp(fit, self._labels, test, len(self._answers), self._seed, steps=self._steps)
        return Judged(row.name, row.kind, self._answers[scores.argmax(1)] == self._truth)


def main_components(fit: np.ndarray, test: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components of features [n, D] and [m, D]: float32 [n, C], [m, C] with C at most `count`.

    Features are standardised by the fitting rows. The components have unit variance over them.
    """
    if not (fit.shape[1] and count):
        return np.zeros((len(fit), 0), np.float32), np.zeros((len(test), 0), np.float32)
    fit, test = heads.standardised(fit, test)
    rows, wide = len(fit), fit.shape[1] > len(fit)
    square = (fit @ fit.T if wide else fit.T @ fit).astype(np.float64) / rows  # the smaller: equal eigenvalues except 0
    values, vectors = linalg.eigh(square, subset_by_index=(max(len(square) - count, 0), len(square) - 1))
    keep = values > max(1e-6 * np.trace(square), 1e-12)
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    directions = fit.T @ (vectors / values) / np.sqrt(rows) if wide else vectors / np.sqrt(values)
    return fit @ directions.astype(np.float32), test @ directions.astype(np.float32)


def most_frequent(fit: Items, test: Items) -> Judged:
    """The floor that answers each type of question with its most frequent answer among the fitting items.

    Of equally frequent answers, the first by name is taken. A type without fitting items gets the most frequent answer
    over all types.
    """

    def of(answers: np.ndarray) -> str:
        names, counts = np.unique(answers, return_counts=True)
        return names[counts.argmax()]

    known = set(fit.kind)
    best = {kind: of(fit.answer[fit.kind == kind] if kind in known else fit.answer) for kind in set(test.kind)}
    return Judged(MOST_FREQUENT, "floor", np.array([best[kind] for kind in test.kind]) == test.answer)


def of_scenes(bench: Bench, parts: int) -> list[Row]:
    """The rows whose features [n, D] depend on scenes only, not on questions.

    For the model and the random initialisations, they are the mean tokens of `parts` segments of time. The row of the
    question alone has no features. The last row is pixel PCA.
    """
    sets, rows = (bench.fitting, bench.testing), []
    for model in bench.models:
        rows.append(model_row(bench, model, *(over_time(model, scenes, parts, bench.batch) for scenes in sets)))
    video = np.concatenate([s.arrays["video"][:, moments(s.arrays["video"].shape[1])] for s in sets])
    train = len(bench.fitting.arrays["video"])
    pixels = pixel_components(video, train)
    rows.append(Row(QUESTION_ONLY, "floor", *(np.zeros((len(s.arrays["video"]), 0), np.float32) for s in sets)))
    rows.append(Row(PIXELS, "floor", pixels[:train], pixels[train:]))
    return rows


def of_items(bench: Bench, rows: Sequence[Row], fit: Items, test: Items) -> list[Row]:
    """These rows for each item instead of each scene. If the data have true states, their row is added."""
    out = [Row(row.name, row.kind, row.fit[fit.row], row.test[test.row]) for row in rows]
    sets = (bench.fitting.arrays, bench.testing.arrays)
    if all("states" in arrays for arrays in sets):
        known = [true_states(arrays, items) for arrays, items in zip(sets, (fit, test), strict=True)]
        out.append(Row(STATES, "ceiling", *known))
    return out


def model_row(bench: Bench, model: Model, fit: np.ndarray, test: np.ndarray) -> Row:
    """The row of the trained model or of one random initialisation. `scores` averages over initialisations."""
    return Row(TRAINED, "result", fit, test) if model is bench.model else Row(RANDOM, "floor", fit, test)


def over_time(model: Model, scenes: Scenes, parts: int, batch: int) -> np.ndarray:
    """Mean tokens of each of `parts` equal segments of time, concatenated: float32 [n, parts x D].

    There is at most one segment for each time of the grid. One segment gives the standard features, the mean over all
    tokens.
    """
    times, out = scenes.map.grid[0], []
    for _, tokens in encoded(model, scenes.arrays["video"], batch):
        tokens = tokens.reshape(len(tokens), times, -1, tokens.shape[-1])
        out.append(np.concatenate([part.mean((1, 2)) for part in np.array_split(tokens, min(parts, times), 1)], 1))
    return np.concatenate(out)


def moments(frames: int) -> np.ndarray:
    """Indices of at most MOMENTS frames, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, frames - 1, MOMENTS).round().astype(int))


def true_states(arrays: dict[str, np.ndarray], items: Items) -> np.ndarray:
    """True states at a few moments, [Q, D].

    The states of the first NAMED objects that each question names come first, if the data list them ("objects"). The
    states of all objects follow in the source's order.
    """
    objects, states = arrays["objects"], arrays["states"][:, moments(arrays["states"].shape[1])]
    order = np.argsort(np.where(objects < 0, np.iinfo(np.int32).max, objects), 1, kind="stable")
    every = np.take_along_axis(states, order[:, None, :, None], 2).reshape(len(states), -1)[items.row]
    if not all("objects" in question for question in items.source):
        return every
    named = np.zeros((len(items.row), NAMED, *states.shape[1::2]), np.float32)
    for q, (row, question) in enumerate(zip(items.row, items.source, strict=True)):
        for place, number in enumerate(question["objects"][:NAMED]):
            for k in np.nonzero(objects[row] == number)[0]:
                named[q, place] = states[row, :, k]
    return np.concatenate([named.reshape(len(named), -1), every], 1)


def share(right: np.ndarray, scene: np.ndarray, group: np.ndarray | None = None) -> tuple[float, float]:
    """The share of right items, or the mean of the groups' shares, and half of its 95 % interval.

    right, scene, group: [Q]. Scenes are independent, but questions about the same scene are not. The interval is
    therefore the linearised one of a ratio of sums over clusters. It is NaN for one scene.
    """
    group = np.zeros(len(right), int) if group is None else np.unique(group, return_inverse=True)[1]
    count = np.bincount(group)
    means = np.bincount(group, right) / count
    off = (right - means[group]) / (count[group] * len(count))
    sums = np.bincount(np.unique(scene, return_inverse=True)[1], off)
    variance = (sums**2).sum() * len(sums) / (len(sums) - 1) if len(sums) > 1 else np.nan
    return float(means.mean()), float(1.96 * np.sqrt(variance))


def scores(
    metric: str, judged: Sequence[Judged], scene: np.ndarray, where: np.ndarray, group: np.ndarray | None = None
) -> list[Score]:
    """One metric's scores, over the items at which `where`, bool [Q], is True.

    The random initialisations become one row, the second.
    """
    out, inits, count = [], [], int(where.sum())
    for name, kind, right in judged:
        value, half = share(right[where], scene[where], None if group is None else group[where])
        if name == RANDOM:
            inits.append(value)
        else:
            out.append(Score(metric=metric, row=name, value=value, interval=half, count=count, kind=kind))
    return [*out[:1], over_inits(metric, inits, count), *out[1:]]


def check_options(protocol: Any) -> None:
    """Checks heads, components, parts and steps of a protocol. Raises ConfigError if one is outside its limits."""
    name = type(protocol).__name__
    if not protocol.heads or set(protocol.heads) - set(HEADS):
        raise ConfigError(f"evals.protocols: {name}.heads = {protocol.heads!r}: must name some of {', '.join(HEADS)}")
    for option, least in (("components", 0), ("parts", 1), ("steps", 1)):
        value = getattr(protocol, option)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"evals.protocols: {name}.{option} = {value!r}: must be a whole number, at least {least}")


def check_data(bench: Bench, protocol: str) -> None:
    """Raises ConfigError, before any scene is drawn, for data without questions in natural language or for images."""
    for split, count in ((bench.fit_split, bench.fit), (bench.test_split, bench.test)):
        source = bench.source(split, count)
        require(hasattr(source, "questions"), protocol, f"questions in words, which {type(source).__name__} has not")
        frames = bench.prepare(source).frames
        require(frames > 1, protocol, f"clips, for its questions are about what happens. data.frames is {frames}")


def about_windows(bench: Bench) -> list[str]:
    """A remark if a clip with questions is cut into several scenes, else none."""
    windows = getattr(bench.fitting.source, "per_clip", 1)
    if windows == 1:
        return []
    return [
        f"a clip gives {windows} scenes (data.frames, data.options.stride). Each is asked all questions about the clip"
    ]
