"""Configs: rules per section, sizes, and from "module:Name" to objects. No JAX."""
