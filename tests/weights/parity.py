"""Our networks with imported weights, on inputs that other code gets too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def pixels(*shape):
    """Whole numbers 0..255, [B, T, H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def normal(video, found):
    """As PyTorch code wants them: [B, T, 3, H, W], normalised."""
    import torch

    x = (video / 255 - np.asarray(found.encoder["mean"])) / np.asarray(found.encoder["std"])
    return torch.tensor(x.transpose(0, 1, 4, 2, 3), dtype=torch.float32)


def encode(found, video, depth=0, which="encoder"):
    params = found.params[which]
    if depth:
        params = params | {
            "stack": params["stack"] | {"blocks": jax.tree.map(lambda x: x[:depth], params["stack"]["blocks"])}
        }
    network = Encoder(**found.encoder | {"depth": depth})
    return np.asarray(jax.jit(network.apply)({"params": params}, video))


def predict(found, tokens, context, targets, grid):
    """Our predictions [B, T, D] at the token ids `targets` from encoded tokens [B, N, D] at `context`."""
    batch, count, width = tokens.shape
    seen, hidden = (np.isin(np.arange(count), ids)[None].repeat(batch, 0) for ids in (context, targets))
    nothing = np.zeros((batch, 1, count), bool), np.zeros((batch, 1), bool)
    network = Predictor(**found.predictor, out=width)
    apply = jax.jit(functools.partial(network.apply, grid=grid))
    out, residual = apply({"params": found.params["predictor"]}, jnp.asarray(tokens), seen, *nothing, hidden=hidden)
    assert not np.asarray(residual).any()
    return np.asarray(out)[:, targets]
