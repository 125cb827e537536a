"""Inside a frozen encoder: its tokens after each block, and the rest of the network from any of them.

Layer 0 is the tokenizer, and layer l the l-th block. L blocks give the layers 0 .. L. For every layer l

    after(encoder, params, states(encoder, params, scene)[:, l], l, grid) = encoder.apply(params, scene)

up to rounding. All functions can be traced and differentiated. The blocks run in one scan, so `before` and `after` are
compiled once for all layers.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from cjepa_jax.configuration import sizes
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import position_encoding, tokenizers
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.layers import WEIGHTS, LayerNorm
from cjepa_jax.models.transformer import Block
from cjepa_jax.types import Array, Params


def states(encoder: Encoder, params: Params, scene: Array) -> Float[Array, "B L N D"]:
    """Tokens of every layer, [B, L + 1, N, D] float32, before the last norm. `params` are the encoder's."""
    x = _embedded(encoder, params, scene)
    block = _block(encoder, encoder.grid(scene))
    outputs = jax.lax.scan(lambda x, own: (block(own, x),) * 2, x, params["stack"]["blocks"])[1]
    return jnp.concatenate([x[None], outputs]).swapaxes(0, 1)


def before(encoder: Encoder, params: Params, scene: Array, layer: Int[Array, ""]) -> Float[Array, "B N D"]:
    """Tokens of one layer, `states(...)[:, layer]`. The blocks after it are not computed."""
    run = _block(encoder, encoder.grid(scene))
    return _chosen(run, params, _embedded(encoder, params, scene), lambda i: i < layer)


def after(
    encoder: Encoder, params: Params, tokens: Float[Array, "B N D"], layer: Int[Array, ""], grid: tuple[int, int, int]
) -> Float[Array, "B N D"]:
    """The encoder's output [B, N, D] from tokens of a layer, by the blocks after it and the last norm.

    `grid`: (times, rows, cols) of the tokens. Raises ConfigError for an encoder that also puts out earlier blocks
    (`levels`), since these are not computed.
    """
    if encoder.levels:
        text = "must be () to continue from a layer, since earlier layers are a part of the output"
        raise ConfigError(f"objective.encoder.levels = {tuple(encoder.levels)}: {text}")
    x = _chosen(_block(encoder, grid), params, tokens, lambda i: i >= layer)
    norm = LayerNorm(epsilon=encoder.epsilon, dtype=jnp.float32, parent=None)
    return norm.apply({"params": params["stack"]["norm"]}, x)


def attention(encoder: Encoder, params: Params, scene: Array, groups: Bool[Array, "B K N"]) -> Float[Array, "B L K K"]:
    """How much the tokens of each group attend to those of each other, in each block: entry i, j is the weight of a
    token of group j for a token of group i, the mean over both groups and all heads. 0 for an empty group."""
    block, share = _block(encoder, encoder.grid(scene), (WEIGHTS,)), groups.astype(jnp.float32)
    share = share / jnp.maximum(share.sum(-1, keepdims=True), 1)

    def step(x, own):
        x, kept = block(own, x)
        (weights,) = kept[WEIGHTS]["attention"]["weights"]
        return x, jnp.einsum("bin,bnm,bjm->bij", share, weights.astype(jnp.float32).mean(1), share)

    x = _embedded(encoder, params, scene)
    return jax.lax.scan(step, x, params["stack"]["blocks"])[1].swapaxes(0, 1)


def _embedded(encoder, params, scene):
    """The stack's input [B, N, D]."""
    tokenizer = tokenizers.of(encoder, parent=None)
    x, positions = tokenizer.apply({"params": params.get("tokenizer", {})}, scene)
    return x if positions is None else x + positions


def _chosen(run, params, x, condition):
    """x after the blocks i = 0 .. L - 1 for which condition(i) holds."""
    blocks = params["stack"]["blocks"]
    numbers = jnp.arange(len(jax.tree.leaves(blocks)[0]))

    def step(x, one):
        i, own = one
        return jax.lax.cond(condition(i), run, lambda own, x: x, own, x), None

    return jax.lax.scan(step, x, (numbers, blocks))[0]


def _block(encoder, grid, collections=()):
    """One block as a function (its parameters, x [B, N, D]) -> [B, N, D], with the arguments of transformer.Stack. With
    `collections` the function returns what the block puts into them too."""
    size = sizes.parse(encoder.variant)
    block = Block(
        size.heads,
        encoder.gelu,
        dtype=encoder.dtype,
        units=size.hidden,
        epsilon=encoder.epsilon,
        layer_scale=encoder.layer_scale,
        parent=None,
    )
    rotation = position_encoding.rotation(encoder, grid, size.width // size.heads)
    rotation = None if rotation is None else rotation[None]
    time = None
    if encoder.causal == "frame":
        time = jnp.repeat(jnp.arange(grid[0]), grid[1] * grid[2])
    elif encoder.causal == "token":
        time = jnp.arange(grid[0] * grid[1] * grid[2])

    def run(own, x):
        found = block.apply({"params": own}, x, None, None, rotation, time=time, mutable=collections or False)
        return (found[0][0], found[1]) if collections else found[0]

    return run
