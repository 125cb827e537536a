"""Annotations of COCO-style images: one JSON file for all, as COCO publishes them, or one file per image.

Both classes give `names`, the images' file names relative to their folder, and `read(i)`, the annotations of image i.
Neither keeps the annotations in memory, because COCO's file has 450 MB and every data worker gets a copy of its source.
For the single file only the byte offsets of its entries are kept, for a folder only the names.
"""

import codecs
import collections
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.data.formats import files
from cjepa_jax.errors import DataError
from cjepa_jax.host import door

MOST_BYTES = 1 << 33  # of an annotation file (COCO's largest has 0.5 GB)
SETTINGS = "settings.json"  # how the masks of a folder were made
SPACE = re.compile(r"[ \t\n\r]*")
DIGITS = re.compile(r"0|[1-9][0-9]{0,17}")


def tree(root: Path, endings: tuple[str, ...]) -> list[str]:
    """Sorted names, relative to `root`, of the files below it with this ending (in lower case), without hidden ones.

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
    """A JSON file with the lists `images` and `annotations`, as COCO publishes them, in UTF-8 or UTF-16.

    Annotations of crowds are left out; `crowds` is their number. Of annotations' ids nothing is asked: they only name
    them in messages. Ids of images are numbers or texts.

    Raises DataError, naming the file, for what is not such a file, for an image's id that is there twice, for an
    annotation of an image that it does not list and for an `iscrowd` other than 0 and 1.
    """

    file: str
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _sizes: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [N,2], height and width
    _places: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [A,2], of their bytes in the file
    _first: np.ndarray = field(init=False, repr=False, compare=False)  # int64 [N+1], of each image's annotations
    _encoding: str = field(init=False, repr=False, compare=False)
    crowds: int = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        try:
            data = door.read(self.file, MOST_BYTES, links=True)
        except OSError as error:
            raise DataError(f"{self.file}: {error.strerror}") from error
        encoding, first, width, text = _units(data)
        number, names, sizes, table, count, crowds = {}, [], [], [], 0, 0
        for section, entry, begin, end in _entries(text, self.file):
            place = first + width * begin, first + width * end
            where = f"{self.file}: entry {len(names) if section == 'images' else count} of {section}"
            if section == "images":
                key = _key(entry, "id", where)
                if key in number:
                    raise DataError(f"{where}: the id {key} stands there twice")
                number[key] = len(names)
                names.append(_name(data[slice(*place)].decode(encoding, "replace"), where))
                sizes.append((_whole(entry, "height", where), _whole(entry, "width", where)))
            else:
                count += 1
                image = _key(entry, "image_id", where)
                if is_crowd(entry, where):
                    crowds += 1
                else:
                    table.append((image, *place))
        lost = next((image for image, *_ in table if image not in number), None)
        if lost is not None:
            raise DataError(f"{self.file}: an annotation is of image {lost}, which images does not list")
        places = np.array([(number[image], *place) for image, *place in table], np.int64).reshape(-1, 3)
        places = places[np.argsort(places[:, 0], kind="stable")]
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "_sizes", np.array(sizes, np.int64).reshape(-1, 2))
        object.__setattr__(self, "_places", places[:, 1:])
        object.__setattr__(self, "_first", np.searchsorted(places[:, 0], np.arange(len(names) + 1)))
        object.__setattr__(self, "_encoding", encoding)
        object.__setattr__(self, "crowds", crowds)

    def read(self, i: int) -> tuple[list[Any], list[str], list[int]]:
        """(annotations, what to call each in an error, [height, width] of the image)."""
        chosen = slice(self._first[i], self._first[i + 1])
        try:
            with door.regular(self.file, links=True) as file:
                texts = [os.pread(file.fileno(), end - begin, begin) for begin, end in self._places[chosen].tolist()]
            found = [json.loads(text.decode(self._encoding)) for text in texts]
        except (OSError, ValueError) as error:
            raise DataError(f"{self.file}: has changed, or cannot be read any more ({error})") from error
        where = [f"{self.file}: {_called(entry, self.names[i], k)}" for k, entry in enumerate(found)]
        return found, where, self._sizes[i].tolist()


def first_of_each(classes: Mapping[str, Any], count: int) -> list[str]:
    """Names sorted by class and name. count: at most this number, the first of each class in turn. 0: all."""
    order = sorted(classes, key=lambda name: (classes[name], name))
    if not count:
        return order
    ranks: dict[str, int] = {}
    seen: dict[Any, int] = collections.Counter()
    for name in order:
        ranks[name] = seen[classes[name]]
        seen[classes[name]] += 1
    return sorted(sorted(order, key=lambda name: (ranks[name], name))[:count])


def is_crowd(entry: Any, where: str) -> bool:
    """Whether an annotation is of a crowd. Raises DataError, beginning with `where`, for what is neither yes nor no."""
    value = entry.get("iscrowd", 0)
    if value not in (0, 1) or isinstance(value, float):
        raise DataError(f"{where}: iscrowd is {value!r:.40}: must be 0 or 1")
    return bool(value)


def _called(entry: Any, name: str, k: int) -> str:
    key = entry.get("id") if isinstance(entry, dict) else None
    return f"annotation {key}" if isinstance(key, int | str) and files.is_name(str(key)) else f"mask {k} of {name}"


def _key(entry: Any, key: str, where: str) -> int | str:
    """An image's id. Some tools write a number in one list and its text in the other: digits are read as a number."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not files.is_name(value):
        return _whole(entry, key, where)
    return int(value) if DIGITS.fullmatch(value) else value


def _whole(entry: Any, key: str, where: str) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not int or not 0 <= value < 2**63:
        raise DataError(f"{where}: {key} is {value!r:.40}: must be a whole number, 0 or more")
    return value


def _name(text: str, where: str) -> str:
    name = json.loads(text).get("file_name")
    if not files.is_name(name):
        raise DataError(f"{where}: file_name is {str(name)[:40]!r}: must be a file's name")
    return name


def _units(data: bytes) -> tuple[str, int, int, str]:
    """(encoding, bytes of the mark before the text, bytes of a unit, the text with one character for each unit).

    None but the texts in it come out wrong.
    """
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            units = np.frombuffer(data, "<u2" if encoding == "utf-16-le" else ">u2", len(data) // 2 - 1, 2)
            return encoding, 2, 2, np.where(units < 256, units, ord("?")).astype(np.uint8).tobytes().decode("latin-1")
    first = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    return "utf-8", first, 1, data[first:].decode("latin-1")


def _entries(text: str, file: str) -> Iterator[tuple[str, Any, int, int]]:
    """(section, entry, first character, one past its last) of all entries of the lists `images` and `annotations`."""
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
        raise DataError(f"{file}: not a COCO annotation file, or cut short, at character {at}") from error
    if len(seen) < 2:
        raise DataError(f"{file}: must hold the lists images and annotations")
