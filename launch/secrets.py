"""Secrets: NAME=value lines in a private file. Values go into processes' environments and are never shown."""

import os
import pathlib
import re

from cjepa_jax.errors import ConfigError

from .job import VARIABLE


def read(path: str) -> dict[str, str]:
    """The file's variables. Values are taken literally, including quotes. Blank lines and # lines are skipped.

    Raises ConfigError if other users may read the file, or for a line of another form. The line is not shown. Lines
    with DOS line ends are refused, because bash would keep the \\r.
    """
    try:
        mode = os.stat(path).st_mode
        lines = pathlib.Path(path).read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--secrets={path}: cannot be read ({type(error).__name__})") from error
    if mode & 0o077:
        raise ConfigError(f"--secrets={path}: others may read it (mode {mode & 0o777:o}): chmod 600")
    found = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        if line and not line.startswith("#"):
            if not equals or not VARIABLE.fullmatch(name) or re.search("[\r\0]", value):
                raise ConfigError(f"--secrets={path}: line {number} is not NAME=value, or has a \\r or NUL in it")
            found[name] = value
    return found


def exporting(file: str) -> list[str]:
    """Lines of bash that export a file's variables. `file` is quoted for bash. The values are data: nothing is
    expanded."""
    return [
        'while IFS= read -r line || [ -n "$line" ]; do',
        '  case $line in [A-Za-z_]*=*) export "$line" ;; esac',
        f"done < {file}",
    ]
