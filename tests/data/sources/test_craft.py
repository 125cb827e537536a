"""CRAFT: fixtures in its published layout, of 64 pixels and 30 frames instead of 256 and 250."""

import json
import shutil

import numpy as np
import pytest

from cjepa_jax.data.formats import rle
from cjepa_jax.data.sources.craft import Craft
from cjepa_jax.errors import ConfigError, DataError
from tests.data import clips
from tests.data.readers import check_source, message

SIZE, LENGTH = 64, 30
VIDEOS = {0: "sid_1/000000", 3: "sid_1/000003", 7: "sid_12/000002", 8: "sid_20/000001"}
TYPES = {"Descriptive": "Color", "Counterfactual": "Boolean", "Cause": "Count", "Enable": "Boolean", "Prevent": "Count"}
ANSWERS = {"Color": "Red", "Boolean": "True", "Count": "1"}


def video(index: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB [T,H,W,3] and masks [2,T,H,W]: a red square that moves right, and a blue one from frame 10 on."""
    masks = np.zeros((2, LENGTH, SIZE, SIZE), bool)
    for t in range(LENGTH):
        masks[0, t, 10:24, t : t + 14] = True
    masks[1, 10:, 36:50, 20 + index : 34 + index] = True
    frames = np.full((LENGTH, SIZE, SIZE, 3), 230, np.uint8)
    frames[masks[0]], frames[masks[1]] = (200, 0, 0), (0, 0, 200)
    return frames, masks


def question(index: int, number: int, kind: str) -> dict:
    answer = ANSWERS[TYPES[kind]]
    return {
        "question": f"What about the small red cube ({kind})?", "answer": answer, "answer_type": TYPES[kind],
        "question_type": kind, "template_filename": f"{kind.lower()}.json", "template_id": f"{kind.lower()}_0",
        "question_family_index": 0, "video_index": index, "question_index": number, "simulation_id": "1",
        "video_file_path": f"./videos/{VIDEOS[index]}.mpg",
    }  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("CRAFT")
    asked = [question(index, number, kind) for index in VIDEOS for number, kind in enumerate(TYPES)]
    (root / "dataset_minimal.json").write_text(json.dumps(asked))
    random = {"train": [3, 0], "validation": [7], "test": [8]}
    hard = {"train": [0, 3], "validation": [8], "test": [7]}
    for setting, split in (("random", random), ("hard", hard)):
        pairs = {
            name: [{"video_index": i, "question_index": n} for i in held for n in range(5) if (i, n) != (0, 4)]
            for name, held in split.items()
        }
        (root / f"split_info_{setting}.json").write_text(json.dumps(pairs))
    for index, name in VIDEOS.items():
        frames, masks = video(index)
        clips.write(root / f"videos/{name}.mpg", frames)
        shown = [{"frames": {str(t): rle.encode(m) for t, m in enumerate(object_) if m.any()}} for object_ in masks]
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"masks/{name}.json").write_text(json.dumps({"objects": shown}))
    return root


@pytest.fixture
def broken(published, tmp_path):
    shutil.copytree(published, tmp_path / "CRAFT")
    return tmp_path / "CRAFT"


def craft(root, split="train", frames=4, **options) -> Craft:
    return Craft(split, str(root), **({"size": SIZE, "clip_frames": LENGTH} | options), frames=frames)


@pytest.mark.parametrize("masks, objects", [("", 0), ("masks", 2)])
def test_it_goes_through_the_loader(published, masks, objects):
    source = craft(published, masks=masks, stride=2)
    check_source(source)
    assert len(source) == 2 * 3 and source[0]["masks"].shape == (objects, 4, SIZE, SIZE)


def test_masks_that_end_before_the_clip(broken):
    path = broken / f"masks/{VIDEOS[7]}.json"
    content = json.loads(path.read_text())
    for thing in content["objects"]:
        thing["frames"] = {frame: mask for frame, mask in thing["frames"].items() if int(frame) < 20}
    path.write_text(json.dumps(content))
    source = craft(broken, "eval", 5, stride=3, masks="masks")
    assert source[0]["masks"].any()  # frames 0 to 12
    with pytest.raises(DataError, match=r"ends with frame 19, frame 27 is wanted \(clip 7\)") as caught:
        source[1]
    assert str(path) in str(caught.value)


def test_frames_masks_and_labels(published):
    source = craft(published, "eval", 5, stride=3, masks="masks")
    frames, masks = video(7)
    assert len(source) == 2 and source.clips == ((7, "./videos/sid_12/000002.mpg"),)
    for window in range(2):
        taken = slice(15 * window, 15 * window + 15, 3)
        scene = source[window]
        assert (scene["masks"] == masks[:, taken]).all()
        assert np.abs(scene["video"].astype(int) - frames[taken]).mean() < 4
    assert source[0]["labels"][0] == 1 and source[1]["labels"][0] == 2
    assert source[1]["labels"][3] == pytest.approx(2 * 14 * 14 / SIZE**2)
    assert (craft(published)[0]["labels"] == 0).all()  # nothing is known without masks
    small = craft(published, "eval", masks=str(published / "masks"), size=32)[0]
    assert small["video"].shape == (4, 32, 32, 3) and small["masks"].shape == (2, 4, 32, 32)


def test_splits_and_questions(published):
    assert [index for index, _ in craft(published).clips] == [0, 3]
    assert craft(published, "test").clips[0][0] == 8 and craft(published, "test", setting="hard").clips[0][0] == 7
    asked = craft(published, frames=LENGTH).questions(1)
    assert [q["question_type"] for q in asked] == list(TYPES) and asked[0].keys() == {
        "question_type", "question", "answer", "answer_type", "question_index",
    }  # fmt: skip
    assert [q["question_index"] for q in craft(published, frames=LENGTH).questions(0)] == [0, 1, 2, 3]
    assert asked[1]["answer"] == "True" and len(craft(published, frames=10, count=4)) == 4


@pytest.mark.parametrize("damage, named", [("half", "damaged at frame"), ("empty", "empty"), ("text", "not a video")])
def test_broken_videos_are_named(broken, damage, named):
    path = broken / "videos/sid_12/000002.mpg"
    data = path.read_bytes()
    path.write_bytes({"half": data[: len(data) // 2], "empty": b"", "text": b"no video" * 99}[damage])
    with pytest.raises(DataError, match=named) as caught:
        craft(broken, "eval", LENGTH)[0]
    assert str(path) in message(caught) and "(clip 7)" in message(caught)
    with pytest.raises(DataError, match="truncated after 30 of 40 frames"):
        craft(broken, "test", 40, clip_frames=40)[0]


@pytest.mark.parametrize(
    "content, named",
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ('{"objects": 3}', "needs a list of at most 256 objects"),
        ('{"objects": [{}]}', "object 0 has no frames"),
        (
            json.dumps({"objects": [{"frames": {"1": rle.encode(np.ones((99, 99), bool))}}]}),
            "object 0, frame 1: .*size",
        ),
        ('{"objects": [{"frames": {"1": {"size": [64, 64], "counts": "zz"}}}]}', "object 0, frame 1: "),
    ],
)
def test_broken_masks_are_named(broken, content, named):
    path = broken / "masks/sid_12/000002.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=named) as caught:
        craft(broken, "eval", masks="masks")[0]
    assert str(path) in message(caught)


def edit(root, name, change) -> None:
    content = json.loads((root / name).read_text())
    change(content)
    (root / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name, change, named",
    [
        ("split_info_random.json", lambda c: c["train"].append({"video_index": 99, "question_index": 0}), r"\(99, 0\)"),
        (
            "split_info_random.json",
            lambda c: c["train"].append({"video_index": 0.5}),
            "entry 9 of 'train' has no video",
        ),
        ("split_info_random.json", lambda c: c.pop("train"), "has no list 'train'"),
        ("split_info_random.json", lambda c: c["train"].clear(), "no videos in train"),
        ("dataset_minimal.json", lambda c: c.append(c[0]), "entry 20 repeats question 0 of video 0"),
        (
            "dataset_minimal.json",
            lambda c: c[1].update(video_file_path="./videos/x.mpg"),
            "video_index 0 has two files",
        ),
        ("dataset_minimal.json", lambda c: c[4].pop("answer"), "answer of entry 4 is 'None'"),
        ("dataset_minimal.json", lambda c: c.insert(0, 3), "entry 0 is not a question"),
    ],
)
def test_broken_lists_stop_at_once(broken, name, change, named):
    edit(broken, name, change)
    with pytest.raises(DataError, match=named) as caught:
        craft(broken)
    assert name in message(caught)


@pytest.mark.parametrize("path", ["../outside.mpg", "/etc/hostname", "./videos/../../outside.mpg"])
def test_paths_stay_in_the_folder(broken, path):
    clips.write(broken.parent / "outside.mpg", video(0)[0])
    edit(broken, "dataset_minimal.json", lambda c: [q.update(video_file_path=path) for q in c if q["video_index"] == 0])
    with pytest.raises(DataError, match="leads out of this folder"):
        craft(broken)


@pytest.mark.parametrize("path", ["./videos/" + "n" * 300, "./videos/\ud800.mpg", "./videos/a\nb.mpg"])
def test_paths_that_are_none(broken, path):
    edit(broken, "dataset_minimal.json", lambda c: [q.update(video_file_path=path) for q in c if q["video_index"] == 0])
    with pytest.raises(DataError, match="is not a file name") as caught:
        craft(broken)
    assert "\n" not in str(caught.value)


def test_absent_videos_stop_at_once(broken):
    (broken / "videos/sid_1/000003.mpg").unlink()
    with pytest.raises(DataError, match=r"split_info_random.json: 1 videos are missing: ./videos/sid_1/000003.mpg"):
        craft(broken)
    (broken / "split_info_hard.json").unlink()
    with pytest.raises(DataError, match="split_info_hard.json: No such file"):
        craft(broken, setting="hard")


@pytest.mark.parametrize(
    "bad, error, named",
    [
        (dict(setting="easy"), ConfigError, "data.options.setting is 'easy'"),
        (dict(clip_frames=0), ConfigError, "data.options.clip_frames is 0"),
        (dict(masks=3), ConfigError, "data.options.masks is 3"),
        (dict(masks="nowhere"), DataError, "nowhere: no such folder"),
        (dict(stride=8), ConfigError, "4 x 8. The clips have 30 frames"),
        (dict(count=15), DataError, "15 scenes are asked for, its train split has 14"),
    ],
)
def test_bad_options(published, bad, error, named):
    with pytest.raises(error, match=named) as caught:
        craft(published, **bad)
    assert message(caught)
