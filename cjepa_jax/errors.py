"""The errors that end a run. Each gives one clear line for the user and an exit code for the shell."""

import contextlib
import difflib
import pathlib
import re
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

ALIKE = 1.2  # of at most 2: least likeness of a name that is suggested
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")

MOST_LETTERS = 10_000  # of a line that may quote a file


def printable(text: Any) -> str:
    """A text on one line without control characters. Those could rewrite a terminal's screen or hide other text.

    Line ends, escapes, C0 and C1 controls, marks that change the writing direction and lone surrogates are shown as
    Python escape sequences: "\\n", "\\x1b", "\\u202e".
    """
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def one_line(text: Any, most: int = MOST_LETTERS) -> str:
    """The lines of a text joined by semicolons and made `printable`. At most `most` letters are kept."""
    line = printable("; ".join(line.strip() for line in str(text)[:most].splitlines() if line.strip()))
    return line if len(line) <= most and len(str(text)) <= most else f"{line[:most]}..."


class CjepaError(Exception):
    """Base class. Its text is one line without control characters, even where it quotes a file.

    `exit_code` is the exit code of a process that the error ends.
    """

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(CjepaError):
    """A flag, a config key or a run folder that cannot be used as asked."""

    exit_code = 2


class DataError(CjepaError):
    """A scene, file or data worker that is broken beyond the configured allowance."""

    exit_code = 3


class CheckpointError(CjepaError):
    """A checkpoint that is unreadable or belongs to another model."""

    exit_code = 4


class NumericsError(CjepaError):
    """Non-finite losses or gradients beyond the configured allowance."""

    exit_code = 5


class StorageError(CjepaError):
    """No space left, a quota, or a read-only file system."""

    exit_code = 6


class PeerError(CjepaError):
    """Another process of the run has died, or no step has finished for too long."""

    exit_code = 70


PREEMPTED = 75
"""Exit code of a process that a signal stopped. Everything is saved, and the same command resumes the run."""


def raised(error: BaseException, file: str | None = None) -> str:
    """An exception of the user's code on one line: type, text, file and line.

    file: the user's file, if it is known. The innermost line in this file is named, otherwise the innermost of all.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {one_line(error.msg)} ({pathlib.Path(error.filename).name}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    place = ([frame for frame in frames if frame.filename == file] or frames)[-1]
    kind = type(error).__name__
    text = error.args[0] if isinstance(error, KeyError) and error.args else error  # its own text is in quotes
    return f"{kind}: {one_line(text) or kind} ({pathlib.Path(place.filename).name}, line {place.lineno})"


@contextlib.contextmanager
def reporting(where: str, file: str | None = None) -> Iterator[None]:
    """Reports exceptions of the user's code, which can raise anything, as a ConfigError: "WHERE raised ...".

    This package's own errors pass unchanged. file: as for `raised`.
    """
    try:
        yield
    except CjepaError:
        raise
    except Exception as error:
        raise ConfigError(f"{where} raised {raised(error, file)}") from error


def described(value: Any) -> str:
    """A value for a message: the dtype and shape of an array, or else the type."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    return f"of type {type(value).__name__}"


def did_you_mean(name: str, choices: Iterable[str], least: float = ALIKE) -> str:
    """The text "; did you mean 'x'?" for the choice nearest to `name`, or "" if none is like it.

    least: likeness that a choice must have, from 0 to 2.
    """

    def likeness(choice: str) -> float:
        match = difflib.SequenceMatcher(None, name.lower(), choice.lower())
        return match.ratio() + match.quick_ratio()  # quick_ratio ignores order, so swapped letters cost little

    def one_letter(choice: str) -> bool:  # as in "l1" and "l2", which likeness ranks low because they are short
        return len(name) == len(choice) and sum(a != b for a, b in zip(name, choice, strict=True)) == 1

    nearest = max(sorted(choices), key=likeness, default=None)
    alike = nearest and (
        likeness(nearest) >= least or one_letter(nearest) or (name and name.lower() in nearest.lower())
    )
    return f"; did you mean {nearest!r}?" if alike else ""
