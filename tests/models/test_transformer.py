"""The stack of blocks: under a scan or one by one, it is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.models.transformer import Stack


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 5e-2)])
def test_blocks_compiled_one_by_one_give_what_the_scan_gives(monkeypatch, dtype, tolerance):
    stack = Stack(depth=3, heads=2, dtype=jnp.dtype(dtype))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    params = jax.jit(stack.init)(jax.random.key(1), x)

    def gradient():
        """(its program, its values); a new function each time, which JAX has not traced before."""
        traced = jax.jit(jax.grad(lambda params: jnp.square(stack.apply(params, x) - 1).mean())).trace(params)
        return str(traced.jaxpr), traced.lower().compile()(params)

    scanned, wanted = gradient()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    unrolled, ours = gradient()
    assert "unroll=3" in unrolled and "unroll=3" not in scanned
    most = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    for one, scan in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, scan, atol=tolerance * most)
