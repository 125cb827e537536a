"""Matrix products in a narrow type, accumulated in float32, forwards and backwards. Dense layers' with their bias."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

from cjepa_jax.host import switches
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


def of_layer(spec: str, x: Array, kernel: Array, dtype: DTypeLike, result: DTypeLike) -> Array:
    """`product(spec, x, kernel, dtype)` of a layer whose output has the type `result`, to be given to `biased`.

    Where `narrow` says so it leaves the matrix unit in `dtype`, not in float32, if that is the output's type. The
    gradient of x is then rounded once, as before, and that of a float32 kernel stays float32.
    """
    if jnp.dtype(result) == jnp.dtype(dtype) and narrow(dtype):
        return _rounded(spec, dtype, x, kernel)
    return product(spec, x, kernel, dtype)


def biased(x: Array, bias: Array, result: DTypeLike) -> Array:
    """x + bias [last axes of x] in the type `result`.

    An x of a narrow type is added up in it, which a GPU can do at the end of the product, and the result has x's type.
    It is then rounded twice in all, not once. The bias's gradient is a float32 sum in both cases.
    """
    return (x + bias).astype(result) if x.dtype == jnp.float32 else _biased(x, bias)


def narrow(dtype: DTypeLike) -> bool:
    """Whether products of `of_layer` leave in `dtype`: on GPUs and TPUs, or what CJEPA_PRODUCTS says. Never in float32.

    A CPU is faster with float32 results. Raises: ConfigError for another value than wide, narrow or auto.
    """
    asked = switches.chosen(switches.PRODUCTS)
    return jnp.dtype(dtype) != jnp.float32 and (asked == "narrow" or asked == "auto" and jax.default_backend() != "cpu")


@jax.custom_vjp
def _biased(x, bias):
    """x + bias in x's type. The bias's gradient is summed in float32, which plain differentiation would not do."""
    return x + bias.astype(x.dtype)


def _biased_forward(x, bias):
    return _biased(x, bias), jnp.zeros_like(bias)


def _biased_backward(like, gradient):
    axes = tuple(range(gradient.ndim - like.ndim))
    return gradient, gradient.astype(jnp.float32).sum(axes).astype(like.dtype)


_biased.defvjp(_biased_forward, _biased_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rounded(spec, dtype, x, kernel):
    """The product in `dtype`. Each gradient leaves its product in the type of what it is the gradient of."""
    return _leaving(spec, dtype, x.astype(dtype), kernel.astype(dtype))


def _rounded_forward(spec, dtype, x, kernel):
    types = (jnp.zeros(0, x.dtype), jnp.zeros(0, kernel.dtype))
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    return _rounded(spec, dtype, x, kernel), (x, kernel, types)


def _rounded_backward(spec, dtype, saved, gradient):
    x, kernel, types = saved
    operands, out = spec.split("->")
    left, right = operands.split(",")
    gradient = gradient.astype(dtype)
    to_x = _leaving(f"{out},{right}->{left}", types[0].dtype, gradient, kernel)
    return to_x, _leaving(f"{left},{out}->{right}", types[1].dtype, x, gradient)


_rounded.defvjp(_rounded_forward, _rounded_backward)


def _leaving(spec, result, a, b):
    return jnp.einsum(spec, a, b, preferred_element_type=result)


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
