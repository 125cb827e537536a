"""Slots of CLEVRER's videos find the questions about their videos."""

import json

import numpy as np
import pytest

from cjepa_jax.data.sources.clevrer_slots import ClevrerSlots
from cjepa_jax.errors import ConfigError, DataError

NAMES = {"train": ["3_pixels.mp4", "video_00007.mp4"], "val": ["10002_pixels.mp4"]}


def question(number):
    return [{"question": f"Which of {number}?", "question_type": "descriptive", "answer": "yes"}]


def write(folder, names=NAMES, files=("train", "validation")):
    """A folder of slots of 6 frames a video, and one of questions."""
    folder.mkdir(exist_ok=True)
    start, index = 0, {}
    for split, of in names.items():
        count = len(of) if isinstance(of, list) else 1
        index[split] = {"names": of, "starts": [start + 6 * n for n in range(count)], "frames": [6] * count}
        start += 6 * count
    (folder / "videos.json").write_text(json.dumps(index))
    np.save(folder / "slots.npy", np.zeros((start, 2, 3), np.float32))
    for name, numbers in zip(files, ((7, 3), (10002,)), strict=True):
        asked = [{"scene_index": n, "questions": question(n)} for n in numbers]
        (folder / f"{name}.json").write_text(json.dumps(asked))
    return folder


def source(folder, split="train", **options):
    return ClevrerSlots(split, str(folder), frames=2, asked=str(folder), **options)


@pytest.mark.parametrize("files", [("train", "validation"), ("train", "val")])
def test_every_window_has_the_questions_about_its_video(files, tmp_path):
    folder = write(tmp_path / "slots", files=files)
    found = source(folder, stride=2)
    assert len(found) == 6 and [found.questions(i) for i in range(6)] == [question(3)] * 3 + [question(7)] * 3
    for split in ("eval", "val"):
        assert source(folder, split).questions(0) == question(10002)
    with pytest.raises(IndexError):
        found.questions(6)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path):
    folder = write(tmp_path / "slots")
    with pytest.raises(ConfigError, match="data.options.asked is '': must name the folder"):
        ClevrerSlots("train", str(folder), frames=2).questions(0)
    with pytest.raises(ConfigError, match="data.options.asked is 3"):
        ClevrerSlots("train", str(folder), frames=2, asked=3)
    (folder / "train.json").write_text(json.dumps([{"scene_index": 3, "questions": []}]))
    with pytest.raises(DataError, match="no questions about video 7"):
        source(folder).questions(5)
    (folder / "validation.json").unlink()
    with pytest.raises(DataError, match="validation.json"):
        source(folder, "val").questions(0)
    for number, names in enumerate((["cat.mp4"], [3], ["1\n.mp4"], ["²_pixels.mp4"], "a", ["1.mp4", "2.mp4"][:0])):
        bad = write(tmp_path / f"bad{number}", {"train": names, "val": NAMES["val"]})
        with pytest.raises((DataError, ConfigError)) as caught:
            source(bad)
        assert "\n" not in str(caught.value)
