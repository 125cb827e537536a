"""Pictures of a trained model, as arrays: masks over scenes, features as colours, predicted and true change."""

from typing import Any

import jax
import numpy as np

from cjepa_jax import sharding
from cjepa_jax.data import batching, pipeline
from cjepa_jax.data.drawing import marks
from cjepa_jax.objectives.base import Interventional, Masking, Painting
from cjepa_jax.types import Batch

PIXELS = ("video", "intervened", "painted")


def take(
    objective: Masking, state: Any, random_params: Any, scenes: pipeline.SceneMap, count: int
) -> dict[str, np.ndarray]:
    """Arrays of the first `count` held-out scenes, for the report's pictures.

    Args:
      objective: its protocols in objectives.base determine what is shown in addition to features.
      state: the TrainState. random_params: values of the trained parameters at initialisation.
      scenes: a SceneMap with `with_masks`.
    Returns: video uint8 [n, T, H, W, 3] and, if there is one, intervened (other channels than RGB as marks.rgb shows
      them). masks bool [n, K, T, H, W]. removed bool [n, K]. masked bool [n, N]. fallback bool [n]. grid int [3]. pca
      and pca_random float32 [n, N, 3] in 0..1. For a Painting objective, painted uint8 [n, T, H, W, 3]. For an
      Interventional one, predicted_change and true_change float32 [n, N], norms over D, NaN where a removed object is.
    """
    arrays = batching.collate(pipeline.held_out(scenes, 0, count))
    pictures = {"masks": arrays.pop("masks"), "grid": np.asarray(scenes.grid)}
    pictures |= {name: arrays[name] for name in ("video", "intervened", "removed") if name in arrays}
    pictures |= {"masked": ~arrays["context"], "fallback": ~arrays["removed"].any(-1)}
    mesh = sharding.make_mesh({}, 1, devices=jax.local_devices()[:1])
    batch = sharding.put_batch(mesh, arrays)
    state, random_params = jax.device_get((state, random_params))  # copies on one device, for any mesh

    encode = jax.jit(objective.encode)
    pictures["pca"] = principal_colours(np.asarray(encode(state.params, batch.video), np.float32))
    pictures["pca_random"] = principal_colours(np.asarray(encode(random_params, batch.video), np.float32))
    if isinstance(objective, Painting):
        pictures["painted"] = np.asarray(jax.jit(objective.reconstruct)(state.params, batch))
    like = pictures["video"]
    pictures |= {name: marks.rgb(pictures[name], like) for name in PIXELS if name in pictures}
    if isinstance(objective, Interventional):
        pictures |= _changes(objective, state, batch)
    return pictures


def _changes(objective: Interventional, state: Any, batch: Batch) -> dict[str, np.ndarray]:
    """predicted_change and true_change, or neither if there is no true one."""

    def change(state, batch: Batch):
        full, intervened = objective.targets(state.target, batch)
        _, residual = objective.predict(state.params, objective.encode_context(state.params, batch), batch)
        return residual, None if intervened is None else full - intervened

    predicted, true = jax.jit(change)(state, batch)
    if true is None:
        return {}
    # Only where no removed object is. A clip's anchor shows it, and there its absence is the change.
    touched = (np.asarray(batch.object_patches) & np.asarray(batch.removed)[..., None]).any(1)
    return {
        name: np.where(touched, np.nan, np.linalg.norm(np.asarray(value, np.float32), axis=-1))
        for name, value in (("predicted_change", predicted), ("true_change", true))
    }


def principal_colours(tokens: np.ndarray) -> np.ndarray:
    """The first three principal components of all scenes' tokens as colours: [n, N, D] -> [n, N, 3] in 0..1.

    The mean over scenes at each position is subtracted first. It is the position code, and would dominate the colours.
    Each component is stretched between its 1st and 99th percentile.
    """
    flat = (tokens - tokens.mean(0)).reshape(-1, tokens.shape[-1]).astype(np.float64)
    _, vectors = np.linalg.eigh(flat.T @ flat)
    components = flat @ vectors[:, :-4:-1]
    low, high = np.percentile(components, [1, 99], axis=0)
    colours = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    return colours.reshape(*tokens.shape[:-1], 3).astype(np.float32)
