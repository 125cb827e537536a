"""The step with naive padding, as a reference for this package: the same loss, more work.

Context rows have room for the whole grid, and the predictor sees the (padded) context followed by the (padded) mask
tokens, 2N in all, where ours puts both on one grid of N.
"""

import dataclasses

import jax.numpy as jnp

from cjepa_jax.errors import ConfigError
from cjepa_jax.models import layers, predictor, transformer
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.positions import sincos
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Padded(Jepa):
    """`Jepa` with a concatenated predictor and the same parameters. Use it with data.row_lengths = (1.0,)."""

    def __post_init__(self):
        super().__post_init__()
        positions = self.predictor.get("positions", "sincos")
        if positions != "sincos":
            raise ConfigError(f"objective.predictor.positions = {positions!r}: must be 'sincos' with --against=padded")

    def predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        p, ours = params["predictor"], predictor.Predictor(**self.predictor, out=context.shape[-1], dtype=self.dtype)
        tokens, dtype = context.shape[1], jnp.dtype(self.dtype)

        def dense(name, features, x, result=jnp.float32):
            return layers.Dense(features, dtype, result=result).apply({"params": p[name]}, x)

        order = jnp.equal(predictor.ranks(batch.object_patches, batch.removed)[..., None], jnp.arange(ours.max_objects))
        covers = jnp.einsum("bkn,bkm->bnm", batch.object_patches.astype(dtype), order.astype(dtype))
        masked = p["mask_token"].astype(dtype) + covers @ p["object_embedding"].astype(dtype)
        x = jnp.concatenate([dense("embed", ours.width, context, dtype), masked], axis=1).astype(jnp.float32)
        x = x + jnp.tile(sincos(self._grid(batch.video), ours.width), (2, 1))
        hidden = ~batch.context if batch.hidden is None else batch.hidden
        segment = jnp.concatenate([batch.context, hidden], axis=1).astype(jnp.int32)
        stack = transformer.Stack(ours.depth, ours.heads, ours.gelu, ours.remat, dtype=dtype, epsilon=ours.epsilon)
        x = stack.apply({"params": p["stack"]}, x, segment)
        return dense("prediction", ours.out, x[:, tokens:]), dense("residual", ours.out, x[:, :tokens])
