"""What the flag --checkpoint of this package's commands names, and the objective of a run."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from cjepa_jax import optim, train_step
from cjepa_jax.configuration import build
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.host import door
from cjepa_jax.loading import pretrained
from cjepa_jax.runtime import run_manifest
from cjepa_jax.runtime.workdir import run_folder
from cjepa_jax.types import Batch

WEIGHTS = (".json", ".safetensors", ".bin")  # files of transformers' folders


def located(checkpoint: str, flag: str = "--checkpoint") -> tuple[Path, Path | None]:
    """(the path, the folder of the run that it names or None). Raises ConfigError for a path that is not there, which
    names the flag."""
    try:
        path = Path(checkpoint).expanduser()
        folder, there = run_folder(path), path.exists()
    except (OSError, RuntimeError) as error:  # too long, not readable, or an unknown home
        raise ConfigError(f"{flag}={checkpoint}: {getattr(error, 'strerror', None) or error}") from error
    if not there:
        raise ConfigError(f"{flag}={checkpoint}: there is no such file or folder")
    return path, folder


def digest(path: Path, folder: Path | None) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the files with what `located` has found: a file, the weights
    and the config of a folder, or a run's config and its newest checkpoint. Raises OSError."""
    if folder:
        newest = max(door.steps(folder / "checkpoints"), default="")
        files = [folder / "config.json", *sorted((folder / "checkpoints" / str(newest)).rglob("*"))]
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in WEIGHTS)
    else:
        files = [path]
    sums = {str(file.relative_to(folder or path)): run_manifest.sha256(file) for file in files if file.is_file()}
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]


@contextlib.contextmanager
def unchanged(*checkpoints: str, flags: tuple[str, ...] = ("--checkpoint", "--backbone")) -> Iterator[list[str]]:
    """The `digest` of each of these values of `flags` ("" for an empty one), for a block that loads them. Raises as
    `located`, and CheckpointError if they have changed at its end, as the run of a training that saves does."""

    def digests() -> list[str]:
        pairs = zip(checkpoints, flags, strict=False)
        return [digest(*located(each, flag)) if each else "" for each, flag in pairs]

    before = digests()
    yield before
    if digests() != before:
        raise CheckpointError(f"{checkpoints[0]}: has changed while it was loaded. Repeat the command")


def built(config: ConfigDict) -> Any:
    """The objective of a run's config, for float32."""
    return build.build(config.objective, "objective", steps=1, dtype="float32")


def restored(folder: Path, config: ConfigDict, objective: Any, batch: Batch) -> tuple[int, Any]:
    """(step, state) of a run's newest checkpoint. batch: the shapes of a scene. The run's data are not needed.

    Raises CheckpointError for a run without a readable checkpoint.
    """
    init = functools.partial(train_step.init_state, objective, optim.make(config.optim), 0)
    return pretrained.restore(folder, jax.eval_shape(init, batch))
