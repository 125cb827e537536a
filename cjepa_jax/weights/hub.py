"""Weights on the Hugging Face Hub: hf://OWNER/NAME@REVISION, through huggingface_hub (the extra "hub").

An address is read from huggingface_hub's cache. Nothing is downloaded unless the environment has HF_HUB_OFFLINE=0. A
branch or tag is resolved to its commit, and the weights carry the address with the full commit id. What comes from the
hub is data: it is read by weights.read, and nothing in it is run.
"""

import dataclasses
import functools
import hashlib
import os
import re
from pathlib import Path, PurePath
from typing import Any

from cjepa_jax.errors import CheckpointError, ConfigError, one_line
from cjepa_jax.host import optional
from cjepa_jax.weights import files, safety
from cjepa_jax.weights import read as read_lib
from cjepa_jax.weights.read import Pretrained, Reading
from cjepa_jax.weights.safety import short

SCHEME = "hf://"
NAME = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"
REVISION = r"[A-Za-z0-9][\w.+-]*(?:/[A-Za-z0-9][\w.+-]*)*"
ADDRESS = re.compile(rf"{SCHEME}({NAME})(?:@({REVISION}))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
MOST = 200  # letters of an address
DEFAULT = "main"
NEEDED = ["config.json", "*.safetensors", "*.safetensors.index.json"]  # of those that the commit has
MORE = ["*.safetensors.sha256", "preprocessor_config.json", "video_preprocessor_config.json", "README.md"]
PICKLED = [files.PICKLED, files.LEWM]
READ = [*NEEDED, *MORE, *PICKLED]
ONLINE = ("0", "OFF", "NO", "FALSE")  # values of HF_HUB_OFFLINE that allow the network
PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A commit of a repository, in the cache: its folder, and its address with the full commit id."""

    folder: Path
    address: str


def is_address(path: Any) -> bool:
    """Whether a path that a user gives is meant for the hub."""
    return isinstance(path, str) and path.startswith(SCHEME)


def public(source: str) -> str:
    """A source for others to read: the last name of a path, without the folders of this disk, or a whole address."""
    return source if ADDRESS.fullmatch(source[: MOST + 1]) else PurePath(source).name


def parse(address: str) -> tuple[str, str]:
    """(OWNER/NAME, revision) of an address, "main" without one. Raises ConfigError if it has another form."""
    found = ADDRESS.fullmatch(address) if len(address) <= MOST else None
    if not found or ".." in address or "--" in found[1]:
        text = "must be hf://OWNER/NAME@REVISION, where REVISION is a full commit id, a branch or a tag"
        raise ConfigError(f"{short(address)}: {text}")
    return found[1], found[2] or DEFAULT


def snapshot(address: str) -> Snapshot:
    """The files of an address, every one of them checked against the digest by which the cache stores it.

    Raises: ConfigError for an invalid address, without huggingface_hub, and if the revision is not in the cache (with
      HF_HUB_OFFLINE=0: not on the hub). CheckpointError for a file that is not what was downloaded.
    """
    name, revision = parse(address)
    library = _library(address)
    allowed = os.environ.get("HF_HUB_OFFLINE", "").upper() in ONLINE and not library.is_offline_mode()
    return _resolved(name, revision, library.constants.HF_HUB_CACHE, allowed)


def read(
    address: str,
    part: str = "",
    digest: str = "",
    reading: Reading = Reading(),  # noqa: B008 (immutable)
) -> Pretrained:
    """The weights at an address: an export of ours, or a folder of transformers or timm. `source` is the address with
    the full commit id.

    Args:
      part, reading: see weights.read.
      digest: of the weights (Pretrained.digest), if it is known.
    Raises: as `snapshot` and weights.read. CheckpointError if the digest is another.
    """
    found = snapshot(address)
    weights = read_lib.read(found.folder, part, **reading._asdict())
    if digest and weights.digest != digest:
        raise CheckpointError(f"{found.address}: its digest is {weights.digest}, not the recorded {digest}")
    return dataclasses.replace(weights, source=found.address)


@functools.cache
def _resolved(name: str, revision: str, cache: str, allowed: bool) -> Snapshot:
    """See `snapshot`. In one process, a branch is resolved once."""
    address = f"{SCHEME}{name}@{revision}"
    library = _library(address)
    errors = library.errors
    files_of = functools.partial(
        library.snapshot_download,
        name,
        revision=revision,
        cache_dir=cache,
        ignore_patterns=["*/*"],
        local_files_only=not allowed,
    )
    try:
        folder = Path(files_of(allow_patterns=[*NEEDED, *MORE] if allowed else NEEDED))
        if allowed and not any(folder.glob("*.safetensors")):
            files_of(allow_patterns=PICKLED)
    except errors.LocalEntryNotFoundError as error:
        if allowed:
            raise ConfigError(f"{address}: is not in {cache}, and the hub does not answer") from error
        fetch = f"`hf download {name} --revision {revision}` fetches it, or this command with HF_HUB_OFFLINE=0"
        raise ConfigError(f"{address}: is not, or not whole, in {cache}, and nothing is downloaded: {fetch}") from error
    except (errors.HTTPError, OSError, ValueError) as error:  # refused, not found, or the connection broke
        raise ConfigError(f"{address}: {_reason(error)}") from error
    if not COMMIT.fullmatch(folder.name):
        raise CheckpointError(f"{folder}: is not a commit's folder of Hugging Face's cache")
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.is_symlink() and any(file.match(pattern) for pattern in READ):
            _check(folder, file.name)
    return Snapshot(folder, f"{SCHEME}{name}@{folder.name}")


def _check(folder: Path, name: str) -> None:
    """The cache stores a file as blobs/DIGEST: SHA-256, or for small files that of Git. Raises CheckpointError if the
    contents have another."""
    digest = Path(os.path.realpath(folder / name)).name
    with safety.regular(files.member(folder, name)) as file:
        size = os.fstat(file.fileno()).st_size
        if re.fullmatch(r"[0-9a-f]{64}", digest):
            found = hashlib.sha256()
        elif COMMIT.fullmatch(digest):
            found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        else:
            return
        while piece := safety.contents(file, PIECE, folder / name):
            found.update(piece)
    if found.hexdigest() != digest:
        raise CheckpointError(f"{folder / name}: is damaged: its digest is not that under which the cache stores it")


def check_push(name: str) -> None:
    """Raises ConfigError if `push` could not begin: an invalid name, no huggingface_hub, or HF_HUB_OFFLINE=1."""
    setting = f"--push={name[:MOST]}"
    if not re.fullmatch(NAME, name, re.ASCII) or ".." in name or "--" in name:
        raise ConfigError(f"{setting}: must be OWNER/NAME")
    if _library(setting).is_offline_mode():
        raise ConfigError(f"{setting}: HF_HUB_OFFLINE is set, and a push needs the network")


def push(folder: Path, name: str, wanted: list[str]) -> str:
    """Uploads these files of a folder as one commit. A repository that is not there is made, and is private.

    Returns: the address with the full commit id. Raises: ConfigError naming the hub's reason. The folder stays.
    """
    library = _library(f"--push={name}")
    api = library.HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        made = api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=wanted, commit_message="Export by cjepa_jax"
        )
    except (library.errors.HTTPError, OSError, ValueError) as error:
        text = f"{_reason(error)}: the export is in {folder}, and `hf upload {name} {folder}` uploads it"
        raise ConfigError(f"--push={name}: {text}") from error
    return f"{SCHEME}{name}@{made.oid}"


def _reason(error: Exception) -> str:
    """The beginning of an error of the hub: its first line is often the status alone."""
    return (one_line(error) or type(error).__name__)[:300]


def _library(where: str) -> Any:
    """huggingface_hub. Raises ConfigError without it."""
    for part in ("constants", "errors"):
        optional.need(f"huggingface_hub.{part}", "hub", where)
    return optional.need("huggingface_hub", "hub", where)
