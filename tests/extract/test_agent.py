"""Actions and states beside slots of episodes. HDF5 is a stand-in of arrays here, so h5py is not needed."""

import json
import resource
import sys
import types

import numpy as np
import pytest

from cjepa_jax.cli import guard
from cjepa_jax.data.formats import episode_file
from cjepa_jax.data.sources.episode_file import EpisodeFile
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.errors import DataError
from cjepa_jax.extract import episodes

LENGTHS = (5, 3, 6, 4)  # with four episodes all are of the split "train"


class HardLink:
    """How a file names what it holds."""


class Dataset:
    """An array, which remembers how many rows were read together."""

    is_virtual, external, chunks = False, None, None
    id = types.SimpleNamespace(get_create_plist=lambda: types.SimpleNamespace(get_nfilters=lambda: 0))

    def __init__(self, array):
        self.array, self.read = array, []
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __len__(self):
        return len(self.array)

    def __getitem__(self, place):
        self.read.append(len(self.array[place]))
        return self.array[place]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """(path of the file, its data sets, videos of a folder that has all its episodes)."""
    rng, total = np.random.default_rng(0), sum(LENGTHS)
    firsts = np.cumsum([0, *LENGTHS[:-1]])
    action = rng.normal(3, 2, (total, 2)).astype(np.float32)
    action[firsts + LENGTHS - 1] = np.nan
    proprio = rng.normal(size=(total, 3)).astype(np.float32)
    arrays = {"pixels": np.zeros((total, 8, 8, 3), np.uint8), "action": action, "proprio": proprio}
    arrays |= {"ep_len": np.array(LENGTHS), "ep_offset": firsts}
    sets = {name: Dataset(array) for name, array in arrays.items()}

    class File(dict):
        def __init__(self, raw, mode):
            super().__init__(sets)

        def get(self, name, getlink):
            return HardLink() if name in self else None

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    stand_in = types.SimpleNamespace(File=File, HardLink=HardLink, Dataset=Dataset)
    monkeypatch.setitem(sys.modules, "h5py", stand_in)
    path = tmp_path / "pusht.h5"
    path.write_bytes(episode_file.SIGNATURE)
    videos = {"train": {str(e): (int(first), n) for e, (first, n) in enumerate(zip(firsts, LENGTHS, strict=True))}}
    return path, sets, videos


def folder(out, videos):
    """A folder of slots without its agent's arrays."""
    np.save(out / "slots.npy", np.zeros((sum(LENGTHS), 2, 4), np.float32))
    starts, frames = zip(*videos["train"].values(), strict=True)
    index = {"train": {"names": list(videos["train"]), "starts": list(starts), "frames": list(frames)}}
    (out / "videos.json").write_text(json.dumps(index))


def test_both_readers_give_the_same_mean_deviation_and_actions(given, tmp_path):
    path, sets, videos = given
    folder(tmp_path, videos)
    episodes.write_agent(path, tmp_path, videos)
    action = sets["action"].array
    rows = action[~np.isnan(action[:, 0])].astype(float)
    slots = SlotFiles("train", str(tmp_path), frames=3, standardise=True)
    pixels = EpisodeFile("train", str(path), frames=3, hop=1, size=8, standardise=True)
    for mean, deviation in (slots.spreads["actions"], pixels.spread):
        np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(deviation, rows.std(0, ddof=1), rtol=1e-6)
    assert len(slots) == len(pixels) == sum(n - 2 for n in LENGTHS)
    for i in range(len(slots)):
        np.testing.assert_allclose(slots[i]["actions"][:-1], pixels[i]["actions"][:-1], atol=1e-5)
    assert not slots[2]["actions"][-1].any() and slots[1]["actions"][-1].all()  # an episode's last frame, and another
    plain = SlotFiles("train", str(tmp_path), frames=3)
    np.testing.assert_array_equal(plain[2]["actions"], np.nan_to_num(action[2:5]))
    np.testing.assert_array_equal(plain[2]["proprio"], sets["proprio"].array[2:5])


@pytest.mark.parametrize("row, column", [(3, slice(None)), (4, 0)])  # within an episode, and half of its last action
def test_other_actions_that_are_not_finite_are_refused(given, tmp_path, row, column):
    path, sets, videos = given
    folder(tmp_path, videos)
    sets["action"].array[4] = 1
    sets["action"].array[row, column] = np.nan
    episodes.write_agent(path, tmp_path, videos)
    with pytest.raises(DataError, match="frames 2 to 4 have actions that are not finite$"):
        SlotFiles("train", str(tmp_path), frames=3)[2]


def test_columns_are_read_in_pieces_of_a_bounded_size(given, tmp_path, monkeypatch):
    path, sets, videos = given
    for values, blocks, most in ((4, 100, 2), (1, 100, 1), (100, 3, 3)):
        monkeypatch.setattr(episode_file, "VALUES", values)
        monkeypatch.setattr(episode_file, "BLOCK", blocks)
        for name in ("action", "proprio"):
            sets[name].read.clear()
        episodes.write_agent(path, tmp_path, videos)
        np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), sets["action"].array)
        np.testing.assert_array_equal(np.load(tmp_path / "proprio.npy"), sets["proprio"].array)
        assert max(sets["action"].read) == most and max(sets["proprio"].read) <= most
        sets["action"].read.clear()
        episode_file.spread(path)
        assert max(sets["action"].read) == most


def test_a_full_disk_is_not_reported_as_a_damaged_file(given, tmp_path, capsys):
    path, _, videos = given
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))  # bytes of a file
    try:
        code = guard(lambda: episodes.write_agent(path, tmp_path, videos))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    text = capsys.readouterr().err
    assert code == 6 and "cannot write: " in text and "unreadable" not in text
    assert not list(tmp_path.glob("actions.npy*"))
