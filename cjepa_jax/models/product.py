"""Matrix products in a narrow type, accumulated in float32, forwards and backwards."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cjepa_jax.types import Array


def product(spec: str, a: Array, b: Array, dtype: DTypeLike) -> Array:
    """`einsum(spec, a, b)` with both operands and, in the gradient, the cotangent in `dtype`; float32 out.

    Plain differentiation would multiply a float32 cotangent with a bfloat16 operand, which no matrix unit does. On
    CPU, too, only bfloat16 x bfloat16 -> float32 reaches the fast units. `spec` has no index that is summed alone.
    """
    if jnp.dtype(dtype) == jnp.float32:
        return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)
    return _narrow(spec, dtype, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _narrow(spec, dtype, a, b):
    return jnp.einsum(spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


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
    to_a = jnp.einsum(f"{out},{right}->{left}", gradient, b, preferred_element_type=jnp.float32)
    to_b = jnp.einsum(f"{out},{left}->{right}", gradient, a, preferred_element_type=jnp.float32)
    return to_a.astype(a_type.dtype), to_b.astype(b_type.dtype)


_narrow.defvjp(_forward, _backward)
