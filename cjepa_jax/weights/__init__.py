"""Weights in and out: the names and files of PyTorch code of the JEPA family. NumPy, no JAX."""
