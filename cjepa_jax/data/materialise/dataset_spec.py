"""The manifest of a folder of materialised scenes: its scenes, files and checksums.

    DIR/manifest-SPLIT.json                         {"fingerprint", "spec", "files"}; files: once all are there
    DIR/scenes-SPLIT.array_record-00000-of-00040    scenes [0, shard), and so on
    DIR/.parts-SPLIT/                               during a build: finished files' entries, unfinished files
    DIR/features.json, DIR/dataset_info.json        for tfds.builder_from_directory(DIR)

`spec` is plain JSON and decides every byte of the files; `fingerprint` is its SHA-256.
"""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from cjepa_jax.data.formats.files import inside, read_json
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door

FORMAT = 2
PER_SPLIT = ("split", "count", "shard")  # fields in which the splits of one folder may differ
MOST_FILES = 10**5  # of a split: five digits in their names
MOST_NUMBERS = 2**33  # of one field of a scene
LIMITS = {"shard": (1, 10**6), "size": (1, 2**16), "frames": (1, 2**16), "seed": (0, float("inf"))}
ENTRY_BYTES = 10_000  # more than any entry needs
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?")
FIELD_TYPE = re.compile(r"bits|bool|u?int(8|16|32|64)|float(16|32|64)")
PART_NAME = re.compile(r"(probe|scenes-[a-z0-9_]+\.array_record-\d{5}-of-\d{5})\.[0-9a-z.]+")


def path_of(root: Path, split: str) -> Path:
    """The path of a split's manifest. Raises DataError for an invalid name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", split):
        raise DataError(f"{root}: {split[:80]!r} is not a name of a split")
    return Path(root) / f"manifest-{split}.json"


def fingerprint(spec: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `spec`."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def text(spec: dict[str, Any], files: list[dict]) -> str:
    """The text of a manifest. Without files it reserves the split."""
    return json.dumps({"fingerprint": fingerprint(spec), "spec": spec, "files": files}, indent=1, sort_keys=True) + "\n"


def read(root: Path, split: str) -> dict[str, Any]:
    """The checked manifest of a split. Raises DataError, naming the file."""
    file = path_of(root, split)
    content = read_json(file)
    try:
        _check(content, split)
    except ValueError as error:
        raise DataError(f"{file}: not a manifest that can be read: {error}") from error
    return content


def parts_of(root: Path, split: str) -> Path:
    """The folder with the state of an unfinished build of a split. Raises DataError if it is something else."""
    folder = Path(root) / f".parts-{split}"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DataError(f"{folder}: not the folder that a build makes for itself: remove it")
    return folder


def clear_parts(root: Path, split: str, entries: bool) -> None:
    """Deletes the unfinished files of a killed build; with `entries`, also the entries of finished files."""
    folder = parts_of(root, split)
    for left in folder.iterdir() if folder.exists() else ():
        ours = PART_NAME.fullmatch(left.name) and (left.is_symlink() or not left.is_dir())
        if ours and (entries or left.suffix != ".json"):
            left.unlink(missing_ok=True)  # a process of the killed build may be renaming it


def splits(root: Path) -> list[str]:
    """The splits that have a manifest, by name."""
    return sorted(file.name[len("manifest-") : -len(".json")] for file in Path(root).glob("manifest-*.json"))


def shard_count(spec: dict[str, Any]) -> int:
    """The number of files of a split."""
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
    """Raises ConfigError, naming the field, if `root` holds scenes that `spec` would not produce."""
    for split in sorted(splits(root), key=lambda split: split != spec["split"]):
        same = split == spec["split"]
        changed = differences(read(root, split)["spec"], spec, () if same else PER_SPLIT)
        if changed:
            whose = "this split" if same else f"its split {split}"
            raise ConfigError(
                f"--out={root}: {whose} was made with other settings: {'; '.join(changed[:3])}. Use another folder"
            )


def check_sizes(root: Path, split: str) -> dict[str, Any]:
    """The manifest of a finished split whose files all exist with the recorded sizes.

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
            raise DataError(f"{file}: {found}: run the build command again, which replaces it")
    return content


def parts(root: Path, spec: dict[str, Any]) -> dict[int, dict]:
    """Entries, by number, of the files that an unfinished build has written and whose sizes still match."""
    found, mark = {}, fingerprint(spec)
    for shard in range(shard_count(spec)):
        name = shard_name(spec, shard)
        file = Path(root) / name
        if not file.is_file() or file.is_symlink():
            continue
        try:
            entry = read_json(parts_of(root, spec["split"]) / f"{name}.json", ENTRY_BYTES)
            _check_entry(entry, spec, shard)
        except (DataError, ValueError):
            continue  # missing or damaged: this file is written again
        if entry["bytes"] == file.stat().st_size and entry.get("fingerprint") == mark:
            found[shard] = {key: entry[key] for key in ("name", "scenes", "bytes", "sha256")}
    return found


def sha256(file: Path) -> str:
    """Checksum of a file. Raises DataError if it cannot be read."""
    try:
        with door.regular(file, links=True) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error


def _flatten(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key in value for leaf in _flatten(value[key], f"{name}.{key}" if name else key)]
    return [(name, value)]


def check_spec(spec: Any) -> None:
    """Raises ValueError, naming the field, for an invalid spec."""
    _want(isinstance(spec, dict), "spec", spec, "an object")
    _want(spec.get("format") == FORMAT, "format", spec.get("format"), f"{FORMAT}: build into another folder")
    for name, (least, most) in LIMITS.items():
        value = spec.get(name)
        _want(type(value) is int and least <= value <= most, name, value, f"an integer from {least} to {most}")
    most, count = MOST_FILES * spec["shard"], spec.get("count")
    _want(type(count) is int and 1 <= count <= most, "count", count, f"from 1 to {most}: at most {MOST_FILES} files")
    for name in ("world", "split", "code"):
        _want(isinstance(spec.get(name), str), name, spec.get(name), "a text")
    for name in ("options", "versions", "fields"):
        _want(isinstance(spec.get(name), dict), name, spec.get(name), "an object")
    _want(all(isinstance(version, str) for version in spec["versions"].values()), "versions", spec["versions"], "texts")
    known = {"format", "world", "split", "code", "options", "versions", "fields", "count", *LIMITS}
    _want(spec.keys() == known, "the fields of spec", sorted(spec), str(sorted(known)))
    for name, value in spec["options"].items():
        flat = not any(isinstance(item, dict | list) for item in (value if isinstance(value, list) else [value]))
        _want(flat, f"options.{name}", value, "a number, a text, or a list of these")
    _check_fields(spec["fields"], [spec["frames"], spec["size"], spec["size"]])


def _check_fields(fields: dict[str, Any], pixels: list[int]) -> None:
    mask = ["bits", [None, *pixels]]
    for name, field in fields.items():
        _want(
            FIELD_NAME.fullmatch(name) and name.split("/")[0] not in fields.keys() - {name}, "a field", name, "a name"
        )
        good = isinstance(field, list) and len(field) == 2 and isinstance(field[0], str) and isinstance(field[1], list)
        good = good and FIELD_TYPE.fullmatch(field[0]) and (field[0] != "bits" or field == mask)
        good = good and all(length is None or (type(length) is int and 0 <= length < 2**31) for length in field[1])
        _want(good, f"fields.{name}", field, "a type and the lengths of the axes")
        numbers = math.prod(max(1, length or 1) for length in field[1])
        _want(numbers <= MOST_NUMBERS, f"fields.{name}", field, f"at most {MOST_NUMBERS} numbers")
    two = ["uint8", [*pixels, 2]]  # of worlds whose pictures have two channels
    video = two if fields.get("video") == two else ["uint8", [*pixels, 3]]
    needed = {"video": video, "masks": mask, "setup": ["uint8", [None]], "index": ["int64", []]}
    for name, field in needed.items():
        _want(fields.get(name) == field, f"fields.{name}", fields.get(name), json.dumps(field))


def _check(content: Any, split: str) -> None:
    _want(isinstance(content, dict), "it", content, "an object")
    spec, files = content.get("spec"), content.get("files")
    check_spec(spec)
    _want(spec["split"] == split, "split", spec["split"], f"{split!r}, as in the file's name")
    _want(content.get("fingerprint") == fingerprint(spec), "fingerprint", content.get("fingerprint"), "its spec's")
    _want(isinstance(files, list), "files", files, "a list")
    _want(len(files) in (0, shard_count(spec)), "the number of files", len(files), f"{shard_count(spec)}, or 0")
    for shard, entry in enumerate(files):
        _check_entry(entry, spec, shard)


def _check_entry(entry: Any, spec: dict[str, Any], shard: int) -> None:
    _want(isinstance(entry, dict), f"file {shard}", entry, "an object")
    for key, value in (("name", shard_name(spec, shard)), ("scenes", len(scenes_of(spec, shard)))):
        _want(entry.get(key) == value, f"{key} of file {shard}", entry.get(key), repr(value))
    size, checksum = entry.get("bytes"), entry.get("sha256")
    _want(type(size) is int and size > 0, f"bytes of file {shard}", size, "a number of bytes")
    good = isinstance(checksum, str) and re.fullmatch(r"[0-9a-f]{64}", checksum)
    _want(good, f"sha256 of file {shard}", checksum, "64 hexadecimal digits")


def _want(good: Any, name: str, value: Any, must: str) -> None:
    if not good:
        raise ValueError(f"{name[:80]!r} is {repr(value)[:80]}: must be {must}")
