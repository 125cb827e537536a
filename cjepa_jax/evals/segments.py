"""Do slots divide a video into its objects? FG-ARI and mBO of the segments, beside colours and a fixed grid."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.cluster import vq

from cjepa_jax.configuration import seeds
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import TRAINED, Bench, Model, Result, Score, integer, number, over_inits, require

COLOURS, GRID = "k-means of colour and place", "fixed grid"
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

    Floors: k-means of colour and place of a clip's pixels, and a grid of equal rectangles, both with `slots` segments.
    Random initialisations of the model are reported next to them. Intervals are over scenes.

    Attributes:
      slots: segments of the floors: those of the model.
      place: the weight of a pixel's place, 0 to 1 across the view, next to its colour, 0 to 1 in each channel.
    Raises: ConfigError for values outside their limits, and for a model or data without segments.
    """

    slots: int = 7
    place: float = 1.0

    kinds: ClassVar[tuple[str, ...]] = ("video",)

    def __post_init__(self):
        if not integer(self.slots, 2):
            raise ConfigError(f"evals.protocols: segments.slots = {self.slots!r}: must be an integer of at least 2")
        if not number(self.place) or not 0 < self.place < np.inf:
            raise ConfigError(f"evals.protocols: segments.place = {self.place!r}: must be a number above 0")

    def run(self, bench: Bench) -> Result:
        """The scores of the model, of random initialisations and of the floors on the same scenes."""
        for model in bench.models:
            require(model.segment is not None, "Segments", "a model whose slots share the pixels out")
        testing = bench.testing
        video, scenes = testing.arrays["video"], testing.arrays["scene"].tolist()
        truth = np.stack([objects(testing.source[scene]["masks"]) for scene in scenes])
        require(truth.shape == video.shape[:4], "Segments", "scenes of data.size, without a crop")
        kept = [i for i, labels in enumerate(truth) if len(np.unique(labels[labels >= 0])) > 1]
        require(bool(kept), "Segments", "scenes with at least two visible objects")
        video, truth = video[kept], truth[kept]
        found = {model.name: segmented(model, video) for model in bench.models}
        found[COLOURS] = np.stack([self.colours(clip, bench.seed, i) for i, clip in zip(kept, video, strict=True)])
        found[GRID] = np.broadcast_to(grid(self.slots, *video.shape[2:4]), truth.shape)
        values = {row: scored(truth, labels) for row, labels in found.items()}
        scores = []
        for n, metric in enumerate(METRICS):
            scores.append(_score(metric, TRAINED, values[bench.model.name][n], "result"))
            random = [float(values[model.name][n].mean()) for model in bench.randoms]
            scores += [over_inits(metric, random, len(kept))] if random else []
            scores += [_score(metric, row, values[row][n], "floor") for row in (COLOURS, GRID)]
        return Result(scores, notes=[f"{len(kept)} of {len(scenes)} scenes have at least two visible objects"])

    def colours(self, clip: np.ndarray, seed: int, scene: int) -> np.ndarray:
        """The clusters of a clip's pixels, uint8 [T, H, W, 3] -> int [T, H, W]."""
        frames, height, width, _ = clip.shape
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        places = np.broadcast_to(np.stack([y, x], -1) * self.place, (frames, height, width, 2))
        points = np.concatenate([clip / 255, places], -1).reshape(-1, 5)
        rng = seeds.generator(seed, "clusters of colours", scene)
        with warnings.catch_warnings(action="ignore"):  # of a cluster that has lost its pixels
            return vq.kmeans2(points, self.slots, iter=20, minit="++", seed=rng)[1].reshape(clip.shape[:3])


def objects(masks: np.ndarray) -> np.ndarray:
    """Each pixel's object, -1 for none: bool [K, T, H, W] -> int [T, H, W]. Of several the first one."""
    return np.where(masks.any(0), masks.argmax(0), -1)


def segmented(model: Model, video: np.ndarray) -> np.ndarray:
    """Each pixel's segment by the model, int [n, T, H, W]."""
    assert model.segment is not None
    return model.segment(video)


def grid(count: int, height: int, width: int) -> np.ndarray:
    """Equal rectangles in rows and columns, at most `count`, as square as it goes: int [height, width]."""
    rows = int(np.sqrt(count))
    columns = count // rows
    y, x = np.arange(height) * rows // height, np.arange(width) * columns // width
    return y[:, None] * columns + x


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


def _score(metric: str, row: str, values: np.ndarray, kind: str) -> Score:
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return Score(metric, row, float(values.mean()), float(half), count=len(values), kind=kind)
