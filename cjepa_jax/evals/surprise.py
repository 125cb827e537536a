"""Violation of expectation: whether a model's surprise is larger if an object vanishes or appears without cause.

Surprise is defined as in V-JEPA's study of intuitive physics (arXiv 2502.11831). It is the L1 distance between the
predicted and the encoded features of the next moment. The sets of four clips are built as in IntPhys (arXiv
1803.07616): two possible and two impossible clips consist of the same frames.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data import transforms
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import stats
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Hidden, Model, Result, Score, mean, over_inits, require

GREY = 128  # grey level of the curtain
LEAST = 4  # smallest number of sets of clips
TIMES = 8  # number of frames of a clip that are shown
CLIPS = ("with", "without", "vanishes", "appears")  # two possible clips, then two impossible ones
POSSIBLE, IMPOSSIBLE = CLIPS[:2], CLIPS[2:]


@dataclass(frozen=True)
class Surprise:
    """Compares the surprise at clips in which an object vanishes or appears in the middle with that at possible clips.

    In each test scene, one object is drawn whose absence is visible in both halves. The two possible clips are the
    original scene and the scene under do(remove) from start to end. The two impossible clips splice them: "vanishes" is
    the scene with the object, then without it, and "appears" is the reverse. Each frame is in equally many possible and
    impossible clips. So single frames carry no information about the class, only the order of frames does. If the
    removed object affects others, these jump too.

    The surprise at tubelet t is the mean L1 distance between target tokens and the tokens predicted from tubelets
    0 .. t - 1. The surprise of a clip is the mean over t from 1.

    Metrics (larger is better, chance is 0.5, and equal surprise counts one half):
      "relative accuracy/vanishes", "relative accuracy/appears": how often the surprise at this clip exceeds that at
        each of the two possible clips, averaged over the two.
      "relative accuracy/sets": how often the summed surprise at the two impossible clips exceeds that at the two
        possible ones.
      "auroc": over the clips of all scenes.

    Floors predict that nothing changes: in the model's own target tokens, and in pixels (the last frame seen).

    Attributes:
      scenes: the largest number of test scenes. 0: all.
      curtain: number of tubelets, starting at the middle, that are grey in all clips and are not scored. They hide the
        moment of the change.
      target_norm: "layer_norm" (zero mean and unit variance over D) or "none". "" takes that of the model's training.
    Raises: ConfigError for values outside their limits, for data without do(remove), for clips of fewer than
      3 + `curtain` tubelets, and for a model that predicts no tokens.
    """

    scenes: int = 256
    curtain: int = 0
    target_norm: str = "layer_norm"

    def __post_init__(self):
        for name in ("scenes", "curtain"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"evals.protocols: surprise.{name} = {value!r}: must be an integer from 0")
        if self.target_norm not in ("layer_norm", "none", ""):
            text = f"evals.protocols: surprise.target_norm = {self.target_norm!r}"
            raise ConfigError(f"{text}: must be layer_norm, none, or '' for that of the model's training")

    def run(self, bench: Bench) -> Result:
        """Surprise of the model, of random initialisations and of the copying floors, at the same clips."""
        scenes = bench.testing.map
        times = scenes.grid[0]
        least = 3 + self.curtain
        require(times >= least, "Surprise", f"clips of at least {least} tubelets, not {times} (data.frames)")
        removes = scenes.source.can_rerender and getattr(scenes.source, "do", "remove") == "remove"
        require(removes, "Surprise", "a source that removes objects (can_rerender, data.options.do = 'remove')")
        arrays = bench.testing.arrays
        tokens = arrays["object_patches"][:1]
        context = np.arange(tokens.shape[2])[None] < tokens.shape[2] // times
        hidden = Hidden(arrays["video"][:1], context, np.zeros_like(tokens), np.zeros(tokens.shape[:2], bool))
        require(bench.model.hide(hidden).prediction is not None, "Surprise", "a model that predicts hidden tokens")

        first = (times - self.curtain) // 2
        scored = np.r_[1:first, first + self.curtain : times]
        frames = scenes.frames // times
        pair = self.pairs(bench, first * frames, (first + self.curtain) * frames)
        clips = functools.partial(spliced, first=first, curtain=self.curtain, times=times)
        norm = self.target_norm or bench.model.target_norm
        expect = functools.partial(predicted, times=times, objects=tokens.shape[1], norm=norm)
        judges = {model.name: functools.partial(expect, model) for model in bench.models}
        judges["last features"] = functools.partial(copied, bench.model, times=times, norm=norm)
        judges["last frame"] = functools.partial(pixels, times=times)
        surprise = {row: judged(judge, clips, *pair, bench.batch)[..., scored] for row, judge in judges.items()}
        metrics = {row: measured(each.mean(-1), bench.seed) for row, each in surprise.items()}
        at_random = [metrics.pop(model.name) for model in bench.randoms]
        scores, count = [], len(pair[0])
        for metric in metrics[bench.model.name]:
            row = {name: Score(metric, name, *values[metric], count, "floor") for name, values in metrics.items()}
            scores.append(row.pop(bench.model.name)._replace(kind="result"))
            if at_random:
                scores.append(over_inits(metric, [values[metric][0] for values in at_random], count))
            scores += [*row.values(), Score(metric, "chance", 0.5, count=count, kind="floor")]
        shown = {TRAINED: surprise[bench.model.name]}
        if at_random:
            shown[RANDOM] = np.mean([surprise[model.name] for model in bench.randoms], 0)
        curves = {
            f"surprise per tubelet, {row}": {
                "possible": (scored, each[:2].mean((0, 1))),
                "impossible": (scored, each[2:].mean((0, 1))),
            }
            for row, each in shown.items()
        }
        example = clips(*(half[:1] for half in pair))
        images = {
            f"possible above, impossible below: an object {kind}": strips([example[of][0], example[kind][0]], times)
            for of, kind in zip(POSSIBLE, IMPOSSIBLE, strict=True)
        }
        left_out = len(arrays["video"][: self.scenes or None]) - count
        return Result(scores, images, curves, [f"{left_out} scenes left out: no object's absence shows in both halves"])

    def pairs(self, bench: Bench, cut: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Test scenes with and without one of their objects: two arrays uint8 [n, T, H, W, 3].

        The object's absence is visible in frames before `cut` and in frames from `end` on.
        """
        arrays, source = bench.testing.arrays, bench.testing.source
        found = []
        for row, full in enumerate(arrays["video"][: self.scenes or None]):
            index = int(arrays["scene"][row])
            objects, count = arrays["objects"][row][arrays["object_valid"][row]], len(source[index]["masks"])
            for k in seeds.generator(bench.seed, "objects that surprise", index).permutation(objects):
                raw = source.intervene(index, np.arange(count) == k)
                without = transforms.centre_square(*raw.shape[1:3]).frames(raw, full.shape[1])
                differs = (without != full).any((1, 2, 3))
                if differs[:cut].any() and differs[end:].any():
                    found.append((full, without))
                    break
        require(len(found) >= LEAST, "Surprise", f"{LEAST} test scenes with an object whose absence shows")
        return tuple(np.stack(half) for half in zip(*found, strict=True))


def spliced(full: np.ndarray, without: np.ndarray, first: int, curtain: int, times: int) -> dict[str, np.ndarray]:
    """The four clips of `times` tubelets: name -> uint8 [b, T, H, W, 3]. The change is at tubelet `first`."""
    frames = full.shape[1] // times
    cut, end = first * frames, (first + curtain) * frames
    clips = {
        "with": full,
        "without": without,
        "vanishes": np.concatenate([full[:, :cut], without[:, cut:]], 1),
        "appears": np.concatenate([without[:, :cut], full[:, cut:]], 1),
    }
    behind = (np.arange(full.shape[1]) >= cut) & (np.arange(full.shape[1]) < end)
    return {name: np.where(behind[:, None, None, None], np.uint8(GREY), clips[name]) for name in CLIPS}


def judged(judge: Callable, clips: Callable, full: np.ndarray, without: np.ndarray, batch: int) -> np.ndarray:
    """Surprise [4, n, times] at the clips CLIPS, `batch` scenes at a time. judge: uint8 [b, ...] -> [b, times]."""
    parts = []
    for start in range(0, len(full), batch):
        rows = slice(start, start + batch)
        parts.append(np.stack([judge(clip) for clip in clips(full[rows], without[rows]).values()]))
    return np.concatenate(parts, 1)


def predicted(model: Model, video: np.ndarray, times: int, objects: int, norm: str) -> np.ndarray:
    """Mean L1 between target tokens and those predicted from earlier tubelets: [b, times], 0 at the first."""
    target = targets(model, video, times, norm)
    scenes, _, cells, _ = target.shape
    surprise = np.zeros((scenes, times))
    nothing = np.zeros((scenes, objects, times * cells), bool)
    for t in range(1, times):
        context = np.tile(np.arange(times * cells) < t * cells, (scenes, 1))
        seen = model.hide(Hidden(video, context, nothing, nothing[..., 0]))
        surprise[:, t] = np.abs(seen.prediction.reshape(target.shape)[:, t] - target[:, t]).mean((1, 2))
    return surprise


def copied(model: Model, video: np.ndarray, times: int, norm: str) -> np.ndarray:
    """Mean L1 as in `predicted`. The prediction copies the target tokens of the preceding tubelet."""
    return changes(targets(model, video, times, norm))


def targets(model: Model, video: np.ndarray, times: int, norm: str) -> np.ndarray:
    """Target tokens [b, times, N / times, D] of whole clips."""
    tokens = (model.target or model.encode)(video)
    if norm == "layer_norm":
        tokens = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-6)
    return tokens.reshape(len(video), times, -1, tokens.shape[-1])


def pixels(video: np.ndarray, times: int) -> np.ndarray:
    """Mean L1 between each tubelet's frames and the last frame before them, in 0 .. 1: [b, times], 0 at the first."""
    frames = video.reshape(len(video), times, -1, *video.shape[2:]).astype(np.float32) / 255
    change = np.abs(frames[:, 1:] - frames[:, :-1, -1:]).mean((2, 3, 4, 5), dtype=np.float64)
    return np.pad(change, ((0, 0), (1, 0)))


def changes(tokens: np.ndarray) -> np.ndarray:
    """Mean L1 between successive moments [b, times, cells, D]: [b, times], 0 at the first."""
    return np.pad(np.abs(np.diff(tokens, axis=1)).mean((2, 3), dtype=np.float64), ((0, 0), (1, 0)))


def measured(surprise: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    """metric -> (value, half of its 95 % interval over scenes), from the clips' surprise [4, n]."""
    possible, impossible = surprise[:2], surprise[2:]
    pairs = greater(impossible[:, None], possible).mean(1)  # [vanishes or appears, n]
    shares = {f"relative accuracy/{name}": each for name, each in zip(IMPOSSIBLE, pairs, strict=True)}
    shares["relative accuracy/sets"] = greater(impossible.sum(0), possible.sum(0))
    count = surprise.shape[1]
    out = {name: mean(x) for name, x in shares.items()}

    def area(rows):
        return auroc(possible[:, rows].ravel(), impossible[:, rows].ravel())

    return out | {"auroc": (area(np.arange(count)), stats.half_width(area, count, seed))}


def greater(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where `one` exceeds `other`, 0 where it is less, 0.5 where they are equal except for rounding."""
    equal = np.abs(one - other) <= 1e-6 * (np.abs(one) + np.abs(other))
    return np.where(equal, 0.5, one > other)


def auroc(negative: np.ndarray, positive: np.ndarray) -> float:
    """The share of (negative, positive) pairs in which the positive value is greater. Ties count one half."""
    ordered = np.sort(negative)
    below, upto = (np.searchsorted(ordered, positive, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(negative)))


def strips(clips: list[np.ndarray], times: int) -> np.ndarray:
    """A picture with one row per clip [T, H, W, 3]: a frame of each of at most 8 tubelets, from left to right."""
    shown = np.unique(np.linspace(0, times - 1, min(times, TIMES)).round().astype(int)) * (len(clips[0]) // times)
    rows = [np.hstack([np.pad(clip[t], ((2, 2), (2, 2), (0, 0))) for t in shown]) for clip in clips]
    return np.vstack(rows)
