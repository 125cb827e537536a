"""Causal-JEPA and the JEPA family in JAX/Flax. Importing this package imports nothing heavy."""

__version__ = "0.1.0"
