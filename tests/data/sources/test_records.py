"""Materialised scenes read back: the world's own bits, in every process and thread, and named when damaged."""

import concurrent.futures
import dataclasses
import functools
import json
import pickle

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax.configs.family import lewm
from cjepa_jax.data import assemble, build, pipeline
from cjepa_jax.data.materialise import dataset_spec
from cjepa_jax.data.sources import records
from cjepa_jax.data.sources.records import Records
from cjepa_jax.data.worlds import Balls, Craft, Shadows
from cjepa_jax.data.worlds.acting import Push, Rooms
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import objects

SIZE, FRAMES, COUNT = 36, 5, 9  # a width that is not a multiple of eight
WORLDS = {"balls": Balls, "shadows": Shadows}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    for world in WORLDS:
        flags = [f"--world={world}", f"--count={COUNT}", f"--size={SIZE}", f"--frames={FRAMES}", "--shard=4"]
        build.main([*flags, "--workers=1", "--log=warning", f"--out={root / world}"])
    return root


def both(folders, world, size=SIZE, frames=FRAMES, **options):
    source = Records(path=str(folders / world), size=size, frames=frames, **options)
    return source, WORLDS[world](size=size, frames=frames, count=COUNT)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].dtype == two[name].dtype and one[name].shape == two[name].shape, name
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize("world", WORLDS)
def test_scenes_interventions_and_outcomes_are_the_world_s_own(folders, world):
    source, own = both(folders, world)
    assert len(source) == COUNT
    assert source.label_names == own.label_names and source.state_names == own.state_names and source.can_rerender
    for i in range(COUNT):
        assert_same(source[i], own[i])
        removed = np.arange(len(own[i]["masks"])) % 2 == i % 2
        np.testing.assert_array_equal(source.intervene(i, removed), own.intervene(i, removed))
        np.testing.assert_array_equal(source.changed(source.setup(i), removed), own.changed(own.setup(i), removed))
        assert_same(source.outcomes(i)._asdict(), own.outcomes(i)._asdict())


@pytest.mark.parametrize("frames, size", [(FRAMES, SIZE), (2, SIZE), (FRAMES, 18)])
def test_rollout_is_the_intervened_scene(folders, frames, size):
    source, own = both(folders, "balls", size=size, frames=frames)
    removed = np.arange(len(source[1]["masks"])) == 0
    scene = source.rollout(1, removed)
    np.testing.assert_array_equal(scene["video"], source.intervene(1, removed))
    assert scene["masks"].shape == source[1]["masks"].shape and not scene["masks"][0].any()
    assert_same({"states": scene["states"]}, {"states": own.rollout(1, removed)["states"]})
    assert source.question == own.question and source.questions(1) == []


def test_a_world_s_own_questions_are_asked(tmp_path):
    flags = ["--world=craft", "--count=3", "--size=16", "--frames=24", "--workers=1", "--log=warning"]
    build.main([*flags, f"--out={tmp_path / 'craft'}"])
    source, own = Records(path=str(tmp_path / "craft"), size=16, frames=24), Craft(size=16, frames=24, count=3)
    assert all(source.questions(i) == own.questions(i) for i in range(3)) and any(map(source.questions, range(3)))


@pytest.mark.parametrize("name, cls, options", [("rooms", Rooms, {"look": "channels", "shown": 1}), ("push", Push, {})])
def test_a_world_with_actions_is_read_as_episodes(tmp_path, name, cls, options):
    """To the bit, also the beginning of a clip, and a batch for a world model has the actions."""
    flags = [f"--world={name}", "--count=4", "--size=24", "--frames=5", "--workers=1", "--log=warning"]
    build.main([*flags, f"--options={json.dumps(options)}", f"--out={tmp_path}"])
    own = cls(size=24, frames=5, count=4, **options)
    for frames in (5, 3):
        source, shorter = Records(path=str(tmp_path), size=24, frames=frames), dataclasses.replace(own, frames=frames)
        assert source.kind == "episodes" and source.simulator == shorter
        for i in range(4):
            assert_same(source[i], shorter[i])
    config = lewm.get_config().unlock()
    config.data.source, config.data.options = "cjepa_jax.data.sources.records:Records", ConfigDict()
    config.data.path, config.data.size, config.data.count = str(tmp_path), 24, 4
    config.objective.encoder.channels = source.channels
    source = assemble.make_source(config, "train")
    scene = assemble.make_scenes(config, source, 8, 1)(1, 0)
    np.testing.assert_array_equal(scene["actions"], dataclasses.replace(own, frames=4)[1]["actions"])
    assert scene["proprio"].shape == (4, len(own.proprio_names))


def test_an_intervention_needs_no_reading_before(folders):
    source, own = both(folders, "balls")
    records.open_files.cache_clear()
    removed = np.zeros(len(own[8]["masks"]), bool)
    removed[0] = True
    np.testing.assert_array_equal(source.intervene(8, removed), own.intervene(8, removed))


@pytest.mark.parametrize("world", WORLDS)
def test_fewer_frames_are_the_beginning(folders, world):
    source, own = both(folders, world, frames=2)
    for i in range(COUNT):
        assert_same(source[i], own[i])
        removed = np.zeros(len(own[i]["masks"]), bool)
        removed[-1] = True
        np.testing.assert_array_equal(source.intervene(i, removed), own.intervene(i, removed))
        np.testing.assert_array_equal(source.changed(source.setup(i), removed), own.changed(own.setup(i), removed))
        assert_same(source.outcomes(i)._asdict(), own.outcomes(i)._asdict())


def test_a_smaller_size_reduces_pixels_and_masks(folders):
    (small, _), (source, _) = both(folders, "balls", size=12), both(folders, "balls")
    one, whole = small[3], source[3]
    assert one["video"].shape == (FRAMES, 12, 12, 3) and one["masks"].shape[1:] == (FRAMES, 12, 12)
    expected = cv2.resize(whole["video"][2], (12, 12), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(one["video"][2], expected)
    np.testing.assert_array_equal(one["masks"], whole["masks"][..., 1::3, 1::3])
    assert not (one["masks"] & ~one["amodal"]).any()
    np.testing.assert_array_equal(one["states"], whole["states"])
    nothing = np.zeros(len(one["masks"]), bool)
    np.testing.assert_array_equal(small.intervene(3, nothing), one["video"])


def test_a_count_takes_the_first_scenes(folders):
    source, own = both(folders, "balls", count=2)
    assert len(source) == 2
    assert_same(source[1], own[1])
    for i in (2, -1):
        with pytest.raises(IndexError, match="has scenes 0 to 1"):
            source[i]
        with pytest.raises(IndexError, match="has scenes 0 to 1"):
            source.intervene(i, np.zeros(3, bool))


@pytest.mark.parametrize(
    "options, error, text",
    [
        (dict(size=64), ConfigError, f"data.size is 64. The scenes in .* have {SIZE}"),
        (dict(frames=6), ConfigError, f"data.frames is 6. The scenes in .* have {FRAMES}"),
        (dict(size=True), ConfigError, "data.size is True; it must be an integer"),
        (dict(count=10), DataError, "split train has 9 scenes, data.count asks for 10"),
        (dict(split="eval"), DataError, "no manifest-eval.json. It holds train"),
        (dict(split="../train"), DataError, "no manifest-../train.json"),
        (dict(path="nowhere"), DataError, "nowhere: no manifest-train.json. It holds no materialised scenes"),
        (dict(path=""), ConfigError, "data.path is empty"),
    ],
)
def test_what_cannot_be_had_is_named(folders, options, error, text):
    with pytest.raises(error, match=text):
        Records(**(dict(path=str(folders / "balls"), size=SIZE, frames=FRAMES) | options))


def damaged(folders, tmp_path, keep=lambda name: True):
    for file in (folders / "balls").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def scene_map(source):
    mask = functools.partial(objects.draw, max_objects=2, area=(0.0, 1.0))
    return pipeline.SceneMap(source, mask, 6, 1, SIZE, 6, "rerender", 0, frames=FRAMES)


def test_a_corrupt_record_is_named_and_replaced(folders, tmp_path):
    file = damaged(folders, tmp_path) / "scenes-train.array_record-00001-of-00003"
    data = bytearray(file.read_bytes())
    data[1000:3000] = bytes(2000)  # within record 0 of this file
    file.write_bytes(data)
    source = Records(path=str(tmp_path), size=SIZE, frames=FRAMES)  # of unchanged length
    with pytest.raises(DataError, match=rf"{file}: record 0 \(scene 4\) cannot be read: .*hash mismatch"):
        source[4]
    drawn = scene_map(source)(4, 0)
    assert drawn["replaced"] and drawn["scene"] not in (4,)
    assert_same(source[8], Balls(size=SIZE, frames=FRAMES)[8])


def test_records_in_the_wrong_place_are_named(folders, tmp_path):
    root = damaged(folders, tmp_path)
    first, second = (root / f"scenes-train.array_record-0000{k}-of-00003" for k in (0, 1))
    first.write_bytes(second.read_bytes())
    stored = json.loads((root / "manifest-train.json").read_text())
    stored["files"][0]["bytes"] = stored["files"][1]["bytes"]
    (root / "manifest-train.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"00000-of-00003: record 1 \(scene 1\) cannot be read: it holds scene 5"):
        Records(path=str(root), size=SIZE, frames=FRAMES)[1]


def test_a_folder_from_another_simulation_is_not_intervened_upon(folders, tmp_path):
    """As if a package that simulates had changed since: another step between frames, in the manifest only."""
    stored = json.loads((damaged(folders, tmp_path) / "manifest-train.json").read_text())
    stored["spec"]["options"]["dt"] = 0.2
    stored["fingerprint"] = dataset_spec.fingerprint(stored["spec"])
    (tmp_path / "manifest-train.json").write_text(json.dumps(stored))
    source = Records(path=str(tmp_path), size=SIZE, frames=FRAMES)
    scene = source[0]
    with pytest.raises(DataError, match="scene 0 is simulated otherwise here than where it was made .*pymunk"):
        source.intervene(0, np.zeros(len(scene["masks"]), bool))


def test_an_initial_state_of_another_world_is_named(folders, tmp_path):
    stored = json.loads((damaged(folders, tmp_path) / "manifest-train.json").read_text())
    other = json.loads((folders / "shadows" / "manifest-train.json").read_text())
    stored["spec"] |= {name: other["spec"][name] for name in ("world", "options")}
    (tmp_path / "manifest-train.json").write_text(dataset_spec.text(stored["spec"], stored["files"]))
    source = Records(path=str(tmp_path), size=SIZE, frames=FRAMES)
    where = (
        r"00001-of-00003: record 1 \(scene 5\) cannot be simulated again: not an initial state of Shadows: .*'Balls'"
    )
    with pytest.raises(DataError, match=where):
        source.intervene(5, np.zeros(3, bool))


def test_a_path_in_the_manifest_stays_inside(folders, tmp_path):
    root = damaged(folders, tmp_path)
    name = "scenes-train.array_record-00000-of-00003"
    (root / name).unlink()
    (root / name).symlink_to(folders / "balls" / name)
    with pytest.raises(DataError, match="leads out of this folder"):
        Records(path=str(root), size=SIZE, frames=FRAMES)


def test_threads_share_a_source(folders):
    records.open_files.cache_clear()
    source, own = both(folders, "balls")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, scene in zip(range(40), pool.map(lambda i: source[i % COUNT], range(40)), strict=True):
            np.testing.assert_array_equal(scene["video"], own[i % COUNT]["video"])


def test_pickles_small_and_equal(folders):
    source, _ = both(folders, "balls")
    data = pickle.dumps(source)
    assert pickle.loads(data) == source and len(data) < 10_000


@pytest.mark.slow
def test_spawned_workers_read_what_threads_read(folders):
    source, own = both(folders, "balls")
    loader = pipeline.Loader(scene_map(source), 4, 0, shards=1, shapes=[(4, 36 * FRAMES)])
    simulated = dataclasses.replace(loader, scenes=scene_map(own))
    batches = [list(each.iterate(0, 4)) for each in (loader, dataclasses.replace(loader, workers=2), simulated)]
    for one, two, three in zip(*batches, strict=True):
        for name in ("scene", "video", "intervened", "removed"):
            np.testing.assert_array_equal(one[name], two[name])
            np.testing.assert_array_equal(one[name], three[name])
