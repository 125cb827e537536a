"""Checksums of arrays: by loops, and the same wherever an array lives."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cjepa_jax.runtime import checksums

WORD = 2**32


def by_hand(array):
    """Both sums, one element at a time, in whole numbers of any size."""
    size = array.dtype.itemsize
    weighted = mixed = 0
    for position, element in enumerate(array.reshape(-1)):
        bits = int.from_bytes(element.tobytes()[:size], "little") % WORD
        weighted += bits * (2 * position + 1)
        value = bits ^ (position * 0x9E3779B9 % WORD)
        value = (value ^ value >> 16) * 0x85EBCA6B % WORD
        value = (value ^ value >> 13) * 0xC2B2AE35 % WORD
        mixed += value ^ value >> 16
    return [weighted % WORD, mixed % WORD]


def test_they_are_the_same_by_hand_on_the_host_and_on_devices():
    rng = np.random.default_rng(0)
    shapes = {"float32": (4, 3, 5), "bfloat16": (8, 2), "int32": (), "uint8": (0, 3), "float16": (1,)}
    arrays = [rng.normal(0, 100, shape).astype(jnp.dtype(name)) for name, shape in shapes.items()]
    arrays.append(rng.random((2, 3)) < 0.5)
    expected = np.transpose([by_hand(array) for array in arrays])
    on_devices = jax.jit(lambda leaves: [checksums._on_device(leaf) for leaf in leaves])(arrays)
    np.testing.assert_array_equal(np.transpose(on_devices), expected)
    np.testing.assert_array_equal(checksums.checksums([jnp.asarray(array) for array in arrays]), expected)

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    divided = jax.device_put(arrays[0], NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_array_equal(checksums.checksums([divided])[:, 0], expected[:, 0])


def test_large_arrays_are_done_where_they_are_beside_small_ones(monkeypatch):
    arrays = [jnp.arange(9.0), jnp.arange(4.0)]
    expected = checksums.checksums(arrays)
    monkeypatch.setattr(checksums, "SMALL", 4)
    found = checksums.checksums(arrays)
    assert isinstance(expected, np.ndarray) and isinstance(found, jax.Array) and found.dtype == jnp.uint32
    np.testing.assert_array_equal(found, expected)
