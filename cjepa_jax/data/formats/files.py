"""Files of unknown origin: names that stay inside their folder, and checked JSON."""

import json
import os
import re
from pathlib import Path
from typing import Any

from cjepa_jax.errors import DataError
from cjepa_jax.host import door

MOST_NAME, MOST_PATH = 255, 4095  # bytes of a name and of a path on Linux, beyond which system calls raise
BREAKS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")  # not allowed in a name, because they would break an error's line


def is_name(name: Any) -> bool:
    """Whether this text can be a file's name or relative path, on one line."""
    if not isinstance(name, str) or not name or BREAKS.search(name):
        return False
    try:
        return all(len(part) <= MOST_NAME for part in os.fsencode(name).split(b"/"))
    except UnicodeError:
        return False


def inside(root: Path, name: str) -> Path:
    """root / name, for a name from a JSON file, an archive or a list.

    Raises DataError for an invalid name (`is_name`), a path that is too long, and a name that is absolute or leads out
    of `root`, by ".." or by a symbolic link.
    """
    home = os.path.realpath(root)
    if not is_name(name) or len(os.fsencode(os.path.join(home, name))) > MOST_PATH:
        raise DataError(f"{root}: {str(name)[:80]!r} is not a file name")
    if os.path.isabs(name) or not os.path.realpath(os.path.join(home, name)).startswith(os.path.join(home, "")):
        named = os.path.isabs(name) or ".." in Path(name).parts
        hint = "names must be relative to it and in it" if named else "put the file itself instead of the link"
        raise DataError(f"{root}: {name[:80]!r} leads out of this folder: {hint}")
    return Path(root) / name


def contents(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a file. Raises DataError, naming it, if it is missing, no regular file or over the limit."""
    try:
        return door.read(path, limit_bytes, links=True)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def read_json(path: Path, limit_bytes: int = 1 << 30) -> Any:
    """The content of a JSON file. Raises DataError, naming it, if it is missing, over the limit or not JSON."""
    data = contents(path, limit_bytes)
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON at line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not JSON: byte {error.start} is not text") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON that can be read: {error}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not JSON that can be read: too deeply nested") from error
