"""Inspection of a source: right counts, one table of what is wrong, resuming, and what it advises."""

import csv
import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image

from cjepa_jax.data import inspect
from cjepa_jax.data.formats import image_files, video_errors
from cjepa_jax.data.inspection import rows as module
from cjepa_jax.data.inspection import summary
from cjepa_jax.data.sources.videos import Videos
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import probe
from configs import folder
from configs.data import videos
from tests.data import clips
from tests.data.sources.test_folder import save

SIZE = 64


def picture(side: int, seed: int = 0, objects: tuple[int, ...] = (24, 16), height: int = SIZE):
    """An image and its map with square objects of these sides."""
    image = np.random.default_rng(seed).integers(0, 256, (height, side, 3), np.uint8)
    ids = np.zeros((height, side), np.uint8)
    for k, length in enumerate(objects):
        ids[2 + 30 * k : 2 + 30 * k + length, 2 : 2 + length] = k + 1
    return image, ids


@pytest.fixture
def root(tmp_path):
    """Six scenes and two held-out ones. b is also y, c is damaged, d has no object, e is dark, f is wide."""
    path = tmp_path / "data"
    for n, name in enumerate("abcdef"):
        save(path, name, *picture(SIZE, n))
    save(path, "d", picture(SIZE, 3)[0], np.zeros((SIZE, SIZE), np.uint8))
    save(path, "e", picture(SIZE, 4)[0] // 8, picture(SIZE, 4)[1])
    save(path, "f", *picture(3 * SIZE, 5))
    for n, name in ((7, "x"), (1, "y")):
        save(path, name, *picture(SIZE, n), sub="eval")
    file = path / "images/c.png"
    file.write_bytes(file.read_bytes()[:200])
    return path


def config(path):
    made = folder.get_config()
    made.data.path = str(path)
    return made


def run(root, out, workers: int = 1, splits=("train", "eval")) -> tuple[int, dict]:
    code = inspect.inspect(config(root), str(out), splits, workers)
    return code, json.loads((out / "summary.json").read_text())


def test_counts_and_files(root, tmp_path, capsys):
    out = tmp_path / "out"
    code, found = run(root, out)
    train, held = found["splits"]["train"], found["splits"]["eval"]
    assert code == 3 and (train["scenes"], train["unreadable"], held["scenes"], held["unreadable"]) == (6, 1, 2, 0)
    assert train["objects per scene"]["most"] == 2 and train["without objects"] == 0.4
    assert train["sizes"] == [[f"{SIZE} x {SIZE}", 4], [f"{3 * SIZE} x {SIZE}", 1]]
    # f's objects are outside of the centred square. The squares of 24 and 16 pixels touch 16 and 9 of 64 patches.
    assert train["fallback"] == 0.4 and train["scenes with an eligible object"] == 0.6
    assert train["eligible objects"] == 1 and train["area of an object"]["most"] == 16 / 64
    assert train["dark"] == 0.2 and train["flat"] == 0 and train["pixels"] == [0, 255] and train["repeated"] == 0
    assert found["in two splits"] == [["train", 1, "eval", 1]]
    assert train["labels"]["count"]["most"] == 2
    with open(out / "problems.csv", newline="") as file:
        (problem,) = list(csv.DictReader(file))
    assert (problem["split"], problem["scene"], problem["file"]) == ("train", "2", str(root / "images/c.png"))
    assert train["problems"][0]["scenes"] == 1 and str(root) not in train["problems"][0]["kind"]
    printed = capsys.readouterr().out
    assert "train: 6 scenes, 1 unreadable" in printed and str(root / "images/c.png") in printed
    advice = "\n".join(found["what to set"])
    for words in (
        "1 of 6 scenes of train cannot be read",
        "1 scenes are in two splits",
        "2 held-out scenes, the probe needs 4",
    ):
        assert words in advice
    assert "--config.data.eval_count=2 --config.probe.every=0" in advice
    page = (out / "report.html").read_text()
    assert "c.png" in page and "What to set" in page and "<script" not in page and "data:image/png;base64," in page
    assert "1 of 6 scenes" in page and "<td>objects per scene</td>" in page and "alt='" in page
    assert Image.open(out / "sheet.png").size[0] > 5 * inspect.SIDE


def test_what_the_reader_of_videos_does_not_notice_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(video_errors, "_listener", lambda: None)  # a build of OpenCV that cannot be heard
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), np.uint8)
    clips.write(tmp_path / "data/a.avi", frames)
    made = videos.get_config()
    with made.unlocked():
        made.data.path, made.data.size, made.data.frames = str(tmp_path / "data"), 32, 4
        made.objective.encoder.variant = "Mu/8"
    source = Videos(path=str(tmp_path / "data"), frames=4)
    for reader, channels, said in (("opencv", 3, True), ("pyav", 3, False), ("opencv", 1, False)):
        object.__setattr__(source, "reader", reader)  # pyav may not be installed
        object.__setattr__(source, "channels", channels)  # others are in arrays
        assert bool(source.caveats) == said
    assert inspect.inspect(made, str(tmp_path / "out"), ("train",), 1) == 0
    (line,) = json.loads((tmp_path / "out/summary.json").read_text())["what to set"][1:]
    assert "inspect once with the reader pyav" in line
    monkeypatch.undo()
    object.__setattr__(source, "channels", 3)
    object.__setattr__(source, "reader", "opencv")
    assert source.caveats == ()


def test_counts_are_short_texts():
    spread = summary.spread([3, 4, 4, 5, 6])
    assert inspect.shown(spread) == "3.000 – 6.000 (3.200 – 5.800), 4.400"
    assert inspect.shown(summary.spread([64, 64])) == "64.0" and inspect.shown({}) == "–"
    assert inspect.shown([("64 x 64", 24), ("<b>", 1)]) == "64 x 64: 24, &lt;b&gt;: 1"
    assert inspect.shown({"<x>": summary.spread([1.0])}) == "&lt;x&gt;: 1.000"


def test_a_sound_folder_needs_nothing(tmp_path, capsys):
    code = inspect.inspect(folder.get_config(), str(tmp_path / "out"), ["train", "eval"], 1)
    assert code == 0 and "to set: nothing: the config fits these data" in capsys.readouterr().out
    assert (tmp_path / "out/problems.csv").read_text() == "split,scene,file,error\n"


def test_a_stopped_inspection_resumes_and_repaired_files_count(root, tmp_path, monkeypatch):
    out, measured, measure = tmp_path / "out", [], module.measure
    monkeypatch.setattr(module, "measure", lambda scenes, i: measured.append(i) or measure(scenes, i))
    _, first = run(root, out)
    assert sorted(measured) == [0, 0, 1, 1, 2, 3, 4, 5]
    file = out / "scenes-train.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]) + '{"scene": 5, "ar')
    save(root, "c", *picture(SIZE, 2))
    measured.clear()
    code, again = run(root, out)
    assert measured == [2, 5] and code == 0
    assert again["splits"]["eval"] == first["splits"]["eval"]
    train = again["splits"]["train"]
    assert train["unreadable"] == 0 and train["sizes"] == [[f"{SIZE} x {SIZE}", 5], [f"{3 * SIZE} x {SIZE}", 1]]


def test_stored_rows_that_are_none_are_read_again(root, tmp_path):
    def told():
        content = run(root, tmp_path / "out", splits=("train",))[1]["splits"]["train"]
        return {key: value for key, value in content.items() if key != "seconds"}

    first, file = told(), tmp_path / "out" / "scenes-train.jsonl"
    for change in ({"areas": None}, {"size": [1]}, {"labels": []}, {"mean": 10**400}, {"digest": []}, {"class": "x"}):
        mark, row, *rest = file.read_text().splitlines()
        file.write_text("\n".join([mark, json.dumps(json.loads(row) | change), "[" * 10**5, *rest]) + "\n")
        assert told() == first, change


def test_another_config_is_refused(root, tmp_path):
    run(root, tmp_path / "out")
    other = config(root)
    other.mask.area = (0.1, 0.2)
    with pytest.raises(ConfigError, match="holds an inspection of other data or settings"):
        inspect.inspect(other, str(tmp_path / "out"), ["train"], 1)
    faster = config(root)
    faster.data.threads = 7
    assert inspect.inspect(faster, str(tmp_path / "out"), ["train"], 1) == 3


@pytest.mark.parametrize(
    "out, splits, message",
    [
        (None, ["train"], "--out is missing"),
        ("", ["train"], "--out is missing"),
        ("out", [], "--splits=: name each split once"),
        ("out", ["train", "train"], "--splits=train,train"),
        ("out", ["test"], "split is 'test'"),
    ],
)
def test_bad_flags(root, tmp_path, monkeypatch, out, splits, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        inspect.inspect(config(root), out, splits, 1)


@dataclasses.dataclass(frozen=True)
class Strange:
    """Scenes that do what users' sources do."""

    count: int = 40
    deadly: bool = False
    label_names: tuple[str, ...] = ("x",)
    can_rerender: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict:
        if self.deadly and i == 20:
            os._exit(9)
        if i == 3:
            raise ZeroDivisionError("no\nlight")
        shape = (1, 32, 32) if i != 5 else (2, 32, 32)
        video = np.random.default_rng(i % 30).integers(0, 256, (*shape, 3), np.uint8)
        return {
            "video": video,
            "masks": np.zeros((0, *shape), bool),
            "labels": np.array([i], np.float32),
            "class": i % 3,
        }


def scene_map(source):
    return dataclasses.replace(inspect.scene_map(folder.get_config(), "train"), source=source)


def without_time(rows) -> list[dict]:
    return sorted(({**row, "seconds": 0} for row in rows), key=lambda row: row["scene"])


def test_processes_give_what_one_gives(tmp_path):
    one, two = (without_time(module.every(scene_map(Strange()), 40, tmp_path / f"{n}.jsonl", "m", n)) for n in (1, 2))
    assert one == two and [row["scene"] for row in one] == list(range(40))
    assert one[3]["error"] == "scene 3: ZeroDivisionError: no; light in Strange"
    assert "scene 5 of Strange: video is uint8 [2, 32, 32, 3]" in one[5]["error"]
    facts = summary.summarise(one, ("x",), None)
    assert facts["classes"] == {0: 13, 1: 13, 2: 12} and facts["repeated"] == 8 and facts["unreadable"] == 2


@pytest.mark.slow
def test_a_process_that_dies_is_reported_and_the_rest_is_kept(tmp_path):
    file = tmp_path / "rows.jsonl"
    with pytest.raises(DataError, match="a process that read scenes died, by one of scenes .* --workers=1 to find it"):
        list(module.every(scene_map(Strange(deadly=True)), 40, file, "m", 2))
    assert module.read(file, "m", 40).keys() <= set(range(40)) - {3, 5, 20}


def row(scene: int, areas=(0.1,), **changed) -> dict:
    base = {"scene": scene, "size": [100, 80], "objects": len(areas), "areas": list(areas), "fallback": False}
    base |= {"mean": 100.0 + scene % 3, "std": 50.0 + scene % 2, "low": 0, "high": 255, "motion": 0.0, "seconds": 0.1}
    return base | {"digest": str(scene), "labels": [scene]} | changed


def advice(rows, **changed) -> str:
    made = folder.get_config()
    made.data.size, made.data.eval_count = 64, 8
    facts = {"train": summary.summarise(rows, ("x",), (0.05, 0.4))}
    return "\n".join(summary.advise(facts, changed.get("twice", 0), made, changed.get("named", True)))


def test_advice():
    sound = [row(n) for n in range(20)]
    assert advice(sound) == "nothing: the config fits these data"
    small = [row(n, (0.02, 0.03), fallback=True) for n in range(20)]
    assert "100 % of the scenes have no object to hide" in advice(small)
    assert '--config.mask.area="(0.02, 0.4)"' in advice(small) and advice(small, named=False).startswith("nothing")
    assert "no scene has an object" in advice([row(n, (), fallback=True) for n in range(20)])
    assert "--config.data.max_objects=12" in advice([row(n, (0.06,) * 12) for n in range(20)])
    assert "at most 32 pixels" in advice([row(n, size=[40, 32]) for n in range(20)])
    assert "label x is 7 in every scene" in advice([row(n, labels=[7.0]) for n in range(20)])
    assert "50 % of the scenes are dark" in advice([row(n, high=20 if n % 2 else 255) for n in range(20)])
    assert "3 scenes are in two splits" in advice(sound, twice=3)
    assert "20 of 20 scenes of train cannot be read" in advice([{"scene": n, "error": "x"} for n in range(20)])


def test_typical_and_odd_scenes():
    rows = [row(n) for n in range(30)]
    rows[7] = row(7, mean=250.0)
    rows[9] = row(9, size=[4000, 80])
    rows[11] = {"scene": 11, "error": "x"}
    odd = dict(summary.odd(rows, 5))
    assert odd == {7: "mean 250, median 101", 9: "width 4000, median 100"}
    assert not {7, 9, 11} & set(summary.typical(rows, 6)) and len(summary.typical(rows, 6)) == 6
    assert summary.odd(rows[:2], 5) == [] and summary.typical([], 3) == []


def test_errors_are_grouped_by_what_they_say():
    texts = ["/a/b1.png: cut at 12 of 30.5", "/a/b2.png: cut at 9 of 31", "scene 3: KeyError: 3 in X"]
    found = summary.kinds([{"scene": n, "error": text} for n, text in enumerate(texts)])
    assert [(kind["kind"], kind["scenes"]) for kind in found] == [
        ("cut at N of N", 2),
        ("scene N: KeyError: N in X", 1),
    ]
    assert summary.file_of(texts[0]) == "/a/b1.png" and summary.file_of(texts[2]) == ""


def test_what_readers_warn_of_is_kept(tmp_path):
    image, ids = picture(SIZE)
    save(tmp_path / "data", "a", (image.astype(np.uint16) * 4), ids)
    image_files._warned.discard("white")
    _, found = run(tmp_path / "data", tmp_path / "out")
    assert "set data.options.white" in found["splits"]["train"]["warnings"][0]
    assert "set data.options.white" in (tmp_path / "out/report.html").read_text()


def test_the_advice_knows_what_the_probe_needs():
    assert summary.PROBE_NEEDS == probe.LEAST
