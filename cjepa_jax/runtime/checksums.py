"""Checksums of arrays. They are equal for every sharding, and on devices and host."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

SMALL = 2**16  # elements: up to this size, NumPy is faster for an array on a CPU than the compilation of a program


def checksums(leaves: Sequence[jax.Array]) -> jax.Array | np.ndarray:
    """Two sums over the elements of each array, modulo 2^32: uint32 [2, len(leaves)].

    The first is of the bits times odd weights by position, the second of bits and position mixed. The second is needed
    because round values have many trailing zero bits, which weights do not change. Each wrong element is detected.

    The sums are of integers, so they are equal for every sharding. They are computed on the array's devices, or on the
    host for small arrays on a CPU.
    """
    on_device, beside = _programs(everywhere(leaves))
    columns = [_on_host(leaf) if _is_small(leaf) else on_device(leaf) for leaf in leaves]
    if all(isinstance(column, np.ndarray) for column in columns):
        return np.stack(columns, axis=1)
    return beside(columns)


def everywhere(leaves: Sequence[Any]) -> Sharding:
    """The sharding of a small array that is replicated on each device of these."""
    homes = [leaf.sharding for leaf in leaves if getattr(leaf, "sharding", None)]
    meshes = [home.mesh for home in homes if isinstance(home, NamedSharding)]
    return NamedSharding(meshes[0], PartitionSpec()) if meshes else homes[0] if homes else first_device()


def first_device() -> Sharding:
    return SingleDeviceSharding(jax.local_devices()[0])


@functools.cache
def _programs(home: Sharding) -> tuple[Callable, Callable]:
    """Jitted _on_device and _beside, cached per sharding.

    All arrays of the same shape and type use one program, and each save uses the programs of the one before.
    """
    on_device, beside = (jax.jit(function, out_shardings=home) for function in (_on_device, _beside))
    return on_device, beside


def _beside(columns: list[jax.Array]) -> jax.Array:
    return jnp.stack(columns, axis=1)


def _is_small(leaf: jax.Array | np.ndarray) -> bool:
    if isinstance(leaf, jax.Array):
        here = leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.devices())
    else:
        here = True
    return here and leaf.size <= SMALL


def _on_host(leaf: jax.Array) -> np.ndarray:
    array = np.ascontiguousarray(leaf).reshape(-1)
    bits = array.view(f"uint{8 * array.dtype.itemsize}").astype(np.uint32)
    return np.stack([each.sum(dtype=np.uint32) for each in _terms(bits, np.arange(array.size, dtype=np.uint32))])


def _on_device(leaf: jax.Array) -> jax.Array:
    leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}").astype(jnp.uint32)
    position = jnp.uint32(0)  # in row-major order. A sharded array stays sharded
    for axis, length in enumerate(leaf.shape):
        position = position * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    return jnp.stack([jnp.sum(each, dtype=jnp.uint32) for each in _terms(bits, position)])


def _terms(bits: Any, position: Any) -> tuple[Any, Any]:
    """The terms of an array's two checksums, uint32, one per element."""
    mixed = bits ^ (position * np.uint32(0x9E3779B9))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):  # the end of MurmurHash3, one to one
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
    return (bits * (2 * position + 1), mixed)
