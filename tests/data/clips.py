"""Video files for fixtures."""

import os
from pathlib import Path

import cv2
import numpy as np

CODECS = {".mp4": "mp4v", ".mpg": "PIM1", ".avi": "MJPG", ".mkv": "FFV1", ".webm": "VP90"}


def write(path: Path, frames: np.ndarray, fps: float = 25) -> Path:
    """RGB frames uint8 [T,H,W,3] as the kind of file that the name says. MPEG-1 knows 24 to 60 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix])
    writer = cv2.VideoWriter(str(path), codec, fps, (frames.shape[2], frames.shape[1]))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path
