"""Slots of CLEVRER's videos, with CLEVRER's questions about them."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cjepa_jax.data.formats.files import read_json
from cjepa_jax.data.sources.clevrer import read_questions
from cjepa_jax.data.sources.slot_files import INDEX, SlotFiles, own_name
from cjepa_jax.errors import ConfigError, DataError

NAME = re.compile(r"(?:video_)?(\d{1,5})(?:_pixels)?(?:\.mp4)?", re.ASCII)  # 0_pixels.mp4, video_00000.mp4
FILES = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}


@dataclass(frozen=True)
class ClevrerSlots(SlotFiles):
    """Windows of extracted slots (SlotFiles) with the published questions about their videos.

    A video's number is that in its name, such as 10000_pixels.mp4 or video_10000.mp4.

    Args:
      asked: the folder of the questions, {train,validation,test}.json. It is read when a question is asked.
    Raises: as SlotFiles.
    """

    asked: str = ""
    numbers: tuple[int, ...] = field(init=False, repr=False, compare=False)  # of the split's videos

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.asked, str):
            raise ConfigError(f"data.options.asked is {self.asked!r}: must be a folder's name")
        object.__setattr__(self, "numbers", self._numbers())

    def _numbers(self) -> tuple[int, ...]:
        """Raises DataError for the name of another file than a CLEVRER video."""
        index = read_json(Path(self.path) / INDEX)
        names = index[own_name(index, self.split)].get("names")
        if not isinstance(names, list) or len(names) != len(self.starts):
            raise DataError(f"{self.path}/{INDEX}: {self.split!r} must have names, one for each of the starts")
        found = [NAME.fullmatch(name) if isinstance(name, str) else None for name in names]
        for name, match in zip(names, found, strict=True):
            if match is None:
                raise DataError(f"{self.path}/{INDEX}: {str(name)[:60]!r} is not the name of a CLEVRER video")
        return tuple(int(match[1]) for match in found if match)

    def questions(self, i: int) -> list[dict[str, Any]]:
        """The questions about the video of window i, as sources.clevrer.Clevrer.questions gives them.

        Raises: IndexError. ConfigError without `asked`. DataError for a file that is missing or has none about it.
        """
        if not self.asked:
            raise ConfigError("data.options.asked is '': must name the folder of CLEVRER's questions")
        number = self.numbers[self.video_of(i)]
        split = "val" if self.split == "eval" else self.split
        paths = [Path(self.asked) / f"{name}.json" for name in FILES.get(split, (split,))]
        path = next(filter(Path.is_file, paths), paths[0])
        questions = read_questions(path)
        if number not in questions:
            raise DataError(f"{path}: no questions about video {number}")
        return questions[number]
