"""Evaluation of representations. Modules here take functions (encode, predict) and arrays, never model classes."""
