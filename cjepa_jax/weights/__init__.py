"""Import and export of weights: names and files of PyTorch code of the JEPA family. NumPy, no JAX."""
