"""Folders of extracted slots: converted from pickles that are never run, and read as windows."""

import collections
import dataclasses
import errno
import functools
import json
import os
import pickle
import sys
import tracemalloc

import numpy as np
import pytest

from cjepa_jax.data import bench, slot_files
from cjepa_jax.data.formats import array_pickle, episode_file
from cjepa_jax.data.kinds.slots import SlotMap
from cjepa_jax.data.pipeline import Loader
from cjepa_jax.data.sources.slot_files import SlotFiles, opened
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import slots as masks
from configs.slots import clevrer
from tests import running

LENGTHS = {"train": {"0_pixels.mp4": 9, "1_pixels.mp4": 4, "2_pixels.mp4": 12}, "val": {"3_pixels.mp4": 8}}


def arrays(inner, dtype=np.float32):
    rng = np.random.default_rng(len(inner))
    return {
        split: {name: rng.normal(size=(count, *inner)).astype(dtype) for name, count in videos.items()}
        for split, videos in LENGTHS.items()
    }


def dump(folder, content, name="x.pkl", protocol=4):
    path = folder / name
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(the folder, slots, actions, proprio)."""
    root = tmp_path_factory.mktemp("slots")
    found = [arrays((3, 4)), arrays((2,)), arrays((5,))]
    given = [f"--{n}={dump(root, a, n)}" for n, a in zip(("slots", "actions", "proprio"), found, strict=True)]
    assert slot_files.main([*given, f"--out={root / 'out'}"]) == 0
    return (root / "out", *found)


@pytest.mark.parametrize("protocol, dtype", [(3, np.float32), (4, np.float64), (5, np.float16), (5, np.float32)])
def test_pickles_of_every_protocol_are_converted(protocol, dtype, tmp_path):
    content = arrays((3, 4), dtype)
    slot_files.convert({"slots": dump(tmp_path, content, protocol=protocol)}, tmp_path / "out")
    whole, index = np.load(tmp_path / "out" / "slots.npy"), json.loads((tmp_path / "out" / "videos.json").read_text())
    assert whole.dtype == np.float32 and whole.shape == (33, 3, 4)
    for split, videos in content.items():
        assert index[split]["names"] == list(videos)
        for start, count, array in zip(index[split]["starts"], index[split]["frames"], videos.values(), strict=True):
            np.testing.assert_array_equal(whole[start : start + count], array.astype(np.float32))
    with pytest.raises(ConfigError, match="holds slots already"):
        slot_files.convert({"slots": tmp_path / "x.pkl"}, tmp_path / "out")


def test_the_command_converts_and_refuses_in_one_line(tmp_path):
    path = dump(tmp_path, arrays((3, 4)))
    argv = [sys.executable, "-m", "cjepa_jax.data.slot_files", f"--slots={path}", f"--out={tmp_path / 'out'}"]
    out, _ = running.run(argv)
    assert "split train, 3 videos, 25 frames" in out and "split val, 1 videos, 8 frames" in out
    assert "holds slots already" in running.error(argv, 2)


def test_windows_are_the_published_ones_with_their_actions(folder):
    root, slots, actions, proprio = folder
    source = SlotFiles("train", str(root), frames=3, skip=2)
    assert len(source) == (9 - 6 + 1) + 0 + (12 - 6 + 1) and (source.slots, source.width) == (3, 4)
    seen = [("0_pixels.mp4", start) for start in range(4)] + [("2_pixels.mp4", start) for start in range(7)]
    for i, (name, start) in enumerate(seen):
        scene = source[i]
        every = slice(start, start + 6, 2)
        np.testing.assert_array_equal(scene["video"][:, 0], slots["train"][name][every])
        np.testing.assert_array_equal(scene["proprio"], proprio["train"][name][every])
        np.testing.assert_array_equal(scene["actions"], actions["train"][name][start : start + 6].reshape(3, 4))
    assert len(SlotFiles("train", str(root), frames=3, skip=2, stride=3)) == 2 + 3
    np.testing.assert_array_equal(
        SlotFiles("train", str(root), frames=3, stride=3)[1]["video"][0, 0], slots["train"]["0_pixels.mp4"][3]
    )
    assert (
        len(SlotFiles("eval", str(root), frames=8)) == 1 and len(SlotFiles("train", str(root), frames=2, count=5)) == 5
    )
    few = SlotFiles("train", str(root), frames=3, skip=2, count=4)  # of all videos, not the first windows
    assert [few.video_of(i) for i in range(4)] == [0, 0, 2, 2]
    for i, window in enumerate((0, 2, 5, 8)):
        np.testing.assert_array_equal(few[i]["video"], source[window]["video"])
    with pytest.raises(IndexError, match="scene 11 is out of range"):
        source[11]
    made = SlotMap(source, lambda *a, **k: masks.draw(*a, history=2, **k), 1, 1, 8, 3, "none", 0, frames=3)(0, 0)
    assert made["video"].shape == (3, 1, 3, 4) and made["actions"].shape == (3, 4)


def test_the_agents_arrays_are_standardised_by_those_of_training(folder):
    """By NumPy's mean and deviation (of all rows less one) over the training frames, in other splits too."""
    root, _, actions, proprio = folder
    for split, name in (("train", "2_pixels.mp4"), ("eval", "3_pixels.mp4")):
        source = SlotFiles(split, str(root), frames=3, skip=2, standardise=True)
        scene = source[len(source) - 1]
        for key, arrays_, every in (("actions", actions, slice(-6, None)), ("proprio", proprio, slice(-6, None, 2))):
            known = np.concatenate(list(arrays_["train"].values()))
            own = arrays_["train" if split == "train" else "val"][name][every]
            wanted = (own - known.mean(0)) / known.std(0, ddof=1)
            np.testing.assert_allclose(scene[key], wanted.reshape(3, -1), atol=1e-5)
    alone = SlotFiles("eval", str(root), frames=3)
    np.testing.assert_array_equal(alone[0]["actions"], actions["val"]["3_pixels.mp4"][:3])
    with pytest.raises(ConfigError, match="data.options.standardise is 1: must be True or False"):
        SlotFiles("train", str(root), frames=3, standardise=1)


def test_a_number_that_never_changes_is_only_centred_and_one_row_is_too_few():
    rows = np.stack([np.arange(5.0), np.full(5, 1e6), [0, np.nan, 2, 3, 4]], 1).astype(np.float32)
    mean, deviation = episode_file.spread_of((rows[:3], rows[3:]), "x.npy:")
    left = rows[[0, 2, 3, 4]].astype(float)  # rows with a number that is not finite do not count
    np.testing.assert_allclose(mean, left.mean(0))
    np.testing.assert_allclose(deviation, [left[:, 0].std(ddof=1), 1, left[:, 2].std(ddof=1)], rtol=1e-6)
    with pytest.raises(DataError, match="^x.npy: has 1 finite rows: at least 2 are needed to standardise them$"):
        episode_file.spread_of((rows[:2],), "x.npy:")


def test_128_frames_have_the_published_number_of_windows(tmp_path):
    content = {"train": {"a": np.zeros((128, 1, 1), np.float32)}}
    slot_files.convert({"slots": dump(tmp_path, content)}, tmp_path / "out")
    assert len(SlotFiles("train", str(tmp_path / "out"), frames=16, skip=2)) == 97


def test_what_does_not_fit_is_refused_in_one_line(folder, tmp_path):
    root, slots, *_ = folder
    other = {"train": slots["train"]}
    with pytest.raises(DataError, match="must have the videos of the slots, with the same lengths, in the same order"):
        given = {"slots": dump(tmp_path, slots), "actions": dump(tmp_path, {"train": {"a": np.zeros((3, 2))}}, "y")}
        slot_files.convert(given, tmp_path / "a")
    assert not (tmp_path / "a" / "videos.json").exists()
    mixed = {"train": {"a": np.zeros((2, 3, 4), np.float32), "b": np.zeros((2, 5, 4), np.float32)}}
    with pytest.raises(DataError, match=r"arrays have shapes \[0, 3, 4\] and \[2, 5, 4\]"):
        slot_files.convert({"slots": dump(tmp_path, mixed)}, tmp_path / "b")
    with pytest.raises(DataError, match="holds no array$"):
        slot_files.convert({"slots": dump(tmp_path, {"train": {}})}, tmp_path / "b")
    assert os.listdir(tmp_path / "b") == [] and other
    for options, text in (
        ({"split": "test"}, "has no split 'test', but train, val"),
        ({"frames": 50}, r"data.frames = 50 with data.options.skip = 1: no video of .* has 50 frames"),
        ({"skip": 0}, "data.options.skip is 0"),
        ({"path": str(tmp_path)}, "No such file"),
    ):
        with pytest.raises((DataError, ConfigError), match=text) as error:
            SlotFiles(**{"split": "train", "path": str(root), "frames": 2} | options)
        assert "\n" not in str(error.value)
    index = json.loads((root / "videos.json").read_text())
    for name, change in (("starts", [0, -1, 3]), ("frames", "x"), ("frames", [10**9] * 3), ("starts", [0])):
        bad = tmp_path / f"{name}{len(str(change))}"
        bad.mkdir()
        os.symlink(root / "slots.npy", bad / "slots.npy")
        (bad / "videos.json").write_text(json.dumps({"train": index["train"] | {name: change}}))
        with pytest.raises(DataError):
            SlotFiles("train", str(bad), frames=2)


@pytest.fixture
def written(tmp_path):
    """Writes a folder of arrays, and gives the source of its split "train"."""

    def write(starts=(0,), frames=(8,), options=None, **more):
        arrays = {"slots": np.zeros((8, 3, 4), np.float32)} | more
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        index = {"train": {"names": ["a"], "starts": starts, "frames": frames}}
        (tmp_path / "videos.json").write_text(json.dumps(index))
        return SlotFiles("train", str(tmp_path), **{"frames": 2} | (options or {}))

    return write


@pytest.mark.parametrize(
    "starts, frames, text",
    [
        ([1], [2**63 - 1], "slots.npy: has 8 frames, fewer than videos.json says"),
        ([2**70], [1], "slots.npy: has 8 frames, fewer than videos.json says"),
        ([0], [8.9], "'train' must have lists of whole numbers of at least 0, starts and frames"),
        ([False], [8], "'train' must have lists of whole numbers of at least 0, starts and frames"),
        ([[0]], [[8]], "'train' must have lists of whole numbers of at least 0, starts and frames"),
        (None, [8], "'train' must have lists of whole numbers of at least 0, starts and frames"),
    ],
)
def test_the_sizes_of_an_index_are_not_trusted(written, starts, frames, text):
    with pytest.raises(DataError) as error:
        written(starts, frames)
    assert str(error.value).endswith(text) and "\n" not in str(error.value)


def test_arrays_of_the_agent_have_the_frames_of_the_slots_and_numbers_that_are_finite(written):
    agent = np.zeros((8, 2), np.float32)
    assert written(actions=agent)[0]["actions"].shape == (2, 2)
    for bad, text in ((agent[:5], "has 5 frames: must have the 8 of slots.npy"), (agent + np.nan, "are not finite")):
        opened.cache_clear()
        with pytest.raises(DataError, match=text) as error:
            written(proprio=bad)[0]
        assert "proprio" in str(error.value) and "\n" not in str(error.value)
    opened.cache_clear()


def test_arrays_in_fortran_order_are_refused(written):
    opened.cache_clear()
    with pytest.raises(DataError, match="slots.npy: is stored in Fortran order: must be in C order, since each read"):
        written(slots=np.asfortranarray(np.zeros((8, 3, 4), np.float32)))
    opened.cache_clear()


def test_steps_of_any_size_are_numbers_of_frames(written):
    assert len(written(options={"stride": 10**30})) == 1 and written(options={"stride": 10**30})[0]["video"].any() == 0
    with pytest.raises(ConfigError, match=f"data.frames = 2 with data.options.skip = {10**30}: no video"):
        written(options={"skip": 10**30})


class Runs:
    """Would write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def hostile(path):
    """Pickles that are refused."""
    array = np.zeros((2, 3, 4), np.float32)
    good = pickle.dumps({"train": {"a": array}}, 4)
    loop = {}
    loop["train"] = loop
    shared = np.zeros((2, 3, 4), np.float32)
    yield from (
        Runs(path), {"train": {"a": Runs(path)}}, {"train": {Runs(path): array}}, [array], array, {}, {"train": array},
        {"train": {"a": [1]}}, {"train": {1: array}}, {"train": {"a": array.astype(int)}}, loop,
        {"train": {"a": array.astype(">f4")}}, {"train": {"a": np.asfortranarray(array)}},
        {"train": {"a": np.array([None])}}, {"train": {"x" * 2000: array}}, collections.OrderedDict(train={"a": array}),
        {"train": {"a": np.float32(1)}}, {"train": {"a": shared.astype([("f", "f4")])}}, {"train": {"a": set()}},
    )  # fmt: skip
    yield from (
        b"", b"x", good[:-1], good[: len(good) // 2], b"\x80\x04.", b"\x80\x04h\x05.", b"\x80\x04u.",
        b"\x80\x04}\x85R.",
        b"cos\nsystem\n(S'touch x'\ntR.",
        b"\x80\x04\x8e" + b"\xff" * 8 + b".", b"(" * 20_000, b"\x80\x02}X\xff\xff\xff\xff.",
        good.replace(b"\x4b\x02", b"\x4b\x03", 1),
    )  # fmt: skip


def test_pickles_that_hold_anything_else_are_refused_in_one_line_and_never_run(tmp_path):
    target, count = tmp_path / "made", 0
    for content in hostile(target):
        path = tmp_path / "x.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 4))
        with pytest.raises(DataError) as error:
            array_pickle.read(path, lambda array: array.size)
        assert "\n" not in str(error.value) and len(str(error.value)) < 500 and str(path) in str(error.value)
        count += 1
    assert count > 30 and not target.exists()


def test_bytes_and_references_that_no_array_needs_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "x.pkl"
    assert array_pickle.MOST_MEMO <= 10**6  # about 100 bytes each
    monkeypatch.setattr(array_pickle, "MOST_MEMO", 10_000)
    path.write_bytes(b"\x80\x04}" + b"\x94" * 20_000 + b".")
    with pytest.raises(DataError, match="it is too large$"):
        array_pickle.read(path, len)
    megabyte = b"\x42" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20)
    path.write_bytes(b"\x80\x04" + megabyte * 20 + b".")
    tracemalloc.start()
    with pytest.raises(DataError, match="it holds bytes of no array$"):
        array_pickle.read(path, len)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_full_disk_is_no_fault_of_the_pickle(tmp_path):
    def full(array):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = dump(tmp_path, arrays((3, 4)))
    with pytest.raises(OSError, match="No space left on device"):
        array_pickle.read(path, full)
    with pytest.raises(DataError, match="No such file"):
        array_pickle.read(tmp_path / "none", full)


def test_the_memory_is_that_of_few_arrays(tmp_path):
    content = {"train": {str(i): np.full((64, 32, 128), i, np.float32) for i in range(24)}}  # 1 MiB each
    path = dump(tmp_path, content)
    content = None
    tracemalloc.start()
    slot_files.convert({"slots": path}, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20
    assert (SlotFiles("train", str(tmp_path / "out"), frames=64)[23]["video"] == 23).all()


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        if isinstance(array, dict):
            same(found[name], array)
            continue
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array)


def test_windows_that_are_read_together_are_those_that_are_read_one_by_one(folder):
    root, *_ = folder
    source = SlotFiles("train", str(root), frames=3, skip=2)
    numbers = np.array([10, 0, 4, 4, 3])
    every = [source[int(i)] for i in numbers]
    same(source.windows(numbers), {name: np.stack([scene[name] for scene in every]) for name in every[0]})
    for bad in (11, -1):
        with pytest.raises(IndexError, match=f"scene {bad} is out of range"):
            source.windows(np.array([0, bad]))


def twice(*given, **options):
    """Two masks of a scene: five arrays."""
    masked, removed, dropped = masks.draw(*given, **options)
    second, _, without = masks.draw(*given, **options | dict(kind="token"))
    return masked, removed, dropped, second, without


@pytest.mark.parametrize(
    "options", [{}, dict(constant=7, most=2), dict(kind="token"), dict(kind="tube"), dict(second=True, share=0.5)]
)
def test_a_loader_that_reads_batches_together_gives_the_bits_of_one_that_does_not(folder, options):
    root, *_ = folder
    source = SlotFiles("train", str(root), frames=3, skip=2)
    draw = twice if (options := dict(options)).pop("second", False) else masks.draw
    mask = functools.partial(draw, history=2, **options)
    scenes = SlotMap(source, mask, 1, 1, 8, 4, "none", 5, frames=3)
    assert scenes.reads_batches and not dataclasses.replace(scenes, with_objects=True).reads_batches
    loader = Loader(scenes, 4, 5, 2, shapes=[(2, 9)])
    for step, found in enumerate(loader.iterate(1, 4), 1):
        assert ("second_rows" in found) == (draw is twice)
        same(found, loader._collate([loader._element(4 * step + row) for row in range(4)]))
    halves = [dataclasses.replace(loader, process=p, processes=2, shards=1) for p in range(2)]
    whole, parts = next(iter(loader.iterate(2, 3))), [next(iter(half.iterate(2, 3))) for half in halves]
    np.testing.assert_array_equal(whole["video"], np.concatenate([part["video"] for part in parts]))


def test_one_damaged_window_of_a_batch_is_replaced_and_the_others_stay(written):
    slots = np.arange(96, dtype=np.float32).reshape(8, 3, 4)
    slots[5, 1, 2] = np.inf
    source = written(slots=slots)  # windows of 2 frames: 4 and 5 are damaged
    with pytest.raises(DataError, match="frames 4 to 5 have slots that are not finite$"):
        source.windows(np.array([0, 4, 5]))
    scenes = SlotMap(source, functools.partial(masks.draw, history=1), 1, 1, 8, 3, "none", 0, frames=2)
    found = scenes.batch(np.array([3, 4]), np.array([0, 0]))
    assert found["replaced"].tolist() == [False, True] and found["scene"].tolist() == [3, 6]
    same(found, {name: np.stack([scenes(3, 0)[name], scenes(4, 0)[name]]) for name in scenes(3, 0)})


def test_the_bench_prints_rates_of_batches_and_from_the_disk(folder):
    config = clevrer.get_config().unlock()
    config.data.path, config.data.frames, config.data.options.skip = str(folder[0]), 3, 1
    config.mask.history, config.mask.most, config.mask.constant, config.train.batch = 2, 2, -1, 4
    config.objective.history, config.objective.future = 2, 1
    rows = dict(bench.report(config, "train", 0.01))
    for name in ("windows, 4 at once", "scene map, 4 at once", "windows, from the disk"):
        assert float(rows[name].split()[0]) > 0, rows
