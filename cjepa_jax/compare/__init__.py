"""The parts of python -m cjepa_jax.compare."""
