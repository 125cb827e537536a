"""Which tokens to hide: pure NumPy functions (rng, object_patches, object_valid, ..., grid) -> (masked, removed), or
(masked, removed, dropped) where some tokens are neither seen nor predicted. Always so many arrays from one function."""
