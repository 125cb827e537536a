"""Collapse: the number of directions that features use, and of those that distinguish scenes from views of a scene."""

import dataclasses
from typing import ClassVar

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data import kinds
from cjepa_jax.data.transforms import Crop
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import TRAINED, Bench, Result, Scenes, Score, integer, number, over_inits, pooled

TINY = 1e-12  # a smaller share of the total is a rounding error
DELTA = 1e-4  # added to the diagonal of the within-scene covariance, as a share of its mean variance


@dataclasses.dataclass(frozen=True)
class Collapse:
    """RankMe, LiDAR and the standard deviation of the mean token of held-out scenes, without heads or labels.

    Views of a scene are drawn from bench.seed. A view is a square crop, resized to the size of the frame and multiplied
    by a brightness, with the same draw for all frames. Views are not flipped, because left and right may differ in
    meaning.

    Attributes:
      scenes: the largest number of scenes of the test split. LiDAR is at most scenes - 1.
      views: number of views of each scene, for LiDAR. 0: no LiDAR. Point clouds and spectrograms have no views.
      crop: (low, high) of the uniform distribution of the crop's side, as a share of the frame's side.
      brightness: (low, high) of the uniform distribution of the brightness.
    """

    kinds: ClassVar[tuple[str, ...]] = (*kinds.FILMED, "points", "spectrogram")

    scenes: int = 512
    views: int = 8
    crop: tuple[float, float] = (0.8, 1.0)
    brightness: tuple[float, float] = (0.8, 1.2)

    def __post_init__(self):
        for name, least, none in (("scenes", 4, ""), ("views", 2, ", or 0")):
            value = getattr(self, name)
            if not integer(value, least) and not (none and integer(value, 0) and value == 0):
                text = f"must be an integer of at least {least}{none}"
                raise ConfigError(f"evals.protocols: Collapse.{name} = {value!r}: {text}")
        for name, most in (("crop", 1.0), ("brightness", 10.0)):
            value = getattr(self, name)
            pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(number, value))
            if not pair or not 0 < value[0] <= value[1] <= most:
                text = f"must be (low, high) that hold 0 < low <= high <= {most:g}"
                raise ConfigError(f"evals.protocols: Collapse.{name} = {value!r}: {text}")

    def run(self, bench: Bench) -> Result:
        """Scores of the test scenes. The ceiling is the largest rank for this number of scenes and dimensions.

        Raises ConfigError for views of scenes that are not pixels.
        """
        testing = self._testing(bench)
        if self.views:
            kinds.require(testing.source, kinds.FILMED, f"Collapse.views = {self.views} (0: no LiDAR)")
        video = testing.arrays["video"][: self.scenes]
        count = len(video)
        found = {model.name: {} for model in bench.models}
        for model in bench.models:
            features = pooled(model, video, bench.batch)
            found[model.name] = {
                "rankme": rankme(features),
                "rankme/centred": rankme(features - features.mean(0)),
            }
            if self.views:
                drawn = (self.view(video, bench.seed, index) for index in range(self.views))
                found[model.name]["lidar"] = lidar(np.stack([pooled(model, view, bench.batch) for view in drawn], 1))
            found[model.name]["feature std"] = float(features.std(0).mean())
        width = features.shape[1]
        most = {"rankme": min(count, width), "rankme/centred": min(count - 1, width), "lidar": min(count - 1, width)}
        scores = []
        for metric, value in found[bench.model.name].items():
            scores.append(Score(metric, TRAINED, value, count=count))
            if bench.randoms:
                scores.append(over_inits(metric, [found[model.name][metric] for model in bench.randoms], count))
            if metric in most:
                scores.append(Score(metric, "full rank", most[metric], count=count, kind="ceiling"))
        notes = [
            f"RankMe: of the mean tokens of {count} scenes, with and without their common mean.",
            "A rank has no interval over scenes: scenes drawn with replacement have a lower one.",
            "Feature std follows the scale of the features: 0 is collapse, more is not better.",
        ]
        if self.views:
            (low, high), (dark, bright) = self.crop, self.brightness
            text = f"LiDAR: {self.views} views of each scene, crops of {low:g} to {high:g} of the side and "
            notes.insert(1, text + f"{dark:g} to {bright:g} of the brightness.")
        return Result(scores, notes=tuple(notes))

    def _testing(self, bench: Bench) -> Scenes:
        """The test scenes. Of a large split, only the required number is read."""
        if 0 < bench.test <= 4 * self.scenes:
            return bench.testing
        try:
            return bench.scenes(bench.test_split, self.scenes)
        except DataError:  # the stored data have fewer scenes
            return bench.scenes(bench.test_split, 0)

    def view(self, video: np.ndarray, seed: int, index: int) -> np.ndarray:
        """The index-th view of each scene: uint8 [n, T, H, W, 3] -> the same shape."""
        size = video.shape[2]
        out = np.empty_like(video)
        for scene, clip in enumerate(video):
            rng = seeds.generator(seed, "views of a scene", scene, index)
            side = max(1, round(size * rng.uniform(*self.crop)))
            top, left = rng.integers(size - side + 1, size=2)
            cut = Crop(int(top), int(left), side, side).frames(clip, size)
            out[scene] = np.clip(np.rint(cut * rng.uniform(*self.brightness)), 0, 255)
        return out


def effective_rank(values: np.ndarray) -> float:
    """exp of the entropy of the shares of values [k] >= 0: k if all are equal, 1 if at most one is not 0."""
    shares = values / max(values.sum(), 1e-300)
    shares = shares[shares > TINY]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def rankme(features: np.ndarray) -> float:
    """RankMe (arXiv 2210.02885, equations 1 and 2) of features [n, D]: the effective rank of their singular values.

    The features are not centred. The epsilon of the paper is left out.
    """
    return effective_rank(np.linalg.svd(np.asarray(features, np.float64), compute_uv=False))


def lidar(views: np.ndarray) -> float:
    """LiDAR (arXiv 2312.04000, section 4) of features [n, q, D] of q views of each of n scenes.

    It is the effective rank of W^-1/2 B W^-1/2. B is the covariance of the scenes' means. W is the mean covariance of
    the views around these means, plus DELTA times its mean variance on the diagonal. The paper adds a constant there. A
    share makes the result independent of the scale of the features. LiDAR is 1 if all scenes' means are equal.
    """
    views = np.asarray(views, np.float64)
    means = views.mean(1)
    spread, scatter = means - means.mean(0), views - means[:, None]
    between = spread.T @ spread / len(means)
    within = np.einsum("nqd,nqe->de", scatter, scatter, optimize=True) / (views.shape[0] * views.shape[1])
    variance = np.trace(within) / len(within)
    if np.trace(between) <= TINY * (np.trace(within) + (means**2).sum(1).mean()):
        return 1.0
    within += DELTA * (variance if variance > 0 else 1.0) * np.eye(len(within))
    values, vectors = np.linalg.eigh(within)
    half = vectors / np.sqrt(values)
    return effective_rank(np.maximum(np.linalg.eigvalsh(half.T @ between @ half), 0))
