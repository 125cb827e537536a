"""Folders of episodes in LeRobot's layout, versions 2.1 and 3.0, written here by pyarrow and OpenCV as published."""

import json
import shutil

import cv2
import numpy as np
import pytest

from cjepa_jax.data.formats import lerobot_files
from cjepa_jax.data.sources.lerobot import LeRobot
from cjepa_jax.errors import ConfigError, DataError

pytestmark = pytest.mark.needs("pyarrow")
LENGTHS, FPS, SIDE = (9, 5, 12, 7, 8), 10, 32
CAMERA = "observation.image"
FEATURES = {
    CAMERA: {"dtype": "video", "shape": [SIDE, SIDE, 3], "names": ["height", "width", "channel"]},
    "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
    "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
    **{name: {"dtype": "int64", "shape": [1]} for name in ("episode_index", "frame_index", "index", "task_index")},
    "timestamp": {"dtype": "float32", "shape": [1]},
}


def write_video(path, numbers):
    """Frame n of all episodes has the brightness 20 + 5 n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (SIDE, SIDE))
    for n in numbers:
        out.write(np.full((SIDE, SIDE, 3), 20 + 5 * n, np.uint8))
    out.release()


def write_rows(path, episodes, **options):
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = np.cumsum(LENGTHS) - LENGTHS
    n = np.concatenate([offsets[e] + np.arange(LENGTHS[e]) for e in episodes])
    frame = np.concatenate([np.arange(LENGTHS[e]) for e in episodes])
    vector = pyarrow.list_(pyarrow.float32(), 2)
    table = {
        "observation.state": pyarrow.array(np.stack([n / 10, n], 1).tolist(), vector),
        "action": pyarrow.array(np.stack([n, -n], 1).tolist(), vector),
        "timestamp": pyarrow.array(frame / FPS, pyarrow.float32()),
        "frame_index": frame,
        "episode_index": np.concatenate([np.full(LENGTHS[e], e) for e in episodes]),
        "index": n,
        "task_index": np.zeros_like(n),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path, **options)
    return n


def write_info(root, version, **more):
    (root / "meta").mkdir(parents=True)
    info = {"codebase_version": version, "fps": FPS, "chunks_size": 1000, "features": FEATURES} | more
    (root / "meta" / "info.json").write_text(json.dumps(info))


def second(root):
    """Version 2.1: files for each episode."""
    write_info(root, "v2.1")
    lines = []
    for e, length in enumerate(LENGTHS):
        n = write_rows(root / f"data/chunk-000/episode_{e:06d}.parquet", [e])
        write_video(root / f"videos/chunk-000/{CAMERA}/episode_{e:06d}.mp4", n)
        lines.append(json.dumps({"episode_index": e, "tasks": ["push"], "length": length}))
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")


def third(root):
    """Version 3.0: two files of data and two of videos, which do not begin with the same episodes."""
    import pyarrow
    import pyarrow.parquet

    write_info(root, "v3.0")
    for file, own in enumerate(([0, 1, 2], [3, 4])):
        write_rows(root / f"data/chunk-000/file-{file:03d}.parquet", own, row_group_size=7)
    offsets, ends = np.cumsum(LENGTHS) - LENGTHS, np.cumsum(LENGTHS)
    films = ([0, 1], [2, 3, 4])
    for file, own in enumerate(films):
        write_video(root / f"videos/{CAMERA}/chunk-000/file-{file:03d}.mp4", range(offsets[own[0]], ends[own[-1]]))
    film = [next(f for f, own in enumerate(films) if e in own) for e in range(5)]
    starts = [(offsets[e] - offsets[films[film[e]][0]]) / FPS for e in range(5)]
    table = {
        "episode_index": range(5),
        "tasks": [["push"]] * 5,
        "length": LENGTHS,
        "data/chunk_index": [0] * 5,
        "data/file_index": [0, 0, 0, 1, 1],
        "dataset_from_index": offsets,
        "dataset_to_index": ends,
        f"videos/{CAMERA}/chunk_index": [0] * 5,
        f"videos/{CAMERA}/file_index": film,
        f"videos/{CAMERA}/from_timestamp": starts,
        f"videos/{CAMERA}/to_timestamp": [start + length / FPS for start, length in zip(starts, LENGTHS, strict=True)],
    }
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({name: list(value) for name, value in table.items()}), path)


@pytest.fixture(scope="module", params=[second, third])
def folder(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param.__name__)
    request.param(root)
    return root


def numbers(scene):
    """The frames' numbers in all episodes. The codec darkens a frame by 2 to 4."""
    return np.rint((scene["video"].mean((1, 2, 3)) - 17) / 5).astype(int)


def test_windows_have_the_frames_actions_and_states_of_their_episode(folder):
    seen = []
    for split in ("train", "eval", "test"):
        source = LeRobot(path=str(folder), split=split, frames=3, hop=2, held=0.4)
        for scene in source:
            n = numbers(scene)
            assert scene["video"].shape == (3, SIDE, SIDE, 3) and scene["video"].dtype == np.uint8
            np.testing.assert_array_equal(np.diff(n), 1)
            np.testing.assert_array_equal(scene["actions"], np.stack([n, -n], 1) * [[1], [1], [0]])
            np.testing.assert_allclose(scene["proprio"], np.stack([n / 10, n], 1), rtol=1e-6)
            seen.append(n[0])
    wanted = [
        start + i for start, length in zip((0, 9, 14, 26, 33), LENGTHS, strict=True) for i in range(0, length - 2, 2)
    ]
    assert seen == wanted


def test_a_stride_skips_frames_and_joins_their_actions(folder):
    source = LeRobot(path=str(folder), frames=3, stride=3, held=0.0, state="")
    assert len(source) == 4  # episodes of 9, 12, 7 and 8 frames
    for scene, first in zip(source, (0, 14, 26, 33), strict=True):
        assert numbers(scene).tolist() == [first, first + 3, first + 6] and "proprio" not in scene
        wanted = [[sign * (first + i) for i in row for sign in (1, -1)] for row in ((0, 1, 2), (3, 4, 5))]
        assert scene["actions"].tolist() == [*wanted, [0] * 6]


def broken(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    info = json.loads((copy / "meta/info.json").read_text())
    change(copy, info)
    (copy / "meta/info.json").write_text(json.dumps(info))
    return LeRobot(path=str(copy), frames=3, held=0.0)


def leading_out(root, info):
    info["features"]["../../secret"] = info["features"].pop(CAMERA)


def other_names(root, info):
    """Patterns of the folder's own are not followed: the layout's are."""
    info["data_path"] = info["video_path"] = "/etc/passwd"


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda root, info: info.update(codebase_version="v1.6"), "codebase_version is 'v1.6': must be one of v2.0"),
        (lambda root, info: info.update(fps=0), "fps is '0': must be above 0"),
        (lambda root, info: info["features"].pop("action"), "has no feature 'action'"),
        (lambda root, info: info["features"]["action"].update(shape=[1 << 40]), "action is float32 .*: must be"),
        (lambda root, info: info["features"][CAMERA].update(dtype="image"), "has no video"),
        (leading_out, "'../../secret' is not the name of a video"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(folder, tmp_path, change, text):
    with pytest.raises(DataError, match=text) as error:
        broken(folder, tmp_path, change)
    assert "\n" not in str(error.value)


def test_the_folders_own_patterns_of_names_are_not_followed(folder, tmp_path):
    assert numbers(broken(folder, tmp_path, other_names)[0]).tolist() == [0, 1, 2]


def test_broken_files_and_links_out_of_the_folder_are_refused(folder, tmp_path):
    source = broken(folder, tmp_path, lambda root, info: None)
    data = tmp_path / "copy" / lerobot_files.data_name(source.index, 0)
    film = tmp_path / "copy" / lerobot_files.video_name(source.index, CAMERA, 0)
    whole = data.read_bytes()
    for content in (b"", whole[:-9], whole[: len(whole) // 2], b"PAR1" + bytes(200) + b"PAR1"):
        data.write_bytes(content)
        with pytest.raises(DataError, match="parquet: unreadable"):
            source[0]
    data.write_bytes(whole)
    film.unlink()
    with pytest.raises(DataError, match="mp4"):
        source[0]
    data.unlink()
    outside = tmp_path / "outside.parquet"
    outside.write_bytes(whole)
    data.symlink_to(outside)
    with pytest.raises(DataError, match="leads out of this folder"):
        source[0]


def test_rows_of_another_episode_and_sizes_without_limit_are_refused(folder, tmp_path, monkeypatch):
    source = broken(folder, tmp_path, lambda root, info: None)
    root, name = tmp_path / "copy", lerobot_files.data_name(source.index, 0)
    assert lerobot_files.columns(root, name, ["frame_index"], 100, 2, 3)["frame_index"].tolist() == [2, 3, 4]
    with pytest.raises(DataError, match="has no column 'reward'"):
        lerobot_files.columns(root, name, ["reward"], 100)
    with pytest.raises(DataError, match="rows, at most 4 are read"):
        lerobot_files.columns(root, name, ["frame_index"], 4)
    with pytest.raises(DataError, match="rows, 1000 are needed"):
        lerobot_files.columns(root, name, ["frame_index"], 100, 0, 1000)
    monkeypatch.setattr(lerobot_files, "MOST_BYTES", 10)
    with pytest.raises(DataError, match="bytes when decompressed, at most 10 are held"):
        source[0]
    monkeypatch.undo()
    write_rows(root / name, [1, 0])
    if source.index.version == "v2.1":
        with pytest.raises(DataError, match="rows are not frames 0 to 2 of episode 0"):
            source[0]


def test_options_that_cannot_work_are_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="data.options.camera is 'top': must be one of observation.image"):
        LeRobot(path=str(folder), camera="top")
    with pytest.raises(ConfigError, match="data.path is empty"):
        LeRobot()
    with pytest.raises(DataError, match="no such folder"):
        LeRobot(path=str(tmp_path / "none"))
    with pytest.raises(DataError, match="windows are asked for"):
        LeRobot(path=str(folder), frames=13)
