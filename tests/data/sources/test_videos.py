"""Own videos: forty small files of five codecs, lists, clips, masks, and every way to get them wrong."""

import codecs
import concurrent.futures
import functools
import json
import logging
import math
import os
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.formats import video, video_streams, video_times
from cjepa_jax.data.formats.video_times import Reader, Window
from cjepa_jax.data.sources import video_list
from cjepa_jax.data.sources.videos import Videos
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import tubes
from tests.data import clips, readers

HEIGHT, WIDTH, RATE = 32, 48, 25
KINDS = {"mpeg4": ".mp4", "mpeg1": ".mpg", "mjpeg": ".avi", "ffv1": ".mkv", "vp9": ".webm"}
SECONDS = (1.0, 1.2, 1.4, 1.6, 2.0, 2.4, 2.8, 3.2)  # eight files of each codec


def clip(frames: int) -> np.ndarray:
    """RGB uint8 [T,H,W,3]: two colours, above the frame's number as eight black or white blocks."""
    out = np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)
    bits = np.arange(frames)[:, None] >> np.arange(8) & 1
    out[:, 16:] = np.repeat(255 * bits, WIDTH // 8, 1)[:, None, :, None]
    out[:, :16, : WIDTH // 2, 0], out[:, :16, WIDTH // 2 :, 2] = 250, 250
    return out


def number(frames: np.ndarray) -> np.ndarray:
    """The numbers of `clip`'s frames."""
    blocks = frames[:, 18:].mean((1, 3)).reshape(len(frames), 8, -1)[:, :, 1:-1].mean(-1)
    return (blocks > 128) @ (1 << np.arange(8))


def maps(frames: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Ids uint8 [T,H,W]: object 3 moves to the right, a pixel a frame modulo 16, object 7 stays."""
    ids = np.zeros((frames, height, width), np.uint8)
    ids[:, 20:30, 30:40] = 7
    for t in range(frames):
        ids[t, 4:12, 4 + t % 16 : 12 + t % 16] = 3
    return ids


@pytest.fixture(scope="session")
def forty(tmp_path_factory):
    root = tmp_path_factory.mktemp("forty")
    for name, ending in KINDS.items():
        for n, seconds in enumerate(SECONDS):
            clips.write(root / name / f"{n}{ending}", clip(round(seconds * RATE)), RATE)
    return root


@pytest.fixture
def root(tmp_path, forty):
    for name in ("a", "b", "c"):
        shutil.copy(forty / "mpeg4/4.mp4", tmp_path / f"{name}.mp4")
    return tmp_path


def source(path, **options) -> Videos:
    return Videos(**{"path": str(path), "size": 32, "frames": 4, "fps": 5.0} | options)


def error(call, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return readers.message(caught)


def test_forty_files_of_five_codecs(forty):
    """Every clip has the frames whose times FFmpeg's filter `fps` would choose: start + k / fps, to the nearest."""
    found = [source(forty, clips=2, split=split) for split in ("train", "eval")]
    assert sum(len(each.entries) for each in found) == 40 and all(each.label_names == () for each in found)
    assert not {e.name for e in found[0].entries} & {e.name for e in found[1].entries}
    for each in found:
        for i in range(len(each)):
            name, part = each.entries[i // 2].name, i % 2
            seconds = SECONDS[int(Path(name).stem)]
            start = round((seconds - 0.6) * (part + 0.5) / 2, 3)
            wanted = [math.ceil((start + (k + 0.5) / 5) * RATE - 1e-4) - 1 for k in range(4)]
            scene = each[i]
            assert number(scene["video"]).tolist() == wanted, (name, part)
            assert (scene["video"][:, 4, 4].argmax(-1) == 0).all() and (scene["video"][:, 4, -4].argmax(-1) == 2).all()
            assert scene["masks"].shape == (0, 4, HEIGHT, WIDTH) and scene["labels"].shape == (0,)


def test_lossless_frames_are_exact(forty):
    frames = source(forty / "ffv1", fps=25.0, frames=10)[0]["video"]
    assert (frames == clip(RATE)[number(frames)]).all() and (np.diff(number(frames)) == 1).all()


def test_every_frame_rate(forty):
    """Above the file's rate frames repeat. Fractions work. One frame is enough."""
    assert np.diff(number(source(forty / "ffv1", fps=50.0, frames=6)[0]["video"])).tolist() in (
        [0, 1, 0, 1, 0],
        [1, 0, 1, 0, 1],
    )
    assert len(np.unique(number(source(forty / "ffv1", fps=3.7, frames=3)[0]["video"]))) == 3
    assert source(forty / "ffv1", frames=1)[0]["video"].shape[0] == 1


def test_contract_pickling_and_pipeline(forty):
    readers.check_source(source(forty / "mjpeg", clips=3))


def test_order_is_a_pure_function_of_seed_and_step(forty):
    """A resumed loader gives the batches of one that never stopped, from any position."""
    found = source(forty / "mpeg4", clips=3)
    scenes = pipeline.SceneMap(found, functools.partial(tubes.draw), 8, 2, 32, 1, "none", 3, 4)
    loader = pipeline.Loader(scenes, batch=4, seed=3, shards=1, shapes=[(4, scenes.tokens)], threads=1)
    through, later = list(loader.iterate(0, 4)), list(loader.iterate(2, 4))
    for one, other in zip(through[2:], later, strict=True):
        assert all((one[key] == other[key]).all() for key in ("scene", "epoch", "video"))
    order = np.concatenate([batch["scene"] for batch in through])
    assert sorted(order[: len(found)].tolist()) != order[: len(found)].tolist()


def test_seeking_finds_the_same_frames(tmp_path):
    path = clips.write(tmp_path / "long.mp4", clip(120), 10)
    straight = video_times.timestamps(path, Reader())
    everything = video_times.read(path, lambda info: Window(0.0, 120, 10.0), Reader(), "all")
    for start in (4.5, 7.03, 11.0):
        window = Window(start, 5, 7.0)
        found = video_times.read(path, lambda info, chosen=window: chosen, Reader(), "far")
        numbers, total = video_times.numbers(path, window, Reader())
        assert total == 120 and (found == everything[numbers]).all()
    assert np.allclose(np.diff(straight), 0.1)


def test_large_frames_are_reduced_to_twice_the_size(tmp_path):
    clips.write(tmp_path / "a.avi", clip(25).repeat(4, 1).repeat(4, 2), RATE)
    assert source(tmp_path, size=32)[0]["video"].shape == (4, 64, 96, 3)
    assert source(tmp_path, size=100)[0]["video"].shape == (4, 128, 192, 3)


def test_folders_splits_and_hidden_files(forty, tmp_path):
    for name in ("z/b.mp4", "a.MP4", "eval/c.mp4", ".hidden.mp4", "._a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(forty / "mpeg4/0.mp4", tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [entry.name for entry in source(tmp_path).entries] == ["a.MP4", "z/b.mp4"]
    assert [entry.name for entry in source(tmp_path, split="eval").entries] == ["eval/c.mp4"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_lists(root, kind, encoding):
    rows = [("a.mp4", "0", "1", "cat"), ("a.mp4", "1", "", "dög"), ("./b.mp4", "", "2", "cat")]
    names = ("path", "start", "end", "label")
    if kind == "csv":
        text = "\r\n".join([",".join(names), *(",".join(row) for row in rows), ""])
    else:
        values = [[row[0], *(float(v) if v else None for v in row[1:3]), row[3]] for row in rows]
        text = "\n".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in values)
    (root / f"list.{kind}").write_bytes(text.encode(encoding))
    splits = [source(root / f"list.{kind}", split=split) for split in ("train", "eval")]
    entries = [entry for each in splits for entry in each.entries]
    assert len(entries) == 3 and all(each.classes == ("cat", "dög") for each in splits)
    for each in splits:
        for i, entry in enumerate(each.entries):
            assert each[i]["class"] == ("cat", "dög").index(entry.label) and each[i]["class"].dtype == np.int64
            middle = (entry.start + min(entry.end, 2.0) - 0.6) / 2
            assert abs(number(each[i]["video"])[0] - (middle + 0.1) * RATE) <= 1


def test_a_list_for_each_split_and_numbered_classes(root):
    (root / "train.csv").write_text("path,label\na.mp4,10\nb.mp4,9\n")
    (root / "eval.csv").write_text("path,label\nc.mp4,11\n")
    found = [source(root / "{split}.csv", split=split) for split in ("train", "eval")]
    assert [each.classes for each in found] == [("9", "10", "11")] * 2
    assert [each[0]["class"] for each in found] == [1, 2] and [len(each) for each in found] == [2, 1]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "list.csv: no videos in split train"),
        ("path,start\n", "no videos in split train"),
        ("a.mp4,0,1\n", "the first line must name the columns, path, start, end, label"),
        ("path,start\na.mp4\n", "line 2 has 1 columns, the first line 2"),
        ("path,start\na.mp4,soon\n", "line 2: start is 'soon': must be seconds"),
        ("path,start\na.mp4,-1\n", "line 2: start is '-1'"),
        ("path,start\na.mp4,nan\n", "line 2: start is 'nan'"),
        ("path,start,end\na.mp4,2,1\n", "line 2: start is 2, end is 1. The end must be later"),
        ("path,label\na.mp4,x\nb.mp4,\n", "line 3 has no label, 1 others have one"),
        ("path\n\na.mp4\n../a.mp4\n", "leads out of this folder"),
        ("path\n/etc/passwd\n", "leads out of this folder: names must be relative"),
        ("path\na\0.mp4\n", "line"),
        ("path\nd.mp4\n", "1 videos are not in"),
        ('path\n"a.mp4\n', "is not CSV"),
        ('path\n""\n', "path is ''"),
    ],
)
def test_bad_lists(root, text, message):
    (root / "list.csv").write_text(text)
    assert message in error(lambda: source(root / "list.csv"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 must be a JSON object with a path"),
        ('{"path": 3}', "line 1: path is 3"),
        ('{"path": "a.mp4", "start": true}', "line 1: start is True"),
        ('{"path": "a.mp4", "start": [1]}', "line 1: start is [1]"),
        ('{"path": "a.mp4", "label": 1.5}', "line 1: label is 1.5"),
        ("[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_bad_lines_of_json(root, text, message):
    (root / "list.jsonl").write_text(text)
    assert message in error(lambda: source(root / "list.jsonl"))


def test_a_link_that_leads_out_is_refused(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "x.mp4"
    shutil.copy(root / "a.mp4", other)
    os.symlink(other, root / "link.mp4")
    (root / "list.csv").write_text("path\nlink.mp4\n")
    assert "leads out of this folder: put the file itself" in error(lambda: source(root / "list.csv"))
    (root / "list.bin").write_bytes(codecs.BOM_UTF8)
    assert "no such folder" in error(lambda: source(root / "list.bin"))


def test_missing_files_can_be_left_out_and_unknown_columns_are_named(root, caplog):
    (root / "list.csv").write_text("path,begin\na.mp4,1\nb.mp4,1\nlost.mp4,1\n")
    with caplog.at_level(logging.WARNING):
        found = source(root / "list.csv", missing="skip")
    assert {entry.name for entry in found.entries} < {"a.mp4", "b.mp4"}
    assert "1 videos are not in" in caplog.text and "columns that are not used: 'begin'" in caplog.text


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "a.mp4,1.8,",
            "line 2: 0.20 s are too short for 4 frames (data.frames) at 5 a second (data.options.fps), 0.60 s. 15 a",
        ),
        ("a.mp4,0,9", "end is 9 s, the video lasts 2.00 s"),
        ("a.mp4,5,6", "start is 5 s, the video lasts 2.00 s"),
    ],
)
def test_clips_beyond_the_end_are_named_and_replaced(root, line, message):
    (root / "list.csv").write_text(f"path,start,end\n{line}\na.mp4,0,2.5\n")
    found = source(root / "list.csv")
    assert message in error(lambda: found[0])
    scenes = pipeline.SceneMap(found, functools.partial(tubes.draw), 8, 2, 32, 1, "none", 3, 4)
    assert scenes(0, 0)["replaced"] and scenes(0, 0)["scene"] == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["empty", "half", "text", "playlist", "gone"])
def test_broken_files_are_named_and_never_shown(forty, tmp_path, kind, damage):
    file = tmp_path / f"a{KINDS[kind]}"
    data = (forty / kind / f"7{KINDS[kind]}").read_bytes()
    file.write_bytes(data)
    found = source(tmp_path, clips=9)
    (tmp_path / "b.mp4").write_bytes((forty / "mpeg4/0.mp4").read_bytes())
    other = {"empty": b"", "text": b"no video at all" * 99, "playlist": b"#EXTM3U\n#EXTINF:1,\nb.mp4\n#EXT-X-ENDLIST\n"}
    file.unlink() if damage == "gone" else file.write_bytes(other.get(damage, data[: len(data) // 2]))
    text = error(lambda: found[8]) if kind != "mpeg1" or damage != "half" else ""  # its end is not in its header
    assert damage == "half" and not text or str(file) in text


def test_headers_that_lie(root, monkeypatch):
    """A header that claims ten times the length, or none, or nonsense."""
    honest, get = source(root)[0]["video"], cv2.VideoCapture.get
    path = root / "a.mp4"

    def lying(factor: float):
        class Capture:
            def __init__(self, *arguments):
                self._true = cv2.VideoCapture(*arguments)

            def __getattr__(self, name):
                return getattr(self._true, name)

            def get(self, key):
                return get(self._true, key) * (factor if key == cv2.CAP_PROP_FRAME_COUNT else 1)

        return lambda path, where: Capture(str(path), cv2.CAP_FFMPEG)

    monkeypatch.setattr(video_streams.video, "capture", lying(10.0))
    assert "ends at 2.00 s, a frame at" in error(lambda: source(root)[0])
    for nonsense in (0.0, -1e9, math.nan, math.inf):
        monkeypatch.setattr(video_streams.video, "capture", lying(nonsense))
        assert (source(root)[0]["video"] == honest).all()
    assert path.is_file()


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"path": ""}, "data.path is empty"),
        ({"split": "test"}, "split is 'test'"),
        ({"fps": 0}, "data.options.fps is 0"),
        ({"fps": True}, "fps is True"),
        ({"fps": 1e9}, "fps is 1000000000.0"),
        ({"clips": 0}, "data.options.clips is 0"),
        ({"masks": None}, "data.options.masks is None"),
        ({"rotation": 90}, "data.options.rotation is 90"),
        ({"reader": "decord"}, "data.options.reader is 'decord': must be one of opencv, pyav"),
        ({"missing": "yes"}, "data.options.missing is 'yes'"),
    ],
)
def test_bad_options(root, bad, message):
    assert message in error(lambda: source(**{"path": root} | bad), ConfigError)


def test_bad_places(root, tmp_path):
    assert "no such file (a list ends in .csv" in error(lambda: source(root / "lost.csv"))
    assert "no such folder" in error(lambda: source(root / "lost"))
    assert len(source(root, count=1, clips=2)) == 1 and len(source(root, count=99, clips=2)) % 2 == 0
    (tmp_path / "none").mkdir()
    assert "no videos in split train" in error(lambda: source(tmp_path / "none"))


def write_maps(path: Path, ids: np.ndarray) -> None:
    clips.write(path, np.repeat(ids[..., None], 3, -1), RATE)


@pytest.fixture
def masked(root):
    """Three videos of 50 frames with maps: a lossless video, PNGs, a lossless video."""
    for name in ("a", "c"):
        write_maps(root / f"maps/{name}.mkv", maps(50))
    (root / "maps/b").mkdir()
    for t, ids in enumerate(maps(50)):
        cv2.imwrite(str(root / f"maps/b/frame_{t}.png"), ids)
    return root


def test_masks_from_videos_and_from_pngs(masked):
    for split in ("train", "eval"):
        found = source(masked, masks="maps", clips=2, split=split)
        for i in range(len(found)):
            scene = found[i]
            true = maps(50)[number(scene["video"])]
            assert (scene["masks"] == np.stack([true == 3, true == 7])).all()
            assert scene["labels"][0] == 2 and scene["labels"].shape == (4,)
    readers.check_source(source(masked, masks="maps"))


def test_coloured_maps_and_one_that_is_ignored(masked):
    colours = np.zeros((50, HEIGHT, WIDTH, 3), np.uint8)
    colours[maps(50) == 3], colours[maps(50) == 7] = (200, 0, 9), (255, 255, 255)
    for name in ("a", "c"):
        clips.write(masked / f"maps/{name}.mkv", colours, RATE)
    for t, picture in enumerate(colours):
        cv2.imwrite(str(masked / f"maps/b/frame_{t}.png"), picture[..., ::-1])
    found = source(masked, masks="maps")
    for i in range(len(found)):
        true = maps(50)[number(found[i]["video"])]
        assert (found[i]["masks"] == np.stack([true == 3, true == 7])).all()
    for name in "abc":
        shutil.rmtree(masked / f"maps/{name}", ignore_errors=True)
        write_maps(masked / f"maps/{name}.mkv", maps(50))
    assert len(source(masked, masks="maps", ignore=7)[0]["masks"]) == 1


def damage_lossy(root):
    for name in "abc":
        shutil.rmtree(root / f"maps/{name}", ignore_errors=True)
        (root / f"maps/{name}.mkv").unlink(missing_ok=True)
        clips.write(root / f"maps/{name}.avi", np.repeat(maps(50)[..., None], 3, -1), RATE)


def damage_pngs(root):
    for name in "ac":
        (root / f"maps/{name}.mkv").unlink()
        shutil.copytree(root / "maps/b", root / f"maps/{name}")
    for name in "abc":
        (root / f"maps/{name}/frame_7.png").unlink()


def damage_length(root):
    for name in "abc":
        shutil.rmtree(root / f"maps/{name}", ignore_errors=True)
        write_maps(root / f"maps/{name}.mkv", maps(40))


def damage_size(root):
    for name in "abc":
        shutil.rmtree(root / f"maps/{name}", ignore_errors=True)
        write_maps(root / f"maps/{name}.mkv", maps(50, 48, 48))


def damage_noise(root):
    noise = np.random.default_rng(0).integers(0, 1 << 24, (50, HEIGHT, WIDTH))
    for name in "abc":
        shutil.rmtree(root / f"maps/{name}", ignore_errors=True)
        clips.write(root / f"maps/{name}.mkv", np.stack([noise >> 16, noise >> 8, noise], -1).astype(np.uint8), RATE)


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_lossy, "MJPG changes values: save maps as FFV1"),
        (damage_pngs, "49 maps, the video has 50 frames"),
        (damage_length, "lasts 1.60 s, its video 2.00 s"),
        (damage_size, "the maps are 48x48 pixels, the video 48x32"),
        (damage_noise, "objects, at most 256: an instance map has one value per object"),
    ],
)
def test_maps_that_do_not_fit(masked, damage, message):
    damage(masked)
    assert message in error(lambda: source(masked, masks="maps")[0])


def test_maps_must_be_there_once(masked):
    (masked / "maps/b").rename(masked / "maps/d")
    assert "1 videos without instance maps: b.mp4" in error(
        lambda: [source(masked, masks="maps", split=split) for split in ("train", "eval")]
    )
    (masked / "maps/d").rename(masked / "maps/b")
    shutil.copy(masked / "maps/a.mkv", masked / "maps/b.mkv")
    assert "there are maps of this name already" in error(lambda: source(masked, masks="maps"))
    assert "no such folder" in error(lambda: source(masked, masks="nowhere"))


def test_a_rotated_video_with_maps_needs_a_decision(masked, monkeypatch):
    info = video_streams.Info(2.0, 0.04, 90, "H264", True)
    found = source(masked, masks="maps")
    text = error(lambda: found.window(found.entries[0], 0, info, "x.mp4: clip 1 of 1"))
    assert "turn it by 90 degrees" in text and "data.options.rotation to 'apply' or 'ignore'" in text
    for chosen in (source(masked, masks="maps", rotation="ignore"), source(masked)):
        assert chosen.window(chosen.entries[0], 0, info, "").frames == 4


def test_numbers_sort_by_value_and_columns_are_known():
    assert video_list.classes([video_list.Entry("a", label=text) for text in ("b", "10", "9")]) == ("10", "9", "b")
    assert video_streams.tag(int.from_bytes(b"FFV1", "little")) == "FFV1" and video_streams.tag(0) == ""


def test_pyav_is_optional(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    text = error(lambda: source(root, reader="pyav"), ConfigError)
    assert "needs the package av" in text and "pip install 'cjepa_jax[video]'" in text


@pytest.mark.needs("av")
def test_both_readers_give_the_same(forty):
    for name in KINDS:
        one, other = (source(forty / name, reader=reader) for reader in video_times.READERS)
        assert (one[0]["video"] == other[0]["video"]).all(), name


def damage(data: bytes) -> bytes:
    data = bytearray(data)
    for place in np.random.default_rng(0).integers(len(data) * 3 // 10, len(data) * 6 // 10, 40):
        data[place] ^= 0x5A
    return bytes(data)


@pytest.mark.parametrize("reader", ["opencv", pytest.param("pyav", marks=pytest.mark.needs("av"))])
@pytest.mark.parametrize("kind", ["mpeg4", "mpeg1", "mjpeg", "ffv1"])
def test_damage_inside_frames_is_named(forty, tmp_path, kind, reader):
    """FFmpeg conceals it and shows something else."""
    name = f"a{KINDS[kind]}"
    whole = (forty / kind / f"7{KINDS[kind]}").read_bytes()
    (tmp_path / name).write_bytes(whole)
    found = source(tmp_path, reader=reader, fps=25.0, frames=70)
    assert found[0]["video"].shape[0] == 70
    (tmp_path / name).write_bytes(damage(whole))
    assert f"{name}: damaged after" in error(lambda: found[0])
    (tmp_path / name).write_bytes(whole)
    assert found[0]["video"].shape[0] == 70  # the next file is not blamed


def test_damage_is_named_by_frame_where_frames_are_counted(forty, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(damage((forty / "mpeg4/7.mp4").read_bytes()))
    assert re.search(
        r"a\.mp4: damaged at frame \d+: .* \(clip 3\)$", error(lambda: video.read(path, range(60), 60, "clip 3"))
    )


def test_damage_is_heard_in_the_thread_that_decodes(forty, tmp_path):
    """Two threads read a sound and a damaged file again and again. OpenCV may have opened videos before."""
    path = tmp_path / "a.mp4"
    path.write_bytes(damage((forty / "mpeg4/7.mp4").read_bytes()))

    def read(file):
        try:
            return len(video.read(file, range(40), None, ""))
        except DataError as caught:
            return str(caught)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, [path, forty / "mpeg4/7.mp4"] * 12))
    assert all("damaged at frame" in str(result) for result in results[::2]) and set(results[1::2]) == {40}
