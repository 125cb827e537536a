"""Trained weights that come with the package, as exports: one folder for each name."""

import importlib.resources
import os
import pathlib

HERE = pathlib.Path(str(importlib.resources.files("cjepa_jax.weights.shipped")))


def names() -> list[str]:
    """The names, such as "tiny"."""
    return sorted(path.parent.name for path in HERE.glob("*/model.safetensors"))


def find(path: str | os.PathLike) -> str | os.PathLike:
    """The folder of shipped weights for one of their names, unless a file or folder has this name. Every other path
    is returned unchanged."""
    return HERE / path if os.fspath(path) in names() and not os.path.lexists(path) else path
