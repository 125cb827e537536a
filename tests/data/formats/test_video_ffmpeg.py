"""Over forty video files of 13 codecs: their frames are those of the program ffmpeg, by both readers."""

import functools
import importlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cjepa_jax.data.formats import video_times
from cjepa_jax.data.formats.video_times import Reader, Window

pytestmark = [pytest.mark.needs("imageio_ffmpeg"), pytest.mark.slow]

H264, HEVC = "-c:v libx264 -preset veryfast", "-c:v libx265 -preset ultrafast -x265-params log-level=none"
VARIABLE = "-vf setpts='N/25/TB+0.3*floor(N/7)/TB' -fps_mode vfr"
LONG = "long"  # a source of 15 s instead of 2 s, so that clips are sought
FILES = {
    "h264.mp4": H264,
    "h264.mov": H264,
    "h264.mkv": H264,
    "h264.ts": H264,
    "h264.flv": H264,
    "h264_intra.mp4": f"{H264} -g 1",
    "h264_b.mp4": f"{H264} -bf 3 -g 50",
    "h264_open.mkv": f"{H264} -bf 3 -x264-params open-gop=1:keyint=30",
    "h264_full.mp4": f"{H264} -pix_fmt yuvj420p",
    "h264_444.mp4": f"{H264} -pix_fmt yuv444p",
    "h264_709.mp4": f"{H264} -colorspace bt709 -color_primaries bt709 -color_trc bt709",
    "h264_grey.mp4": f"{H264} -pix_fmt gray",
    "h264_faststart.mp4": f"{H264} -movflags +faststart",
    "h264_fragments.mp4": f"{H264} -movflags +frag_keyframe+empty_moov",
    "h264_10fps.mp4": f"{H264} -r 10",
    "h264_60fps.mp4": f"{H264} -r 60",
    "h264_2997.mkv": f"{H264} -r 30000/1001",
    "h264_odd.mp4": f"{H264} -vf scale=70:50 -pix_fmt yuv420p",
    "h264_vfr.mp4": f"{VARIABLE} {H264}",
    "h264_vfr.mkv": f"{VARIABLE} {H264}",
    "h264_long.mp4": f"{LONG} {H264} -g 50 -bf 2",
    "h264_long_vfr.mp4": f"{LONG} {VARIABLE} {H264} -g 50",
    "h264_long_open.mkv": f"{LONG} {H264} -bf 3 -x264-params open-gop=1:keyint=60",
    "h264_rotate90.mp4": f"{H264} rotate=90",
    "h264_rotate180.mp4": f"{H264} rotate=180",
    "h264_rotate270.mov": f"{H264} rotate=270",
    "hevc.mp4": HEVC,
    "hevc.mkv": HEVC,
    "hevc_long.mp4": f"{LONG} {HEVC}:keyint=60:open-gop=1",
    "hevc_rotate90.mp4": f"{HEVC} rotate=90",
    "vp8.webm": "-c:v libvpx",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8",
    "vp9_vfr.webm": f"{VARIABLE} -c:v libvpx-vp9 -deadline realtime -cpu-used 8",
    "vp9_long.webm": f"{LONG} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50",
    "mpeg4.avi": "-c:v mpeg4",
    "mpeg4.mp4": "-c:v mpeg4",
    "mpeg4_b.avi": "-c:v mpeg4 -bf 2",
    "mpeg4_long_b.avi": f"{LONG} -c:v mpeg4 -bf 2 -g 50",
    "mpeg4_rotate90.mov": "-c:v mpeg4 rotate=90",
    "xvid.avi": "-c:v libxvid",
    "mpeg1.mpg": "-c:v mpeg1video",
    "mpeg2.mpg": "-c:v mpeg2video -bf 2",
    "mpeg2.ts": "-c:v mpeg2video",
    "mjpeg.avi": "-c:v mjpeg -q:v 3",
    "mjpeg.mov": "-c:v mjpeg -q:v 3",
    "ffv1.mkv": "-c:v ffv1 -pix_fmt bgr0",
    "ffv1.avi": "-c:v ffv1 -pix_fmt yuv420p",
    "prores.mov": "-c:v prores_ks -pix_fmt yuv422p10le",
    "wmv2.wmv": "-c:v wmv2",
    "theora.ogv": "-c:v libtheora -q:v 7",
    "av1.mkv": "-c:v libsvtav1 -preset 12",
    "av1.mp4": "-c:v libsvtav1 -preset 12",
}
ONLY_PYAV = ("av1",)  # OpenCV's FFmpeg has no decoder for it
DEEP = ("prores",)  # more than 8 bits: swscale rounds by another path in OpenCV and PyAV than in the program
WINDOWS = (Window(0.0, 8, 4.0), Window(0.62, 12, 30.0))
FAR = (Window(6.4, 8, 4.0), Window(11.03, 8, 25.0))


def ffmpeg(*arguments: str) -> bytes:
    program = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    done = subprocess.run([program, "-v", "error", "-y", "-threads", "1", *arguments], capture_output=True, text=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make(path: Path, recipe: str) -> Path:
    """A file of FILES."""
    words = recipe.replace("'", "").split()
    source = f"testsrc2=size=96x64:rate=25:duration={15 if LONG in words else 2.4}"
    turn = next((word.partition("=")[2] for word in words if word.startswith("rotate=")), "")
    words = [word for word in words if word != LONG and not word.startswith("rotate=")]
    pixels = [] if "-pix_fmt" in words else ["-pix_fmt", "yuvj420p" if "mjpeg" in words else "yuv420p"]
    plain = path.with_name(f"plain_{path.name}") if turn else path
    ffmpeg("-f", "lavfi", "-i", source, *words, *pixels, str(plain))
    if turn:
        ffmpeg("-display_rotation", turn, "-i", str(plain), "-c", "copy", str(path))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("codecs")
    return functools.cache(lambda name: make(root / name, FILES[name]))


@pytest.fixture(scope="module")
def expected(file):
    """What `ffmpeg -vf fps=...` gives of a file's window, as bytes."""

    @functools.cache
    def frames(name: str, window: Window) -> bytes:
        # Microseconds: the filter rounds start_time to the time base of the file, which is a frame in some.
        chosen = f"settb=1/1000000,fps=fps={window.fps}:start_time={window.start}:round=near"
        raw = ("-frames:v", str(window.frames), "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
        return ffmpeg("-i", str(file(name)), "-vf", chosen, *raw)

    return frames


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reader", ["opencv", pytest.param("pyav", marks=pytest.mark.needs("av"))])
def test_frames_are_those_of_ffmpeg(file, expected, name, reader):
    if reader == "opencv" and name.startswith(ONLY_PYAV):
        pytest.skip("OpenCV's FFmpeg does not decode AV1")
    for window in FAR if LONG in FILES[name].split() else WINDOWS:
        found = video_times.read(file(name), lambda info, chosen=window: chosen, Reader(reader), name)
        wanted = np.frombuffer(expected(name, window), np.uint8)
        assert found.size == wanted.size, (window, found.shape)
        difference = np.abs(found.astype(int) - wanted.reshape(found.shape))
        assert difference.max() <= 2 or (name.startswith(DEEP) and difference.mean() < 1), (window, difference.max())
