"""The errors that end a run: each is one clear line for the user and an exit code for the shell."""

import difflib
from collections.abc import Iterable


class CjepaError(Exception):
    """Base class. `exit_code` is what the process returns when the error ends it."""

    exit_code = 1


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
"""What the process returns when a signal stopped it: everything is saved, the same command goes on."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The text "; did you mean 'x'?" for the choice nearest to `name`, or "" when there is nothing to choose from."""

    def likeness(choice: str) -> float:
        match = difflib.SequenceMatcher(None, name.lower(), choice.lower())
        return match.ratio() + match.quick_ratio()  # quick_ratio ignores order: it settles swapped letters

    nearest = max(sorted(choices), key=likeness, default=None)
    return f"; did you mean {nearest!r}?" if nearest else ""
