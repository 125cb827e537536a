"""Functions compiled as wholes. Called as they stand, each of their operations is a separate program for each shape,
which is most of the time that such a test takes."""

import inspect
import types

import jax


def whole(module: types.ModuleType, *static: str) -> types.SimpleNamespace:
    """A module's own public functions, each under jax.jit; `static` names arguments that are Python values."""
    found = {}
    for name, function in vars(module).items():
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
            known = [argument for argument in static if argument in inspect.signature(function).parameters]
            found[name] = jax.jit(function, static_argnames=known)
    return types.SimpleNamespace(**found)
