"""Published counts: an inspection says when a folder has fewer or more. Sources here are real, files are empty."""

import json

import pytest

from cjepa_jax.data.inspection import published
from cjepa_jax.data.sources import cifar10
from cjepa_jax.data.sources.cifar10 import Cifar10
from cjepa_jax.data.sources.clevrer import Clevrer
from cjepa_jax.data.sources.cophy import CoPhy
from cjepa_jax.data.sources.craft import Craft


def clevrer(root, numbers):
    for number in numbers:
        name = f"video_validation/video_{number // 1000 * 1000:05d}-{(number // 1000 + 1) * 1000:05d}"
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"video_{number:05d}.mp4").touch()
    return {"eval": Clevrer("eval", path=str(root))}


def test_clevrer(tmp_path):
    sources = clevrer(tmp_path, range(10_000, 15_000))
    assert published.compare(sources) == []
    (tmp_path / "video_validation/video_12000-13000/video_12345.mp4").unlink()
    sources = {"eval": Clevrer("eval", path=str(tmp_path))}
    (line,) = published.compare(sources)
    assert line.startswith("eval: Clevrer has 4,999 clips, published are 5,000: a part is missing")
    assert published.compare({"eval": Clevrer("eval", path=str(tmp_path), count=8)}) == []  # asked for


@pytest.mark.parametrize("clips, line", [(14_020, ""), (13_900, "has 13,900 clips, published are about 14,000")])
def test_cophy_is_known_to_the_last_digit_that_is_published(tmp_path, clips, line, monkeypatch):
    names = [str(number) for number in range(clips)]
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/collisionCF_train_normal.txt").write_text("\n".join(names))
    monkeypatch.setattr(CoPhy, "scan", lambda self, root: [(name, "ab") for name in names])  # without 14,000 folders
    source = CoPhy("train", path=str(tmp_path), scenario="collisionCF", objects=0, setting="normal", frames=4)
    found = published.compare({"train": source})
    assert (line in found[0] and found[0].startswith("train: CoPhy")) if line else found == []


def test_craft_is_counted_over_all_splits(tmp_path):
    asked, split = [], {}
    for index, name in enumerate(("train", "validation", "test")):
        file = f"./videos/sid_1/{index:06d}.mpg"
        (tmp_path / "videos/sid_1").mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        about = {"question": "?", "answer": "0", "question_type": "Descriptive", "answer_type": "Count"}
        asked.append(about | {"video_index": index, "question_index": 0, "video_file_path": file})
        split[name] = [{"video_index": index, "question_index": 0}]
    (tmp_path / "dataset_minimal.json").write_text(json.dumps(asked))
    (tmp_path / "split_info_random.json").write_text(json.dumps(split))
    sources = {name: Craft(name, path=str(tmp_path)) for name in ("train", "eval", "test")}
    (line,) = published.compare(sources)
    assert line.startswith("Craft has 3 videos in all splits, published are about 10,000")
    assert published.compare({"train": sources["train"]}) == []  # of one split nothing is known


def test_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "PER_FILE", 1)
    for name in (*cifar10.FILES["train"], *cifar10.FILES["eval"]):
        (tmp_path / name).write_bytes(b"\0" * cifar10.RECORD)
    source = Cifar10("eval", path=str(tmp_path))
    assert "has 1 pictures, published are 10,000" in published.compare({"eval": source})[0]
    monkeypatch.setitem(published.PICTURES["Cifar10"], "eval", 0)
    assert "1 pictures, published are 0: files of other data" in published.compare({"eval": source})[0]
