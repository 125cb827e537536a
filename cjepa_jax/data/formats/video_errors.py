"""Errors that OpenCV's FFmpeg meets while it decodes. OpenCV conceals them: FFmpeg itself tells them to a function.

That function is set in OpenCV's own copy of libavutil, through FFmpeg's public av_log_set_callback. Where OpenCV has
no such copy (builds other than PyPI's for Linux and macOS), nothing is heard, and `heard` stays None.
"""

import atexit
import ctypes
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from cjepa_jax.errors import one_line

ERROR = 16  # FFmpeg's AV_LOG_ERROR. Smaller is graver
LONGEST = 200  # characters of a message
COPIES = ("opencv_python*.libs/libavutil*.so*", "cv2/.dylibs/libavutil*.dylib")  # beside the package cv2
POINTER = ctypes.c_void_p  # also what C passes for a va_list
CALLBACK = ctypes.CFUNCTYPE(None, POINTER, ctypes.c_int, ctypes.c_char_p, POINTER)

_here = threading.local()  # .first: the first error in this thread. A capture of one thread decodes where it is called


def prepare() -> bool:
    """To be called before OpenCV opens a video. Returns whether errors will be heard."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # nothing is printed: lines would not name the clip
    os.environ["OPENCV_FFMPEG_SKIP_LOG_CALLBACK"] = "1"  # OpenCV would set its own function at every opening
    return _listener() is not None


def listen() -> None:
    """To be called after OpenCV has opened a video. Drops what was heard in this thread."""
    if listener := _listener():
        listener()  # again: OpenCV reads the variables once, perhaps before they were set
    _here.first = None


def heard() -> str | None:
    """The first error in this thread since `listen`, as one line."""
    first: str | None = getattr(_here, "first", None)
    return first


@functools.cache
def _listener() -> Callable[[], None] | None:
    """What makes FFmpeg tell its errors to this module."""
    library = _library()
    if library is None:
        return None
    style = library.av_log_format_line2
    style.argtypes = [POINTER, ctypes.c_int, ctypes.c_char_p, POINTER, ctypes.c_char_p, ctypes.c_int, POINTER]

    def hear(context: Any, level: int, template: bytes, values: Any) -> None:
        if level > ERROR or heard() is not None:
            return
        text, prefix = ctypes.create_string_buffer(LONGEST), ctypes.c_int(0)  # the prefix is an address in memory
        line = text, LONGEST, ctypes.byref(prefix)
        style(context, level, template, values, *line)
        _here.first = one_line(text.value.decode("utf-8", "replace")).strip()

    callback = CALLBACK(hear)
    # A thread that still decodes must not call Python while Python ends.
    atexit.register(library.av_log_set_callback, library.av_log_default_callback)
    return functools.partial(library.av_log_set_callback, callback)


def _library() -> ctypes.CDLL | None:
    """The libavutil that OpenCV has loaded."""
    packages = Path(cv2.__file__).parent.parent
    for path in sorted(path for pattern in COPIES for path in packages.glob(pattern)):
        try:
            found = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:  # another package's copy, which is not in use
            continue
        if all(hasattr(found, name) for name in ("av_log_set_callback", "av_log_default_callback")):
            return found
    return None
