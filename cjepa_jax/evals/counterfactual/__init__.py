"""Counterfactual questions: arrays, readouts, heads and pictures."""
