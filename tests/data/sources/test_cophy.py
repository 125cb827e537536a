"""CoPhy: fixtures in its published layout, of 64 pixels instead of 224."""

import shutil

import cv2
import numpy as np
import pytest

from cjepa_jax.data.sources import cophy
from cjepa_jax.data.sources.cophy import SCENARIOS, CoPhy
from cjepa_jax.errors import ConfigError, DataError
from tests.data import clips
from tests.data.readers import check_source, message

SIZE = 64
RGB = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
RADIUS = 7


def tracks(scenario: str, which: str) -> dict[int, np.ndarray]:
    """Slot -> centres [L,2] in pixels. Slot 1 passes in front of slot 0, and CD moves slot 2 or removes it."""
    t = np.arange(SCENARIOS[scenario].length)
    out = {0: np.stack([20 + t, 20 + 0 * t], -1), 1: np.stack([50 - t, 24 + 0 * t], -1)}
    if which == "ab" or scenario != "blocktowerCF":
        out[2] = np.stack([32 + 0 * t, 50 + (which == "cd") * 0.2 * t], -1)
    return out


def discs(paths: dict[int, np.ndarray], t: int, colours) -> np.ndarray:
    frame = np.full((SIZE, SIZE, 3), 0, np.uint8)
    for k, path in paths.items():
        cv2.circle(frame, tuple(int(c) for c in path[t]), RADIUS, colours[k], -1)
    return frame


def write_clip(home, scenario: str, which: str) -> None:
    kind, paths = SCENARIOS[scenario], tracks(scenario, which)
    coding = [RGB.get(name, (128, 0, 128)) for name in kind.colours]
    states, boxes = np.zeros((kind.length, len(kind.colours), 13)), np.zeros((kind.length, len(kind.colours), 4))
    for k, path in paths.items():
        states[:, k, :2], states[:, k, 2], states[:, k, 6] = path / 10, 0.5, 1
        states[:, k, 7:9] = np.gradient(path, axis=0)
        boxes[:, k] = np.concatenate([path - RADIUS, path + RADIUS], -1)
    for name, colours in (("rgb", [tuple(c // 2 + 60 for c in colour) for colour in coding]), ("segm", coding)):
        frames = np.stack([discs(paths, t, colours) for t in range(kind.length)])
        clips.write(home / which / f"{name}.mp4", frames, fps=5)
    np.save(home / which / "states.npy", states)
    np.save(home / which / "bboxes.npy", boxes)
    shape = "type=sphere " if scenario == "collisionCF" else ""
    lines = [f"obj={number} {shape}color={kind.colours[k]}\n" for number, k in enumerate(sorted(paths, reverse=True))]
    (home / which / "colors.txt").write_text("".join(lines))


def write_pair(home, scenario: str) -> None:
    for which in ("ab", "cd"):
        write_clip(home, scenario, which)
    confounders = np.zeros((len(SCENARIOS[scenario].colours), 2 if scenario == "blocktowerCF" else 3))
    confounders[:3] = [[1, 0.5, 0.1][: confounders.shape[1]]] * 3
    np.save(home / "confounders.npy", confounders)
    if scenario == "blocktowerCF":
        (home / "gravity.txt").write_text("gravity_x=-0.5 gravity_y=0.0")
    else:
        (home / "explanations.txt").write_text("move the blue object\n")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("CoPhy_224")
    (root / "splits").mkdir()
    homes = {"ballsCF": "ballsCF/4", "blocktowerCF": "blocktowerCF/3", "collisionCF": "collisionCF"}
    for scenario, home in homes.items():
        write_pair(root / home / "17", scenario)
        shutil.copytree(root / home / "17", root / home / "4711")
    for split in ("train", "val", "test"):
        for name in ("ballsCF_{}_4", "blocktowerCF_{}_3_normal", "blocktowerCF_{}_3_generalization"):
            (root / "splits" / f"{name.format(split)}.txt").write_text("4711\n17\n" if split == "train" else "17")
        (root / "splits" / f"collisionCF_{split}_moving_sphere.txt").write_text("17\n4711\n")
    return root


@pytest.fixture
def broken(published, tmp_path):
    """A copy that a test may damage: its clip, and the source of its scene."""
    root = tmp_path / "CoPhy"
    shutil.copytree(published, root)
    return root / "ballsCF/4/17", lambda: CoPhy("eval", str(root), frames=2)[0]


SOURCES = [
    dict(scenario="ballsCF", objects=4, video="both"),
    dict(scenario="blocktowerCF", objects=3, setting="normal", video="cd", stride=3),
    dict(scenario="collisionCF", objects=0, setting="moving_sphere"),
]


@pytest.mark.parametrize("options", SOURCES, ids=lambda options: options["scenario"])
def test_every_scenario_goes_through_the_loader(published, options):
    check_source(CoPhy("train", str(published), size=SIZE, frames=4, count=2, **options))


def test_windows_videos_and_states(published):
    source = CoPhy("train", str(published), SIZE, 5, stride=2, video="both")
    assert len(source) == 2 * 2 * 3 and source.clips[:2] == (("4711", "ab"), ("4711", "cd"))
    first, second, last, other = (source[i] for i in (0, 1, 2, 3))
    assert np.allclose(first["states"][:, 0, 0], [2, 2.2, 2.4, 2.6, 2.8]) and second["states"][0, 0, 0] == 3
    assert np.allclose(last["states"][-1, 0, 0], 4.8) and (first["states"][:, 3:] == 0).all()
    assert other["states"][2, 2, 1] > first["states"][2, 2, 1]  # CD, in which slot 2 falls
    assert first["labels"].tolist() == pytest.approx([3, *first["states"][2, :3][:, [0, 1, 2, 7, 8, 9]].mean(0)])
    assert len(CoPhy("eval", str(published), SIZE, 1)) == 30 and len(CoPhy("test", str(published), SIZE, 30)) == 1


def test_masks_are_the_segmentation_by_slot(published):
    """Within a pixel of the truth: the coded video is compressed. Slot 0 passes behind slot 1."""
    source = CoPhy("eval", str(published), SIZE, 30)
    scene, paths = source[0], tracks("ballsCF", "ab")
    shown = np.stack([discs(paths, t, {k: (k + 1, 0, 0) for k in paths})[..., 0] for t in range(30)])
    for k in range(9):
        truth = shown == k + 1
        assert scene["masks"][k].sum() == 0 if k > 2 else scene["masks"][k].sum() > 0
        wrong = scene["masks"][k] ^ truth
        edge = np.stack([cv2.dilate(m, np.ones((3, 3))) != cv2.erode(m, np.ones((3, 3))) for m in truth.astype("u1")])
        assert not (wrong & ~edge).any() and wrong.sum() <= 0.2 * max(truth.sum(), 1)
    assert scene["masks"].sum(0).max() == 1
    red = scene["video"][0][scene["masks"][0, 0]].mean(0)
    assert red.argmax() == 0 and red[0] > 150


def test_frames_are_reduced_with_their_masks(published):
    small, large = (CoPhy("eval", str(published), size, 2)[0] for size in (32, 64))
    assert small["video"].shape == (2, 32, 32, 3) and small["masks"].shape == (9, 2, 32, 32)
    assert (small["masks"] == large["masks"][..., 1::2, 1::2]).all()


def test_pairs_hold_what_the_metric_needs(published):
    tower = CoPhy("eval", str(published), SIZE, 2, scenario="blocktowerCF", objects=3, setting="generalization")
    pair = tower.pair(0)
    assert pair["states_ab"].shape == pair["states_cd"].shape == (30, 4, 13) and pair["id"] == "17"
    assert pair["present_ab"].tolist() == [True, True, True, False] and pair["present_cd"].sum() == 2
    assert pair["gravity"].tolist() == [-0.5, 0] and pair["do"] == "" and pair["slots"].tolist() == [2, 1, 0]
    assert pair["confounders"].shape == (4, 2)
    balls = CoPhy("eval", str(published), SIZE, 2).pair(0)
    assert balls["do"] == "move the blue object" and balls["confounders"].shape == (9, 3)


@pytest.mark.parametrize("name", ["rgb.mp4", "segm.mp4", "states.npy", "bboxes.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "text"])
def test_broken_files_are_named(broken, name, damage):
    clip, read = broken
    path = clip / "ab" / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "text": b"text, no data" * 20}[damage])
    with pytest.raises(DataError) as caught:
        read()
    assert str(path) in message(caught)


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"PK\3\4" + b"\0" * 100,
        b"\x80\4K\1.",  # a pickle
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1" + b"0" * 40 + b",)}\n"),
        npy(b"{'descr': '<f4', 1: False, 'shape': (2,)}\n"),
        npy(b"{'descr': '<f4', 'shape': (\n"),
        npy(b"-" * 9000 + b"1\n"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}\n"),
    ],
)
def test_hostile_arrays(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="a.npy: (not a NumPy array|must be an array)") as caught:
        cophy.read_array(tmp_path / "a.npy", (2,))
    assert "\n" not in str(caught.value)


def test_broken_contents_are_named(broken):
    clip, read = broken
    clips.write(clip / "ab/rgb.mp4", np.zeros((20, SIZE, SIZE, 3), np.uint8), fps=5)
    with pytest.raises(DataError, match=r"rgb.mp4: truncated after 20 of 30 frames \(clip 17\)"):
        CoPhy("eval", str(clip.parents[2]), frames=30)[0]
    for wrong in (np.zeros((29, 9, 13)), np.zeros((30, 4, 13)), np.full((30, 9, 13), np.nan), np.array([{}] * 30)):
        np.save(clip / "ab/states.npy", wrong, allow_pickle=True)
        with pytest.raises(DataError, match="states.npy: "):
            read()


def test_masks_larger_than_the_frame(broken):
    clip, read = broken
    clips.write(clip / "ab/segm.mp4", np.zeros((30, 96, 96, 3), np.uint8), fps=5)
    with pytest.raises(DataError, match=r"segm.mp4: masks of 96x96 pixels, frames of 64x64 \(clip 17\)"):
        read()


def test_broken_pairs_are_named(broken):
    clip, _ = broken
    source = CoPhy("eval", str(clip.parents[2]), frames=2)
    (clip / "ab/colors.txt").write_text("obj=0 color=mauve")
    with pytest.raises(DataError, match="colors.txt: 'mauve' is not a colour"):
        source.pair(0)
    (clip / "explanations.txt").unlink()
    (clip / "ab/colors.txt").write_text("")
    with pytest.raises(DataError, match="explanations.txt: No such file"):
        source.pair(0)


@pytest.mark.parametrize(
    "text, named",
    [
        ("17\n18\n19\n", "2 clips are not in .*ballsCF/4: 18, 19"),
        ("../../blocktowerCF/3/17", "1 clips are not in"),
        ("17\n17", "names a clip twice"),
        ("\n", "no clips"),
        (None, "ballsCF_val_4.txt: No such file"),
    ],
)
def test_bad_split_lists_stop_at_once(broken, text, named):
    clip, _ = broken
    path = clip.parents[2] / "splits/ballsCF_val_4.txt"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=named) as caught:
        CoPhy("eval", str(clip.parents[2]), frames=2)
    assert message(caught)


def test_a_clip_that_is_a_link_to_elsewhere_is_not_followed(broken, published):
    clip, read = broken
    shutil.rmtree(clip)
    clip.symlink_to(published / "ballsCF/4/17")
    with pytest.raises(DataError, match="leads out of this folder"):
        read()


@pytest.mark.parametrize(
    "bad, error, named",
    [
        (dict(scenario="ropes"), ConfigError, "data.options.scenario is 'ropes'"),
        (dict(objects=7), ConfigError, "data.options.objects is 7"),
        (dict(setting="normal"), ConfigError, "data.options.setting is 'normal'"),
        (dict(video="ef"), ConfigError, "data.options.video is 'ef': must be one of 'ab', 'cd', 'both'"),
        (dict(split="valid"), ConfigError, "data.split is 'valid'"),
        (dict(frames=31), ConfigError, "31 x 1. The clips have 30 frames"),
        (dict(stride=0), ConfigError, "data.options.stride is 0"),
        (dict(path=""), ConfigError, "data.path is empty"),
        (dict(path="/nowhere"), DataError, "/nowhere: no such folder"),
        (dict(count=61), DataError, "61 scenes are asked for, its train split has 60"),
        (dict(objects=5), DataError, "ballsCF_train_5.txt: No such file"),
    ],
)
def test_bad_options(published, bad, error, named):
    with pytest.raises(error, match=named) as caught:
        CoPhy(**(dict(path=str(published), frames=1) | bad))
    assert message(caught)


def test_indices_end(published):
    source = CoPhy("eval", str(published), SIZE, 10)
    with pytest.raises(IndexError, match="scenes 0 to 2"):
        source[3]


def test_an_object_that_is_never_seen_alone_has_no_mask():
    boxes = np.tile(np.array([[4.0, 4, 12, 12], [2.0, 2, 14, 14]]), (3, 1, 1))
    coded = np.zeros((3, 16, 16, 3), np.uint8)
    coded[:, 4:13, 4:13] = 255
    masks = cophy.segment(coded, boxes, np.array([True, True]), np.arange(3))
    assert not masks.any()
