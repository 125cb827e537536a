"""Which tokens to hide: pure NumPy functions (rng, object_patches, object_valid, ..., grid) -> (masked, removed)."""
