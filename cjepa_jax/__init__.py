"""Causal-JEPA and the JEPA family in JAX/Flax. Importing this package imports nothing heavy.

import cjepa_jax

model = cjepa_jax.load("runs/tiny")  # docs/API.md
"""

__version__ = "0.2.0"
__all__ = ["load"]


def __getattr__(name: str) -> object:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return __import__(f"{__name__}.api", fromlist=["load"]).load
