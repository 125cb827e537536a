"""Your own videos: a folder of them, or a CSV or JSONL list of files, times and labels.

    DIR/**.{mp4,mov,mkv,webm,avi,mpg,ts,...}      any codec that the reader decodes
    DIR/**.npy                                    with other channels than RGB: arrays [T, H, W, C]
    DIR/eval/**                                   optional held-out videos
    LIST.csv, LIST.jsonl                          path, start, end, label (data/sources/video_list.py)
    MASKS/NAME.{mkv,avi,mov}                      optional: a lossless video of instance maps for the video NAME.*, or
    MASKS/NAME/*.png                              an instance map for each of its frames, in the order of their names

Without DIR/eval, or for a list whose name has no {split}, a tenth of the videos, chosen by their names' hash, is held
out. All parts of a video are in the same split.
"""

import functools
import math
import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.data.formats import bands, files, image_bytes, image_files, video, video_errors, video_times
from cjepa_jax.data.formats.video_streams import Info
from cjepa_jax.data.formats.video_times import Window
from cjepa_jax.data.sources import annotations, folder, video_list
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError, DataError

MASK_VIDEOS = (".mkv", ".avi", ".mov")
LOSSLESS = {"FFV1", "FFVHUFF", "FFVH", "HUFFYUV", "HFYU", "PNG", "MPNG", "QTRLE", "RLE"}  # codecs' names and tags
SLACK = 1.0  # seconds by which a list's end may exceed the video: ends are often rounded up
ROTATIONS = ("", "apply", "ignore")
MOST_RATE = 240.0  # frames a second


@dataclass(frozen=True)
class Videos:
    """Clips of videos, in the order of their names or of the list. A source of scenes with T = `frames`.

    A video, or the part that a list's line names, holds `clips` scenes with consecutive indices: its length is divided
    into as many equal parts, and a clip lies in the middle of each. Clips overlap if the parts are shorter than they
    are. Frames have the times start + k / fps (data/formats/video_times.py). Those with a short side above 2 x size are
    reduced to it.

    Options:
      fps: frames a second of a clip, for any frame rate of the file.
      clips: scenes of each video.
      masks: a folder of instance maps, in the videos' folder (or an absolute path). "" for none: then K = 0, for masks
        that need no objects, such as tubes. Values are as in `Folder`, and an object has one value in all frames.
      max_masks: a clip with more objects is refused.
      ignore: a value of the maps that marks no object. -1: none.
      missing: "skip" leaves out videos that are listed but not there, and says how many.
      rotation: "apply" or "ignore" the rotation that phones write into files. Without masks "" applies it. With masks a
        rotated video is refused, because no file says whether its maps are already turned.
      channels, pixels: 3 and "uint8" for video files. With other values the files are arrays, NAME.npy, [T, H, W, C] of
        uint8, or of other numbers with pixels = "float32", because video files hold RGB of 8 bits.
      rate: frames a second of these arrays. 0: those of fps, so that no frame is left out.
      reader: "opencv", or "pyav" (the extra `video`), which decodes AV1 too and also knows frames marked as corrupt.

    A scene of a list with labels also holds `class`, int64 []: the number of its label in `classes`. With masks, labels
    are those of `Folder`, of the middle frame. Without, there are none.

    Raises ConfigError for values out of their limits. Raises DataError, naming file and line: when built, for a folder
    or list that is missing, empty or names missing files, and for videos without maps; when read, for a video that is
    unreadable, too short, or ends before its line says, and for maps that do not fit it.
    """

    split: str = "train"
    path: str = ""
    size: int = 224
    frames: int = 16
    count: int = 0  # most scenes, 0 for all
    seed: int = 0  # unused: nothing is drawn here
    fps: float = 4.0
    clips: int = 1
    masks: str = ""
    max_masks: int = 256
    ignore: int = -1
    missing: str = ""
    rotation: str = ""
    reader: str = "opencv"
    channels: int = 3
    pixels: str = "uint8"
    rate: float = 0.0
    root: Path = field(init=False, repr=False, compare=False)  # the folder that names are relative to
    entries: tuple[video_list.Entry, ...] = field(init=False, repr=False, compare=False)
    maps: dict[str, str] = field(init=False, repr=False, compare=False)  # video -> its maps, relative to `masks`
    classes: tuple[str, ...] = field(init=False, repr=False, compare=False)

    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        self._check()
        place = Path(self.path.replace("{split}", self.split))
        listed = place.suffix.lower() in video_list.LISTS
        root = place.parent if listed else place
        if not (place.is_file() if listed else place.is_dir()):
            kinds = "a list ends in .csv or .jsonl, anything else is a folder"
            raise DataError(f"data.path {place}: no such {'file' if listed else 'folder'} ({kinds})")
        object.__setattr__(self, "root", root)
        if listed:
            entries, known = self._listed(place)
            entries = video_list.there(root, entries, place, self.missing == "skip")
        else:
            endings = (bands.ARRAY,) if self._of_arrays else video_list.SUFFIXES
            entries = known = video_list.of_folder(root, self.split, self.masks, endings)
        if not entries:
            raise DataError(f"{place}: no {'.npy files' if self._of_arrays else 'videos'} in split {self.split}")
        other = next((e.name for e in entries if e.name.lower().endswith(bands.ARRAY) != self._of_arrays), "")
        if other:
            has = f"data.options.channels is {self.channels}, pixels {self.pixels!r}"
            kind = (
                "a video file holds RGB of 8 bits: use .npy files" if self._of_arrays else "is an array, no video file"
            )
            raise DataError(f"{root / other}: {kind} ({has})")
        object.__setattr__(self, "entries", tuple(entries))
        object.__setattr__(self, "classes", video_list.classes(known))
        object.__setattr__(self, "maps", self._maps() if self.masks else {})

    def _check(self) -> None:
        if self.split not in video_list.SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be train or eval")
        for name, least in (("size", 8), ("frames", 1), ("count", 0)):
            check_integer(f"data.{name}", getattr(self, name), least)
        for name in ("clips", "max_masks"):
            check_integer(f"data.options.{name}", getattr(self, name), 1)
        if isinstance(self.fps, bool) or not isinstance(self.fps, int | float) or not 0 < self.fps <= MOST_RATE:
            raise ConfigError(f"data.options.fps is {self.fps!r}: must be above 0, up to {MOST_RATE:g} frames a second")
        if not isinstance(self.masks, str):
            raise ConfigError(f"data.options.masks is {self.masks!r}: must be a folder's name or ''")
        for name, allowed in (("missing", ("", "skip")), ("rotation", ROTATIONS)):
            if getattr(self, name) not in allowed:
                shown = ", ".join(map(repr, allowed))
                raise ConfigError(f"data.options.{name} is {getattr(self, name)!r}: must be one of {shown}")
        video_times.check_reader(self.reader)
        bands.check_options(self.channels, self.pixels)
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float) or not 0 <= self.rate <= MOST_RATE:
            raise ConfigError(f"data.options.rate is {self.rate!r}: must be 0, or up to {MOST_RATE:g} frames a second")
        if not self.path:
            raise ConfigError("data.path is empty: name a folder of videos, or a list that ends in .csv or .jsonl")

    def _listed(self, place: Path) -> tuple[list[video_list.Entry], list[video_list.Entry]]:
        """The split's entries, and those of all splits, which know all classes."""
        own = video_list.of_list(place)
        if "{split}" not in self.path:
            return video_list.held_out(own, self.split), own
        others = [Path(self.path.replace("{split}", split)) for split in video_list.SPLITS if split != self.split]
        return own, own + [entry for other in others if other.is_file() for entry in video_list.of_list(other)]

    def _maps(self) -> dict[str, str]:
        """Video -> file or folder of its maps. Raises DataError for videos without maps, or with two."""
        home = self.root / self.masks
        found: dict[str, str] = {}
        for file in annotations.tree(home, (*MASK_VIDEOS, ".png")):
            is_png = file.lower().endswith(".png")
            name, place = (file.rpartition("/")[0],) * 2 if is_png else (folder.stem(file), file)
            if found.setdefault(name, place) != place:
                raise DataError(f"{home / place}: there are maps of this name already, {found[name]}")
        names = sorted({entry.name for entry in self.entries})
        bare = [name for name in names if folder.stem(name) not in found]
        if bare:
            shown = ", ".join(bare[:5]) + (", ..." if len(bare) > 5 else "")
            raise DataError(f"{home}: {len(bare)} videos without instance maps: {shown}")
        return {name: found[folder.stem(name)] for name in names}

    @property
    def _of_arrays(self) -> bool:
        """Whether the files are arrays, not videos."""
        return not bands.is_rgb(self.channels, self.pixels)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the reader does not notice, for data.inspect."""
        if self._of_arrays or self.reader != "opencv" or video_errors.prepare():
            return ()
        text = "damage inside frames is not noticed by this build of OpenCV: inspect once with the reader pyav"
        return (f"{text} (pip install 'cjepa_jax[video]', docs/DATA.md)",)

    @property
    def label_names(self) -> tuple[str, ...]:
        return folder.Folder.label_names if self.masks else ()

    def __len__(self) -> int:
        scenes = len(self.entries) * self.clips
        return min(self.count or scenes, scenes)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Scene i: video [T,H,W,C] (uint8 RGB), masks bool [K,T,H,W], labels float32 [P], and with labels in the list
        class int64 []. Raises IndexError, DataError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        number, part = divmod(i, self.clips)
        entry = self.entries[number]
        where = f"clip {part + 1} of {self.clips}" + (f", line {entry.line}" if entry.line else "")
        path = files.inside(self.root, entry.name)
        of_arrays = (self.channels, self.pixels, float(self.rate or self.fps))
        reader = video_times.Reader(self.reader, self.rotation != "ignore", *of_arrays)
        chosen: list[tuple[Info, Window]] = []
        sizes: list[tuple[int, ...]] = []

        def choose(info: Info) -> Window:
            chosen.append((info, self.window(entry, part, info, f"{path}: {where}")))
            return chosen[0][1]

        def shrink(frame: np.ndarray) -> np.ndarray:
            sizes.append(frame.shape[:2])
            return video.reduce_frames(frame[None], 2 * self.size)[0]

        frames = video_times.read(path, choose, reader, where, shrink)
        masks = np.zeros((0, *frames.shape[:3]), bool)
        if self.masks:
            place = files.inside(self.root / self.masks, self.maps[entry.name])
            ids = self._ids(place, path, reader, *chosen[0], where=where)
            if ids.shape[1:] != sizes[0]:
                (h, w), (mh, mw) = sizes[0], ids.shape[1:]
                raise DataError(f"{place}: the maps are {mw}x{mh} pixels, the video {w}x{h} ({where})")
            masks = self._objects(video.reduce_masks(ids, 2 * self.size), place, where)
        scene: dict[str, Any] = {"video": frames, "masks": masks, "labels": np.zeros(0, np.float32)}
        if self.masks:
            scene["labels"] = folder.labels(masks[:, self.frames // 2])
        if entry.label:
            scene["class"] = np.int64(self.classes.index(entry.label))
        return scene

    def window(self, entry: video_list.Entry, part: int, info: Info, where: str) -> Window:
        """The times of a clip. Raises DataError, beginning with `where`, for a video that is too short."""
        if self.masks and info.rotation and not self.rotation:
            turned = f"the file says to turn it by {info.rotation} degrees, and its maps are separate files"
            raise DataError(f"{where}: {turned}: set data.options.rotation to 'apply' or 'ignore'")
        length = f"the video lasts {info.duration:.2f} s"
        if entry.start >= info.duration:
            raise DataError(f"{where}: start is {entry.start:g} s, {length}")
        if info.duration + SLACK < entry.end < np.inf:
            raise DataError(f"{where}: end is {entry.end:g} s, {length}")
        window = Window(entry.start, self.frames, float(self.fps))
        room = min(entry.end, info.duration) - entry.start - window.span
        if room < 0:
            needed = f"{self.frames} frames (data.frames) at {self.fps:g} a second (data.options.fps)"
            lasts = room + window.span
            fits = f". {math.ceil(10 * (self.frames - 1) / lasts - 1e-6) / 10:g} a second fit" if lasts > 0.1 else ""
            raise DataError(f"{where}: {lasts:.2f} s are too short for {needed}, {window.span:.2f} s{fits}")
        return window._replace(start=round(entry.start + room * (part + 0.5) / self.clips, 3))

    def _ids(self, place: Path, path: Path, reader, info: Info, window: Window, where: str) -> np.ndarray:
        """The ids of a clip's maps, integers [T,H,W]. Raises DataError."""
        if place.is_dir():
            return read_pngs(place, path, window, reader, where)

        def choose(own: Info) -> Window:
            if own.codec not in LOSSLESS:
                raise DataError(f"{place}: {own.codec or 'this codec'} changes values: save maps as FFV1 ({where})")
            if abs(own.duration - info.duration) > max(2 * own.interval, 2 * info.interval, 0.02 * info.duration):
                raise DataError(f"{place}: lasts {own.duration:.2f} s, its video {info.duration:.2f} s ({where})")
            return window

        pixels = video_times.read(place, choose, reader, where)
        red, green, blue = (pixels[..., channel] for channel in range(3))
        if (red == green).all() and (green == blue).all():
            return red
        return red.astype(np.int32) << 16 | green.astype(np.int32) << 8 | blue

    def _objects(self, ids: np.ndarray, place: Path, where: str) -> np.ndarray:
        """Masks bool [K,T,H,W] of the ids [T,H,W]. Raises DataError if these are not instance maps."""
        values = folder.objects(ids, self.ignore, self.max_masks, f"{place} ({where})")
        middle = ids[len(ids) // 2].astype(np.int64)
        image_files.check_sharp(middle, np.setdiff1d(middle, [0]), str(place))
        image_bytes.check_room(f"{place}: masks ({where})", len(values), *ids.shape)
        return ids[None] == values[:, None, None, None]


def read_pngs(place: Path, path: Path, window: Window, reader, where: str) -> np.ndarray:
    """The maps [T,H,W] of a window's frames, from a folder with one PNG for each frame of the video. Raises DataError.

    The video is decoded once from its beginning, because only that tells how many frames it has.
    """
    names = pngs(place)
    numbers, total = video_times.numbers(path, window, reader)
    if len(names) != total:
        raise DataError(f"{place}: {len(names)} maps, the video has {total} frames ({where})")
    maps = [image_files.read_values(place / names[number], "ignore") for number in numbers]
    if len({(each.shape, each.dtype) for each in maps}) > 1:
        raise DataError(f"{place}: maps of several sizes or kinds ({where})")
    # Seen as one picture, so that maps are read as grey or as colours alike.
    image_bytes.check_room(f"{place}: maps ({where})", len(maps), *maps[0].shape)
    return image_files.to_ids(np.concatenate(maps)).reshape(len(maps), *maps[0].shape[:2])


@functools.lru_cache(maxsize=1024)
def pngs(place: Path) -> tuple[str, ...]:
    """The PNGs in a folder, sorted by name, numbers by their value."""
    names = [name for name in annotations.tree(place, (".png",)) if "/" not in name]
    digits = [Path(name).stem.rpartition("_")[2] for name in names]
    numbered = all(text.isdecimal() for text in digits)
    order = sorted(zip(map(int, digits), names, strict=True)) if numbered else [(0, name) for name in names]
    return tuple(name for _, name in order)
