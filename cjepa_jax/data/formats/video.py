"""Frames of video files, and their reduced size. Uses OpenCV with its FFmpeg."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from cjepa_jax.data.formats import video_errors
from cjepa_jax.data.formats.image_bytes import MOST_PIXELS, check_room
from cjepa_jax.data.formats.resize import resize
from cjepa_jax.errors import DataError
from cjepa_jax.host import door

# The first bytes of video files. Anything else is refused, because FFmpeg also follows playlists, which name other
# files.
MP4 = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
MPEG = (b"\0\0\1\xba", b"\0\0\1\xb3")  # with packets, and without
OTHERS = (*MPEG, b"RIFF", b"\x1aE\xdf\xa3", b"FLV\1", b"\x30\x26\xb2\x75", b"OggS")  # AVI, Matroska, Flash, ASF, Ogg
PACKET, SYNC = 188, 0x47  # of an MPEG transport stream: its packets' bytes, and the first byte of each


def read(path: Path, frames: Sequence[int], expect: int | None, where: str) -> np.ndarray:
    """The frames of these numbers (from 0, ascending): RGB, uint8 [T,H,W,3].

    `expect` is the number of frames that the file should have (None: unknown), and `where` says which clip it is. Both
    are only used in messages: a longer file is accepted, and so is one that ends after the last wanted frame. Frames
    between wanted ones are decoded, because frames depend on each other, but not converted. Frames after the last
    wanted one are not decoded.

    Raises DataError for a file that is missing, not a video, damaged as far as FFmpeg notices, ends before the last
    wanted frame, or has frames that are too large.
    """
    wanted = list(frames)
    if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 0:
        raise ValueError(f"frames {wanted}: must be ascending numbers from 0")
    opened, out, number = capture(path, where), [], -1
    try:
        for number in range(wanted[-1] + 1):
            if not opened.grab():
                total = max(expect or 0, wanted[-1] + 1)
                raise DataError(f"{path}: truncated after {number} of {total} frames ({where})")
            if fault := video_errors.heard():
                raise DataError(f"{path}: damaged at frame {number}: {fault} ({where})")
            if number == wanted[len(out)]:
                done, frame = opened.retrieve()
                if not done:
                    raise DataError(f"{path}: frame {number} is unreadable ({where})")
                check_room(f"{path}: frames ({where})", len(wanted), *frame.shape)
                out.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
                if out[-1].shape != out[0].shape:
                    raise DataError(f"{path}: frame {number} has another size than those before ({where})")
    except cv2.error as error:
        raise DataError(f"{path}: frame {number} is unreadable: {error.err} ({where})") from error
    finally:
        opened.release()
    return np.stack(out)


def every(path: Path, size: int, where: str) -> Iterator[np.ndarray]:
    """All frames of a video one by one, RGB, uint8 [size, size, 3] for frames of any shape. Raises DataError."""
    opened, number = capture(path, where), 0
    try:
        while opened.grab():
            if fault := video_errors.heard():
                raise DataError(f"{path}: damaged at frame {number}: {fault} ({where})")
            done, frame = opened.retrieve()
            if not done:
                raise DataError(f"{path}: frame {number} is unreadable ({where})")
            yield resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (size, size))
            number += 1
    except cv2.error as error:
        raise DataError(f"{path}: frame {number} is unreadable: {error.err} ({where})") from error
    finally:
        opened.release()
    if not number:
        raise DataError(f"{path}: holds no frame ({where})")


def reduced(height: int, width: int, short: int) -> tuple[int, int]:
    """The size of frames reduced to a short side of `short` pixels. Smaller frames keep their size."""
    scale = short / min(height, width)
    if scale >= 1:
        return height, width
    return max(short, round(height * scale)), max(short, round(width * scale))


def reduce_frames(frames: np.ndarray, short: int) -> np.ndarray:
    """Frames [T,H,W,C] at the size that `reduced` gives them, by area."""
    height, width = reduced(*frames.shape[1:3], short)
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([resize(frame, (width, height)) for frame in frames])


def reduce_masks(masks: np.ndarray, short: int) -> np.ndarray:
    """Masks [...,H,W] at the size that `reduced` gives their frames, by the nearest pixel centre."""
    old = masks.shape[-2:]
    new = reduced(*old, short)
    if new == old:
        return masks
    rows, columns = (((np.arange(n) + 0.5) * o / n).astype(int) for n, o in zip(new, old, strict=True))
    return masks[..., rows[:, None], columns]


def is_stream(head: bytes) -> bool:
    """Whether a file with these first bytes (over PACKET of them) is an MPEG transport stream."""
    return len(head) > PACKET and head[0] == head[PACKET] == SYNC


def check_kind(path: Path, where: str) -> bytes:
    """The first bytes of a video file. Raises DataError for a file that is missing, empty or no video."""
    try:
        with door.regular(path, links=True) as file:
            head = file.read(PACKET + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror} ({where})") from error
    if not head:
        raise DataError(f"{path}: the file is empty ({where})")
    if not (head[4:].startswith(MP4) or head.startswith(OTHERS) or is_stream(head)):
        kinds = "mp4, mov, mkv, webm, avi, mpg, ts, flv, wmv, ogv"
        raise DataError(f"{path}: not a video, or of a kind other than {kinds} ({where})")
    return head


def capture(path: Path, where: str) -> cv2.VideoCapture:
    """An open file, of which no frame has been read. It decodes in the calling thread (video_errors).

    Raises DataError for a file that is missing, not a video, or has frames that are too large.
    """
    video_errors.prepare()
    check_kind(path, where)
    # One thread, because the loader already runs threads and processes in parallel.
    found = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not found.isOpened():
        raise DataError(f"{path}: not readable as a video, or cut short ({where})")
    width, height = (int(found.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if not 0 < width * height <= MOST_PIXELS:
        found.release()
        raise DataError(f"{path}: frames of {width}x{height} pixels, at most {MOST_PIXELS} in all ({where})")
    video_errors.listen()
    return found
