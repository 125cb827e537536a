"""Trained models as folders that plain PyTorch reads."""
