"""Do slots divide a video into its objects? FG-ARI and mBO of the segments, beside colours and a fixed grid."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.cluster import vq

from cjepa_jax.configuration import seeds
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import Bench, Result, Scenes, Score, integer, mean, number, over_inits, require

COLOURS, GRID = "k-means of colour and place", "fixed grid"
SAMPLED = 4096  # points of a clip
METRICS = ("fg-ari", "mbo")


@dataclass(frozen=True)
class Segments:
    """FG-ARI and mBO of a model's segments of whole clips, in pixels.

    Each pixel of a frame belongs to the slot with the largest share in it. A segment is a slot's pixels in all frames,
    so a slot must follow its object. Objects are the visible pixels of the data's masks. Scenes with fewer than two
    visible objects are left out.

    "fg-ari": the adjusted Rand index over the pixels of objects. The background does not count. 1 is perfect, and 0 is
    chance. "mbo": the mean over objects of the best intersection over union with a segment. Pixels of the background
    that a segment holds count here.

    Floors have as many segments as the model has slots: k-means of colour and place of a clip's pixels, a row for each
    weight in `places`, and a grid of rectangles of equal area. No weight is best for both metrics, so compare with the
    best row. Random initialisations of the model are reported next to them. Intervals are over scenes.

    Attributes:
      places: weights of a pixel's place, 0 to 1 across the view, next to its colour, 0 to 1 in each channel.
      starts: of k-means. The one with the least sum of squares counts.
    Raises: ConfigError for values outside their limits, and for a model or data without segments.
    """

    places: tuple[float, ...] = (0.1, 0.3, 1.0)
    starts: int = 3

    kinds: ClassVar[tuple[str, ...]] = ("video",)

    def __post_init__(self):
        if not integer(self.starts, 1):
            raise ConfigError(f"evals.protocols: segments.starts = {self.starts!r}: must be an integer of at least 1")
        if not (
            isinstance(self.places, tuple | list)
            and len(self.places)
            and all(number(place) and 0 < place < np.inf for place in self.places)
        ):
            raise ConfigError(f"evals.protocols: segments.places = {self.places!r}: must be a list of numbers above 0")

    def run(self, bench: Bench) -> Result:
        """The scores of the model, of random initialisations and of the floors on the same scenes."""
        for model in bench.models:
            require(model.segment is not None, "Segments", "a model that assigns each pixel to a slot")
        count, video, every = bench.model.segments, bench.testing.arrays["video"], true_labels(bench.testing)
        kept = [i for i, labels in enumerate(every) if len(np.unique(labels[labels >= 0])) > 1]
        require(bool(kept), "Segments", "scenes with at least two visible objects")
        video, truth = video[kept], every[kept]
        values = {model.name: scored(truth, model.segment(video)) for model in bench.models if model.segment}
        floors = {f"{COLOURS} x {place:g}": self.colours(place, count, video, bench.seed) for place in self.places}
        floors[GRID] = np.broadcast_to(grid(count, *video.shape[2:4]), truth.shape)
        values |= {row: scored(truth, labels) for row, labels in floors.items()}
        scores = []
        for n, metric in enumerate(METRICS):
            kinds = {bench.model.name: "result"} | dict.fromkeys(floors, "floor")
            made = [Score(metric, row, *mean(values[row][n]), len(kept), kind) for row, kind in kinds.items()]
            random = [float(values[model.name][n].mean()) for model in bench.randoms]
            scores += [made[0], *([over_inits(metric, random, len(kept))] if random else []), *made[1:]]
        return Result(scores, notes=[f"{len(kept)} of {len(every)} scenes have at least two visible objects"])

    def colours(self, place: float, count: int, video: np.ndarray, seed: int) -> np.ndarray:
        """`count` clusters of each clip's pixels, uint8 [n, T, H, W, 3] -> int [n, T, H, W]."""
        frames, height, width = video.shape[1:4]
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        where = np.broadcast_to(np.stack([y, x], -1) * place, (frames, height, width, 2))
        found = []
        for n, clip in enumerate(video):
            points = np.concatenate([clip / 255, where], -1).reshape(-1, 5)
            found.append(clusters(points, count, seeds.generator(seed, "clusters of colours", n), self.starts))
        return np.stack(found).reshape(video.shape[:4])


def true_labels(scenes: Scenes) -> np.ndarray:
    """Each pixel's object in each scene, int [n, T, H, W]. Raises ConfigError for masks of another size, or without."""
    found, shape = [], scenes.arrays["video"].shape[1:4]
    for index in scenes.arrays["scene"].tolist():
        scene = scenes.source[index]
        require("masks" in scene, "Segments", "scenes with masks")
        masks = scene["masks"]
        require(masks.shape[1:] == shape, "Segments", "scenes of data.size, without a crop")
        found.append(objects(masks))
    return np.stack(found)


def objects(masks: np.ndarray) -> np.ndarray:
    """Each pixel's object, -1 for none: bool [K, T, H, W] -> int [T, H, W]. Of several the first one."""
    if not len(masks):
        return np.full(masks.shape[1:], -1)
    return np.where(masks.any(0), masks.argmax(0), -1)


def clusters(points: np.ndarray, count: int, rng: np.random.Generator, starts: int) -> np.ndarray:
    """k-means of [P, F]: the cluster of each point, int [P], of the start with the least sum of squares.

    Centres are those of at most SAMPLED points that are drawn for each start.
    """
    best, least = np.zeros(len(points), int), np.inf
    for _ in range(starts):
        drawn = points if len(points) <= SAMPLED else points[rng.choice(len(points), SAMPLED, replace=False)]
        with warnings.catch_warnings(action="ignore"):  # of a cluster that has lost its points
            centres = vq.kmeans2(drawn, count, iter=20, minit="++", seed=rng)[0]
        labels, distances = vq.vq(points, centres)
        squares = float(np.square(distances).sum())
        if squares < least:
            best, least = labels, squares
    return best


def grid(count: int, height: int, width: int) -> np.ndarray:
    """`count` rectangles of equal area in rows, as square as possible: int [height, width].

    Rows have a number of columns that differs by at most one: of 7 rectangles 3 are above 4. Fewer than `count` are
    left where there are fewer pixels.
    """
    rows = int(np.sqrt(count))
    columns = (count + np.arange(rows)) // rows
    ends = np.cumsum(columns)
    row = np.searchsorted(ends, (np.arange(height) + 0.5) * count / height, side="right")
    return (ends - columns)[row][:, None] + np.arange(width) * columns[row][:, None] // width


def scored(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """FG-ARI and mBO, [2, n], of labels [n, T, H, W], where -1 in `truth` stands for no object."""
    pairs = [(fg_ari(a.ravel(), b.ravel()), mbo(a.ravel(), b.ravel())) for a, b in zip(truth, found, strict=True)]
    return np.array(pairs).T


def counts(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """How many places have each pair of labels: int [P], [P] -> float64 [labels, labels]. In order of the labels."""
    a, b = (np.unique(labels, return_inverse=True)[1] for labels in (truth, found))
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    return table


def fg_ari(truth: np.ndarray, found: np.ndarray) -> float:
    """The adjusted Rand index (Hubert & Arabie, 1985) over the places [P] where truth is not -1. 1 for two same labels.

    Raises ValueError without such a place.
    """
    table = counts(truth[truth >= 0], found[truth >= 0])
    both, one, other = (float((n * (n - 1) / 2).sum()) for n in (table, table.sum(1), table.sum(0)))
    total = table.sum() * (table.sum() - 1) / 2
    expected = one * other / total if total else 0.0
    most = (one + other) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def mbo(truth: np.ndarray, found: np.ndarray) -> float:
    """The mean over objects of the best intersection over union with a segment, of labels [P] (-1: no object)."""
    table = counts(truth, found)
    rows = np.unique(truth) >= 0
    union = table.sum(1, keepdims=True) + table.sum(0) - table
    return float((table / union).max(1)[rows].mean())
