"""The online probe: is the encoder learning? Frozen features of held-out scenes against fixed baselines.

Each metric is reported next to the same metric of the encoder at random initialisation. Ridge scores are also reported
next to a ridge on the pixels' principal components. Targets, strengths and splits are fixed before training.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax import losses
from cjepa_jax.data import pipeline
from cjepa_jax.data.formats.resize import resize
from cjepa_jax.evals import ridge
from cjepa_jax.masks import objects

LEAST = 4  # held-out scenes. Fewer cannot be split
REMOVALS = functools.partial(objects.draw, max_objects=3, area=(0.05, 0.40), anchor=0)
"""The objects that are removed to measure the response: METHOD, Algorithm 2, for any masks of the run."""
PIXELS = 64  # larger frames are resized to this size before their principal components are taken


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of n scenes.

    Attributes:
      pooled: [n, D], the mean over tokens.
      variance: []. The variance over scenes of the token at one position, summed over D, then the mean over positions.
        So the position code does not count.
      change: [m]. The mean squared change of each intervened scene, summed over D, of the tokens that no removed object
        touches.
    """

    pooled: np.ndarray
    variance: float
    change: np.ndarray


class Probe:
    """Held-out scenes and the baselines on them. `run(params)` gives the probe's metrics.

    Args:
      encode: (params, video [B, T, H, W, C]) -> [B, N, D].
      random_params: the encoder's parameters at initialisation.
      scenes: a SceneMap over held-out scenes. The first `train` fit the ridge, the next `test` score it. Its mask is
        not used.
      label_names: "group/name" for each probe target. A group's score is the mean over its targets, without
        those that are equal in all test scenes.
      batch: scenes encoded at a time.
    """

    def __init__(
        self,
        encode: Callable,
        random_params: Any,
        scenes: pipeline.SceneMap,
        label_names: Sequence[str],
        train: int,
        test: int,
        batch: int,
    ):
        self._encode, self._batch = jax.jit(encode), batch
        controls = getattr(scenes.source, "can_rerender", False) and scenes.intervened in pipeline.CONTROLS
        if scenes.intervened == "rerender" or controls:  # the true removals, for any number of objects
            scenes = dataclasses.replace(scenes, mask=REMOVALS, max_removed=0, intervened="rerender")
        held_out = pipeline.held_out(scenes, 0, train + test)
        self._enough = len(held_out) >= LEAST
        if not self._enough:
            logging.warning("no probe: %d readable held-out scenes, it needs %d", len(held_out), LEAST)
            return
        # A small source is split in the same proportion, with at least two scenes on each side.
        self._train = min(max(len(held_out) * train // (train + test), 2), len(held_out) - 2)
        self._scenes = {name: np.stack([s[name] for s in held_out]) for name in ("video", "labels")}
        # Tokens that no removed object touches, also at times at which the mask leaves this object visible.
        self._rest = np.stack([~(s["object_patches"] & s["removed"][:, None]).any(0) for s in held_out])
        # The response is measured on test scenes that have a real counterpart without the objects of REMOVALS.
        self._pairs = []
        if scenes.intervened == "rerender":
            pairs = [i for i in range(self._train, len(held_out)) if held_out[i]["intervened_valid"]]
            self._pairs, self._without = pairs, np.stack([held_out[i]["intervened"] for i in pairs]) if pairs else None
        flat = self._scenes["labels"][self._train :].std(0) == 0
        self._groups = ["" if same else name.partition("/")[0] for name, same in zip(label_names, flat, strict=True)]
        if flat.any():
            names = ", ".join(name for name, same in zip(label_names, flat, strict=True) if same)
            logging.warning("the probe leaves out %s: equal in all its test scenes, so R^2 is not defined", names)
        self._baselines = self._scores(self.features(random_params), "_random")
        self._baselines |= self._r2(pixel_components(self._scenes["video"], self._train), "_pixels")

    def run(self, params: Any) -> dict[str, float]:
        """Metrics of trained `params`, and those of the random encoder (_random) and of the pixels (_pixels).

        Empty if there are too few held-out scenes. The constructor warned of that.
        """
        if not self._enough:
            return {}
        return self._scores(self.features(params), "") | self._baselines

    def features(self, params: Any) -> Features:
        """Encodes the whole held-out scenes, and the scenes of the pairs without their removed objects."""
        pooled, total, square, change = [], 0.0, 0.0, {}
        without = dict(zip(self._pairs, range(len(self._pairs)), strict=True))
        for start in range(0, len(self._scenes["video"]), self._batch):
            rows = np.arange(start, min(start + self._batch, len(self._scenes["video"])))
            tokens = self._tokens(params, self._scenes["video"][rows])
            pooled.append(tokens.mean(1))
            total, square = total + tokens.sum(0), square + np.square(tokens).sum(0)  # [N, D]
            paired = [row for row in rows if row in without]
            if paired:
                other = self._tokens(params, self._without[[without[row] for row in paired]])
                difference = np.square(tokens[[row - start for row in paired]] - other).sum(-1)  # [b, N]
                rest = self._rest[paired]
                change |= dict(zip(paired, (difference * rest).sum(1) / np.maximum(rest.sum(1), 1), strict=True))
        count = len(self._scenes["video"])
        variance = float((square / count - np.square(total / count)).sum(-1).mean())
        return Features(np.concatenate(pooled), variance, np.array(list(change.values())))

    def _tokens(self, params, video) -> np.ndarray:
        """[b, T, H, W, C] -> [b, N, D] float64. A short batch is filled up, so that one shape is compiled."""
        filled = np.concatenate([video, np.repeat(video[:1], self._batch - len(video), 0)])
        return np.asarray(self._encode(params, jnp.asarray(filled)), np.float64)[: len(video)]

    def _scores(self, features: Features, suffix: str) -> dict[str, float]:
        test = jnp.asarray(features.pooled[self._train :])
        scores = self._r2(features.pooled, suffix) | {
            f"probe/rankme{suffix}": float(losses.rankme(test)),
            f"probe/feature_std{suffix}": float(losses.feature_std(test)),
        }
        if len(features.change):
            scores[f"probe/response{suffix}"] = float(features.change.mean() / max(features.variance, 1e-12))
        return scores

    def _r2(self, features: np.ndarray, suffix: str) -> dict[str, float]:
        labels, n = self._scenes["labels"], self._train
        scores = ridge.r2(features[:n], labels[:n], features[n:], labels[n:])
        varies = np.ptp(labels[n:], axis=0) > 0  # a target that is the same in all scenes has no score
        named = filter(None, self._groups)
        groups = {g: [i for i, own in enumerate(self._groups) if own == g and varies[i]] for g in named}
        return {f"probe/{group}_r2{suffix}": float(np.mean(scores[i])) for group, i in groups.items() if i}


def pixel_components(video: np.ndarray, train: int, count: int = 96) -> np.ndarray:
    """The first `count` principal components of the pixels, fitted on the first `train` clips: [n, T, H, W, C] ->
    [n, count]. Frames larger than 64 pixels are shrunk first."""
    if video.shape[2] > PIXELS:
        video = np.asarray([[resize(frame, (PIXELS, PIXELS)) for frame in clip] for clip in video])
    x = video.reshape(len(video), -1).astype(np.float32)
    x -= x[:train].mean(0)
    # There are fewer clips than pixels, so the components come from the clips' Gram matrix.
    values, vectors = np.linalg.eigh((x[:train] @ x[:train].T).astype(np.float64))
    vectors, values = vectors[:, ::-1][:, :count], values[::-1][:count]
    keep = values > 1e-9 * values[0]
    directions = x[:train].T @ (vectors[:, keep] / np.sqrt(values[keep]))
    return x @ directions
