"""Which tokens to hide: pure NumPy functions (rng, object_patches, object_valid, ..., grid) -> (masked, removed), or
(masked, removed, dropped) if some tokens are neither seen nor predicted. One function always returns the same number of
arrays."""
