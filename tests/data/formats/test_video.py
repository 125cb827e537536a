"""Video files: which frames come, in which colours, and what a broken file says."""

import subprocess
import sys

import numpy as np
import pytest

from cjepa_jax.data.formats import video
from cjepa_jax.errors import DataError
from tests.data import clips

FRAMES, HEIGHT, WIDTH = 20, 48, 64
KINDS = ("mp4", "mpg", "avi")


def clip() -> np.ndarray:
    """RGB uint8 [T,H,W,3]: a red left half, a blue right half, a grey bar whose brightness is 10 x t, noise below."""
    out = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    out[:, :, : WIDTH // 2, 0], out[:, :, WIDTH // 2 :, 2] = 250, 250
    out[:, 16:32] = (10 * np.arange(FRAMES))[:, None, None, None]
    out[:, 32:] = np.random.default_rng(0).integers(0, 256, out[:, 32:].shape)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for kind in KINDS:
        clips.write(root / f"a.{kind}", clip())
    return root


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [range(FRAMES), [0], [19], [3, 9, 15]])
def test_frames_and_colours(folder, kind, wanted):
    out = video.read(folder / f"a.{kind}", wanted, FRAMES, "clip 0")
    assert out.shape == (len(wanted), HEIGHT, WIDTH, 3) and out.dtype == np.uint8
    assert np.abs(out.astype(int) - clip()[list(wanted)])[:, :32].mean() < 6
    assert (out[:, 5, 5].argmax(-1) == 0).all() and (out[:, 5, -5].argmax(-1) == 2).all()
    assert np.abs(out[:, 24].mean((1, 2)) - 10 * np.array(wanted)).max() < 5


def test_reduced_frames_and_masks(folder):
    frames = video.read(folder / "a.mp4", [0, 1], None, "clip 0")
    out = video.reduce_frames(frames, 24)
    assert out.shape == (2, 24, 32, 3) and out[0, 2, 2, 0] > 200 > 50 > out[0, 2, -3, 0]
    assert video.reduce_frames(frames, 48) is frames
    assert [video.reduced(*size) for size in ((320, 480, 64), (480, 320, 64), (10, 1000, 64), (100, 100, 99))] == [
        (64, 96), (96, 64), (10, 1000), (99, 99),
    ]  # fmt: skip
    masks = clip()[None, :2, :, :, 0] > 200
    assert (video.reduce_masks(masks, 24) == masks[..., 1::2, 1::2]).all()
    assert video.reduce_masks(masks, 48) is masks
    assert video.reduce_masks(np.zeros((0, 2, 48, 64), bool), 24).shape == (0, 2, 24, 32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "text", "playlist"])
def test_broken_files_are_named(folder, tmp_path, kind, damage):
    path, data = tmp_path / f"b.{kind}", (folder / f"a.{kind}").read_bytes()
    playlist = f"#EXTM3U\n#EXTINF:1,\n{folder / 'a.mp4'}\n#EXT-X-ENDLIST\n"
    other = {"empty": b"", "text": b"not a video at all" * 99, "playlist": playlist.encode()}
    if damage != "missing":
        path.write_bytes(other.get(damage, data[: len(data) // 2]))
    with pytest.raises(DataError) as caught:
        video.read(path, range(FRAMES), FRAMES, "clip 12")
    text = str(caught.value)
    assert str(path) in text and "(clip 12)" in text and "\n" not in text
    expected = {"missing": "No such file", "empty": "empty", "text": "not a video", "playlist": "not a video"}
    cut = {"mp4": "cut short", "mpg": "damaged at frame ", "avi": "damaged at frame "}  # in its last frame
    assert expected.get(damage, cut.get(kind, "truncated after ")) in text


def test_truncation_counts_against_what_was_published(folder):
    with pytest.raises(DataError, match=r"a.mp4: truncated after 20 of 128 frames \(clip 3\)"):
        video.read(folder / "a.mp4", [0, 127], 128, "clip 3")
    with pytest.raises(DataError, match="truncated after 20 of 21"):
        video.read(folder / "a.mp4", [20], None, "clip 3")


@pytest.mark.parametrize("wanted", [[], [3, 1], [1, 1], [-1]])
def test_frame_numbers_ascend(folder, wanted):
    with pytest.raises(ValueError, match="ascending"):
        video.read(folder / "a.mp4", wanted, None, "clip 0")


def test_decoders_print_nothing(folder, tmp_path):
    """FFmpeg's own complaints name no clip and come in their hundreds."""
    for kind in KINDS:
        data = (folder / f"a.{kind}").read_bytes()
        (tmp_path / f"b.{kind}").write_bytes(data[: len(data) // 2])
    code = (
        "import sys\nfrom cjepa_jax.data.formats import video\nfor path in sys.argv[1:]:\n"
        " try: video.read(path, range(20), 20, 'x')\n except video.DataError: print('named')"
    )
    paths = [str(tmp_path / f"b.{kind}") for kind in KINDS]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["named"] * 3, "")
