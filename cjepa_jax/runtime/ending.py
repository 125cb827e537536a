"""The end of a command: its exit code, and one line for a problem.

A problem of the command line, a file or the machine is a CjepaError without a traceback. Any other error is a bug in
the program.
"""

import argparse
import contextlib
import errno
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from cjepa_jax.errors import CjepaError, ConfigError, StorageError, one_line
from cjepa_jax.host import door, paths
from cjepa_jax.runtime.workdir import entered

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
FULL_TEXT = re.compile("No space left|File too large|Disk quota|Read-only file system|os_error_code='(27|28|30|122)'")
NO_MEMORY = re.compile("Out of memory|out of memory|Unable to allocate|bad_alloc")


def guard(work: Callable[[], int | None]) -> int:
    """Calls `work` and returns the process's exit code: the result of `work` (None: 0), or the code of the problem.

    A problem is one line on stderr, "error: ...". Only a bug in the program, or --log=debug, prints a traceback.
    """
    for name in ("stdout", "stderr"):  # None if the shell has closed them
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    try:
        return work() or 0
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        known = error if isinstance(error, CjepaError) else known_error(error)
        if known is None or logging.getLogger().isEnabledFor(logging.DEBUG) or "--log=debug" in sys.argv:
            logging.getLogger().exception("the traceback")
        if known is None:
            return 1
        print(f"error: {line_of(known)}", file=sys.stderr)
        return known.exit_code


class Parser(argparse.ArgumentParser):
    """For commands without a config file: a wrong command line is a ConfigError, one line, as in all commands."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(paths.shown(message, 500))


def path_argument(text: str) -> pathlib.Path:
    """The `type` of an argument of a Parser that names a file or a folder."""
    try:
        return paths.given(text, "")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).lstrip("= ")) from error


def known_error(error: Exception) -> CjepaError | None:
    """Converts an error of the machine or of a path to one of ours. None for a bug in the program."""
    if storage := storage_error(error):
        return storage
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return ConfigError(f"not enough memory: {paths.shown(line_of(error), 300)}")
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        # The path is the user's, or next to one: too long, not a folder, not readable or not writable.
        return ConfigError(f"{paths.shown(os.fsdecode(error.filename))}: {error.strerror}")
    if isinstance(error, FileNotFoundError) and not _is_somewhere():
        return ConfigError("the working directory has been deleted: change into another one")
    if isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError, ValueError):  # output at Python's exit has no reader
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ConfigError("whoever read the output has closed it")
    return None


def _is_somewhere() -> bool:
    """Whether there is still a working directory."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def storage_error(error: BaseException | None) -> StorageError | None:
    """A StorageError if `error`, or its cause, says that nothing more can be written. Otherwise None.

    Orbax and XLA wrap the system's error in other errors, so their text is searched too. The file system is named.
    """
    while error is not None:
        full = isinstance(error, OSError) and (error.errno in FULL or paths.is_gone(error))
        if full or FULL_TEXT.search(str(error)):
            where = paths.blamed(error, entered())
            return StorageError(f"cannot write: {line_of(error)}" + (f"; {where}" if where else ""))
        error = error.__cause__ or error.__context__
    return None


def line_of(error: BaseException) -> str:
    """The error's text on one line, without the traceback and the list of keys that ml_collections puts into it."""
    if isinstance(error, SyntaxError):
        return f"syntax error in line {error.lineno}: {error.msg}"
    text = door.named(str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error))
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1]
    if text[:1] in ("'", '"') and text[:1] == text[-1:]:  # ml_collections raises the repr of its message
        text = text[1:-1].replace("\\n", "\n")
    text = re.sub(r' Other fields present: ".*?"(?=\n|$)', "", text, flags=re.S)
    return one_line(text) or type(error).__name__
