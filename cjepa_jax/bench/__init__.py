"""Measures the training step: `python -m cjepa_jax.bench`."""
