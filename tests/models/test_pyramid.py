"""Warping, correlation and changes of resolution against NumPy and SciPy, and what the pyramid and the head promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cjepa_jax.models import pyramid, warping

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(2, 6, 9, 3)).astype(np.float32)
FLOWS = RNG.uniform(-5, 5, (2, 6, 9, 2)).astype(np.float32)  # many places are outside


def test_warping_is_scipys_linear_interpolation_with_the_nearest_border():
    y, x = np.mgrid[:6, :9]
    wanted = np.stack([
        np.stack([
            ndimage.map_coordinates(image[..., c], [y + flow[..., 1], x + flow[..., 0]], order=1, mode="nearest")
            for c in range(3)
        ], -1) for image, flow in zip(MAPS, FLOWS, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(jax.jit(warping.warp)(MAPS, FLOWS), wanted, atol=1e-5)
    places = np.stack([x + FLOWS[..., 0], y + FLOWS[..., 1]], -1)
    pixels = np.floor(places + 0.5)  # a pixel reaches half a pixel to each side of its centre
    within = ((pixels >= 0) & (pixels <= (8, 5))).all(-1)
    assert 0 < within.sum() < within.size
    np.testing.assert_array_equal(warping.inside(FLOWS), within)


def test_warping_differentiates_as_finite_differences_and_finitely_on_the_grid():
    def total(flow):
        return (jnp.asarray(MAPS) * warping.warp(MAPS[::-1], flow)).sum()

    flow = np.full_like(FLOWS, 0.3)
    slope, total = jax.jit(jax.grad(total)), jax.jit(total)
    gradient, at = np.asarray(slope(flow)), (1, 2, 3, 1)
    step = np.zeros_like(flow)
    step[at] = 1e-2
    assert gradient[at] == pytest.approx(float(total(flow + step) - total(flow - step)) / 2e-2, rel=1e-2)
    assert np.isfinite(slope(np.zeros_like(flow))).all()


def test_correlations_are_those_of_all_pairs():
    one, other = MAPS, MAPS[::-1].copy()
    found = np.asarray(jax.jit(warping.correlation, static_argnums=2)(one, other, 2))
    assert found.shape == (2, 6, 9, 25)
    for b, row, col, m in ((0, 0, 0, 0), (1, 3, 4, 12), (0, 5, 8, 24), (1, 2, 7, 3), (0, 4, 1, 16)):
        at = row + m // 5 - 2, col + m % 5 - 2
        there = other[b][at] if 0 <= at[0] < 6 and 0 <= at[1] < 9 else np.zeros(3)
        assert found[b, row, col, m] == pytest.approx(float((one[b, row, col] * there).mean()), abs=1e-6)


def test_a_flow_keeps_its_meaning_on_a_larger_map():
    """A uniform flow of half a pixel is one of two pixels on a map four times as wide."""
    larger = jax.jit(warping.enlarge, static_argnums=1)(np.full((1, 2, 3, 2), (0.5, -1.0), np.float32), 4)
    assert larger.shape == (1, 8, 12, 2)
    np.testing.assert_allclose(larger, np.broadcast_to((2.0, -4.0), larger.shape), rtol=1e-6)


def test_the_filters_of_a_block_are_a_convolution_of_each_channel():
    block = pyramid.Block(kernel=3)
    params = jax.eval_shape(block.init, jax.random.key(0), MAPS)["params"]
    params = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32), params)
    y = np.stack([
        np.stack([ndimage.correlate(image[..., c], params["filters"][..., c], mode="constant") for c in range(3)], -1)
        for image in MAPS
    ])  # fmt: skip
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = y * params["norm"]["scale"] + params["norm"]["bias"]
    y = jax.nn.gelu(y @ params["expand"]["kernel"] + params["expand"]["bias"], approximate=False)
    wanted = MAPS + params["scale"] * (y @ params["contract"]["kernel"] + params["contract"]["bias"])
    np.testing.assert_allclose(jax.jit(block.apply)({"params": params}, MAPS), wanted, atol=2e-4)


def test_cells_are_centred_where_flows_of_their_level_are_enlarged_to():
    """The pixels that a cell depends on lie symmetrically about the centre of its 2^l x 2^l pixels."""
    encoder, frames = pyramid.Pyramid(widths=(4, 4), blocks=(1, 1)), jnp.asarray(RNG.uniform(0, 255, (1, 20, 20, 3)))
    params = jax.eval_shape(encoder.init, jax.random.key(0), frames)
    params = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32), params)

    @jax.jit
    def slopes(frames):
        levels, pull = jax.vjp(lambda x: encoder.apply(params, x), frames)
        cells = [jnp.zeros_like(x).at[:, 2, 2].set(1.0) for x in levels]
        return [pull([cell * (i == level) for i, cell in enumerate(cells)])[0] for level in range(len(levels))]

    for level, slope in enumerate(slopes(frames), 1):
        for axis in (1, 2):
            reached = np.nonzero(np.asarray(slope != 0).any(tuple({0, 1, 2, 3} - {axis})))[0]
            assert 0 < reached[0] and reached[-1] < 19  # within the frame
            assert (reached[0] + reached[-1]) / 2 == 2**level * 2.5 - 0.5


@pytest.mark.slow
def test_levels_halve_the_frame_and_flows_are_within_their_limit():
    frames = RNG.integers(0, 256, (2, 16, 16, 3), np.uint8)
    encoder = pyramid.Pyramid(widths=(4, 6, 8), blocks=(1, 0, 1))
    levels, _ = jax.jit(encoder.init_with_output)(jax.random.key(0), frames)
    assert [x.shape for x in levels] == [(2, 8, 8, 4), (2, 4, 4, 6), (2, 2, 2, 8)] and encoder.patch == 8
    head = pyramid.FlowHead(hidden=(4,), radius=1, limit=3.0)
    small, variables = jax.jit(head.init_with_output)(jax.random.key(1), levels, levels)
    assert [x.shape for x in small] == [(2, 8, 8, 2), (2, 4, 4, 2), (2, 2, 2, 2)]
    assert max(float(abs(x).max()) for x in small) < 0.1  # at first nearly no flow
    pushed = jax.tree.map(lambda x: 1000.0 * x + 1, variables)
    clipped = jax.jit(head.apply)(pushed, levels, [x[::-1] for x in levels])
    for level, x in enumerate(clipped):
        assert float(abs(x).max()) == pytest.approx(3.0 / 2 ** (level + 1))
