"""A learned token before those of the grid, as in DINOv2: every token sees it, and it sees all visible ones."""

import jax.numpy as jnp
from jaxtyping import Float

from cjepa_jax.errors import ConfigError
from cjepa_jax.models import packing
from cjepa_jax.models.layers import NORMAL
from cjepa_jax.types import Array, Rows


def encode(encoder, stack, x: Float[Array, "B N D"], rows: Rows | None) -> Float[Array, "B M E"]:
    """The class token and the tokens of the grid after the stack, [B, 1 + N, E]. Call it inside `encoder`'s call.

    Tokens that are not in `rows` are hidden, and 0 in the result. The attention takes the whole grid, so packed rows
    save nothing. The parameter is `class_token` [D]. Raises: ConfigError for rotary positions and causal attention.
    """
    if encoder.positions.startswith("rope") or encoder.causal != "none":
        name = "causal" if encoder.causal != "none" else "positions"
        text = f"objective.encoder.{name} = {getattr(encoder, name)!r}"
        raise ConfigError(f"{text}: an encoder with a class token has no such option")
    token = encoder.param("class_token", NORMAL, (x.shape[-1],))
    whole = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, x.shape[-1])), x], axis=1)
    if rows is None:
        return stack(whole)
    taken = (rows.segment > 0).reshape(-1, rows.segment.shape[-1], 1).astype(x.dtype)
    seen = packing.scatter(taken, rows, x.shape[:2])[..., 0] > 0
    seen = jnp.concatenate([jnp.ones((len(x), 1), bool), seen], axis=1)
    return jnp.where(seen[..., None], stack(whole, seen.astype(jnp.int32)), 0)
