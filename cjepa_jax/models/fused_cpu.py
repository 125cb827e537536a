"""Attention on a CPU by a compiled kernel, fused_cpu.cc, which a user may build: python -m cjepa_jax.bench.kernel

It computes what `attention.einsum` computes, with float32 sums, in memory that grows with the number of tokens. Its
results differ in the last digits, so a run's manifest records it. It uses all of XLA's threads. XLA:CPU multiplies
attention's many small matrices on about one core (docs/PERFORMANCE.md). There is no forward mode, no second derivative
and no jax.export of it: `attention.only("einsum")`, or CJEPA_CPU_KERNEL=0, has them.
"""

import ctypes
import functools
import pathlib

import jax
import jax.numpy as jnp

from cjepa_jax.host import cpu
from cjepa_jax.types import Array

TYPES = ("float32", "bfloat16")


@functools.cache
def ready() -> bool:
    """Whether the kernel is built and this process has one device. XLA cannot divide a foreign call among devices."""
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return False
    file = cpu.kernel()
    if file:
        register(file)
    return bool(file)


def register(file: pathlib.Path) -> None:
    """Makes the compiled functions of a library known to XLA. Raises OSError if it cannot be loaded."""
    library = ctypes.CDLL(str(file))
    for direction in ("forward", "backward"):
        function = jax.ffi.pycapsule(getattr(library, f"cjepa_attention_{direction}"))
        jax.ffi.register_ffi_target(_target(direction), function, platform="cpu")


def _target(direction: str) -> str:
    # JAX's compilation cache has only this name to tell one version of the kernel from another.
    return f"cjepa_attention_{direction}_{cpu.version()}"


def fused(q: Array, k: Array, v: Array, q_segment: Array | None = None, k_segment: Array | None = None) -> Array:
    """`attention.attention` without times, by the kernel.

    Raises: ValueError for another type than TYPES, and for v of another shape than k.
    """
    if q.dtype.name not in TYPES or v.shape != k.shape:
        raise ValueError(f"q {q.dtype}, k {k.shape}, v {v.shape}: must be of {TYPES}, and v as k")
    ids = (q_segment, q.shape[2]), (k_segment, k.shape[2])
    if q_segment is None:  # arrays without elements say that everything sees everything
        ids = (jnp.zeros((), jnp.int32), 0), (jnp.zeros((), jnp.int32), 0)
    # The kernel reads what it is given by its address alone.
    q_ids, k_ids = (jnp.broadcast_to(jnp.asarray(x, jnp.int32), (q.shape[0], length)) for x, length in ids)
    return _attention(q, k.astype(q.dtype), v.astype(q.dtype), q_ids, k_ids).astype(v.dtype)


@jax.custom_vjp
def _attention(q, k, v, q_segment, k_segment):
    return _forward(q, k, v, q_segment, k_segment)[0]


def _forward(q, k, v, q_segment, k_segment):
    results = jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct(q.shape[:-1], jnp.float32)
    out, logs = _call("forward", results)(q, k, v, q_segment, k_segment)
    return out, (q, k, v, out, q_segment, k_segment, logs)


def _backward(saved, gradient):
    forward, rest = saved[:4], saved[4:]  # q, k, v and the output
    results = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in forward[:3])
    return *_call("backward", results)(*forward, gradient, *rest), None, None


_attention.defvjp(_forward, _backward)


def _call(direction, results):
    return jax.ffi.ffi_call(_target(direction), results, vmap_method="broadcast_all")
