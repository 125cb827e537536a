"""Files that came from elsewhere: names that stay inside their folder, JSON that is what it says."""

import json
import os
from pathlib import Path
from typing import Any

from cjepa_jax.errors import DataError


def inside(root: Path, name: str) -> Path:
    """root / name, for a name out of a json, an archive or a list.

    Raises DataError for a name that is empty, absolute or leads out of `root`, by ".." or by a symbolic link.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{root}: {str(name)[:80]!r} is no file name")
    home = os.path.realpath(root)
    if os.path.isabs(name) or not os.path.realpath(os.path.join(home, name)).startswith(os.path.join(home, "")):
        raise DataError(f"{root}: {name[:80]!r} leads out of this folder")
    return Path(root) / name


def read_json(path: Path, limit_bytes: int = 1 << 30) -> Any:
    """The content of a JSON file. Raises DataError, naming it, if it is missing, over the limit or not JSON."""
    try:
        size = os.path.getsize(path)
        if size > limit_bytes:
            raise DataError(f"{path}: {size} bytes, at most {limit_bytes} are read")
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON at line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not JSON: byte {error.start} is no text") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON that can be read: {error}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not JSON that can be read: too deeply nested") from error
