"""The encoder as an ONNX graph: float32 pixels in 0..255 in, tokens out, any number of scenes."""

import contextlib
import importlib.util
import logging
import os
import pathlib
import sys
import warnings
from collections.abc import Sequence

from cjepa_jax.errors import ConfigError
from cjepa_jax.export.bundle import GRAPH

MOST = 2**30  # bytes of weights inside the file (the format's limit is twice as many)
PACKAGES = ("torch", "onnx", "onnxscript")


def require() -> None:
    """Raises ConfigError, one line, if a package is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--onnx: needs {', '.join(missing)}: pip install 'cjepa_jax[onnx]'")


def write(folder: pathlib.Path, shape: Sequence[int]) -> pathlib.Path:
    """encoder.onnx (with large weights in a separate file) of the bundle in `folder`, for scenes of `shape`: (H, W, C),
    or (T, H, W, C) for clips.

    Input "video" [batch, *shape] float32, output "tokens" [batch, N, D] float32. Raises ConfigError as `require`.
    """
    require()
    import torch

    from cjepa_jax.export.modeling_cjepa import CausalJEPA

    model = CausalJEPA.from_pretrained(folder)
    model.target = model.predictor = None
    file, size = folder / GRAPH, sum(parameter.nbytes for parameter in model.parameters())
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            model,
            (torch.zeros(2, *shape),),
            str(file),
            input_names=["video"],
            output_names=["tokens"],
            dynamic_shapes={"video": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=size > MOST,
            verbose=False,
        )
    return file


@contextlib.contextmanager
def _quiet():
    """Hides the exporter's progress in print, log and warnings. Only its errors matter."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            sys.stdout.flush()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
