"""Where the annotations of COCO-style images are: in one JSON file for all, as COCO publishes them, or one per image.

Both classes give `names`, the images' file names relative to their folder, and `read(i)`, the annotations of image i.
Neither holds the annotations: COCO's own file has 450 MB, and every data worker gets a copy of its source. Of the one
file only the places of its entries are kept, of a folder only the names.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.data.formats import files
from cjepa_jax.errors import DataError
from cjepa_jax.host import door

MOST_BYTES = 1 << 33  # of an annotation file; COCO's largest has 0.5 GB
SETTINGS = "settings.json"  # how the masks of a folder were made
SPACE = re.compile(r"[ \t\n\r]*")


def tree(root: Path, endings: tuple[str, ...]) -> list[str]:
    """Names, relative to `root`, of the files below it that end so (in lower case), sorted; hidden ones are left out.

    Raises DataError if `root` is not a folder. Links to folders are not followed.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inner = Path(folder).relative_to(root)
        found += [(inner / name).as_posix() for name in names if name[0] != "." and name.lower().endswith(endings)]
    return sorted(found)


@dataclass(frozen=True)
class OneEach:
    """A folder with NAME.json for each image NAME, as `cjepa_jax.data.segment` writes it."""

    root: str
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        names = tree(Path(self.root), (".json",))
        object.__setattr__(self, "names", tuple(name[: -len(".json")] for name in names if name != SETTINGS))

    def read(self, i: int) -> tuple[list[Any], list[str], Any]:
        """(annotations, what to call each in an error, [height, width] of the image)."""
        file = files.inside(Path(self.root), f"{self.names[i]}.json")
        try:
            record = files.read_json(file)
            size = [record["image"]["height"], record["image"]["width"]]
            return record["annotations"], [f"{file}: mask {k}" for k in range(len(record["annotations"]))], size
        except (TypeError, KeyError, IndexError) as error:
            raise DataError(f"{file}: must hold image (with height and width) and a list of annotations") from error


@dataclass(frozen=True)
class OneFile:
    """A JSON file with the lists `images` and `annotations`, as COCO publishes them; crowds are left out.

    Raises DataError, naming the file, for what is not such a file, for an id that stands there twice and for an
    annotation of an image that it does not list.
    """

    file: str
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _sizes: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [N,2], height and width
    _ids: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [A], of the annotations, image by image
    _places: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [A,2], of their bytes in the file
    _first: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [N+1], of each image's annotations

    def __post_init__(self):
        try:
            data = door.read(self.file, MOST_BYTES, links=True)
        except OSError as error:
            raise DataError(f"{self.file}: {error.strerror}") from error
        number, names, sizes, found = {}, [], [], {}
        for section, entry, begin, end in _entries(data, self.file):
            where = f"{self.file}: entry {len(names) if section == 'images' else len(found)} of {section}"
            key = _whole(entry, "id", where)
            if key in (number if section == "images" else found):
                raise DataError(f"{where}: the id {key} stands there twice")
            if section == "images":
                number[key] = len(names)
                names.append(_name(data[begin:end], where))
                sizes.append((_whole(entry, "height", where), _whole(entry, "width", where)))
            else:
                image = _whole(entry, "image_id", where)
                found[key] = (image, begin, end) if not entry.get("iscrowd") else None
        kept = [(image, key, *place) for key, (image, *place) in ((k, v) for k, v in found.items() if v)]
        lost = next((image for image, *_ in kept if image not in number), None)
        if lost is not None:
            raise DataError(f"{self.file}: an annotation is of image {lost}, which images does not list")
        table = np.array([(number[image], *rest) for image, *rest in kept], np.int64).reshape(-1, 4)
        table = table[np.argsort(table[:, 0], kind="stable")]
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "_sizes", np.array(sizes, np.int64).reshape(-1, 2))
        object.__setattr__(self, "_ids", table[:, 1])
        object.__setattr__(self, "_places", table[:, 2:])
        object.__setattr__(self, "_first", np.searchsorted(table[:, 0], np.arange(len(names) + 1)))

    def read(self, i: int) -> tuple[list[Any], list[str], list[int]]:
        """(annotations, what to call each in an error, [height, width] of the image)."""
        chosen = slice(self._first[i], self._first[i + 1])
        where = [f"{self.file}: annotation {key}" for key in self._ids[chosen]]
        try:
            with door.regular(self.file, links=True) as file:
                texts = [os.pread(file.fileno(), end - begin, begin) for begin, end in self._places[chosen].tolist()]
            return [json.loads(text) for text in texts], where, self._sizes[i].tolist()
        except (OSError, ValueError) as error:
            raise DataError(f"{self.file}: has changed, or cannot be read any more ({error})") from error


def _whole(entry: Any, key: str, where: str) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not int or not 0 <= value < 2**63:
        raise DataError(f"{where}: {key} is {str(value)[:40]}; it must be a whole number, 0 or more")
    return value


def _name(text: bytes, where: str) -> str:
    name = json.loads(text).get("file_name")
    if not files.is_name(name):
        raise DataError(f"{where}: file_name is {str(name)[:40]!r}; it must be a file's name")
    return name


def _entries(data: bytes, file: str) -> Iterator[tuple[str, Any, int, int]]:
    """(section, entry, first byte, one past its last) of all entries of the lists `images` and `annotations`."""
    text = data.decode("latin-1")  # one character per byte; none but the texts in it come out wrong
    decode = json.JSONDecoder().raw_decode
    at = 0

    def peek() -> str:
        nonlocal at
        at = SPACE.match(text, at).end()
        return text[at : at + 1]

    def skip(expected: str) -> str:
        """Step over one of the `expected` characters."""
        nonlocal at
        found = peek()
        if not found or found not in expected:
            raise ValueError
        at += 1
        return found

    def value() -> Any:
        nonlocal at
        peek()
        result, at = decode(text, at)
        return result

    seen = set()
    try:
        skip("{")
        while True:
            key = value()
            skip(":")
            if key in ("images", "annotations"):
                seen.add(key)
                skip("[")
                ended = peek() == "]" and skip("]")
                while not ended:
                    peek()
                    begin = at
                    yield key, value(), begin, at
                    ended = skip(",]") == "]"
            else:
                value()
            if skip(",}") == "}":
                break
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a COCO annotation file, or cut short, at byte {at}") from error
    if len(seen) < 2:
        raise DataError(f"{file}: must hold the lists images and annotations")
