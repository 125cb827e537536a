"""The prediction losses that a config can name. No JAX, so that a config is checked before JAX starts."""

LOSSES = {"smooth_l1": "smooth_l1", "elementwise": "smooth_l1_elementwise", "l1": "l1", "mse": "mse"}
"""`objective.prediction_loss` -> the name of the function in cjepa_jax/losses.py, which training calls."""
