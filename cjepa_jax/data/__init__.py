"""Scenes in, batches out: sources, transforms, padding and the Grain pipeline. NumPy, no JAX."""
