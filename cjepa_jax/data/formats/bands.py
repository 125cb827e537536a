"""Pictures of any number of channels, such as 12 spectral bands or depth, with the values that their files store.

    NAME.npy          [H, W, C], or [H, W] of one channel
    NAME.tif          any number of channels, in one page or one page each (tifffile, the extra `bands`)
    NAME.png          1 to 4 channels of 8 or 16 bits

Nothing is scaled. What is not stored as 8 bits is read as float32. Other formats hold at most RGB, changed by
compression, and are refused.
"""

import importlib.util
import io
import logging
import math
import struct
import tokenize
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np

from cjepa_jax.data.formats import image_bytes, image_files
from cjepa_jax.errors import ConfigError, DataError, one_line
from cjepa_jax.host import door, optional

RGB, PIXELS = 3, ("uint8", "float32")
MOST_CHANNELS = 512
ARRAY, TIFF = ".npy", (".tif", ".tiff")
REDUCED = 1  # TIFF: bit of NewSubfileType that marks a smaller copy of another page
ORIENTATION = "Orientation"
# tifffile's errors for files that are broken or compressed in a way that it does not know.
UNREADABLE: tuple[type[Exception], ...] = (
    ValueError, TypeError, KeyError, IndexError, OSError, EOFError, OverflowError, RuntimeError, NotImplementedError,
    AttributeError, ImportError, MemoryError, struct.error, zlib.error, SyntaxError, tokenize.TokenError,
)  # fmt: skip


def check_options(channels: int, pixels: str) -> None:
    """Raises ConfigError for options that `read` does not take."""
    if type(channels) is not int or not 1 <= channels <= MOST_CHANNELS:
        raise ConfigError(f"data.options.channels is {channels!r}: must be a whole number from 1 to {MOST_CHANNELS}")
    if pixels not in PIXELS:
        raise ConfigError(f"data.options.pixels is {pixels!r}: must be one of {', '.join(PIXELS)}")


def is_rgb(channels: int, pixels: str) -> bool:
    """Whether these are the RGB pictures of 8 bits that image_files reads from any format."""
    return channels == RGB and pixels == PIXELS[0]


def read(file: Path, channels: int, pixels: str, exif: str = "apply") -> tuple[np.ndarray, int]:
    """A picture [H,W,channels] of type `pixels`, and the orientation that it is stored with (1: as shown).

    exif: as in image_files.read. Raises DataError, naming the file, for a file that is unreadable, that has another
    number of channels or values of another type, and for a format that cannot hold these.
    """
    ending = file.suffix.lower()
    if ending == ARRAY:
        values, orientation = array(file), 1
    elif ending in TIFF:
        values, orientation = _tiff(file, exif)
    else:
        values, orientation = _png(file, channels, exif)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] != channels:
        hint = ""
        if values.ndim == 3 and values.shape[0] == channels:
            hint = ". Channels come last: np.moveaxis(x, 0, -1)"
        raise DataError(f"{file}: has the shape {list(values.shape)}, data.options.channels is {channels}{hint}")
    image_bytes.check_room(f"{file}: values", *values.shape)
    return converted(values, pixels, str(file)), orientation


def converted(values: np.ndarray, pixels: str, where: str) -> np.ndarray:
    """Stored values as `pixels`. Raises DataError, beginning with `where`, for other types and for NaN."""
    if pixels == PIXELS[0]:
        if values.dtype != np.uint8:
            text = f"{where}: values are {values.dtype}, data.options.pixels is 'uint8'"
            raise DataError(f"{text}: set it to 'float32', and objective.encoder.scale, mean and std to the values'")
        return np.ascontiguousarray(values)
    if values.dtype.kind not in "uif":
        raise DataError(f"{where}: values are {values.dtype}, must be whole numbers or floats")
    values = np.ascontiguousarray(values, np.float32)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise DataError(
            f"{where}: {bad} of {values.size} values are not finite: replace them, as by the channel's mean"
        )
    return values


def array(file: Path) -> np.ndarray:
    """The array of a .npy file. Raises DataError, naming the file."""
    with Npy(file) as found:
        return found[:]


class Npy:
    """An open .npy file, whose first axis is read in slices. Never a pickle. Raises DataError, naming the file.

    The size of the file is compared with its header before memory is allocated.
    """

    HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

    def __init__(self, file: Path):
        self._name = file
        try:
            self._file = door.regular(file, links=True)
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}") from error
        try:
            header = self.HEADERS.get(np.lib.format.read_magic(self._file))
            if header is None:
                raise ValueError("an unknown version")
            self.shape, columns_first, self.dtype = header(self._file)
            if self.dtype.kind not in "uif" or not 2 <= len(self.shape) <= 4:
                raise ValueError(f"{self.dtype} {list(self.shape)}")
            if columns_first:
                raise ValueError("Fortran's order: save np.ascontiguousarray(x)")
            self._start = self._file.tell()
            self._item = math.prod(self.shape[1:]) * self.dtype.itemsize
            if self._start + self.shape[0] * self._item != self._file.seek(0, io.SEEK_END) or 0 in self.shape:
                raise ValueError(f"cut short, or too long: its header says {list(self.shape)} {self.dtype}")
        except UNREADABLE as error:
            self._file.close()
            text = one_line(str(error) or type(error).__name__)[:160]
            raise DataError(f"{file}: not an array of numbers as np.save writes it: {text}") from error

    def __enter__(self) -> "Npy":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def close(self) -> None:
        self._file.close()

    def __getitem__(self, part: slice) -> np.ndarray:
        """The items start..stop-1 of the first axis."""
        start, stop, _ = part.indices(self.shape[0])
        image_bytes.check_room(f"{self._name}: values", max(0, stop - start), *self.shape[1:])
        self._file.seek(self._start + start * self._item)
        data = self._file.read((stop - start) * self._item)
        if len(data) != (stop - start) * self._item:
            raise DataError(f"{self._name}: is cut short")
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])


def load() -> ModuleType:
    """The package tifffile. Raises ConfigError if it is not installed."""
    tifffile = optional.need("tifffile", "bands", "TIFFs of several bands")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its lines name no file; errors are raised as well
    return tifffile


def _tiff(file: Path, exif: str) -> tuple[np.ndarray, int]:
    """The values of a TIFF, [H,W] or [H,W,C], and its orientation. Smaller copies (overviews) are left out."""
    tifffile, first = load(), None
    try:
        data = door.read(file, image_files.MOST_BYTES, links=True)
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            pages = [page for page in tiff.pages if not page.subfiletype & REDUCED]
            first, size = pages[0], len(data)
            if first.imagewidth * first.imagelength > image_bytes.MOST_PIXELS:
                shape = f"{first.imagewidth}x{first.imagelength}"
                raise DataError(f"{file} is {shape} pixels, at most {image_bytes.MOST_PIXELS} in all are read")
            for page in pages:
                image_bytes.check_room(f"{file}: values", len(pages), *page.shape)
                parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
                if not parts or any(not count or begin + count > size for begin, count in parts):
                    raise DataError(f"{file}: is cut short")
            if len({(page.shape, page.dtype) for page in pages}) > 1 or (len(pages) > 1 and len(first.shape) > 2):
                kinds = ", ".join(str(page.shape) for page in pages[:4])
                raise DataError(f"{file}: {len(pages)} pages of the shapes {kinds}. Bands are in one page, or one each")
            orientation = first.tags[ORIENTATION].value if ORIENTATION in first.tags else 1
            orientation = int(orientation) if orientation in range(1, 9) else 1
            turn = image_files.orientation(file, orientation, exif)
            if len(pages) > 1:
                values = np.stack([page.asarray() for page in pages], axis=-1)
            else:
                values = np.moveaxis(first.asarray(), *((0, -1) if first.axes == "SYX" else (0, 0)))
    except DataError:
        raise
    except UNREADABLE as error:
        text = one_line(str(error) or type(error).__name__)[:160]
        if ("imagecodecs" in text or isinstance(error, ImportError)) and not importlib.util.find_spec("imagecodecs"):
            kind = "its compression" if first is None else getattr(first.compression, "name", first.compression)
            kind = f"{kind} with a predictor of floats" if "FLOATINGPOINT" in text else kind
            hint = "pip install 'cjepa_jax[bands]', or save it again with Deflate, without compression or as .npy"
            raise DataError(f"{file}: {kind} needs the package imagecodecs: {hint}") from error
        raise DataError(f"{file}: not a readable TIFF, or cut short: {text}") from error
    return image_bytes.turned(values, turn), orientation


def _png(file: Path, channels: int, exif: str) -> tuple[np.ndarray, int]:
    data, head, turn = image_files.opened(file, "the image", exif)
    if head.lossy or head.format != "PNG":
        text = f"{file}: a {head.format} holds RGB of 8 bits, data.options.channels is {channels}"
        raise DataError(f"{text}: save several bands as .npy or TIFF, up to 4 as PNG")
    values = image_bytes.picture(data, f"{file}: the image", turn > 1, head)
    if values.ndim == 3 and values.shape[2] in (3, 4):  # OpenCV's order is BGR(A)
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return values, head.orientation
