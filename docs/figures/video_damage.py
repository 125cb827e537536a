"""How much damage inside videos both readers notice. Prints the table of docs/DATA.md, "Damage inside frames".

    .venv/bin/pip install av imageio-ffmpeg
    .venv/bin/python docs/figures/video_damage.py

Files of 60 frames are made by the program ffmpeg of imageio-ffmpeg. Of each, 40 copies get 40 random bytes at one place
in the middle half (seed 1), and are read to their end.
"""

import subprocess
import tempfile
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

from cjepa_jax.data.formats import video_times
from cjepa_jax.data.formats.video_times import Reader
from cjepa_jax.errors import DataError

CODECS = {
    "FFV1": ("mkv", "-c:v ffv1"),
    "MPEG-4": ("avi", "-c:v mpeg4"),
    "MPEG-2": ("mpg", "-c:v mpeg2video"),
    "Motion JPEG": ("avi", "-c:v mjpeg -q:v 3 -strict -1"),
    "WMV2": ("wmv", "-c:v wmv2"),
    "VP8": ("webm", "-c:v libvpx"),
    "HEVC": ("mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none"),
    "H.264": ("mp4", "-c:v libx264 -preset veryfast"),
    "VP9": ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
}
COPIES, LENGTH = 40, 40


def frames(path: Path, reader: str) -> list[np.ndarray] | None:
    """All frames, None for a file that the reader refuses."""
    try:
        stream = Reader(reader).open(path, path.name)
        found = []
        while stream.grab() is not None:
            found.append(stream.picture())
        stream.close()
        return found
    except DataError:
        return None


def concealed(path: Path) -> list[np.ndarray]:
    """All frames, whatever is wrong with them."""
    opened, found = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), []
    while opened.grab():
        found.append(opened.retrieve()[1])
    opened.release()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for codec, (ending, words) in CODECS.items():
            whole = Path(folder, f"whole.{ending}")
            source = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=2.4")
            program = (imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source)
            subprocess.run((*program, *words.split(), "-pix_fmt", "yuv420p", str(whole)), check=True)
            data, right, rng = whole.read_bytes(), concealed(whole), np.random.default_rng(1)
            counts = np.zeros(1 + len(video_times.READERS), int)
            assert all(frames(whole, reader) for reader in video_times.READERS)
            for _ in range(COPIES):
                place = rng.integers(len(data) // 4, len(data) * 3 // 4)
                noise = rng.integers(0, 256, LENGTH, dtype=np.uint8).tobytes()
                copy = Path(folder, f"copy.{ending}")
                copy.write_bytes(data[:place] + noise + data[place + LENGTH :])
                shown = concealed(copy)
                changed = len(shown) != len(right) or any((a != b).any() for a, b in zip(shown, right, strict=True))
                if changed:
                    counts += 1, *(frames(copy, reader) is None for reader in video_times.READERS)
            found = zip(("changed", *video_times.READERS), counts, strict=True)
            print(f"{codec:12}", ", ".join(f"{name} {count}" for name, count in found))


if __name__ == "__main__":
    main()
