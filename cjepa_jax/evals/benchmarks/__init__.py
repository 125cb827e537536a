"""Protocols of published benchmarks: PHYRE, CoPhy, CRAFT, CLEVRER."""
