"""Measurements during training: the online probe, the collapse alarm, and custom monitors (base.py)."""
