"""MOVi read from fixtures in the published layout, serialised by TFDS's own features."""

import functools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2

from cjepa_jax.data import pipeline
from cjepa_jax.data.sources import movi
from cjepa_jax.data.sources.movi import Movi
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import objects
from tests.data import shards

S, H, W = 24, 16, 20
FEATURES = shards.movi_features(S, H, W)
NAME = "movi_a-train.tfrecord-00000-of-00002"


def scene(seed: int, count: int = 3) -> dict:
    """A clip: `count` squares that move right, the last one out of sight from frame 12 on."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((S, H, W), np.uint8)
    for t in range(S):
        for k in range(count):
            if t < 12 or k < count - 1:
                ids[t, 1 + 5 * k : 4 + 5 * k, t % 16 : t % 16 + 4] = k + 1
    video = rng.integers(0, 256, (S, H, W, 3), np.uint8)
    instances = []
    for k in range(count):
        seen = np.flatnonzero((ids == k + 1).any((1, 2)))
        boxes = [shards.F.BBox((1 + 5 * k) / H, t % 16 / W, (4 + 5 * k) / H, (t % 16 + 4) / W) for t in seen]
        numbers = {name: np.float32(rng.random()) for name in movi.FIXED}
        numbers |= {name: rng.normal(size=(S, n)).astype(np.float32) for name, n in movi.MOVING.items()}
        numbers |= {"image_positions": rng.random((S, 2), np.float32), "color": np.ones(3, np.float32)}
        numbers |= {"bboxes_3d": np.zeros((S, 8, 3), np.float32), "shape_label": "cube"}
        numbers |= {"bboxes": boxes, "bbox_frames": seen.astype(np.int32)}
        numbers |= {"visibility": (ids == k + 1).sum((1, 2)).astype(np.uint16)}
        instances.append(numbers)
    # Instances 1 and 0 touch in frames 2..4 and 9 of the video, 2 lies on the floor in 5, two things unseen collide.
    events = [((1, 0), f) for f in (3, 3, 4, 5, 10)] + [((2, 65535), 6), ((65535, 65535), 6), ((0, 2), 0)]
    point = {"position": np.zeros(3, np.float32), "contact_normal": np.zeros(3, np.float32), "force": 1.0}
    point |= {"image_position": np.zeros(2, np.float32)}
    collisions = [{"instances": np.array(pair, np.uint16), "frame": f, **point} for pair, f in events]
    metadata = {"video_name": str(seed), "width": W, "height": H, "num_frames": S, "num_instances": count}
    metadata |= {name: np.zeros(2, np.float32) for name in ("depth_range", "forward_flow_range", "backward_flow_range")}
    camera = {"positions": np.zeros((S, 3), np.float32), "quaternions": np.zeros((S, 4), np.float32)}
    return (
        {
            "metadata": metadata,
            "instances": instances,
            "camera": camera | {"focal_length": 35.0},
            "events": {"collisions": collisions if count else []},
            "video": [shards.png(frame) for frame in video],
            "segmentations": [shards.png(frame) for frame in ids],
            "forward_flow": np.zeros((S, H, W, 2), np.uint16),
            "depth": [shards.png(frame.astype(np.uint16)) for frame in ids],
        },
        video,
        ids,
    )


CLIPS = [scene(seed) for seed in range(5)]


@functools.cache
def record(number: int) -> bytes:
    return shards.serialise(FEATURES, CLIPS[number][0])


def write(root: Path, changed: dict | None = None) -> str:
    """Train: clips 0, 1 and 2 in two shards. Validation: clips 3 and 4. `changed` replaces clip 1."""
    first = [record(0), shards.serialise(FEATURES, changed) if changed else record(1)]
    shards.write_tfrecord(root / NAME, first)
    shards.write_tfrecord(root / NAME.replace("00000-of", "00001-of"), [record(2)])
    shards.write_tfrecord(root / "movi_a-validation.tfrecord-00000-of-00001", [record(3), record(4)])
    shards.write_info(root, "movi_a", {"train": [2, 1], "validation": [2]})
    return str(root)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("movi") / "movi_a" / "128x128" / "1.0.0")


def change(number: int = 1, **changes) -> dict:
    return CLIPS[number][0] | changes


def test_pixels_are_those_of_the_clip(root):
    source = Movi(path=root, size=64, frames=24)
    assert len(source) == 3
    for i in range(3):
        found, (_, video, ids) = source[i], CLIPS[i]
        assert found["video"].dtype == np.uint8 and np.array_equal(found["video"], video)
        assert found["masks"].dtype == bool
        assert np.array_equal(found["masks"], ids == np.arange(1, 4)[:, None, None, None])
    held_out = Movi(path=root, size=64, frames=24, split="eval")
    assert len(held_out) == 2 and np.array_equal(held_out[1]["video"], CLIPS[4][1])


def test_states_and_labels_are_those_of_the_record(root):
    source = Movi(path=root, size=64, frames=24)
    found, instances = source[1], CLIPS[1][0]["instances"]
    states = dict(zip(source.state_names, np.moveaxis(found["states"], 2, 0), strict=True))
    assert found["states"].shape == (24, 3, 24) and found["states"].dtype == np.float32
    groups = {"position": "image_positions", "world": "positions", "rotation": "quaternions"}
    groups |= {"velocity": "velocities", "spin": "angular_velocities"}
    for group, name in groups.items():
        columns = [column for key, column in states.items() if key.startswith(f"{group}/")]
        for k in range(3):
            assert np.array_equal(np.stack([column[:, k] for column in columns], 1), instances[k][name])
    assert all(np.array_equal(states["mass"][:, k], [instances[k]["mass"]] * 24) for k in range(3))
    assert states["visible"][:, 2].tolist() == [1] * 12 + [0] * 12
    assert states["box/left"][3].tolist() == pytest.approx([3 / W] * 3)
    assert states["box/bottom"][[3, 13], 2].tolist() == pytest.approx([14 / H, 0])
    assert states["size/area"][0].tolist() == pytest.approx([12 / (H * W)] * 3)
    labels = dict(zip(source.label_names, found["labels"], strict=True))
    assert labels["count"] == 2  # the third is out of sight in the middle frame
    expected = np.mean([instances[k]["velocities"][12] for k in (0, 1)], 0)
    assert [labels[f"velocity/{axis}"] for axis in "xyz"] == pytest.approx(expected)
    assert labels["position/y"] == pytest.approx(np.mean([instances[k]["image_positions"][12, 1] for k in (0, 1)]))


def test_collisions_become_contacts_of_the_window(root):
    assert Movi(path=root, frames=24)[0]["contacts"].tolist() == [[2, 4, 0, 1], [5, 5, 2, -1], [9, 9, 0, 1]]
    source = Movi(path=root, frames=4)
    found = [source[i]["contacts"].tolist() for i in range(3)]
    assert found == [[[2, 3, 0, 1]], [[0, 0, 0, 1], [1, 1, 2, -1]], [[1, 1, 0, 1]]]
    strided = Movi(path=root, frames=6, stride=2)[0]["contacts"]
    assert strided.tolist() == [[1, 2, 0, 1], [2, 2, 2, -1], [4, 4, 0, 1]] and strided.dtype == np.float32
    assert movi.merge(np.zeros((0, 2), int), np.zeros(0, int)).shape == (0, 4)


def test_windows_and_stride(root):
    source = Movi(path=root, size=64, frames=4, stride=3)
    assert len(source) == 3 * 2
    for i in range(6):
        clip, start = i // 2, 12 * (i % 2)
        assert np.array_equal(source[i]["video"], CLIPS[clip][1][start : start + 12 : 3])
        assert source[i]["states"].shape[0] == source[i]["masks"].shape[1] == 4
    assert len(Movi(path=root, frames=1)) == 72 and Movi(path=root, frames=1, count=5)[4]["video"].shape[0] == 1
    with pytest.raises(IndexError):
        source[6]


def test_frames_are_reduced_to_the_size(root):
    found = Movi(path=root, size=8, frames=2)[0]
    assert found["video"].shape == (2, 8, 10, 3) and found["masks"].shape == (3, 2, 8, 10)


def test_a_clip_without_objects(tmp_path):
    found = Movi(path=write(tmp_path, scene(1, count=0)[0]), frames=24)[1]
    assert found["masks"].shape[0] == 0 and found["states"].shape == (24, 0, 24) and found["contacts"].shape == (0, 4)
    assert found["labels"].tolist() == [0] * 7


def test_only_the_shards_of_the_first_scenes_are_needed(tmp_path):
    path = write(tmp_path)
    (tmp_path / NAME.replace("00000-of", "00001-of")).unlink()
    assert len(Movi(path=path, frames=12, count=4)) == 4
    with pytest.raises(DataError, match=f"1 of the 2 shards needed are not there: {NAME[:-14]}00001-of-00002"):
        Movi(path=path, frames=12, count=5)


def test_pickling_determinism_and_the_pipeline(root):
    source = Movi(path=root, size=16, frames=4)
    again = pickle.loads(pickle.dumps(source))
    assert again == source and len(pickle.dumps(source)) < 5000
    for name, value in source[3].items():
        assert np.array_equal(value, again[3][name]), name
    mask = functools.partial(objects.draw, max_objects=2, area=(0.01, 0.9))
    scenes = pipeline.SceneMap(source, mask, 8, 2, 16, 4, "zero_pixels", 0, frames=4)
    loader = pipeline.Loader(scenes, batch=4, seed=0, shards=1, shapes=[(4, scenes.tokens)])
    batches = list(loader.iterate(0, 3))
    assert len(batches) == 3 and not any(batch["replaced"].any() for batch in batches)
    assert batches[0]["video"].shape == (4, 4, 16, 16, 3) and batches[0]["labels"].shape == (4, 7)


def at_frame(value: list, frame: int, new: bytes) -> list:
    return [*value[:frame], new, *value[frame + 1 :]]


def test_broken_pictures_name_file_and_record(tmp_path):
    video, masks = (CLIPS[1][0][name] for name in ("video", "segmentations"))
    cases = [
        ("segmentations", masks, shards.png(np.zeros((H, 2 * W), np.uint8)), "is 40x16 pixels, the video 20x16"),
        ("segmentations", masks, shards.png(np.full((H, W), 4, np.uint8)), None),
        ("segmentations", masks, shards.png(np.zeros((H, W, 3), np.uint8)), "has uint8 pixels"),
        ("video", video, video[0][:-300], "is damaged or cut short"),
        ("video", video, b"GIF89a" + bytes(40), "is not a PNG"),
        ("video", video, shards.png(np.zeros((H // 2, W, 3), np.uint8)), "is 20x8 pixels, the video 20x16"),
    ]
    for name, value, new, message in cases:
        source = Movi(path=write(tmp_path, change(**{name: at_frame(value, 5, new)})), frames=8)
        said = f"record 1: {name} frame 5 {message}" if message else "record 1: segmentations name instance 4 of 3"
        with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / NAME))}: {said}"):
            source[3]
        source[4], source[0]  # other frames and other records are well


def test_broken_numbers_name_file_and_record(tmp_path):
    example = CLIPS[1][0]

    def instance(**changes):
        return change(instances=[example["instances"][0] | changes, *example["instances"][1:]])

    bad = np.full((S, 3), np.inf, np.float32)
    collision = example["events"]["collisions"][0]
    unknown = {"collisions": [collision | {"instances": np.array([7, 65535], np.uint16)}]}
    cases = [
        (instance(positions=bad), "instances/positions holds a number that is not finite"),
        (instance(bbox_frames=np.full(24, 24, np.int32)), "instances/bbox_frames holds a frame outside 0..23"),
        (instance(bbox_frames=np.arange(9, dtype=np.int32)), "instances/bboxes/ragged_flat_values holds 240 numbers"),
        (change(events=unknown), "events/collisions/instances names an instance outside 0..2"),
        (change(metadata=example["metadata"] | {"width": 1 << 20}), "frames of 1048576x16 pixels, at most 4096 a side"),
        (change(metadata=example["metadata"] | {"num_frames": 25}), "num_frames has 25 frames, the clips have 24"),
    ]
    for changed, message in cases:
        source = Movi(path=write(tmp_path, changed), frames=24)
        with pytest.raises(DataError, match=f"{NAME}: record 1: {message}"):
            source[1]


def edited(name: str, numbers: list[int]) -> bytes:
    """Record 1 with other integers in a feature, such as TFDS would not write."""
    message = example_pb2.Example.FromString(record(1))
    message.features.feature[name].Clear()
    message.features.feature[name].int64_list.value.extend(numbers)
    return message.SerializeToString()


def test_records_that_tfds_would_not_write(tmp_path):
    path, source = write(tmp_path), None
    for name, numbers, message in (
        (f"instances/bbox_frames/{movi.ROWS}", [25, 12, 23], "instances/bbox_frames holds 60 frames, its rows are"),
        (f"instances/bbox_frames/{movi.ROWS}", [2**62 + 15] * 4, "instances/bbox_frames/.* holds 4 numbers"),
        ("video", [1] * 24, "video holds numbers, not pictures"),
        ("instances/mass", [1, 2, 3], "instances/mass does not hold float32 numbers"),
        ("metadata/height", [], r"metadata/height holds 0 numbers, which do not make \[1\]"),
    ):
        shards.write_tfrecord(tmp_path / NAME, [record(0), edited(name, numbers)])
        source = source or Movi(path=path, frames=24)
        with pytest.raises(DataError, match=f"{NAME}: record 1: {message}"):
            source[1]


def test_damaged_shards(tmp_path):
    path, file = write(tmp_path), tmp_path / NAME
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    source = Movi(path=path, frames=24)
    with pytest.raises(DataError, match=f"{NAME}: record 1 is damaged"):
        source[1]
    file.write_bytes(data[:-50])
    with pytest.raises(DataError, match=f"{NAME}: record 1 is cut short"):
        source[1]
    assert np.array_equal(source[0]["video"], CLIPS[0][1])
    shards.write_tfrecord(file, [record(0)])
    with pytest.raises(DataError, match=f"{NAME}: holds 1 records, it should hold 2"):
        source[1]
    shards.write_tfrecord(file, [b"", record(1)])
    with pytest.raises(DataError, match=f"{NAME}: record 0: no feature events/collisions/frame, .*, \\.\\.\\.$"):
        source[0]


def test_what_is_asked_for_must_be_there(root, tmp_path):
    for options, error, message in (
        ({"split": "test"}, DataError, "no split test. There are train, validation"),
        ({"split": "val"}, ConfigError, "data.split is 'val': must be one of train, eval, validation, test"),
        ({"frames": 24, "count": 4}, DataError, "split train has 3 records, 4 are asked for"),
        ({"frames": 9, "count": 7}, DataError, "split train has 3 records, 4 are asked for"),
        ({"frames": 12, "stride": 3}, ConfigError, "is 12 x 3. The clips have 24 frames"),
        ({"length": 0}, ConfigError, "data.options.length is 0; it must be an integer of at least 1"),
        ({"path": str(tmp_path / "absent")}, DataError, "no such folder"),
        ({"path": str(tmp_path)}, DataError, "dataset_info.json: No such file"),
    ):
        with pytest.raises(error, match=message):
            Movi(**({"path": root, "frames": 8} | options))


@pytest.mark.parametrize(
    "info, message",
    [
        ("[]", "must hold name and splits"),
        ('{"name": "movi_a", "splits": [{"name": "train", "shardLengths": ["x"]}]}', "must hold name and splits"),
        ('{"name": "../../etc/x", "splits": [{"name": "train", "shardLengths": ["1"]}]}', "none that can be read"),
        ('{"name": "movi_a", "fileFormat": "riegeli", "splits": []}', "fileFormat 'riegeli' is none"),
        ('{"name": "movi_a", "splits": [{"name": "train", "shardLengths": ["-1"]}]}', "are not numbers of records"),
        ('{"name": "movi_a", "splits": [{"name": "train", "shardLengths": []}]}', "are not numbers of records"),
        (
            f'{{"name": "movi_a", "splits": [{{"name": "train", "shardLengths": [{"1," * 10**5}1]}}]}}',
            "are not numbers of records",
        ),
        ('{"name": "movi_a", "splits": [{"name": "train", "shardLengths": [1e30]}]}', "are not numbers of records"),
        ('{"name": "movi_a", "splits": [{"name": "train", "shardLengths": [1e400]}]}', "must hold name and splits"),
        ('{"name": "' + "n" * 300 + '", "splits": []}', "none that can be read"),
        ("{", "not JSON"),
    ],
)
def test_a_description_that_is_none(tmp_path, info, message):
    (tmp_path / "dataset_info.json").write_text(info)
    with pytest.raises(DataError, match=f"dataset_info.json: .*{message}"):
        Movi(path=str(tmp_path), frames=8)
