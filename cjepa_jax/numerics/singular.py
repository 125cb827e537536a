"""Singular values of features, for SIGReg: by the algorithm that suits the device, and of fewer rows on many devices.

The gradient of a function of the singular values is U diag(slope) V^T, which is finite wherever the values are.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax.linalg import SvdAlgorithm
from jax.sharding import PartitionSpec
from jaxtyping import Float

from cjepa_jax import sharding
from cjepa_jax.host import switches
from cjepa_jax.types import Array

ALGORITHMS = {
    "default": SvdAlgorithm.DEFAULT,
    "qr": SvdAlgorithm.QR,
    "jacobi": SvdAlgorithm.JACOBI,
    "polar": SvdAlgorithm.POLAR,
}
JACOBI = 256  # the smaller side of a matrix, up to which JAX's choice for a GPU is kept

_only: contextvars.ContextVar[str] = contextvars.ContextVar("only", default="")


def values(x: Float[Array, "B D"]) -> Float[Array, " sigma"]:
    """Singular values, the largest first: float32 [B, D] -> [min(B, D)]. Its gradient is finite.

    Under `sharding.on_mesh` with B divided among devices, each device first reduces its own rows to D by a QR
    decomposition where that saves work (`reduces`). The stacked triangles have the singular values of the whole matrix.
    Raises: ConfigError if CJEPA_SVD names an algorithm that the device does not have.
    """
    rows, width = x.shape
    algorithm = _only.get() or choose(jax.default_backend(), rows, width)
    if reduces(rows, width, sharding.parts()):
        return _reduced(algorithm, x)
    if algorithm == "default":
        return jnp.linalg.svd(x, compute_uv=False)
    return jax.lax.linalg.svd(x, full_matrices=False, compute_uv=False, algorithm=ALGORITHMS[algorithm])


@contextlib.contextmanager
def only(algorithm: str) -> Iterator[None]:
    """Code traced inside uses this algorithm, a name of ALGORITHMS."""
    token = _only.set(algorithm)
    try:
        yield
    finally:
        _only.reset(token)


def choose(backend: str, rows: int, width: int) -> str:
    """The algorithm, a name of ALGORITHMS, for a matrix [rows, width] on this kind of device, or what CJEPA_SVD says.

    On a GPU JAX takes Jacobi's if both sides are at most 1,024, else QR: of [4096, 192] QR, but of the triangle
    [192, 192] to which devices reduce it, Jacobi's. `auto` also takes QR if both sides are above JACOBI. The polar
    algorithm was reported faster than both, but cuSOLVER shifts singular values near zero in it, and centred features
    of B <= D scenes always have one that is zero. So it must be asked for.
    Raises: ConfigError for an algorithm that the device does not have.
    """
    asked = switches.chosen(switches.SVD)
    if asked != "auto":
        switches.check(backend)
        return asked
    return "qr" if backend == "gpu" and min(rows, width) > JACOBI else "default"


def reduces(rows: int, width: int, shards: int) -> bool:
    """Whether devices with rows / shards rows each save work by reducing them to `width` rows first.

    A device then decomposes its own rows, and the triangles [width, width] of all devices. Else it decomposes all rows.
    """
    return shards > 1 and rows % shards == 0 and rows // shards + shards * width < rows


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduced(algorithm: str, x: Array) -> Array:
    """`values` of rows that are divided among devices. It has a gradient, but no forward-mode derivative."""
    return _by_device(functools.partial(_values_of_shards, algorithm), PartitionSpec())(x)


def _forward(algorithm, x):
    out = PartitionSpec(sharding.SCENES), PartitionSpec(), PartitionSpec()
    left, sigma, right = _by_device(functools.partial(_vectors_of_shards, algorithm), out)(x)
    return sigma, (left, right)


def _backward(algorithm, saved, slope):
    left, right = saved
    with jax.default_matmul_precision("float32"):
        return ((left * slope) @ right,)


_reduced.defvjp(_forward, _backward)


def _by_device(function: Any, out: Any) -> Any:
    """`function` of each device's rows. What it returns without rows is the same on all devices."""
    mesh, scenes = jax.sharding.get_abstract_mesh(), PartitionSpec(sharding.SCENES)
    return jax.shard_map(function, mesh=mesh, in_specs=scenes, out_specs=out, check_vma=False)


def _values_of_shards(algorithm, x):
    own = jnp.linalg.qr(x, mode="r")
    triangle = jnp.linalg.qr(jax.lax.all_gather(own, sharding.SCENES, tiled=True), mode="r")
    return jax.lax.linalg.svd(triangle, compute_uv=False, algorithm=ALGORITHMS[algorithm])


def _vectors_of_shards(algorithm, x):
    """This device's rows of U [b, D], the singular values [D] and V^T [D, D]."""
    own, triangle = jnp.linalg.qr(x)
    turned, triangle = jnp.linalg.qr(jax.lax.all_gather(triangle, sharding.SCENES, tiled=True))
    left, sigma, right = jax.lax.linalg.svd(triangle, full_matrices=False, algorithm=ALGORITHMS[algorithm])
    width = x.shape[1]
    mine = jax.lax.dynamic_slice_in_dim(turned, jax.lax.axis_index(sharding.SCENES) * width, width)
    with jax.default_matmul_precision("float32"):
        return own @ (mine @ left), sigma, right
