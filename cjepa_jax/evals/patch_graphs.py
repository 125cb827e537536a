"""Graphs of influence between the objects of a scene of pixels, read from a model of patches."""

import numpy as np

from cjepa_jax.evals.base import Hidden, Model, require

RESIDUAL, DROPPING, LAST, ATTENTION = "residual norm", "dropping", "last attention", "attention"


def of(model: Model, video: np.ndarray, object_patches: np.ndarray) -> dict[str, np.ndarray]:
    """By name float32 [B, K, K]: how much object i (axis 1) depends on object j, pooled over the tokens of i.

    "last attention", "attention": of a whole scene's tokens of i to a token of j, in the last and in all blocks of the
    encoder. "dropping": the change of i's encoded tokens when those of j are hidden. "residual norm": the size of the
    change of i's tokens that the residual head predicts under do(remove j). The last two are means of norms over the
    tokens of i that j does not touch. Graphs that a model cannot give are left out.

    Args: video uint8 [B, T, H, W, 3], object_patches bool [B, K, N]. Raises ConfigError for a model without any.
    """
    count, objects = object_patches.shape[:2]
    found: dict[str, np.ndarray] = {}
    if model.inside is not None and model.inside.attention is not None:
        weights = model.inside.attention(video, object_patches)
        found |= {LAST: weights[:, -1], ATTENTION: weights.mean(1)}
    nothing, all_of = np.zeros((count, objects), bool), np.ones((count, object_patches.shape[2]), bool)
    whole = model.hide(Hidden(video, all_of, object_patches, nothing)).context
    for j in range(objects if whole is not None else 0):
        gone = object_patches[:, j]
        removed = (np.arange(objects) == j) & object_patches.any(-1)
        seen = model.hide(Hidden(video, ~gone, object_patches, removed))
        changed = None if seen.context is None else seen.context - whole
        for name, change in ((DROPPING, changed), (RESIDUAL, seen.change)):
            if change is not None:
                graph = found.setdefault(name, np.zeros((count, objects, objects), np.float32))
                graph[:, :, j] = _pooled(np.linalg.norm(change, axis=-1), object_patches & ~gone[:, None])
    require(bool(found), "Influence", "a model whose encoder's attention is known, or that is trained with masks")
    return found


def _pooled(values: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Means of values [B, N] over tokens bool [B, K, N]. 0 where there are none."""
    return np.einsum("bn,bkn->bk", values, tokens) / np.maximum(tokens.sum(-1), 1)
