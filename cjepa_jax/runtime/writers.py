"""Writers of metrics: metrics.jsonl, TensorBoard, optionally wandb, and the progress line on the console."""

import importlib
import logging
import math
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from cjepa_jax.configuration import check as config_lib
from cjepa_jax.host import door, optional
from cjepa_jax.runtime.workdir import Workdir

log = logging.getLogger(__name__)

Writer = Callable[[int, Mapping[str, Any]], None]
"""Called with a step and its metrics."""


class Writers:
    """Passes each step's metrics to every writer of the config.

    Args:
      workdir: the entered run folder. Its metrics.jsonl is always written.
      config: `log.tensorboard` and `log.wandb` say what else is.
      step: the step that the run continues from. TensorBoard hides older values beyond it.
      active: whether this is the process that writes. Writers of other processes do nothing.
    Raises:
      ConfigError: wandb is requested but not installed.
    """

    def __init__(self, workdir: Workdir, config: Mapping[str, Any], step: int = 0, active: bool = True):
        self._workdir, self._active = workdir, active
        self._board = self._wandb = None
        if not active:
            return
        if config["log"]["wandb"]:
            self._wandb = _start_wandb(workdir, config)
        if config["log"]["tensorboard"]:
            # Also from step 0, because a run that was killed before its first checkpoint may have left curves.
            suffix = f".{step}"  # files are named by the second, which may be the same for two starts
            writer = importlib.import_module("tensorboardX").SummaryWriter  # late: it imports torch, if installed
            self._board = writer(str(door.folder(workdir.path, "tb")), purge_step=step + 1, filename_suffix=suffix)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step: numbers or 0-d arrays by name. Text goes to metrics.jsonl only."""
        if not self._active:
            return
        self._workdir.append_metrics({"step": step, **metrics})
        numbers = {key: float(value) for key, value in metrics.items() if not isinstance(value, str)}
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(key, value, step)
            self._board.flush()
        if self._wandb is not None:
            self._try_wandb(lambda run: run.log(numbers, step=step))

    def close(self) -> None:
        """Flushes and closes every writer."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._try_wandb(lambda run: run.finish())

    def _try_wandb(self, call: Callable[[Any], None]) -> None:
        try:
            call(self._wandb)
        except Exception as error:  # a service that fails must not end the training
            log.warning("wandb failed and is left out from here on: %s", error)
            self._wandb = None


def _start_wandb(workdir: Workdir, config: Mapping[str, Any]) -> Any:
    """A wandb run that a resumed training continues. None, with a warning, if wandb cannot start."""
    wandb: Any = optional.need("wandb", "wandb", "log.wandb = True")
    name = workdir.path.name
    door.below(workdir.path, "wandb")
    try:
        return wandb.init(
            project="cjepa_jax",
            name=name,
            id=f"{name}-{zlib.crc32(str(workdir.path).encode()):08x}",
            dir=str(workdir.path),
            config=config_lib.resolve(config),
            resume="allow",
        )
    except Exception as error:  # a service that fails must not end the training
        log.warning("wandb failed and is left out: %s", error)
        return None


class Console:
    """The progress on the console: on a terminal one line that is rewritten in place, otherwise one line per call.

    Args:
      stream: stdout if None.
      active: whether anything is shown. Of several processes only one is active.
    """

    def __init__(self, stream: TextIO | None = None, active: bool = True):
        self._stream = (stream or sys.stdout) if active else open(os.devnull, "w")
        self._rewrites = self._stream.isatty()
        self._open = False

    def progress(self, line: str) -> None:
        """Shows a line that the next progress line may replace."""
        self._write(f"\r\033[K{line}" if self._rewrites else f"{line}\n")
        self._open = self._rewrites

    def print(self, line: str) -> None:
        """Prints a line that stays."""
        self._write(f"\n{line}\n" if self._open else f"{line}\n")
        self._open = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:  # its reader is gone, and so is that of buffered output. The run continues
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def format_progress(step: int, total: int, metrics: Mapping[str, Any]) -> str:
    """The progress line, here with all its parts:

        step 120/1000  loss 5.123 (prediction 4.9 causal 0.31 sigreg 1.9)  412 scenes/s  data-wait 3 %  ETA 2:31
        eff. rank 41.2  skipped 1

    (on one line). Missing metrics are left out. The losses' floors are not shown.
    """
    parts = [f"step {step}/{total}"]
    if "loss" in metrics:
        terms = [key for key in metrics if key.startswith("loss/") and not key.endswith("_floor")]
        inner = " ".join(f"{key.removeprefix('loss/')} {_short(metrics[key])}" for key in terms)
        parts.append(f"loss {float(metrics['loss']):.3f}" + (f" ({inner})" if inner else ""))
    shown: dict[str, Callable[[float], str]] = {
        "scenes_per_s": lambda value: f"{_short(value)} scenes/s",
        "data_wait": lambda value: f"data-wait {100 * value:.0f} %",
        "eta_s": lambda value: f"ETA {format_seconds(value)}",
        "rankme": lambda value: f"eff. rank {value:.1f}",
    }
    parts += [text(float(metrics[key])) for key, text in shown.items() if key in metrics]
    if metrics.get("skipped_total"):
        parts.append(f"skipped {int(metrics['skipped_total'])}")
    return "  ".join(parts)


def format_seconds(seconds: float) -> str:
    """2:31, or 1:02:31 from an hour on. "?" if it is not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(value: Any) -> str:
    """Two significant digits, or all integer digits of a larger number: 0.031, 4.9, 412."""
    value = float(value)
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"
