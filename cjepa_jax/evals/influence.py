"""Graphs of influence, scored: does what a model's prediction depends on say which objects act on each other?"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cjepa_jax.data import kinds
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import patch_graphs, stats
from cjepa_jax.evals.base import (
    TRAINED,
    Bench,
    Hidden,
    Model,
    Result,
    Score,
    integer,
    number,
    over_inits,
    require,
    require_lengths,
)

LABELS = ("contact", "effect")
BASE, DISTANCE, EXTRAPOLATED, LAYER = (
    "base rate", "distance", "extrapolated distance", "extrapolated distance within a layer",
)  # fmt: skip
GEOMETRY = (DISTANCE, EXTRAPOLATED, LAYER)
STATES = "true states"
APART = -1e6  # the score of a pair that cannot meet


class Pairs(NamedTuple):
    """Ordered pairs of two different objects of all scenes, one row each."""

    scene: np.ndarray  # int [P]
    labels: dict[str, np.ndarray]  # bool [P], by LABELS
    scores: dict[str, np.ndarray]  # float [P], by GEOMETRY, and the other label of each label
    distance: np.ndarray  # [P] between the centres in the last frame that is given, view widths
    where: np.ndarray  # bool [n, K, K]: the entries that are rows here, in this order


@dataclass(frozen=True)
class Influence:
    """AUROC and average precision of graphs over ordered pairs (i, j) of objects: does j act on i in the future?

    Labels, from the simulator: "contact", the two touch between the last frame that is given and the end. "effect",
    object i leaves its path by more than `least` if j is removed at that frame: a simulation from that state.

    Graphs, each a metric. A model of slots sees the whole history and gives its `influence` (Slots.influence). A model
    of patches sees the whole clip, and its graphs are those of evals/patch_graphs. Their rows are the trained model and
    random initialisations. Floors need no model: the distance of the pair, the least distance of
    constant velocities during the future (from the last two frames), and the same with -infinity for pairs of different
    layers, where a world has them. The base rate is the average precision of a guess. The ceiling "true states" scores
    contacts by the size of the effect, and effects by contacts.

    Curves: AUROC by the pair's distance, in `strata` parts of equally many pairs. Notes say for every graph whether it
    is better than geometry: whether the 95 % interval of its AUROC minus the best floor's is above 0. Intervals are
    over scenes.

    Attributes:
      history, future: frames that the model was trained with (objective.history, objective.future). Of patches:
        effects and contacts are from frame history - 1 on, and the sum is data.frames.
      least: the least effect, in view widths.
      strata: parts of the curves.
    Raises: ConfigError for values outside their limits, and for a source or a model that gives no graphs.
    """

    history: int = 3
    future: int = 5
    least: float = 0.01
    strata: int = 4

    kinds: ClassVar[tuple[str, ...]] = ("slots", "video")

    def __post_init__(self):
        for name, least in (("history", 2), ("future", 1), ("strata", 1)):
            if not integer(getattr(self, name), least):
                text = f"evals.protocols: influence.{name} = {getattr(self, name)!r}"
                raise ConfigError(f"{text}: must be an integer of at least {least}")
        if not number(self.least) or not 0 < self.least < np.inf:
            raise ConfigError(f"evals.protocols: influence.least = {self.least!r}: must be a number above 0")

    def run(self, bench: Bench) -> Result:
        """The scores of all graphs on the bench's test scenes."""
        source: Any = bench.source(bench.test_split, bench.test)
        slots, frames = kinds.of(source) == "slots", self.history + self.future
        if slots:
            require_lengths(bench, "evals.protocols: influence", history=self.history, future=self.future)
        require(hasattr(source, "influence") and hasattr(source, "frames"), "Influence", "a source with `influence`")
        if slots:
            source = dataclasses.replace(source, frames=frames)
        elif source.frames != frames:
            text = f"evals.protocols: influence.history + influence.future = {frames}"
            raise ConfigError(f"{text}: must be data.frames = {source.frames}")
        scenes = dataclasses.replace(bench.prepare(source), frames=frames, with_objects=True)
        found = [(i, scenes(i, 0)) for i in range(bench.test or len(source))]
        found = [(i, scene) for i, scene in found if not scene["replaced"]]
        pairs = self._pairs(source, found, slots)
        for label in LABELS:
            share = pairs.labels[label].mean() if len(pairs.scene) else 0
            require(0 < share < 1, "Influence", f"pairs with and without {label}, and these scenes have only one kind")
        shown = [scene for _, scene in found]
        graphs_of = self._of_slots if slots else self._of_patches
        graphs = {model.name: graphs_of(model, shown, pairs) for model in bench.models}
        return self._result(bench, pairs, graphs)

    def _of_patches(self, model: Model, scenes: list[dict[str, np.ndarray]], pairs: Pairs) -> dict[str, np.ndarray]:
        """As `_of_slots`, of a model of patches."""
        video, own = (np.stack([scene[name] for scene in scenes]) for name in ("video", "object_patches"))
        return {name: graph[pairs.where] for name, graph in patch_graphs.of(model, video, own).items()}

    def _of_slots(self, model: Model, scenes: list[dict[str, np.ndarray]], pairs: Pairs) -> dict[str, np.ndarray]:
        """By name the entries [P] of the model's graphs."""
        require(model.influence is not None, "Influence", "a model of slots that says what its prediction depends on")
        assert model.influence is not None
        video, own = (np.stack([scene[name] for scene in scenes]) for name in ("video", "object_patches"))
        own = own[:, : video.shape[3]]
        context = own.any(1) & (np.arange(own.shape[2]) < self.history * video.shape[3])
        hidden = Hidden(video, context, own, np.zeros(own.shape[:2], bool))
        return {name: graph[pairs.where] for name, graph in model.influence(hidden).items()}

    def _pairs(self, source: Any, scenes: list[tuple[int, dict[str, np.ndarray]]], of_slots: bool) -> Pairs:
        at, rows_of = self.history - 1, _of_slots if of_slots else _of_objects
        slots = scenes[0][1]["video"].shape[2] if of_slots else len(scenes[0][1]["objects"])
        effects, contacts, states = map(np.stack, zip(*(rows_of(source, at, *one) for one in scenes), strict=True))
        valid = np.stack([scene["object_valid"][:slots] for _, scene in scenes])
        where = valid[:, :, None] & valid[:, None] & ~np.eye(slots, dtype=bool)
        floors = {name: floor[where] for name, floor in geometry(source.state_names, states, at, self.future).items()}
        return Pairs(
            scene=np.nonzero(where)[0],
            labels={"contact": contacts[where], "effect": effects[where] > self.least},
            scores=floors | {"contact": effects[where], "effect": contacts[where].astype(float)},
            distance=-floors[DISTANCE],
            where=where,
        )

    def _result(self, bench: Bench, pairs: Pairs, graphs: dict[str, dict[str, np.ndarray]]) -> Result:
        scores, curves, notes, count = [], {}, [], len(np.unique(pairs.scene))
        floors = {name: pairs.scores[name] for name in GEOMETRY if name in pairs.scores}
        parts = np.array_split(np.argsort(pairs.distance, kind="stable"), self.strata)
        for label in LABELS:
            truth = pairs.labels[label]
            beside = floors | {STATES: pairs.scores[label]}
            areas = {row: area(truth, values, pairs.scene) for row, values in beside.items()}
            best = max(floors, key=lambda row: areas[row][0])
            precisions = {row: precise(truth, values, pairs.scene, bench.seed) for row, values in beside.items()}
            roles = {row: "ceiling" if row == STATES else "floor" for row in beside}
            for graph, values in graphs[bench.model.name].items():
                own = area(truth, values, pairs.scene)
                other = [area(truth, graphs[model.name][graph], pairs.scene)[0] for model in bench.randoms]
                scores += _rows(f"auroc/{label}/{graph}", (own[0], half(own[1])), other, count)
                scores += [
                    Score(f"auroc/{label}/{graph}", row, value, half(by), count=count, kind=roles[row])
                    for row, (value, by) in areas.items()
                ]
                other = [average_precision(truth, graphs[model.name][graph]) for model in bench.randoms]
                mine = precise(truth, values, pairs.scene, bench.seed)
                scores += _rows(f"ap/{label}/{graph}", mine, other, count)
                scores += [
                    Score(f"ap/{label}/{graph}", row, *each, count, roles[row]) for row, each in precisions.items()
                ]
                scores.append(Score(f"ap/{label}/{graph}", BASE, float(truth.mean()), count=count, kind="floor"))
                notes.append(verdict(label, graph, best, own, areas[best]))
            shown = graphs[bench.model.name] | floors
            curves[f"auroc of {label} by distance"] = {
                name: by_part(truth, values, pairs.distance, parts) for name, values in shown.items()
            }
        return Result(scores, curves=curves, notes=notes)


def _of_slots(source: Any, at: int, i: int, scene: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(effects [K, K], contacts [K, K], states [T, K, S]) of scene i, by slots."""
    return *source.influence(i, at), source[i]["states"]


def _of_objects(source: Any, at: int, i: int, scene: dict[str, np.ndarray]):
    """As `_of_slots`, by the scene's rows of objects, with 0 for padding."""
    row, states = scene["objects"], source[i]["states"]
    there = row >= 0
    both = there[:, None] & there
    effects, contacts = (np.where(both, values[np.ix_(row, row)], 0) for values in source.influence(i, at))
    return effects, contacts.astype(bool), np.where(there[:, None], states[:, row], 0)


def geometry(names: tuple[str, ...], states: np.ndarray, at: int, future: int) -> dict[str, np.ndarray]:
    """By GEOMETRY scores [n, K, K], larger for pairs that come nearer, from states [n, T, K, S] up to frame `at`."""
    x, y = (names.index(f"position/{axis}") for axis in "xy")
    places = states[:, at - 1 : at + 1, :, [x, y]].astype(np.float64)
    gap, before = (places[:, t, :, None] - places[:, t, None] for t in (1, 0))
    step = gap - before
    speed = np.square(step).sum(-1)
    time = np.clip(-(gap * step).sum(-1) / np.maximum(speed, 1e-12), 0, future)
    found = {DISTANCE: -np.linalg.norm(gap, axis=-1)}
    found[EXTRAPOLATED] = -np.linalg.norm(gap + time[..., None] * step, axis=-1)
    if "layer" in names:
        layer = states[:, at, :, names.index("layer")]
        found[LAYER] = np.where(layer[:, :, None] == layer[:, None], found[EXTRAPOLATED], APART)
    return found


def area(truth: np.ndarray, scores: np.ndarray, scene: np.ndarray) -> tuple[float, np.ndarray]:
    """(AUROC, its derivative by the weight of each scene), for `half`. NaN where all labels are equal.

    truth bool [P], scores [P], scene int [P]. The derivative is the sum of a scene's placements, less their mean
    (DeLong et al. 1988, with scenes instead of items).
    """
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return float("nan"), np.full(scene.max(initial=-1) + 1, np.nan)
    place = np.empty(len(scores))
    place[truth], place[~truth] = _below(negative, positive), 1 - _below(positive, negative)
    value = place[truth].mean()
    share = (place - value) / np.where(truth, len(positive), len(negative))
    return float(value), np.bincount(scene, share, minlength=scene.max() + 1)


def half(derivative: np.ndarray) -> float:
    """Half of the 95 % interval over scenes, by the delta method."""
    count = len(derivative)
    return float(1.96 * np.sqrt(count / (count - 1) * np.square(derivative).sum())) if count > 1 else float("nan")


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """The mean over positive items of the precision among items that score at least as high. Ties count as one."""
    order, last = _ranked(scores)
    return _precision(truth[order], np.ones(len(order)), last)


def precise(truth: np.ndarray, scores: np.ndarray, scene: np.ndarray, seed: int) -> tuple[float, float]:
    """(average precision, half of its 95 % bootstrap interval over scenes)."""
    order, last = _ranked(scores)
    there, number = np.unique(scene, return_inverse=True)
    ranked, number = truth[order], number[order]

    def resampled(chosen: np.ndarray) -> float:
        weight = np.bincount(chosen, minlength=len(there))[number]  # how often each item was drawn
        return _precision(ranked * weight, weight, last)

    return average_precision(truth, scores), stats.half_width(resampled, len(there), seed)


def _ranked(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the order from the highest score on, and the last place of each group of equal scores)."""
    order = np.argsort(-scores, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)


def _precision(positive: np.ndarray, weight: np.ndarray, last: np.ndarray) -> float:
    """Average precision of ranked items with weights. positive: the weights of positive items, 0 for the others."""
    hits, above = np.cumsum(positive)[last], np.cumsum(weight)[last]
    return float((np.diff(hits, prepend=0) * hits / np.maximum(above, 1)).sum() / max(hits[-1], 1))


def verdict(label: str, graph: str, floor: str, own: tuple[float, np.ndarray], other: tuple[float, np.ndarray]) -> str:
    """One line: whether a graph is better than the best geometry."""
    less, width = own[0] - other[0], half(own[1] - other[1])
    word = "beats geometry" if less > width else "does not beat geometry"
    text = f"{label}: {graph} {word}: AUROC {own[0]:.3f}, {floor} {other[0]:.3f}"
    return f"{text}, difference {less:+.3f} ± {width:.3f}"


def by_part(
    truth: np.ndarray, scores: np.ndarray, distance: np.ndarray, parts: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(mean distance, AUROC) of each part of the pairs that has both labels."""
    kept = [part for part in parts if 0 < truth[part].mean() < 1]
    values = [area(truth[part], scores[part], np.zeros(len(part), int))[0] for part in kept]
    return np.array([distance[part].mean() for part in kept]), np.array(values)


def _below(those: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The share of `those` below each value, [len(values)]. Ties count one half."""
    ordered = np.sort(those)
    low, high = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (low + high) / (2 * len(those))


def _rows(metric: str, own: tuple[float, float], random: list[float], count: int) -> list[Score]:
    """The rows of the model and of the random initialisations."""
    mine = Score(metric, TRAINED, *own, count)
    return [mine, over_inits(metric, random, count)] if random else [mine]
