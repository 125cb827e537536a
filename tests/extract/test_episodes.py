"""Slots of the episodes of an HDF5 file, with their actions."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from cjepa_jax.data.formats.episode_file import Recorder
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.errors import DataError
from cjepa_jax.extract import __main__ as command
from cjepa_jax.extract import encoders
from tests.extract.test_extract import FLAGS, frames
from tests.models.test_slot_encoders import savi

pytestmark = pytest.mark.needs("h5py")
LENGTHS = (3, 4, 19, 5, 3, 4, 6, 3, 5, 4, 3, 4, 5, 3, 4, 3, 3, 4, 5, 6)  # of 20 episodes: 18, 1 and 1


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """(weights, the file, videos, actions and states of its episodes)."""
    root = tmp_path_factory.mktemp("episodes")
    _, state, *_ = savi()
    save_file({name: np.asarray(array, np.float32) for name, array in state.items()}, root / "savi.safetensors")
    rng = np.random.default_rng(0)
    content = [
        (frames(n, 16), rng.normal(size=(n, 2)).astype(np.float32), rng.normal(size=(n, 4)).astype(np.float32))
        for n in LENGTHS
    ]
    with Recorder(root / "pusht.h5") as out:
        for video, actions, proprio in content:
            out.add(video, actions, proprio=proprio)
    return root / "savi.safetensors", root / "pusht.h5", content


def test_slots_of_episodes_are_those_of_their_frames_with_actions_and_states(given, tmp_path, capsys):
    weights, file, content = given
    flags = [f"--checkpoint={weights}", f"--videos={file}", f"--out={tmp_path / 'out'}"]
    assert command.main(flags) == 0
    assert "split train, 18 videos" in (text := capsys.readouterr().out) and "split test, 1 videos" in text
    found, _ = encoders.of(str(weights), **FLAGS | {"seed": 0})
    wanted = found.encode(content[2][0], 2)  # 19 frames, which are read in two parts
    whole, start = np.load(tmp_path / "out" / "slots.npy"), sum(LENGTHS[:2])
    np.testing.assert_allclose(whole[start : start + 19], wanted, atol=1e-6)
    for split, number in (("train", 17), ("eval", 18), ("test", 19)):
        source = SlotFiles(split, str(tmp_path / "out"), frames=3)
        scene, (_, actions, proprio) = source[len(source) - 1], content[number]
        np.testing.assert_array_equal(scene["proprio"], proprio[-3:])
        np.testing.assert_array_equal(scene["actions"], np.concatenate([actions[-3:-1], np.zeros((1, 2))]))
    assert command.main(flags) == 0 and "done already" in capsys.readouterr().out


def test_the_first_episodes_of_each_split_and_no_other_files(given, tmp_path):
    weights, file, content = given
    assert command.main([f"--checkpoint={weights}", f"--videos={file}", f"--out={tmp_path / 'out'}", "--count=2"]) == 0
    assert len(np.load(tmp_path / "out" / "actions.npy")) == sum(LENGTHS[:2]) + sum(LENGTHS[18:])
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(DataError, match="x.h5: no HDF5 file$"):
        command.main([f"--checkpoint={weights}", f"--videos={tmp_path / 'x.h5'}", f"--out={tmp_path / 'other'}"])
