"""The decoder: what it reads, where it paints, and the published model's size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.models.decoder import Decoder
from cjepa_jax.models.encoder import Encoder

B, GRID, N, D, OUT = 2, (2, 2, 3), 12, 10, 6


@functools.cache
def setup():
    """(jitted decoder, parameters, tokens, context). The parameters are away from their small initial values."""
    rng = np.random.default_rng(0)
    module = Decoder(depth=1, width=16, heads=2, out=OUT)
    tokens, context = rng.normal(size=(B, N, D)).astype(np.float32), rng.random((B, N)) < 0.5
    params = jax.jit(functools.partial(module.init, grid=GRID))(jax.random.key(0), tokens, context)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32), params)
    return jax.jit(lambda params, *args: module.apply({"params": params}, *args, GRID)), params, tokens, context


def test_hidden_places_are_painted_from_the_mask_token_alone():
    decode, params, tokens, context = setup()
    out = decode(params, tokens, context)
    assert out.shape == (B, N, OUT)
    for b in range(B):  # positions tell the mask tokens apart
        assert np.ptp(out[b][~context[b]], axis=0).min() > 1e-3
    spoilt = np.where(context[..., None], tokens, np.nan)
    np.testing.assert_array_equal(decode(params, spoilt, context), out)
    other = params | {"mask_token": -params["mask_token"]}
    assert (np.abs(decode(other, tokens, context) - out).max((1, 2)) > 1e-3).all()
    whole = np.ones_like(context)
    np.testing.assert_array_equal(decode(other, tokens, whole), decode(params, tokens, whole))


def test_every_visible_token_reaches_every_hidden_place_of_its_scene_only():
    decode, params, tokens, context = setup()
    hidden = ~context

    def reach(source):
        """How strongly each scene's hidden places [B, N] answer to a small change of the first scene's token."""
        moved = tokens.copy()
        moved[0, source] += 1.0
        return np.abs(decode(params, moved, context) - decode(params, tokens, context)).max(-1)

    for source in np.flatnonzero(context[0]):
        change = reach(source)
        assert (change[0, hidden[0]] > 0).all() and (change[1] == 0).all()


def test_the_published_size():
    """ViT-B/16 and its decoder: 111,907,840 numbers, less the class token and the two stored position codes."""
    video, context = jax.ShapeDtypeStruct((1, 1, 224, 224, 3), jnp.uint8), jax.ShapeDtypeStruct((1, 196), bool)
    encoder, decoder = Encoder("B/16"), Decoder()
    grid, tokens = (1, 14, 14), jax.ShapeDtypeStruct((1, 196, 768), jnp.float32)
    shapes = [
        jax.eval_shape(encoder.init, jax.random.key(0), video),
        jax.eval_shape(functools.partial(decoder.init, grid=grid), jax.random.key(0), tokens, context),
    ]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 111_907_840 - 768 - 197 * (768 + 512)
