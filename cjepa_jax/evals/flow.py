"""Optical flow beside the truth of a simulated world: end-point errors, with floors and OpenCV's DIS."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import stats
from cjepa_jax.evals.base import TRAINED, Bench, Model, Result, Scenes, Score, number, over_inits, require

ZERO, CONSTANT, MEAN, DIS = "zero flow", "constant flow", "the pair's mean flow (known)", "OpenCV DIS"
TRANSLATION = "each object's translation (known)"
METRICS = ("epe/moving", "epe/moving and shown", "epe/all")
# Of DIS: ultrafast, fast, medium; the finest scale, 0 = full resolution; pixels between patches, 0 = the preset's own.
PRESETS, FINEST, STRIDES = (0, 1, 2), (0, 1), (0, 1)
SHOWN = 4  # pairs of the picture


class Pairs(NamedTuple):
    """Pairs of consecutive frames with their true flow."""

    scene: np.ndarray  # int [P] the row of the scene
    frames: np.ndarray  # uint8 [P, 2, H, W, 3]
    flow: np.ndarray  # float32 [P, H, W, 2], pixels
    where: dict[str, np.ndarray]  # bool [P, H, W] by METRICS: the pixels that count


@dataclasses.dataclass(frozen=True)
class Flow:
    """Mean end-point error (EPE) of the flow from each frame to the next, in pixels. Smaller is better.

    Metrics: "epe/moving": pixels whose true flow is at least `least` pixels long. "epe/moving and shown": those of them
    whose point the next frame shows. "epe/all": all pixels. Most of them belong to the static background.

    Floors: no flow, the mean flow of the fitting scenes' moving pixels at every pixel, and each test pair's true mean
    flow of its moving pixels at every pixel, which needs the true flow. Where the source has `translation`, there is
    also the true flow without the turning of objects. The turning of a disc of one colour does not show in the frames,
    so this row says how large the part is that can hardly be seen. OpenCV's DIS (Kroeger et al. 2016) has the best of
    three presets, two finest scales and two distances of patches, by "epe/moving" of the fitting scenes. It gets grey
    frames, as it takes no others; the model gets RGB. Intervals are over scenes.

    Attributes: least: pixels.
    """

    least: float = 0.5

    def __post_init__(self):
        if not number(self.least) or not 0 < self.least < float("inf"):
            raise ConfigError(f"evals.protocols: Flow.least = {self.least!r}: must be a number of pixels above 0")

    def run(self, bench: Bench) -> Result:
        """Errors of the test scenes. Raises ConfigError for a model or a source without flow."""
        require(bench.model.flow is not None, "Flow", "a model that estimates flow, such as configs/family/mcjepa.py")
        source = bench.testing.source
        require(hasattr(source, "flow"), "Flow", "scenes with true flow, such as those of Balls")
        require(bench.testing.arrays["video"].shape[1] > 1, "Flow", "data.frames of at least 2")
        fitting, testing = (pairs(scenes, self.least) for scenes in (bench.fitting, bench.testing))
        moving = METRICS[0]
        require(all(part.where[moving].any() for part in (fitting, testing)), "Flow", "objects that move")
        tried = map(classical, itertools.product(PRESETS, FINEST, STRIDES))
        dis = min(tried, key=lambda f: mean(fitting, f(fitting.frames), moving))
        constant = fitting.flow[fitting.where[moving]].mean(0)
        found = {
            ZERO: np.zeros_like(testing.flow),
            CONSTANT: np.broadcast_to(constant, testing.flow.shape),
            MEAN: _means(testing, testing.where[moving]),
            **_translations(bench.testing),
            DIS: dis(testing.frames),
        }
        flows = {model.name: _estimated(model, testing.frames) for model in bench.models}
        trained = flows[bench.model.name]
        scores = []
        for metric in METRICS:
            scores.append(_score(testing, metric, trained, row=TRAINED, seed=bench.seed))
            inits = [mean(testing, flows[model.name], metric) for model in bench.randoms]
            scores += [over_inits(metric, inits, len(np.unique(testing.scene)))] if inits else []
            floor = functools.partial(_score, testing, metric, seed=bench.seed, kind="floor")
            scores += [floor(flow, row=name) for name, flow in found.items()]
        notes = (
            "Smaller is better. Pixels.",
            f"{len(testing.frames)} pairs of frames, {testing.where[moving].mean():.3f} of the pixels move.",
        )
        return Result(scores, images={"flow": picture(testing, trained, found[DIS])}, notes=notes)


def _estimated(model: Model, frames: np.ndarray) -> np.ndarray:
    """The model's flow of pairs of frames."""
    if model.flow is None:
        raise ConfigError("evals.protocols: Flow needs a model that estimates flow, such as configs/family/mcjepa.py")
    return model.flow(frames)


def pairs(scenes: Scenes, least: float) -> Pairs:
    """All pairs of consecutive frames of the scenes."""
    video = scenes.arrays["video"]
    source: Any = scenes.source
    true = [source.flow(int(index)) for index in scenes.arrays["scene"]]
    flow, seen = (np.concatenate(part) for part in zip(*true, strict=True))
    frames = np.stack([video[:, :-1], video[:, 1:]], axis=2).reshape(-1, 2, *video.shape[2:])
    require(flow.shape[1:3] == frames.shape[2:4], "Flow", "data.size of the source's own frames")
    moves = np.linalg.norm(flow, axis=-1) >= least
    where = dict(zip(METRICS, (moves, moves & seen, np.ones_like(moves)), strict=True))
    return Pairs(np.repeat(np.arange(len(video)), video.shape[1] - 1), frames, flow, where)


def _translations(scenes: Scenes) -> dict[str, np.ndarray]:
    """The flow of `pairs` without the turning of objects, by the name of its row. Empty if the source lacks it."""
    source: Any = scenes.source
    if not hasattr(source, "translation"):
        return {}
    return {TRANSLATION: np.concatenate([source.translation(int(index)) for index in scenes.arrays["scene"]])}


def classical(options: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """OpenCV's DIS with (preset, finest scale, pixels between patches), as `Model.flow`."""
    preset, finest, stride = options

    def flow(frames: np.ndarray) -> np.ndarray:
        estimator: Any = cv2.DISOpticalFlow.create(preset)  # its stub wants a flow to start from
        estimator.setFinestScale(finest)
        if stride:
            estimator.setPatchStride(stride)
        grey = [[cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pair] for pair in frames]
        return np.stack([estimator.calc(*pair, None) for pair in grey])

    return flow


def mean(true: Pairs, flow: np.ndarray, metric: str) -> float:
    """The mean end-point error over the pixels that count, of all pairs together."""
    return float(np.linalg.norm(flow - true.flow, axis=-1)[true.where[metric]].mean())


def _score(true: Pairs, metric: str, flow: np.ndarray, row: str, seed: int, kind: str = "result") -> Score:
    """The mean and its interval over scenes."""
    where = true.where[metric]
    error = np.where(where, np.linalg.norm(flow - true.flow, axis=-1), 0).sum((1, 2))
    each = [np.bincount(true.scene, values.astype(float)) for values in (error, where.sum((1, 2)))]
    half = stats.half_width_of_sums(lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1), np.stack(each, -1), seed)
    return Score(metric, row, mean(true, flow, metric), half, count=len(each[0]), kind=kind)


def _means(true: Pairs, where: np.ndarray) -> np.ndarray:
    """Each pair's mean true flow over `where`, at every pixel. 0 for a pair without such pixels."""
    total = (true.flow * where[..., None]).sum((1, 2), keepdims=True)
    return np.broadcast_to(total / np.maximum(where.sum((1, 2)), 1)[:, None, None, None], true.flow.shape)


def picture(true: Pairs, found: np.ndarray, dis: np.ndarray) -> np.ndarray:
    """Pairs in rows: both frames, the true flow, the model's, DIS's. uint8 [H, W, 3].

    The hue is a flow's direction, and its strength its length, full at the longest true flow of the row.
    """
    rows = []
    for index in range(min(SHOWN, len(found))):
        longest = max(float(np.linalg.norm(true.flow[index], axis=-1).max()), 1e-6)
        flows = [coloured(flow[index], longest) for flow in (true.flow, found, dis)]
        rows.append(np.concatenate([*true.frames[index], *flows], axis=1))
    return np.concatenate(rows)


def coloured(flow: np.ndarray, longest: float) -> np.ndarray:
    """A flow [H, W, 2] as colours uint8 [H, W, 3]: white where it is 0."""
    angle = np.arctan2(flow[..., 1], flow[..., 0]) % (2 * np.pi) * (90 / np.pi)  # OpenCV's hues are 0 .. 180
    length = 255 * np.clip(np.linalg.norm(flow, axis=-1) / longest, 0, 1)
    hsv = np.stack([angle, length, np.full_like(length, 255)], axis=-1)
    return cv2.cvtColor(np.rint(hsv).astype(np.uint8), cv2.COLOR_HSV2RGB)
