"""The code that a job runs."""

import subprocess

from cjepa_jax.errors import ConfigError


def commit(root: str, allow_dirty: bool) -> str:
    """The commit that is checked out in `root`, followed by "+changes" if the tree differs from it.

    Raises ConfigError if it differs, or if there is no repository, unless `allow_dirty`.
    """
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        if allow_dirty:
            return "unknown"
        raise ConfigError(
            f"{root}: is not a git repository, so no one could say what ran. --allow-dirty launches it anyway"
        )
    changed = (_git(root, "status", "--porcelain") or "").splitlines()
    if changed and not allow_dirty:
        raise ConfigError(
            f"{len(changed)} files differ from the last commit, such as {changed[0][3:]}: commit them, or --allow-dirty"
        )
    return head.strip() + ("+changes" if changed else "")


def is_repository(root: str) -> bool:
    """Whether `root` is in a git repository with a commit."""
    return _git(root, "rev-parse", "HEAD") is not None


def archive(root: str, path: str) -> None:
    """Writes the commit of `root`, with changes of its files if there are any, as a tar file."""
    tree = (_git(root, "stash", "create") or "").strip() or "HEAD"  # only makes a commit object
    if _git(root, "archive", "--format=tar.gz", f"--output={path}", tree) is None:
        raise ConfigError(f"{root}: git could not archive {tree}")


def _git(root: str, *words: str) -> str | None:
    try:
        ended = subprocess.run(
            ["git", "--no-optional-locks", "-C", root, *words], capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        return None
    return None if ended.returncode else ended.stdout
