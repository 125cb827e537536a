"""The machine: files opened safely, paths that users type, memory, and time without suspensions. No JAX."""
