"""CLEVRER: fixtures in its published layout, of 96 x 64 pixels instead of 480 x 320."""

import json
import shutil

import numpy as np
import pytest

from cjepa_jax.data.formats import rle
from cjepa_jax.data.sources.clevrer import Clevrer
from cjepa_jax.errors import ConfigError, DataError
from tests.data import clips
from tests.data.readers import check_source, message

HEIGHT, WIDTH, LENGTH = 64, 96, 128
OBJECTS = [("blue", "rubber", "sphere"), ("red", "metal", "cube"), ("gray", "rubber", "cylinder")]
RGB = [(30, 40, 200), (200, 30, 30), (90, 90, 90)]
NUMBERS = {"train": (0, 1, 1003), "validation": (10000,), "test": (15002,)}


def masks_of(number: int) -> np.ndarray:
    """bool [3,T,H,W]: the third object comes into view at frame 40."""
    masks = np.zeros((3, LENGTH, HEIGHT, WIDTH), bool)
    for t in range(LENGTH):
        masks[0, t, 8:24, 4 + t // 2 : 20 + t // 2] = True
        masks[1, t, 30:44, 60 - t // 4 : 74 - t // 4] = True
    masks[2, 40:, 48:62, 10 + number % 7 : 24 + number % 7] = True
    return masks


def annotation(number: int) -> dict:
    looks = [dict(zip(("color", "material", "shape"), look, strict=True)) for look in OBJECTS]
    moments = []
    for t in range(LENGTH):
        objects = [
            {
                "object_id": k, "location": [k + t / 100, -k, 0.2], "orientation": [0.1, 0.2, k],
                "velocity": [1.0, k, 0.0], "angular_velocity": [0.0, 0.0, 0.5], "inside_camera_view": k < 2 or t >= 40,
            }
            for k in range(3)
        ]  # fmt: skip
        moments.append({"frame_id": t, "objects": objects})
    return {
        "scene_index": number, "video_filename": f"video_{number:05d}.mp4",
        "object_property": [{"object_id": k} | looks[k] for k in range(3)],
        "motion_trajectory": moments,
        "collision": [
            {"object_ids": [1, 2], "frame_id": 70, "location": [0.0, 0.0, 0.2]},
            {"object_ids": [0, 1], "frame_id": 19, "location": [0.5, 0.1, 0.2]},
        ],
    }  # fmt: skip


def proposals(number: int) -> dict:
    """One wrong outline a frame of a known look with a low score, and one of a look that nothing has."""
    masks, frames = masks_of(number), []
    for t in range(LENGTH):
        name, found = f"sim_{number:05d}/frame_{t:05d}.png", []
        shown = [(k, masks[k, t], 0.99) for k in range(3) if masks[k, t].any()]
        for k, mask, score in [*shown, (0, ~masks[0, t], 0.3)]:
            look = dict(zip(("color", "material", "shape"), OBJECTS[k], strict=True))
            common = {"video_index": number, "frame_index": t, "frame_filename": name, "score": score}
            found.append({"mask": rle.encode(mask)} | common | look)
        found.append(found[0] | {"color": "purple", "score": 1.0})
        frames.append({"frame_filename": name, "frame_index": t, "objects": found})
    return {"video_index": number, "video_name": f"sim_{number:05d}", "frames": frames}


def questions(number: int, answers: bool) -> dict:
    choice = {"choice_id": 0, "choice": "The cube collides"} | ({"program": [], "answer": "wrong"} if answers else {})
    known = {"program": ["events"], "answer": "yes"} if answers else {}
    asked = [
        {"question_id": 0, "question": "Are there?", "question_type": "descriptive", "question_subtype": "exist"}
        | known,
        {"question_id": 1, "question": "What next?", "question_type": "predictive", "choices": [choice]},
    ]
    return {"scene_index": number, "video_filename": f"video_{number:05d}.mp4", "questions": asked}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("CLEVRER")
    for name in ("questions", "processed_proposals"):
        (root / name).mkdir()
    for split, numbers in NUMBERS.items():
        for number in numbers:
            home = f"{number // 1000 * 1000:05d}-{number // 1000 * 1000 + 1000:05d}"
            frames = np.full((LENGTH, HEIGHT, WIDTH, 3), 160, np.uint8)
            for mask, colour in zip(masks_of(number), RGB, strict=True):
                frames[mask] = colour
            clips.write(root / f"video_{split}/video_{home}/video_{number:05d}.mp4", frames)
            (root / f"processed_proposals/sim_{number:05d}.json").write_text(json.dumps(proposals(number)))
            if split != "test":
                path = root / f"annotation_{split}/annotation_{home}/annotation_{number:05d}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(annotation(number)))
        asked = [questions(number, split != "test") for number in numbers]
        (root / f"questions/{split}.json").write_text(json.dumps(asked))
    return root


@pytest.fixture
def broken(published, tmp_path):
    shutil.copytree(published, tmp_path / "CLEVRER")
    return tmp_path / "CLEVRER"


def clevrer(root, split="train", frames=4, **options) -> Clevrer:
    return Clevrer(split, str(root), **({"size": HEIGHT} | options), frames=frames)


def test_it_goes_through_the_loader(published):
    check_source(clevrer(published, masks="processed_proposals", stride=32))
    check_source(clevrer(published, "eval", stride=16))
    check_source(clevrer(published, "test", masks="processed_proposals", stride=16))


def test_frames_masks_and_states(published):
    source = clevrer(published, frames=4, stride=8, masks="processed_proposals", count=11)
    assert source.clips == NUMBERS["train"] and len(source) == 11 and source.per_clip == 4
    for window in range(4):
        scene, taken = source[8 + window] if window < 3 else source[3], slice(32 * window, 32 * window + 32, 8)
        number = 1003 if window < 3 else 0
        assert (scene["masks"] == masks_of(number)[:, taken]).all()
        truth = np.full((4, HEIGHT, WIDTH, 3), 160)
        for mask, colour in zip(scene["masks"], RGB, strict=True):
            truth[mask] = colour
        assert np.abs(scene["video"] - truth).mean() < 6
    scene = source[1]  # frames 32, 40, 48, 56
    assert scene["states"][:, 2, 0].tolist() == [0, 1, 1, 1] and scene["states"][0, 1, 1:4] == pytest.approx(
        [1.32, -1, 0.2]
    )
    assert scene["states"][0, 2].tolist() == pytest.approx([0, 2.32, -2, 0.2, 0.1, 0.2, 2, 1, 2, 0, 0, 0, 0.5])
    assert scene["labels"] == pytest.approx([3, 1.48, -1, 0.2, 1, 1, 0])  # frame 48
    assert source[0]["labels"] == pytest.approx([2, 0.66, -0.5, 0.2, 1, 0.5, 0], abs=1e-6)  # frame 16


def test_contacts_are_those_of_the_window(published):
    whole = clevrer(published, frames=16, stride=8)[0]["contacts"]
    assert whole.tolist() == [[19 / 8, 19 / 8, 0, 1], [70 / 8, 70 / 8, 1, 2]] and whole.dtype == np.float32
    halves = [clevrer(published, frames=64)[i]["contacts"] for i in (0, 1)]
    assert halves[0].tolist() == [[19, 19, 0, 1]] and halves[1].tolist() == [[6, 6, 1, 2]]
    assert clevrer(published, frames=4)[0]["contacts"].shape == (0, 4)


def test_without_masks_and_without_annotations(published):
    scene = clevrer(published)[0]
    assert scene["masks"].shape == (3, 4, HEIGHT, WIDTH) and not scene["masks"].any()
    test = clevrer(published, "test", masks="processed_proposals", stride=32)[0]
    assert test.keys() == {"video", "masks", "labels"} and not test["labels"].any()
    order = [0, 2, None, 1]  # sorted looks: blue, gray, purple (which nothing else has), red
    for k, known in enumerate(order):
        assert known is None or (test["masks"][k] == masks_of(15002)[known, ::32]).all()


def test_the_other_published_places(broken):
    (broken / "videos").mkdir()
    (broken / "annotations").mkdir()
    for kind in ("video", "annotation"):
        (broken / f"{kind}_validation").rename(broken / f"{kind}s/validation")
    (broken / "questions/validation.json").rename(broken / "validation.json")
    shutil.rmtree(broken / "questions")
    (broken / "processed_proposals/sim_10000.json").rename(broken / "processed_proposals/proposal_10000.json")
    source = clevrer(broken, "eval", stride=32, masks="processed_proposals")
    assert source[0]["masks"].any() and len(source.questions(0)) == 2


def test_questions(published):
    asked = clevrer(published, "eval").questions(0)
    assert asked == questions(10000, True)["questions"] and asked[1]["choices"][0]["answer"] == "wrong"
    assert "answer" not in clevrer(published, "test").questions(5)[0]


def test_questions_that_are_broken(broken):
    source, path = clevrer(broken, frames=128), broken / "questions/train.json"
    path.write_text("[]")
    with pytest.raises(DataError, match=r"train.json: no questions about video_00001.mp4 \(clip 1\)"):
        source.questions(1)


TWICE = json.dumps([{"scene_index": 0, "questions": []}] * 2)


@pytest.mark.parametrize("content", ["{}", "[3]", '[{"scene_index": 0}]', '[{"questions": []}]', "[", TWICE])
def test_question_files_that_are_broken(broken, content):
    (broken / "questions/train.json").write_text(content)
    with pytest.raises(DataError, match="questions/train.json: ") as caught:
        clevrer(broken).questions(0)
    assert message(caught)


def edit(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first(content: dict) -> dict:
    return content["motion_trajectory"][0]["objects"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("collision"),
        lambda c: c["object_property"].append(c["object_property"][0]),
        lambda c: c["collision"][0].update(object_ids=[0, 9]),
        lambda c: c["collision"][0].update(object_ids=[0]),
        lambda c: first(c).pop("velocity"),
        lambda c: first(c).update(location=[1, 2]),
        lambda c: first(c).update(location=[1, 2, float("nan")]),
        lambda c: first(c).update(object_id=7),
        lambda c: first(c).update(location="here"),
        lambda c: c.update(motion_trajectory=3),
        lambda c: c.update(object_property=[[]]),
        lambda c: c["motion_trajectory"][0].update(frame_id=1.0),
        lambda c: c["motion_trajectory"][0].update(frame_id=True),
    ],
)
def test_annotations_that_are_broken(broken, change):
    path = broken / "annotation_validation/annotation_10000-11000/annotation_10000.json"
    edit(path, change)
    with pytest.raises(DataError) as caught:
        clevrer(broken, "eval")[0]
    assert str(path) in message(caught)


def test_an_annotation_that_is_missing(broken):
    path = broken / "annotation_validation/annotation_10000-11000/annotation_10000.json"
    path.unlink()
    with pytest.raises(DataError, match="annotation_10000.json: No such file"):
        clevrer(broken, "eval")[0]


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda c: c.pop("frames"), "needs a list of frames"),
        (lambda c: c["frames"][0].pop("frame_index"), "needs a frame_index and objects"),
        (lambda c: c["frames"][0].update(frame_index=[0]), "needs a frame_index and objects"),
        (lambda c: c["frames"][0].update(frame_index=True), "needs a frame_index and objects"),
        (lambda c: c["frames"][0]["objects"][0].pop("mask"), "needs a frame_index and objects"),
        (lambda c: c["frames"][0]["objects"][0].update(score="high"), "needs a frame_index and objects"),
        (lambda c: c["frames"][0]["objects"][0]["mask"].update(size=[320, 480]), r"frame 0 \(clip 10000\): .*size"),
        (lambda c: c["frames"][0]["objects"][0]["mask"].update(counts="11"), r"frame 0 \(clip 10000\): counts"),
    ],
)
def test_masks_that_are_broken(broken, change, named):
    path = broken / "processed_proposals/sim_10000.json"
    edit(path, change)
    with pytest.raises(DataError, match=named) as caught:
        clevrer(broken, "eval", masks="processed_proposals")[0]
    assert str(path) in message(caught)


@pytest.mark.parametrize("kind", ["annotation_validation/annotation_10000-11000/annotation", "processed_proposals/sim"])
def test_a_table_that_is_shorter_than_its_clip(broken, kind):
    """As the published scenes 7648 and 9777: frames from 104 on are not empty, nothing is known of them."""
    path = broken / f"{kind}_10000.json"
    key = "frames" if "proposals" in kind else "motion_trajectory"
    edit(path, lambda content: content[key].__delitem__(slice(104, None)))
    source = clevrer(broken, "eval", masks="processed_proposals", frames=4, stride=8)
    assert source[2]["masks"].any()  # frames 64 to 88
    with pytest.raises(DataError, match=r"frame 104 has no entry \(clip 10000\)") as caught:
        source[3]
    assert str(path) in message(caught)


def test_masks_that_are_missing(broken):
    (broken / "processed_proposals/sim_10000.json").unlink()
    with pytest.raises(DataError, match="sim_10000.json: No such file"):
        clevrer(broken, "eval", masks="processed_proposals")[0]


def test_videos_that_are_broken(broken):
    path = broken / "video_validation/video_10000-11000/video_10000.mp4"
    clips.write(path, np.zeros((97, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match=r"video_10000.mp4: truncated after 97 of 128 frames \(clip 10000\)"):
        clevrer(broken, "eval", 64)[1]
    assert clevrer(broken, "eval", 64)[0]["video"].shape[0] == 64  # the first window is whole
    path.unlink()
    path.symlink_to(broken / "video_train/video_00000-01000/video_00000.mp4")
    with pytest.raises(DataError, match="leads out of this folder"):
        clevrer(broken, "eval")[0]


def test_folders_that_are_broken(broken):
    clips.write(broken / "video_train/video_10000-11000/video_10001.mp4", np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match="video_10001.mp4 is not of the train split"):
        clevrer(broken)
    twin = broken / "video_validation/video_11000-12000"
    shutil.copytree(broken / "video_validation/video_10000-11000", twin)
    with pytest.raises(DataError, match="two videos have the same number"):
        clevrer(broken, "eval")
    shutil.rmtree(broken / "video_test/video_15000-16000")
    with pytest.raises(DataError, match="video_test: no videos"):
        clevrer(broken, "test")
    shutil.rmtree(broken / "video_test")
    with pytest.raises(DataError, match="video_test: no such folder, nor .*videos/test"):
        clevrer(broken, "test")


@pytest.mark.parametrize(
    "bad, error, named",
    [
        (dict(masks=3), ConfigError, "data.options.masks is 3"),
        (dict(masks="nowhere"), DataError, "nowhere: no such folder"),
        (dict(stride=33), ConfigError, "4 x 33. The clips have 128 frames"),
        (dict(count=97), DataError, "97 scenes are asked for, its train split has 96"),
    ],
)
def test_bad_options(published, bad, error, named):
    with pytest.raises(error, match=named) as caught:
        clevrer(published, **bad)
    assert message(caught)
