"""Floating-point operations of a function, counted from its traced shapes."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.models import attention


def matmul_flops(function: Callable, *args: Any) -> int:
    """Multiply-adds x 2 of every matrix product and convolution that `function(*args)` runs, loops multiplied out.

    Nothing is computed, and `args` may be ShapeDtypeStructs. Elementwise work is small in comparison and not counted.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel, out_axis = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * (math.prod(kernel) // kernel[out_axis])
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(_count(inner) for inner in _inner(equation.params))
    return total


def _inner(params: dict) -> list:
    """The traced functions among an equation's parameters: loop bodies, jitted and rematerialised calls."""
    values = [item for value in params.values() for item in (value if isinstance(value, tuple | list) else [value])]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]


def step_flops(objective: Any, state: Any, batch: Any) -> int:
    """`matmul_flops` of a training step's loss and gradient. `state` and `batch` may be shapes only."""
    loss = functools.partial(objective.loss, key=jax.random.key(0), step=0)
    gradient = jax.value_and_grad(loss, has_aux=True)
    with attention.only("einsum"):  # a kernel's products cannot be counted from outside
        return matmul_flops(gradient, state.params, state.target, state.extra, batch)


def useful_step_flops(objective: Any, state: Any, batch: Any, context: np.ndarray) -> int:
    """`step_flops` if context rows held only context tokens: no padding, no products across scenes.

    Args:
      context: bool [B, N], the tokens that are context.
    A row of L tokens costs a L + b L^2, with the second term from attention. Counting rows of 1, 2 and 3 tokens gives a
    and b.
    """

    def cost(length: int) -> int:
        rows = jax.ShapeDtypeStruct((batch.rows.index.shape[0], 1, length), jnp.int32)
        rows = dataclasses.replace(batch.rows, index=rows, segment=rows)
        return step_flops(objective, state, dataclasses.replace(batch, rows=rows))

    shards = batch.rows.index.shape[0]
    one, two, three = (cost(length) for length in (1, 2, 3))
    square = (three - 2 * two + one) // (2 * shards)
    linear = (two - one) // shards - 3 * square
    counts = context.sum(1, dtype=np.int64)
    return int(one - shards * (linear + square) + linear * counts.sum() + square * (counts**2).sum())
