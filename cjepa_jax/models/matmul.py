"""Matrix products in a narrow type, accumulated in float32, forwards and backwards."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

from cjepa_jax.types import Array

WIDE = {"preferred_element_type": jnp.float32}


def product(spec: str, a: Array, b: Array, dtype: DTypeLike) -> Array:
    """`einsum(spec, a, b)` with both operands and, in the gradient, the cotangent in `dtype`. The result is float32.

    Plain differentiation would multiply a float32 cotangent with a bfloat16 operand, which no matrix unit supports. On
    CPU, too, only bfloat16 x bfloat16 -> float32 uses the fast units. Every index of `spec` occurs in two of the three
    arrays.
    """
    if jnp.dtype(dtype) == jnp.float32:
        return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)
    return _narrow(spec, dtype, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _narrow(spec, dtype, a, b):
    return _einsum(spec, a.astype(dtype), b.astype(dtype))


def _forward(spec, dtype, a, b):
    # Empty arrays carry the operands' own types, which their gradients must have, to the backward pass.
    types = (jnp.zeros(0, a.dtype), jnp.zeros(0, b.dtype))
    a, b = a.astype(dtype), b.astype(dtype)
    return _narrow(spec, dtype, a, b), (a, b, types)


def _backward(spec, dtype, saved, gradient):
    a, b, (a_type, b_type) = saved
    operands, out = spec.split("->")
    left, right = operands.split(",")
    gradient = gradient.astype(dtype)
    to_a = _einsum(f"{out},{right}->{left}", gradient, b)
    to_b = _einsum(f"{left},{out}->{right}", a, gradient)
    return to_a.astype(a_type.dtype), to_b.astype(b_type.dtype)


_narrow.defvjp(_forward, _backward)


def _einsum(spec, a, b):
    """`einsum` in float32 of narrow operands."""
    matrices = len(spec) == len("mk,kn->mn")
    if matrices and jax.default_backend() == "cpu":
        return _of_matrices(spec)(a, b)
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


@functools.cache
def _of_matrices(spec):
    """The product of two matrices on a CPU, in the only form that XLA multiplies at the narrow type's rate.

    In this form the summed axis of `a` must be its last in memory. A weight gradient sums over tokens, the first axis.
    XLA folds a transposition into the product, and then computes it in float32, at half the rate or less. A fixed
    layout is not folded. It also prevents XLA from folding a transposition of the result at a stage that no longer
    checks whether the new product is supported ("Unsupported element type for DotThunk"). Without the barrier after it,
    XLA may read the result as if its transposition were already in memory (JAX 0.10), which gives wrong numbers without
    an error. With more axes, and therefore under vmap, fixed layouts crash the compiler, so these products are left to
    XLA.
    """
    operands, out = spec.split("->")
    left, right = operands.split(",")
    (row,), (column,) = set(left) - set(right), set(right) - set(left)
    (summed,) = set(left) & set(right)

    @jax.custom_batching.custom_vmap
    def multiply(a, b):
        a = _as_written(a if left == row + summed else a.T)
        result = _as_written(jnp.einsum(f"{row}{summed},{right}->{row}{column}", a, _as_written(b), **WIDE))
        result = jax.lax.optimization_barrier(result)
        return result if out == row + column else result.T

    @multiply.def_vmap
    def multiply_many(axis_size, batched, a, b):
        left_axis, right_axis = ("z" if axis else "" for axis in batched)
        return jnp.einsum(f"{left_axis}{left},{right_axis}{right}->z{out}", a, b, **WIDE), True

    return multiply


def _as_written(x):
    """x, laid out in memory in the order of its axes."""
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))
