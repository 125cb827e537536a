"""Where the flag --checkpoint of this package's commands points."""

from pathlib import Path

from cjepa_jax.errors import ConfigError
from cjepa_jax.runtime.workdir import run_folder


def located(checkpoint: str) -> tuple[Path, Path | None]:
    """(the path, the folder of the run that it names or None). Raises ConfigError for a path that is not there."""
    try:
        path = Path(checkpoint).expanduser()
        folder, there = run_folder(path), path.exists()
    except (OSError, RuntimeError) as error:  # too long, not readable, or an unknown home
        raise ConfigError(f"--checkpoint={checkpoint}: {getattr(error, 'strerror', None) or error}") from error
    if not there:
        raise ConfigError(f"--checkpoint={checkpoint}: there is no such file or folder")
    return path, folder
