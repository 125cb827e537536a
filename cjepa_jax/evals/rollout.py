"""Rollouts of slots by horizon: the error of a model's future beside copying and constant velocity."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import (
    TRAINED,
    Bench,
    Hidden,
    Model,
    Result,
    Score,
    integer,
    over_inits,
    require,
    require_lengths,
)

COPY, VELOCITY = "copy", "constant velocity"
Predict = Callable[[np.ndarray], np.ndarray]  # slots [B, T_h, K, D] -> the next T_p frames, [B, T_p, K, D]


@dataclass(frozen=True)
class Rollout:
    """The root mean squared error of predicted slots at each frame after the history.

    The model predicts its whole future at once. For a longer horizon the history is moved on, with predictions
    instead of what is no longer given, as in the published rollouts (arXiv 2602.11389). Scenes are simulated for as
    many frames as the horizon needs, so the source must have a field `frames`. A model that was trained with actions
    gets those of the scene, also of the future, and rolls the agent's token out with the slots.

    Metrics (smaller is better): "rmse/slots" over all components of the slots that hold an object, and, if the source
    can say where its slots are (`places`), "rmse/position" in view widths, "rmse/position touching" for objects that
    touch another one after the last frame that is given, and "rmse/position free" for the others. Each is the mean
    square over objects and frames of the horizon, then the root. Half of the 95 % interval is that of scenes
    (videos, where scenes are windows of videos), by the delta method.

    Floors: "copy" repeats the last frame, "constant velocity" continues the last difference. Curves: errors by frame.

    Attributes:
      history, future: frames that the model was trained with (objective.history, objective.future).
      horizon: frames that are predicted. 0: `future`.
    Raises: ConfigError for values outside their limits, for a source without `frames`, and for a model that predicts
      no tokens.
    """

    history: int = 3
    future: int = 5
    horizon: int = 0

    kinds: ClassVar[tuple[str, ...]] = ("slots",)

    def __post_init__(self):
        for name, least in (("history", 2), ("future", 1), ("horizon", 0)):
            if not integer(getattr(self, name), least):
                text = f"evals.protocols: rollout.{name} = {getattr(self, name)!r}"
                raise ConfigError(f"{text}: must be an integer of at least {least}")

    def run(self, bench: Bench) -> Result:
        """The errors of the model, of random initialisations, and of the two floors, on the same scenes."""
        horizon = self.horizon or self.future
        require_lengths(bench, "evals.protocols: rollout", history=self.history, future=self.future)
        source: Any = bench.source(bench.test_split, bench.test)
        require(hasattr(source, "frames"), "Rollout", "a source that gives clips of any length (a field `frames`)")
        source = dataclasses.replace(source, frames=self.history + horizon)
        scenes = dataclasses.replace(bench.prepare(source), frames=self.history + horizon)
        each = {i: scenes(i, 0) for i in range(bench.test or len(source))}
        each = {i: scene for i, scene in each.items() if not scene["replaced"]}
        found = list(each.values())
        slots = np.stack([scene["video"][:, 0] for scene in found])  # [n, T, K, D]
        present = np.stack([scene["object_valid"] for scene in found])[:, : slots.shape[2]]
        at, count = self.history - 1, slots.shape[2]
        touching = np.stack([_touching(source, i, at, scene, count) for i, scene in each.items()])
        given, truth = slots[:, : self.history], slots[:, self.history :]
        videos = np.array([source.video_of(i) for i in each] if hasattr(source, "video_of") else list(each))
        predictions = {model.name: self._predicted(model, found, given, present, horizon) for model in bench.models}
        predictions |= {COPY: copied(given, horizon), VELOCITY: continued(given, horizon)}
        errors = {row: _squares(found, truth, present, touching, source) for row, found in predictions.items()}
        return self._result(bench, errors, videos)

    def _predicted(
        self, model: Model, scenes: list[dict[str, np.ndarray]], given: np.ndarray, present: np.ndarray, horizon: int
    ) -> np.ndarray:
        """The next `horizon` frames [n, horizon, K, D] after `given` [n, history, K, D]."""
        if model.ahead is None:
            return rolled(foreseer(model, present, self.future, "Rollout"), given, horizon, self.history)
        require(self.future == 1, "Rollout", "future = 1 for a model with actions, which is rolled out frame by frame")
        agent = {name: np.stack([s[name] for s in scenes]) for name in ("actions", "proprio") if name in scenes[0]}
        require("actions" in agent, "Rollout", "scenes with actions")
        proprio = agent["proprio"][:, : self.history] if "proprio" in agent else None
        return model.ahead(given, agent["actions"][:, : self.history + horizon - 1], proprio)

    def _result(
        self, bench: Bench, errors: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], videos: np.ndarray
    ) -> Result:
        scores, curves = [], {}
        for metric in errors[bench.model.name]:
            values = {row: measured(*each[metric], videos) for row, each in errors.items()}
            count = len(np.unique(videos[errors[bench.model.name][metric][1].any((1, 2))]))
            scores.append(Score(f"rmse/{metric}", TRAINED, *values[bench.model.name], count))
            random = [values[model.name][0] for model in bench.randoms]
            if random:
                scores.append(over_inits(f"rmse/{metric}", random, count))
            scores += [Score(f"rmse/{metric}", row, *values[row], count, "floor") for row in (COPY, VELOCITY)]
            shown = {TRAINED: bench.model.name, COPY: COPY, VELOCITY: VELOCITY}
            curves[f"rmse of {metric} by frame"] = {
                label: by_frame(*errors[row][metric]) for label, row in shown.items()
            }
        note = "Errors: smaller is better. Frames are counted from the last one that is given."
        return Result(scores, curves=curves, notes=[note])


def foreseer(model: Model, present: np.ndarray, future: int, protocol: str) -> Predict:
    """The model's next `future` frames from slots that are seen. No token attends to a slot not in `present` [B, K].

    Raises ConfigError, for `protocol`, where the model predicts nothing.
    """

    def predict(given: np.ndarray) -> np.ndarray:
        count, frames, slots, width = given.shape
        times = frames + future
        video = np.zeros((count, times, 1, slots, width), np.float32)
        video[:, :frames, 0] = given
        own = np.eye(slots, dtype=bool)[None, :, None] & present[:, :, None, None]  # [B, K, 1, K]
        own = np.broadcast_to(own, (count, slots, times, slots)).reshape(count, slots, -1)
        context = own.any(1) & (np.arange(times * slots) < frames * slots)
        predicted = model.hide(Hidden(video, context, own, np.zeros((count, slots), bool))).prediction
        require(predicted is not None, protocol, "a model that predicts hidden slots")
        assert predicted is not None
        return predicted.reshape(count, times, slots, width)[:, frames:]

    return predict


def rolled(predict: Predict, tail: np.ndarray, frames: int, history: int, skip: int = 1) -> np.ndarray:
    """The next `frames` frames after `tail` [B, history * skip, K, D], by a model of every skip-th frame.

    Each of the `skip` interleaved sequences is rolled out by itself. Its history takes the predictions in.
    """
    out = np.zeros((len(tail), frames, *tail.shape[2:]), np.float32)
    for offset in range(min(skip, frames)):
        known, wanted = tail[:, offset::skip], len(range(offset, frames, skip))
        made: list[np.ndarray] = []
        while sum(part.shape[1] for part in made) < wanted:
            part = np.asarray(predict(known))
            made.append(part)
            known = np.concatenate([known, part], 1)[:, -history:]
        out[:, offset::skip] = np.concatenate(made, 1)[:, :wanted]
    return out


def copied(given: np.ndarray, frames: int) -> np.ndarray:
    """The last frame of [B, T, K, D], `frames` times."""
    return np.repeat(given[:, -1:], frames, 1)


def continued(given: np.ndarray, frames: int) -> np.ndarray:
    """The last frame of [B, T, K, D] plus 1 .. `frames` times the last difference."""
    steps = np.arange(1, frames + 1, dtype=given.dtype)[:, None, None]
    return given[:, -1:] + steps * (given[:, -1:] - given[:, -2:-1])


def measured(squares: np.ndarray, counts: np.ndarray, videos: np.ndarray | None = None) -> tuple[float, float]:
    """The root of the mean of squares [n, T, K] where `counts` bool, and half of its 95 % interval over videos.

    videos [n]: scenes with the same number are windows of one video. None: each scene is one."""
    weight, total = counts.sum((1, 2)).astype(float), (squares * counts).sum((1, 2))
    if videos is not None:
        _, group = np.unique(videos, return_inverse=True)
        weight, total = np.bincount(group, weight), np.bincount(group, total)
    scenes = int((weight > 0).sum())
    if not scenes:
        return float("nan"), float("nan")
    mean = total.sum() / weight.sum()
    if scenes < 2 or not mean:
        return float(np.sqrt(mean)), float("nan")
    residual = (total - mean * weight)[weight > 0]  # of a ratio of sums
    error = np.sqrt(scenes / (scenes - 1) * np.square(residual).sum()) / weight.sum()
    return float(np.sqrt(mean)), float(1.96 * error / (2 * np.sqrt(mean)))


def by_frame(squares: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frames 1 .. T, the root mean square at each)."""
    mean = (squares * counts).sum((0, 2)) / np.maximum(counts.sum((0, 2)), 1)
    return np.arange(1, squares.shape[1] + 1), np.sqrt(mean)


def _squares(
    found: np.ndarray, truth: np.ndarray, present: np.ndarray, touching: np.ndarray, source: Any
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """metric -> (squared errors [n, T, K], which of them count)."""
    counts = np.broadcast_to(present[:, None], truth.shape[:3])
    squares = {"slots": (np.square(found - truth, dtype=np.float64).mean(-1), counts)}
    if hasattr(source, "places"):
        place = np.square(source.places(found) - source.places(truth)).mean(-1)
        touch = np.broadcast_to(touching[:, None], counts.shape)
        squares["position"] = place, counts
        squares["position touching"], squares["position free"] = (place, counts & touch), (place, counts & ~touch)
    return squares


def _touching(source: Any, i: int, at: int, scene: dict[str, np.ndarray], slots: int) -> np.ndarray:
    """Which slots' objects touch another one after frame `at` of scene i, bool [K]. All False without a graph.

    In the whole clip where the source has no `touching`, which tells when."""
    graph = scene.get("graph")
    if graph is None or not graph.any():  # nothing touches in the whole clip
        return np.zeros(slots, bool)
    if not hasattr(source, "touching"):
        return np.asarray(graph[:slots, :slots].any(1))
    return np.asarray(source.touching(i, at))
