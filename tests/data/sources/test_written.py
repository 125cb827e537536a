"""Episodes that the published libraries wrote themselves (written/by_libraries.py): the readers give what went in."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from cjepa_jax.data.sources.episode_file import EpisodeFile
from cjepa_jax.data.sources.lerobot import LeRobot

HERE = pathlib.Path(__file__).parent / "written"
SOURCE = json.loads((HERE / "source.json").read_text())
LENGTHS = SOURCE["rule"]["lengths"]


def expected(frames):
    """The first frames' numbers of all windows, in order."""
    starts = np.cumsum([0, *LENGTHS[:-1]])
    return [int(s) + i for s, n in zip(starts, LENGTHS, strict=True) for i in range(n - frames + 1)]


def check(source, tolerance):
    """Every window of 4 frames holds the brightness, actions and states of the rule."""
    firsts = []
    for scene in source:
        bright = scene["video"].reshape(4, -1).astype(float)
        n = np.rint((bright.mean(1) - 20) / 8).astype(int)
        assert np.array_equal(np.diff(n), [1, 1, 1]) and scene["video"].shape == (4, 32, 32, 3)
        assert np.abs(bright - (20 + 8 * n[:, None])).max() <= tolerance
        np.testing.assert_array_equal(scene["actions"][:-1], np.stack([n, -n], 1)[:-1])
        np.testing.assert_allclose(scene["proprio"], np.stack([n / 10, n], 1), rtol=1e-6)
        firsts.append(int(n[0]))
    assert firsts == expected(4)


def test_the_files_are_those_that_the_libraries_wrote():
    assert set(SOURCE["versions"]) >= {"stable-worldmodel", "lerobot"} and len(SOURCE["sha256"]) == 7
    for name, digest in SOURCE["sha256"].items():
        assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.needs("h5py")
def test_a_file_of_stable_worldmodel_is_read():
    check(EpisodeFile(path=str(HERE / "stable_worldmodel.h5"), frames=4, hop=1, held=0.0), tolerance=0)


@pytest.mark.needs("pyarrow")
def test_a_folder_of_lerobot_is_read():
    check(LeRobot(path=str(HERE / "lerobot"), frames=4, hop=1, held=0.0), tolerance=3)  # h264 loses a little
