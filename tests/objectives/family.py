"""Stored outputs of the public code of the family's methods (tests/golden/family), and their parameters by rule."""

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "family"
UNSCALED = ("pos_embed", "mask_token", "mod_embed", "cls_token", "position_embeddings", "pos_embedding")


def draw(seed, *shape):
    """Standard normal numbers, float32."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def stored(name):
    """(numbers and shapes, arrays) of a system."""
    return json.loads((FOLDER / f"{name}.json").read_text()), np.load(FOLDER / f"{name}.npz")


def parameters(shapes, seed):
    """The j-th name in order has RandomState(seed + j)'s numbers, scaled by its fan-in. PyTorch's layout."""
    found = {}
    for j, (name, shape) in enumerate(sorted(shapes.items())):
        x = np.random.RandomState(seed + j).standard_normal(shape)
        if len(shape) > 1 and not any(word in name for word in UNSCALED):
            x = x / np.sqrt(np.prod(shape[1:]))
        elif len(shape) == 1 and name.endswith("weight"):
            x = 1 + 0.1 * x
        else:
            x = 0.1 * x
        found[name] = x.astype(np.float32)
    return found


def dense(p, name):
    return {"kernel": p[f"{name}.weight"].T, "bias": p[f"{name}.bias"]}


def norm(p, name):
    return {"scale": p[f"{name}.weight"], "bias": p[f"{name}.bias"]}


def layers(blocks):
    """A list of blocks' parameters as one tree with a leading layer axis."""
    import jax

    return jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)


def close(found, wanted, scale=None):
    """Equal to 1e-5 of the scale of `wanted`."""
    scale = np.abs(wanted).max() if scale is None else scale
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale)
