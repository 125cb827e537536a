"""World models: is an object's place in the latents, and do predictions of several steps beat copying?

Two tables. "R2/..." is a ridge regression from the latent of one frame to a state of an object in it. "rollout/k" is
the error of the k-th prediction after `given` true frames, divided by the error of copying the last true latent. Below
1 is better than copying. The division makes models with latents of different scales comparable.
"""

import dataclasses
from typing import Any

import numpy as np

from cjepa_jax.data import pipeline
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import base, ridge
from cjepa_jax.evals.probe import pixel_components


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """See above. It needs a world model, episodes, and their states.

    Attributes:
      targets: names of states (the source's `state_names`) of object number `object`. -1: their mean over the objects.
      frames: length of the episodes, which may be longer than those of training.
      given: true frames before the first prediction. steps: which predictions are scored.
    Raises: ConfigError for options that do not fit, and for an object that a scene does not show.
    """

    targets: tuple[str, ...] = ("position/x", "position/y")
    object: int = 0
    frames: int = 13
    given: int = 3
    steps: tuple[int, ...] = (1, 5, 10)

    def __post_init__(self):
        whole = all(base.integer(value, 1) for value in (self.frames, self.given, *self.steps))
        base.require(whole and bool(self.steps), "Rollouts", "whole numbers of frames, given and steps, at least 1")
        if not base.integer(self.object, -1):
            raise ConfigError(f"evals.protocols: Rollouts.object = {self.object!r}: must be an integer of at least -1")
        most = self.frames - self.given
        base.require(max(self.steps) <= most, "Rollouts", f"steps of at most frames - given = {most}")

    def run(self, bench: base.Bench) -> base.Result:
        """The two tables. Raises ConfigError for another model or other data."""
        base.require(bench.model.latents is not None, "Rollouts", "a world model (objectives.base.World)")
        fit, test = (self._episodes(bench, *split) for split in ((bench.fit_split, bench.fit), self._test(bench)))
        names = getattr(bench.source(*self._test(bench)), "state_names", ())
        for name in self.targets:
            base.require(name in names, "Rollouts", f"data with the state {name!r}")
        columns = [names.index(name) for name in self.targets]
        y_fit, y_test = (part["states"][:, :, 0, columns].reshape(-1, len(columns)) for part in (fit, test))
        r2, errors = [], []
        for model in bench.models:
            latents: Any = model.latents
            z_fit, z_test = (latents(part["video"]) for part in (fit, test))
            r2.append(ridge.r2(_rows(z_fit), y_fit, _rows(z_test), y_test))
            errors.append(self._errors(model, z_test, test))
        count = len(test["video"])
        scores = [
            score
            for i, name in enumerate(self.targets)
            for score in _rowed(f"R2/{name}", [float(each[i]) for each in r2], count)
        ]
        pixels = pixel_components(np.concatenate([_frames(part["video"]) for part in (fit, test)]), len(y_fit))
        floor = ridge.r2(pixels[: len(y_fit)], y_fit, pixels[len(y_fit) :], y_test)
        scores += [
            base.Score(f"R2/{name}", "pixels", float(floor[i]), count=count, kind="floor")
            for i, name in enumerate(self.targets)
        ]
        for i, step in enumerate(self.steps):
            scores += _rowed(f"rollout/{step}", [each[i] for each in errors], count)
            scores.append(base.Score(f"rollout/{step}", "copying", 1.0, count=count, kind="floor"))
        return base.Result(scores, notes=(f"{count} episodes of {self.frames} frames. rollout: lower is better",))

    def _test(self, bench: base.Bench) -> tuple[str, int]:
        return bench.test_split, bench.test

    def _episodes(self, bench: base.Bench, split: str, count: int) -> dict[str, np.ndarray]:
        """Episodes of `frames` frames, arrays with a first axis n. Only the object that is asked for has states."""
        source: Any = bench.source(split, count)
        longer = dataclasses.replace(source, frames=self.frames)
        scenes = dataclasses.replace(bench.prepare(source), source=longer, frames=self.frames)
        episodes = pipeline.held_out(scenes, 0, count or len(source))
        if len(episodes) < 4:
            raise DataError(f"evals: the split {split!r} has {len(episodes)} readable episodes, at least 4 are needed")
        for name in ("actions", "states"):
            base.require(name in episodes[0], "Rollouts", f"data with {name}")
        arrays = {name: np.stack([scene[name] for scene in episodes]) for name in episodes[0]}
        if self.object < 0:
            there = arrays["object_valid"][:, None, :, None]  # those that a token shows
            arrays["states"] = (arrays["states"] * there).sum(2, keepdims=True) / there.sum(2, keepdims=True).clip(1)
        else:
            there = (arrays["objects"] == self.object) & arrays["object_valid"]
            if not there.any(1).all():
                text = f"the scenes of {split!r} show up to {arrays['objects'].max() + 1} objects, from number 0"
                missing = f"{(~there.any(1)).sum()} of {len(there)} do not show this one"
                raise ConfigError(f"evals.protocols: Rollouts.object = {self.object}: {text}, and {missing}")
            row = there.argmax(1)
            arrays["states"] = np.take_along_axis(arrays["states"], row[:, None, None, None], axis=2)
        return arrays

    def _errors(self, model: base.Model, z: np.ndarray, episodes: dict[str, np.ndarray]) -> list[float]:
        """Error of predictions over that of copying, for each of `steps`."""
        actions, proprio, rolled, ratios = episodes["actions"], episodes.get("proprio"), z[:, : self.given], []
        advance: Any = model.advance
        while rolled.shape[1] < self.given + max(self.steps):
            t = rolled.shape[1]
            following = advance(rolled, actions[:, :t], None if proprio is None else proprio[:, :t])
            rolled = np.concatenate([rolled, following[:, None]], axis=1)
        for step in self.steps:
            at = self.given - 1 + step
            copied = np.square(z[:, self.given - 1] - z[:, at]).mean()
            ratios.append(float(np.square(rolled[:, at] - z[:, at]).mean() / max(copied, 1e-12)))
        return ratios


def _rowed(metric: str, values: list[float], count: int) -> list[base.Score]:
    """The trained model's row, and that of the random initialisations."""
    rows = [base.Score(metric, base.TRAINED, values[0], count=count)]
    return rows + ([base.over_inits(metric, values[1:], count)] if values[1:] else [])


def _rows(z: np.ndarray) -> np.ndarray:
    """[n, T, ...] -> [n T, D]: one row per frame."""
    return z.reshape(z.shape[0] * z.shape[1], -1)


def _frames(video: np.ndarray) -> np.ndarray:
    return video.reshape(-1, 1, *video.shape[2:])
