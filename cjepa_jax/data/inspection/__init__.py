"""What `python -m cjepa_jax.data.inspect` finds in a source: a row for each scene, and what the rows say together."""
