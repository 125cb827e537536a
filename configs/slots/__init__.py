"""Causal-JEPA on object slots: docs/SLOTS.md."""
