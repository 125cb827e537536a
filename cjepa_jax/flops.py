"""Floating-point operations of a function, counted from its traced shapes."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax


def matmul_flops(function: Callable, *args: Any) -> int:
    """Multiply-adds x 2 of every matrix product and convolution that `function(*args)` runs, loops multiplied out.

    Nothing is computed; `args` may be ShapeDtypeStructs. Elementwise work, which is small beside it, is not counted.
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
    """`matmul_flops` of a training step's loss and gradient; `state` and `batch` may be shapes only."""
    loss = functools.partial(objective.loss, key=jax.random.key(0), step=0)
    gradient = jax.value_and_grad(loss, has_aux=True)
    return matmul_flops(gradient, state.params, state.target, state.extra, batch)
