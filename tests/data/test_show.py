"""The command that draws scenes: the files it writes are decoded and looked at."""

import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image

from cjepa_jax.data import batching, show
from cjepa_jax.data.drawing import marks, sheet
from cjepa_jax.data.sources.folder import Folder
from cjepa_jax.data.worlds import Balls, Craft, Shadows
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import objects
from configs.worlds import balls as balls_config
from tests import running, scenes

SIDE = 96


def scene_map(source, frames, **options):
    return dataclasses.replace(scenes.scene_map(frames, **options), source=source)


@pytest.fixture(scope="module")
def clips():
    balls = scene_map(Balls(size=32, frames=8, count=16), 8, intervened="rerender")
    return balls, [show.read(balls, i) for i in range(4)]


def has(picture, k):
    """Whether an outline of object k's colour is in the picture."""
    return bool((np.asarray(picture) == marks.colour(k)).all(-1).any())


def test_a_scene_is_what_training_draws(clips):
    balls, found = clips
    for i, scene in enumerate(found):
        drawn = balls(i, 0)
        assert (scene.factual.video == drawn["video"]).all() and (scene.other.video == drawn["intervened"]).all()
        assert (scene.hidden.ravel() == ~drawn["context"]).all()
        assert scene.removed.sum() == drawn["removed"].sum() > 0
        own = objects.patches(scene.factual.masks[scene.removed], balls.patch, balls.tubelet)
        assert (own.any(0) == scene.hidden.ravel()).all()  # the removed are those whose patches are hidden
        assert (scene.other.masks == balls.source.rollout(i, scene.removed)["masks"]).all()


def test_a_removed_object_is_outlined_on_the_factual_side_only(clips):
    for scene in clips[1]:
        for k, gone in enumerate(scene.removed):
            if scene.factual.masks[k, 0].sum() > 20:
                assert has(scene.picture(False, 0, SIDE), k)
                assert not gone or not has(scene.picture(True, 0, SIDE), k)
                assert gone or not scene.other.masks[k, 0].any() or has(scene.picture(True, 0, SIDE), k)


def test_hatching_is_on_the_hidden_patches_of_the_factual_side(clips):
    scene = dataclasses.replace(
        clips[1][0], factual=sheet.Clip(clips[1][0].factual.video, np.zeros((0, 8, 32, 32), bool))
    )
    for time in range(8):
        plain = marks.enlarge(scene.factual.video[time], SIDE)
        touched = (np.asarray(scene.picture(False, time, SIDE)) != plain).any(-1)
        hidden = scene.hidden[time // 2].repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        assert not touched[~hidden].any() and touched[hidden].mean() > 0.9


def test_a_ring_is_drawn_in_the_frame_in_which_a_contact_begins():
    video = np.full((6, 32, 32, 3), 90, np.uint8)
    masks = np.zeros((2, 6, 32, 32), bool)
    masks[0, :, 10:20, 6:16] = masks[1, :, 10:20, 16:26] = True
    clip = sheet.Clip(video, masks, np.array([[2.6, 5.0, 0, 1], [4.2, 4.5, 1, -1]], np.float32))
    assert [clip.begun(t) for t in range(6)] == [[], [], [], [(0, 1)], [(1, -1)], []]
    scene = sheet.Scene(0, clip, clip, np.zeros(2, bool), np.zeros((6, 4, 4), bool), True)
    pictures = [np.asarray(scene.picture(False, t, SIDE)).astype(int) for t in range(6)]
    assert (pictures[2] == pictures[0]).all() and (pictures[5] == pictures[0]).all()
    rows, columns = np.nonzero((pictures[3] != pictures[0]).any(-1))
    assert abs(columns.mean() - 48) < 2 and 30 < rows.mean() < 60
    assert np.nonzero((pictures[4] != pictures[0]).any(-1))[1].mean() > 80  # at the border on the right
    assert (np.asarray(scene.picture(False, 5, SIDE, linger=2)) != pictures[0]).any()
    assert {3, 4} <= set(scene.times(5)) and scene.times(5)[0] == 0 and scene.times(5)[-1] == 5


def test_an_object_of_ones_choice_is_removed(clips):
    balls, found = clips
    for k in range(len(found[0].removed)):
        scene = show.read(balls, 0, remove=k)
        assert scene.removed.tolist() == [j == k for j in range(len(scene.removed))]
        patches = objects.patches(scene.factual.masks, balls.patch, balls.tubelet)
        assert (scene.hidden.ravel() == patches[k]).all()
        assert (scene.other.video == balls.source.intervene(0, scene.removed)).all()
    with pytest.raises(ConfigError, match="--remove=9: scene 0 has objects 0 to"):
        show.read(balls, 0, remove=9)


def test_objects_keep_their_numbers_where_few_are_kept():
    few = scene_map(Balls(size=32, frames=2, count=8, objects=(6, 6)), 2, intervened="rerender", max_objects=2)
    for i in range(4):
        scene, kept = show.read(few, i), few.max_objects
        patches = objects.patches(scene.factual.masks, few.patch, few.tubelet)
        assert (
            set(np.flatnonzero(scene.removed)) <= set(batching.keep_largest(patches, kept)) and len(scene.removed) == 6
        )


def test_a_source_that_cannot_simulate_shows_the_blanked_scene():
    mask = functools.partial(objects.draw, max_objects=2, area=(0.01, 0.9))
    folder = scene_map(Folder(path=str(running.ROOT / "examples/folder"), size=32), 1, mask=mask)
    scene = show.read(folder, 0)
    assert not scene.rerendered and "blanked:" in scene.change() and scene.notes == ()
    own = scene.factual.masks[scene.removed, 0].any(0)
    assert (scene.other.video[0][own] == 0).all() and not scene.other.masks[scene.removed].any()
    assert (scene.other.video[0][~own] == scene.factual.video[0][~own]).all()


def test_a_worlds_question_is_answered():
    shadows = scene_map(Shadows(size=32, frames=2, count=8), 2, intervened="rerender")
    scene = show.read(shadows, 0, remove=1)
    (note,) = scene.notes
    outcomes = shadows.source.outcomes(0)
    j = int(note.split("object ")[1].split()[0])
    words = {True: "yes", False: "no"}
    assert j != 1 and note.endswith(
        f"? {words[bool(outcomes.happens[0, j])]}, without 1: {words[bool(outcomes.happens[2, j])]}"
    )


def test_a_counterfactual_question_of_a_data_set_is_printed():
    @dataclasses.dataclass(frozen=True)
    class Asking(Balls):
        def questions(self, i):
            kinds = ("descriptive", "counterfactual", "counterfactual")[: i + 1]
            return [{"question": f"{kind} {n}?", "answer": "3", "question_type": kind} for n, kind in enumerate(kinds)]

    asking = scene_map(Asking(size=32, count=4, frames=2), 2)
    assert show.read(asking, 0).notes == ("descriptive 0? 3",)
    assert show.read(asking, 2).notes == ("counterfactual 1? 3",)


def test_craft_s_counterfactual_question_is_printed():
    craft = Craft(size=32, frames=16, count=20)
    asked = {i: [q for q in craft.questions(i) if q["question_type"] == "counterfactual"] for i in range(6)}
    i = next(i for i, questions in asked.items() if questions)
    assert show.read(scene_map(craft, 16), i).notes == (f"{asked[i][0]['question']} {asked[i][0]['answer']}",)


def command(out, *flags):
    values = {"data__frames": 4, "data__intervened": "zero_pixels"}  # what a config says of it is for training
    return [*running.command(None, "configs/worlds/balls.py", "cjepa_jax.data.show", **values), f"--out={out}", *flags]


def small(frames=4):
    config = balls_config.get_config()
    config.data.size, config.data.count, config.data.frames = 32, 64, frames
    config.mask.area, config.mask.anchor = (0.05, 0.6), 0
    return config


def test_frames_are_spread_evenly_where_nothing_happens():
    for frames, most in ((16, 6), (9, 6), (7, 6), (64, 6), (3, 6)):
        clip = sheet.Clip(np.zeros((frames, 8, 8, 3), np.uint8), np.zeros((0, frames, 8, 8), bool))
        times = sheet.Scene(0, clip, clip, np.zeros(0, bool), np.zeros((frames, 1, 1), bool), True).times(most)
        gaps = np.diff(times)
        assert len(times) == min(frames, most) and times[0] == 0 and times[-1] == frames - 1
        assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def test_the_command_writes_the_same_sheet_again_and_nothing_else(tmp_path):
    out, err = running.run(command(tmp_path / "a.png", "--scenes=2", "--first=3"))
    assert "a.png: scenes 3 to 4" in out and err == ""
    show.draw(small(), str(tmp_path / "b.png"), first=3, count=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = Image.open(tmp_path / "a.png")
    assert picture.width == 2 * sheet.MARGIN + 4 * 192 + 3 * sheet.GUTTER and picture.height > 4 * 192
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    assert not (running.ROOT / "runs/balls").exists()


def test_an_animation_has_every_frame_and_the_marks_own_colours(tmp_path):
    for name in ("a.gif", "b.gif"):
        text = show.draw(small(), str(tmp_path / name), first=62, scale=2)
        assert "scenes 62 to 63" in text  # the last ones there are
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    animation = Image.open(tmp_path / "a.gif")
    assert animation.n_frames == 4 and animation.info["loop"] == 0
    assert abs(animation.info["duration"] - 1000 / sheet.RATE) <= 10
    frames = []
    for t in range(4):
        animation.seek(t)
        frames.append(np.asarray(animation.convert("RGB")))
    assert all((frame[1, 1] == sheet.PAPER).all() and has(frame, 0) for frame in frames)
    scenes_of = show.make_scenes(small(), Balls(size=32, frames=4, count=64))
    wanted = [show.read(scenes_of, i).picture(False, 3, 64, sheet.LINGER) for i in (62, 63)]
    top = 2 * sheet.LINE + sheet.MARGIN
    near = [np.asarray(picture).astype(int) for picture in wanted]
    found = frames[3].astype(int)
    shown = [np.abs(found[y : y + 64, sheet.MARGIN : sheet.MARGIN + 64] - near[0]).mean() for y in range(top, top + 60)]
    assert min(shown) < 4  # the palette's error


def test_an_image_is_drawn_beside_its_counterfactual(tmp_path):
    show.draw(small(1), str(tmp_path / "a.png"), count=3)
    width = Image.open(tmp_path / "a.png").width
    assert width == 2 * sheet.MARGIN + 3 * (2 * 192 + sheet.GUTTER) + 2 * sheet.GAP


def test_a_data_set_s_question_of_any_length_is_drawn_within_bounds():
    blank = sheet.Clip(np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 1, 32, 32), bool))
    notes = ("x" * 10**6, "word " * 10**5, "\x1b[2J\ud800\0")
    scene = sheet.Scene(0, blank, blank, np.zeros(1, bool), np.zeros((1, 4, 4), bool), True, notes)
    drawn = sheet.sheet([scene], "Heading", 64)
    assert max(drawn.size) < 10_000


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"out": None}, "--out=: name a file that ends in .png or .gif"),
        ({"out": "a.jpg"}, "--out=a.jpg: name a file that ends in .png or .gif"),
        ({"out": "a.png", "first": 64}, "--first=64: the train split has scenes 0 to 63"),
        ({"out": "no/such/a.png", "count": 1}, "--out=no/such/a.png: cannot be written (No such file or directory)"),
        ({"out": "a.png", "remove": 99}, "--remove=99: scene 0 has objects 0 to"),
        ({"out": "a.png", "split": "night"}, "data.split is 'night'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(options, text):
    with pytest.raises(ConfigError) as refused:
        show.draw(small(1), **options)
    assert text in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_refusal_is_exit_code_2():
    assert "--first=64: the train split has" in running.error(command("a.png", "--first=64"), 2)


def test_an_unwritable_place_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be written \(Is a directory\)"):
        show.write(tmp_path, b"")
