"""A bench on any source, with models that are plain functions."""

import functools

import numpy as np

from cjepa_jax.data import pipeline
from cjepa_jax.evals.base import Bench, Model, Seen
from cjepa_jax.masks import objects

PATCH, TUBELET = 8, 2


def patch_colours(video: np.ndarray) -> np.ndarray:
    """The mean colour of every patch: uint8 [B, T, H, W, 3] -> float32 [B, N, 3]."""
    b, t, h, w, _ = video.shape
    cut = video.reshape(b, t // TUBELET, TUBELET, h // PATCH, PATCH, w // PATCH, PATCH, 3)
    return (cut.mean((2, 4, 6)) / 255).reshape(b, -1, 3).astype(np.float32)


def masked(hidden) -> Seen:
    """The context's tokens. As a prediction, what was hidden."""
    tokens = patch_colours(hidden.video)
    return Seen(tokens * hidden.context[..., None], tokens, None)


def colours(name: str = "trained") -> Model:
    """Sees every patch's colour."""
    return Model(name, patch_colours, masked)


def blind(name: str = "random init 0") -> Model:
    """Every scene has the same tokens. A scene with hidden parts has none."""
    return Model(name, lambda video: np.ones_like(patch_colours(video)), lambda hidden: Seen(None, None, None))


def bench(source, size, frames, fit=12, test=8, model=None, randoms=None, max_objects=8, splits=("train", "test")):
    """`source`: (split, count) -> Source."""
    draw = functools.partial(objects.draw, max_objects=1, area=(0.01, 0.6))

    def prepare(scenes):
        return pipeline.SceneMap(
            scenes, draw, PATCH, TUBELET, size, max_objects, "none", 0, frames, with_objects=True
        )  # fmt: skip

    randoms = randoms or (blind(), blind())
    return Bench(model or colours(), randoms, source, prepare, splits[0], fit, splits[1], test, 5, 7, 1e-3)


def by_row(result, metric: str) -> dict[str, float]:
    """Row -> value of one metric."""
    return {score.row: score.value for score in result.scores if score.metric == metric}
