"""What a folder of materialised scenes says about itself: which scenes it holds, in which files, with which checksums.

    DIR/manifest-SPLIT.json                         {"fingerprint", "spec", "files"}; files: once all are there
    DIR/scenes-SPLIT.array_record-00000-of-00040    scenes [0, shard), and so on
    DIR/.parts-SPLIT/                               during a build: finished files' entries, unfinished files
    DIR/features.json, DIR/dataset_info.json        for tfds.builder_from_directory(DIR)

`spec` is plain JSON and decides every byte of the files; `fingerprint` is its SHA-256.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from cjepa_jax.data.files import inside, read_json
from cjepa_jax.errors import ConfigError, DataError

FORMAT = 1
PER_SPLIT = ("split", "count", "shard")  # what splits of one folder may differ in


def path_of(root: Path, split: str) -> Path:
    """The manifest of a split. Raises DataError for a name that is none."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", split):
        raise DataError(f"{root}: {split[:80]!r} is no name of a split")
    return Path(root) / f"manifest-{split}.json"


def fingerprint(spec: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `spec`."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def text(spec: dict[str, Any], files: list[dict]) -> str:
    """The manifest as it is written: without files it is a claim to the split."""
    return json.dumps({"fingerprint": fingerprint(spec), "spec": spec, "files": files}, indent=1, sort_keys=True) + "\n"


def read(root: Path, split: str) -> dict[str, Any]:
    """The manifest of a split, its shape checked. Raises DataError, naming the file."""
    file = path_of(root, split)
    content = read_json(file)
    try:
        spec, files = content["spec"], content["files"]
        good = content["fingerprint"] == fingerprint(spec) and spec["format"] == FORMAT and spec["split"] == split
        names = [(shard_name(spec, shard), len(scenes_of(spec, shard))) for shard in range(shard_count(spec))]
        listed = [(entry["name"], entry["scenes"]) for entry in files]
        good = good and (not files or names == listed) and all(entry["bytes"] >= 0 for entry in files)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a manifest of this version ({type(error).__name__}: {error})") from error
    if not good:
        raise DataError(f"{file}: its entries contradict each other, or it is of another version than {FORMAT}")
    return content


def parts_of(root: Path, split: str) -> Path:
    """The folder of what an unfinished build of a split knows."""
    return Path(root) / f".parts-{split}"


def splits(root: Path) -> list[str]:
    """The splits that have a manifest, by name."""
    return sorted(file.name[len("manifest-") : -len(".json")] for file in Path(root).glob("manifest-*.json"))


def shard_count(spec: dict[str, Any]) -> int:
    """How many files a split has."""
    return -(-spec["count"] // spec["shard"])


def scenes_of(spec: dict[str, Any], shard: int) -> range:
    """The scenes of file `shard`."""
    return range(shard * spec["shard"], min((shard + 1) * spec["shard"], spec["count"]))


def shard_name(spec: dict[str, Any], shard: int) -> str:
    """The file's name, as TFDS names it."""
    return f"scenes-{spec['split']}.array_record-{shard:05d}-of-{shard_count(spec):05d}"


def differences(there: dict[str, Any], here: dict[str, Any], ignore: tuple[str, ...] = ()) -> list[str]:
    """ "options.boxes is 0.4 there and 0.2 here" for each field that differs, in the order of `here`."""
    left, right = (dict(_flatten(spec)) for spec in (there, here))
    return [
        f"{key} is {json.dumps(left.get(key))} there and {json.dumps(right.get(key))} here"
        for key in [*right, *(key for key in left if key not in right)]
        if left.get(key) != right.get(key) and key.split(".")[0] not in ignore
    ]


def check_claim(root: Path, spec: dict[str, Any]) -> None:
    """Raises ConfigError, naming the field, if `root` holds scenes that `spec` would not have made."""
    for split in sorted(splits(root), key=lambda split: split != spec["split"]):
        same = split == spec["split"]
        changed = differences(read(root, split)["spec"], spec, () if same else PER_SPLIT)
        if changed:
            whose = "this split" if same else f"its split {split}"
            raise ConfigError(f"--out={root}: {whose} was made otherwise: {'; '.join(changed[:3])}; use another folder")


def check_sizes(root: Path, split: str) -> dict[str, Any]:
    """The manifest of a finished split whose files are all there, as long as they were.

    Raises DataError, naming the file, otherwise.
    """
    content = read(root, split)
    if not content["files"]:
        done, count = len(parts(root, content["spec"])), shard_count(content["spec"])
        raise DataError(f"{root}: split {split} is unfinished, {done} of {count} files: run its build command again")
    for entry in content["files"]:
        file = inside(root, entry["name"])
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes, was written with {entry['bytes']}"
            raise DataError(f"{file}: {found}: run the build command again, which writes it anew")
    return content


def parts(root: Path, spec: dict[str, Any]) -> dict[int, dict]:
    """Entries by number of the files that an unfinished build has written, and that are still as long."""
    found = {}
    for shard in range(shard_count(spec)):
        name = shard_name(spec, shard)
        file = parts_of(root, spec["split"]) / f"{name}.json"
        if file.exists() and (root / name).is_file():
            entry = read_json(file)
            if entry["bytes"] == (root / name).stat().st_size and entry["fingerprint"] == fingerprint(spec):
                found[shard] = {key: entry[key] for key in ("name", "scenes", "bytes", "sha256")}
    return found


def sha256(file: Path) -> str:
    """Checksum of a file. Raises DataError if it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: {os.strerror(error.errno)}") from error


def _flatten(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key in value for leaf in _flatten(value[key], f"{name}.{key}" if name else key)]
    return [(name, value)]
