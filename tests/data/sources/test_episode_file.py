"""Files of episodes: what is written is read, windows and splits, and what other people's files may hold."""

import dataclasses
import stat
import sys
import zlib

import numpy as np
import pytest

from cjepa_jax.data.formats import episode_file
from cjepa_jax.data.formats.episode_file import Recorder
from cjepa_jax.data.kinds.episodes import EpisodeMap
from cjepa_jax.data.sources.episode_file import EpisodeFile
from cjepa_jax.data.worlds.acting import Rooms
from cjepa_jax.errors import ConfigError, DataError

pytestmark = pytest.mark.needs("h5py")
LENGTHS = (9, 5, 12, 7, 9, 10, 8, 9, 9, 11)


def episodes():
    """(video, actions, proprio) of each episode. Frame n of the file has n in its pixels and in its action."""
    start = 0
    for length in LENGTHS:
        n = np.arange(start, start + length)
        video = np.broadcast_to(n[:, None, None, None], (length, 16, 12, 3)).astype(np.uint8)
        yield video, np.stack([n, -n], 1).astype(np.float32), np.stack([n / 10], 1)
        start += length


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("episodes") / "all.h5"
    with Recorder(path) as out:
        for video, actions, proprio in episodes():
            out.add(video, actions, proprio=proprio)
    return path


def test_the_layout_is_stable_worldmodels(file):
    import h5py

    with h5py.File(file) as found:
        assert set(found) == {"pixels", "action", "proprio", "ep_len", "ep_offset"}
        assert found["ep_len"][:].tolist() == list(LENGTHS) and found["ep_offset"][:3].tolist() == [0, 9, 14]
        assert found["pixels"].shape == (sum(LENGTHS), 16, 12, 3) and found["pixels"].dtype == np.uint8
        ends = np.cumsum(LENGTHS) - 1
        action = found["action"][:]
        assert np.isnan(action[ends]).all() and np.isfinite(np.delete(action, ends, 0)).all()
    assert [path.name for path in file.parent.iterdir()] == ["all.h5"]


def test_windows_stay_within_their_episode_and_have_its_actions(file):
    source, seen = EpisodeFile(path=str(file), frames=4, held=0.2), []
    ends = {int(end) for end in np.cumsum(LENGTHS) - 1}
    for scene in source:
        numbers = scene["video"][:, 0, 0, 0].astype(int)
        assert scene["video"].shape == (4, 16, 12, 3) and np.array_equal(np.diff(numbers), [1, 1, 1])
        assert not set(numbers[:-1].tolist()) & ends
        np.testing.assert_array_equal(scene["actions"][:-1], np.stack([numbers, -numbers], 1)[:-1])
        assert not scene["actions"][-1].any()
        np.testing.assert_allclose(scene["proprio"][:, 0], numbers / 10, rtol=1e-6)
        seen.append(numbers[0])
    assert seen == [0, 4, 9, 14, 18, 22, 26, 33, 37, 42, 46, 52, 56, 60, 64] and len(source) == 15


def test_a_stride_joins_the_actions_of_skipped_frames_and_a_hop_moves_windows(file):
    scene = EpisodeFile(path=str(file), frames=3, stride=2, hop=1)[1]
    assert scene["video"][:, 0, 0, 0].tolist() == [1, 3, 5] and scene["actions"].shape == (3, 4)
    assert scene["actions"][:2].tolist() == [[1, -1, 2, -2], [3, -3, 4, -4]]
    assert len(EpisodeFile(path=str(file), frames=9, hop=1, held=0.0)) == sum(max(0, n - 8) for n in LENGTHS)


def test_splits_share_no_episode_and_count_limits(file):
    parts = [EpisodeFile(split, str(file), frames=4, hop=1, held=0.5) for split in ("train", "eval", "test")]
    frames = [{int(n) for scene in part for n in scene["video"][:, 0, 0, 0]} for part in parts]
    assert not frames[0] & frames[1] and not frames[1] & frames[2] and all(frames)
    assert len(EpisodeFile(path=str(file), frames=4, count=2)) == 2
    with pytest.raises(IndexError, match="0 to 1"):
        EpisodeFile(path=str(file), frames=4, count=2)[2]
    with pytest.raises(DataError, match="99 windows are asked for, train has"):
        EpisodeFile(path=str(file), frames=4, count=99)
    with pytest.raises(DataError, match="any windows are asked for, eval has 0"):
        EpisodeFile("eval", str(file), frames=4, held=0.0)
    with pytest.raises(ConfigError, match="data.frames is 1; it must be an integer of at least 2"):
        EpisodeFile(path=str(file), frames=1)


def test_the_pipeline_takes_recorded_episodes_of_a_world(tmp_path):
    """Train on what a world's policy did: the same arrays as the world's own, but for masks and states."""
    world = Rooms(size=16, frames=6, count=20)
    with Recorder(tmp_path / "rooms.h5") as out:
        for scene in world:
            out.add(scene["video"], scene["actions"], scene["proprio"])
    source = EpisodeFile(path=str(tmp_path / "rooms.h5"), size=16, frames=6)

    def nothing(rng, patches, valid, grid):
        return np.zeros(patches.shape[1], bool), np.zeros(len(patches), bool)

    made = [EpisodeMap(s, nothing, 8, 1, 16, 2, "none", 0, 6)(3, 0) for s in (world_view(world), source)]
    for name in ("video", "proprio"):
        np.testing.assert_array_equal(made[0][name], made[1][name])
    np.testing.assert_array_equal(made[0]["actions"][:-1], made[1]["actions"][:-1])


def world_view(world):
    """The world without its labels, which a file does not have."""
    return dataclasses.replace(type("Plain", (Rooms,), {"label_names": (), "labels": lambda *_: np.zeros(0)})(
        size=world.size, frames=world.frames, count=world.count))  # fmt: skip


class Line:
    """Gymnasium's five functions: a place that actions move. It ends beyond 1."""

    def reset(self, seed):
        self.place = np.array([seed / 10.0])
        return self.place, {}

    def step(self, action):
        self.place = self.place + action
        return self.place, 0.0, bool(self.place[0] > 1), False, {}

    def render(self):
        return np.full((8, 8, 3), int(100 * self.place[0]), np.uint8)


def test_any_environment_is_recorded(tmp_path):
    episode_file.record(Line(), lambda seen: np.array([0.5]), tmp_path / "line.h5", episodes=3, steps=4, seed=2)
    index = episode_file.index(tmp_path / "line.h5")
    assert index.lengths.tolist() == [3, 3, 3] and index.columns == ("state",)
    found = episode_file.read(tmp_path / "line.h5", 3, 3, 1, ("state",))
    np.testing.assert_allclose(found["state"][:, 0], [0.3, 0.8, 1.3], rtol=1e-6)
    assert found["pixels"][:, 0, 0, 0].tolist() == [30, 80, 130] and found["action"][:2].tolist() == [[0.5], [0.5]]
    options = dict(path=str(tmp_path / "line.h5"), frames=3, held=0.0)
    assert "proprio" not in EpisodeFile(**options)[0]
    np.testing.assert_array_equal(EpisodeFile(**options, column="state")[1]["proprio"], found["state"])


def test_the_agents_state_is_a_column_of_the_file(file):
    with pytest.raises(DataError, match="has no state, which data.options.column names"):
        EpisodeFile(path=str(file), column="state")
    with pytest.raises(ConfigError, match="data.options.column is 'pixels': must be proprio or state"):
        EpisodeFile(path=str(file), column="pixels")


def test_a_recording_that_fails_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")
    video, actions = np.zeros((3, 8, 8, 3), np.uint8), np.zeros((2, 2))
    for wrong, message in (
        ((video.astype(float), actions), "video is float64"), ((video, actions[:1]), r"action is .*\[2, 2\]"),
        ((video, actions + np.nan), "action has values that are not finite"), ((video, actions[:, :1]), "Those before"),
        ((video, actions, np.zeros((3, 1))), "Those before have action"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message), Recorder(path) as out:
            out.add(video, actions)
            out.add(*wrong)
    with pytest.raises(DataError, match="no episode was added"), Recorder(path):
        pass
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_recording_without_h5py_leaves_nothing_and_one_with_it_has_the_usual_permissions(tmp_path, monkeypatch):
    (tmp_path / "plain").touch()
    with Recorder(tmp_path / "a.h5") as out:
        out.add(np.zeros((3, 8, 8, 3), np.uint8), np.zeros((2, 2)))
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.h5", "plain")]
    assert modes[0] == modes[1] != 0o600
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match="needs the package h5py"):
        Recorder(tmp_path / "b.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "plain"]


def build(path, **replaced):
    """A file by h5py with other data sets."""
    import h5py

    whole = {"pixels": np.zeros((6, 8, 8, 3), np.uint8), "action": np.zeros((6, 2), np.float32),
             "ep_len": np.array([6]), "ep_offset": np.array([0])}  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, value in (whole | replaced).items():
            if value is not None:
                file[name] = value
    return EpisodeFile(path=str(path), frames=3, held=0.0)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [({"action": None}, "has no data set 'action'"), ({"pixels": np.zeros((6, 8, 8, 3))}, "pixels are float64"),
     ({"action": np.zeros((5, 2))}, r"action is float64 \[5, 2\]: must be numbers \[6, n\]"),
     ({"ep_len": np.array([7])}, "episode 0 has frames 0 to 6, and the file has 6"),
     ({"ep_offset": np.array([-1])}, "episode 0 has frames -1 to 4"),
     ({"ep_offset": np.array([2**62])}, "episode 0 has frames"),
     ({"ep_len": np.array([6.0])}, "ep_len is float64"), ({"ep_len": np.array([3, 3])}, "have 2 and 1 rows"),
     ({"ep_len": np.array([4, 3]), "ep_offset": np.array([0, 3])}, "episodes 0 and 1 share frame 3"),
     ({"ep_len": np.array([2, 4]), "ep_offset": np.array([3, 0])}, "episodes 1 and 0 share frame 3"),
     ({"state": np.zeros(6)}, "state is float64")],
)  # fmt: skip
def test_a_file_of_another_form_is_refused(tmp_path, replaced, message):
    with pytest.raises(DataError, match=message) as error:
        build(tmp_path / "a.h5", **replaced)
    assert "\n" not in str(error.value)


def as_the_package_writes(path, **options):
    """Two episodes of 4 and 2 frames, as HDF5Writer of stable-worldmodel 0.1.1 stores them: the newest layout, one
    frame in a chunk, data sets that grow, lengths of 32 bits."""
    import h5py

    pixels, action = np.arange(6 * 8 * 8 * 3, dtype=np.uint8), np.arange(12, dtype=np.float32).reshape(6, 2)
    action[[3, 5]] = np.nan
    rows = {"pixels": pixels.reshape(6, 8, 8, 3), "action": action, "state": np.arange(18.0).reshape(6, 3)}
    with h5py.File(path, "w", libver="latest") as file:
        for name, value in rows.items():
            shape = value.shape[1:]
            more = dict(chunks=(1, *shape), dtype=value.dtype) | options
            file.create_dataset(name, (0, *shape), maxshape=(None, *shape), **more)
        for name, kind in (("ep_len", np.int32), ("ep_offset", np.int64)):
            file.create_dataset(name, (0,), maxshape=(None,), dtype=kind)
        for number, (start, count) in enumerate(((0, 4), (4, 2))):
            for name, value in rows.items():
                file[name].resize(start + count, axis=0)
                file[name][start:] = value[start : start + count]
            for name, value in (("ep_len", count), ("ep_offset", start)):
                file[name].resize(number + 1, axis=0)
                file[name][number] = value
    return rows


def test_a_file_as_the_package_writes_it_is_read(tmp_path):
    rows = as_the_package_writes(tmp_path / "a.h5")
    scenes = list(EpisodeFile(path=str(tmp_path / "a.h5"), size=8, frames=2, held=0.0, column="state"))
    assert len(scenes) == 3
    for start, scene in zip((0, 2, 4), scenes, strict=True):
        np.testing.assert_array_equal(scene["video"], rows["pixels"][start : start + 2])
        np.testing.assert_array_equal(scene["actions"][0], rows["action"][start])
        np.testing.assert_array_equal(scene["proprio"], rows["state"][start : start + 2])


@pytest.mark.needs("hdf5plugin")
def test_blosc_is_read_and_other_plugins_are_refused(tmp_path, monkeypatch):
    import hdf5plugin

    rows = as_the_package_writes(tmp_path / "a.h5", **hdf5plugin.Blosc(cname="lz4"))
    source = EpisodeFile(path=str(tmp_path / "a.h5"), size=8, frames=4, held=0.0)
    np.testing.assert_array_equal(source[0]["video"], rows["pixels"][:4])
    as_the_package_writes(tmp_path / "b.h5", **hdf5plugin.Zstd())
    with pytest.raises(DataError, match=r"compressed by a plugin other than Blosc \(filter 32015\). Repack"):
        EpisodeFile(path=str(tmp_path / "b.h5"))
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(ConfigError, match="Blosc: needs the package hdf5plugin"):
        EpisodeFile(path=str(tmp_path / "a.h5"))


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "fletcher32": True}])
@pytest.mark.parametrize("name", ["pixels", "action", "ep_len"])
def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused(tmp_path, name, options):
    import h5py

    rows = {"pixels": np.ones((6, 8, 8, 3), np.uint8), "action": np.ones((6, 2)), "ep_len": [6], "ep_offset": [0]}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, value in rows.items():
            chunks = (4, *np.shape(value)[1:]) if len(value) > 4 else None
            file.create_dataset(key, data=value, chunks=chunks, compression="gzip", **options)
    assert EpisodeFile(path=str(tmp_path / "a.h5"), frames=6, held=0.0)[0]["video"].min() == 1
    with h5py.File(tmp_path / "a.h5", "a") as file:
        last = 4 if len(rows[name]) > 4 else 0
        corner = (last,) + (0,) * (file[name].ndim - 1)
        file[name].id.write_direct_chunk(corner, zlib.compress(bytes(1 << 16)))
    with pytest.raises(DataError, match=f"a chunk of {name} unpacks to more than its"):
        EpisodeFile(path=str(tmp_path / "a.h5"), frames=6, held=0.0)[0]


@pytest.mark.needs("hdf5plugin")
def test_a_chunk_of_blosc_that_claims_more_than_it_has_is_refused(tmp_path):
    import h5py
    import hdf5plugin

    as_the_package_writes(tmp_path / "a.h5", **hdf5plugin.Blosc(cname="lz4"))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["pixels"][1] = 0
        skipped, stored = file["pixels"].id.read_direct_chunk((1, 0, 0, 0))
        assert not skipped
        file["pixels"].id.write_direct_chunk((1, 0, 0, 0), stored[:4] + (2**31 - 1).to_bytes(4, "little") + stored[8:])
    with pytest.raises(DataError, match="a chunk of pixels unpacks to more than its 192 bytes"):
        EpisodeFile(path=str(tmp_path / "a.h5"), size=8, frames=4, held=0.0)[0]


@pytest.mark.parametrize(("filters", "message"), [
    (["deflate", "deflate"], "action is compressed more than once"),
    (["deflate", "shuffle"], "action is compressed before another filter"),  # its bytes are not those of gzip
    (["scaleoffset"], r"action is stored by a filter that is not read \(filter 6\)"),  # its parameters are trusted
    (["scaleoffset", "deflate"], r"action is stored by a filter that is not read \(filter 6\)"),
])  # fmt: skip
def test_filters_whose_sizes_cannot_be_checked_are_refused(tmp_path, filters, message):
    import h5py

    build(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["action"]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((6, 2))
        arguments = {"deflate": (9,), "shuffle": (), "scaleoffset": (h5py.h5z.SO_INT, 0)}
        for name in filters:
            getattr(made, f"set_{name}")(*arguments[name])
        space = h5py.h5s.create_simple((6, 2))
        h5py.h5d.create(file.id, b"action", h5py.h5t.NATIVE_INT32, space, made)
    with pytest.raises(DataError, match=message):
        EpisodeFile(path=str(tmp_path / "a.h5"), frames=3, held=0.0)


def test_other_files_are_never_opened(tmp_path):
    import h5py

    build(tmp_path / "secret.h5")
    layout = h5py.VirtualLayout((6, 2), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "action", (6, 2))
    for number, link in enumerate((h5py.ExternalLink("secret.h5", "/action"), h5py.SoftLink("/ep_len"), layout)):
        path = tmp_path / f"{number}.h5"
        build(path)
        with h5py.File(path, "a") as file:
            del file["action"]
            if isinstance(link, h5py.VirtualLayout):
                file.create_virtual_dataset("action", link)
            else:
                file["action"] = link
        with pytest.raises(DataError, match="within the file|stored in other files"):
            EpisodeFile(path=str(path), frames=3)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(DataError, match="no HDF5 file"):
        EpisodeFile(path=str(tmp_path / "text.h5"))
    whole = (tmp_path / "secret.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match="unreadable") as error:
        EpisodeFile(path=str(tmp_path / "cut.h5"))
    assert "\n" not in str(error.value)


def test_values_that_are_not_finite_and_sizes_that_are_claimed(tmp_path):
    import h5py

    action = np.zeros((6, 2), np.float32)
    action[1] = np.nan
    source = build(tmp_path / "nan.h5", action=action)
    assert source[1]["actions"].shape == (3, 2)
    with pytest.raises(DataError, match="action of window 0 is not finite"):
        source[0]
    with h5py.File(tmp_path / "claims.h5", "w") as file:  # a few bytes that claim 1 TB
        file.create_dataset("pixels", (6, 600_000, 100_000, 3), np.uint8, chunks=(1, 1000, 1000, 3))
        file["action"], file["ep_len"], file["ep_offset"] = np.zeros((6, 2)), [6], [0]
    with pytest.raises(DataError, match="values, at most"):
        EpisodeFile(path=str(tmp_path / "claims.h5"), frames=3, held=0.0)[0]


def test_actions_are_standardised_by_all_of_the_file(file, monkeypatch):
    monkeypatch.setattr(episode_file, "BLOCK", 7)  # several blocks
    every = np.concatenate([actions[:-1] for _, actions, _ in episodes()]).astype(np.float64)
    plain, own = EpisodeFile(path=str(file)), EpisodeFile(path=str(file), standardise=True)
    np.testing.assert_allclose(own.spread[0], every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(own.spread[1], every.std(0, ddof=1), rtol=1e-12)
    wanted = (plain[1]["actions"][:-1] - every.mean(0)) / every.std(0, ddof=1)
    np.testing.assert_allclose(own[1]["actions"][:-1], wanted, rtol=1e-6)
    assert own[1]["actions"].dtype == np.float32 and not own[1]["actions"][-1].any()
    with pytest.raises(ConfigError, match="data.options.standardise is 1: must be True or False"):
        EpisodeFile(path=str(file), standardise=1)


def test_actions_that_do_not_change_are_not_divided_by_zero(tmp_path):
    with Recorder(tmp_path / "still.h5") as out:
        out.add(np.zeros((5, 16, 16, 3), np.uint8), np.stack([np.arange(5.0), np.ones(5)], 1))
    source = EpisodeFile(path=str(tmp_path / "still.h5"), frames=2, held=0.0, standardise=True)
    assert (source[0]["actions"][:, 1] == 0).all() and np.isfinite(source[0]["actions"]).all()
    with Recorder(tmp_path / "one.h5") as out:
        out.add(np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 1)))
    with pytest.raises(DataError, match="action has 1 finite rows: at least 2"):
        EpisodeFile(path=str(tmp_path / "one.h5"), frames=2, held=0.0, standardise=True)
