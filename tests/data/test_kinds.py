"""Kinds of scenes: what each becomes, and that every command takes a kind or refuses it in one line."""

import dataclasses
import importlib
from typing import ClassVar

import jax
import numpy as np
import pytest

from cjepa_jax import experiment
from cjepa_jax.bench.__main__ import describe
from cjepa_jax.configuration import check
from cjepa_jax.data import assemble, batching, bench, inspect, kinds, pipeline, show
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import Bench, Hidden
from cjepa_jax.evals.rollout import Rollout
from cjepa_jax.evals.surprise import Surprise
from cjepa_jax.evaluate import make_bench, require_kinds
from cjepa_jax.loading.model import Restored
from cjepa_jax.objectives import mae
from cjepa_jax.objectives.slots import Slots
from cjepa_jax.types import Batch, Rows
from tests.running import SMALL


@dataclasses.dataclass(frozen=True)
class Small:
    """The fields of a source. broken: what is wrong with it."""

    split: str = "train"
    path: str = ""
    size: int = 16
    frames: int = 4
    count: int = 16
    seed: int = 0
    broken: str = ""

    label_names: ClassVar[tuple[str, ...]] = ()
    can_rerender: ClassVar[bool] = False

    def __len__(self):
        return self.count


class Walk(Small):
    """A bright square that moves by its action, (rows, cols) in pixels, and stays inside."""

    kind: ClassVar[str] = "episodes"

    def __getitem__(self, i):
        rng = np.random.default_rng([self.seed, self.split == "train", i])
        actions = rng.integers(-2, 3, (self.frames, 2)).astype(np.float32)
        place, places = rng.integers(0, self.size - 3, 2).astype(np.float32), []
        video = np.zeros((self.frames, self.size, self.size, 3), np.uint8)
        for frame, action in zip(video, actions, strict=True):
            places.append(place)
            row, col = place.astype(int)
            frame[row : row + 3, col : col + 3] = 255
            place = np.clip(place + action, 0, self.size - 3)
        raw = {"video": video, "actions": actions, "proprio": np.array(places, np.float32)}
        if self.broken == "short":
            raw["actions"] = actions[1:]
        if self.broken == "nan":
            raw["proprio"][2] = np.nan
        if self.broken == "none":
            del raw["actions"]
        return raw


def of_kind(name):
    return type("Other", (Walk,), {"kind": name, "__module__": __name__})


Spectrogram, Points, Smells = (of_kind(name) for name in ("spectrogram", "points", "smells"))
OTHERS = ("Spectrogram", "Points", "Smells")


def config(source="Walk", base="baselines.mae", **changes):
    c = importlib.import_module(f"configs.{base}").get_config().copy_and_resolve_references().unlock()
    own = dict(check.flatten(c))
    c.update_from_flattened_dict({key: value for key, value in SMALL.items() if key in own})
    c.data.source, c.data.options = f"{__name__}:{source}", {}
    c.train.batch = 8
    few = {
        "data.size": 16,
        "data.frames": 4,
        "objective.decoder.depth": 1,
        "data.row_lengths": (1.0,),
        "probe.train": 8,
        "probe.test": 8,
    }
    few = {key: value for key, value in few.items() if key in own}
    c.update_from_flattened_dict(few | {"data.count": 16, "data.eval_count": 16} | changes)
    return c


def test_a_batch_of_episodes_has_their_actions_and_the_agents_state():
    c = config()
    source = assemble.make_source(c, "train")
    scenes = assemble.make_scenes(c, source, 8, 2)
    arrays = batching.collate([scenes(i, 0) for i in range(3)])
    assert arrays["actions"].shape == arrays["proprio"].shape == (3, 4, 2)
    for i in range(3):
        np.testing.assert_array_equal(arrays["actions"][i], source[i]["actions"])
        np.testing.assert_array_equal(arrays["video"][i], source[i]["video"])
        inside = np.clip(arrays["proprio"][i, :-1] + arrays["actions"][i, :-1], 0, 13)
        np.testing.assert_array_equal(inside, arrays["proprio"][i, 1:])  # actions[t] leads from t to t + 1
    batch = Batch(**(arrays | {"rows": Rows(**arrays["rows"])}))
    assert batch.observation is batch.video and len(jax.tree.leaves(batch)) == len(jax.tree.leaves(arrays))
    assert scenes.cost[0] >= 4 * 16 * 16 * 3 and not arrays["object_valid"].any()


def test_what_the_tokenizer_takes_is_the_signal_where_there_is_one():
    fields = {field.name: None for field in dataclasses.fields(Batch)}
    sound, centres = np.zeros((2, 8, 8, 1)), np.zeros((2, 4, 3))
    assert Batch(**fields | {"video": sound}).observation is sound
    assert Batch(**fields | {"signal": sound}).observation is sound
    assert Batch(**fields | {"signal": sound, "centres": centres}).observation == (sound, centres)


@pytest.mark.parametrize(
    "broken, text",
    [
        ("short", "scene 0 of Walk: actions are float32 [3, 2]: must be float32 [4, any]"),
        ("nan", "scene 0 of Walk: proprio at frame 2: must be finite"),
        ("none", "scene 0 of Walk: must be a dict of video and actions, as a source of episodes gives"),
    ],
)
def test_a_broken_episode_is_refused(broken, text):
    c = config()
    c.data.options = {"broken": broken}
    with pytest.raises(DataError) as error:
        assemble.make_scenes(c, assemble.make_source(c, "train"), 8, 2)(0, 0)
    assert str(error.value).startswith(text)


def test_crops_of_episodes_are_refused():
    c = config(**{"data.crop": True})
    with pytest.raises(ConfigError, match=r"^data.crop = True: must be False for episodes"):
        assemble.make_scenes(c, assemble.make_source(c, "train"), 8, 2)


def test_the_contacts_of_the_kept_objects_are_a_graph():
    class Three(Walk):
        kind = "video"

        def __getitem__(self, i):
            masks = np.zeros((3, 4, 16, 16), bool)
            masks[0, :, :2, :2] = masks[1, :, 4:, 4:] = masks[2, :, :, :9] = True  # the first is the smallest
            graph = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]], bool)
            return {**super().__getitem__(i), "masks": masks, "labels": np.zeros(0), "graph": graph}

    c = config(**{"data.max_objects": 2})
    np.testing.assert_array_equal(assemble.make_scenes(c, Three(), 8, 2)(0, 0)["graph"], [[0, 1], [1, 0]])
    c.data.max_objects = 4
    graph = assemble.make_scenes(c, Three(), 8, 2)(0, 0)["graph"]
    assert graph.shape == (4, 4) and graph.sum() == 4 and graph[1, 2] and not graph[0, 1]


def train(c, folder):
    """Up to the compiled step, which "bench" runs."""
    run = experiment.assemble(c)
    batch = run.example()
    assert batch.actions.shape == (8, 4, 2)
    assert jax.eval_shape(run.step, jax.eval_shape(run.init, batch), batch)[1]["loss"].shape == ()


def evaluate(c, folder):
    made = make_bench(c, Restored.of(c, "random"))
    assert isinstance(made, Bench) and made.testing.arrays["video"].shape[1:] == (4, 16, 16, 3)
    assert made.model.encode(made.testing.arrays["video"][:2]).shape[0] == 2


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "bench": lambda c, folder: describe(c, 3),
    "data.show": lambda c, folder: show.draw(c, str(folder / "sheet.png"), count=2),
    "data.inspect": lambda c, folder: inspect.inspect(c, str(folder / "seen"), ["train"], 0),
    "data.bench": lambda c, folder: list(bench.report(c, "train", 0.01)),
    "loader": lambda c, folder: next(experiment.assemble(c).loader.iterate(0, 1)),
    "held-out": lambda c, folder: pipeline.held_out(experiment.assemble(c).held_out_scenes, 0, 4),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "bench")) for n in COMMANDS])
def test_every_command_takes_episodes_and_refuses_the_kinds_that_are_not_read(name, tmp_path):
    evals = {"evals.test_split": "eval", "evals.fit": 8, "evals.test": 8, "evals.batch": 4, "evals.random_inits": 1}
    COMMANDS[name](config(**evals), tmp_path)
    for other in OTHERS:
        with pytest.raises(ConfigError) as error:
            COMMANDS[name](config(other, **evals), tmp_path)
        assert other.lower() in str(error.value) and "\n" not in str(error.value)


def test_an_objective_says_which_kinds_it_takes(monkeypatch):
    monkeypatch.setattr(mae.Mae, "kinds", ("video",), raising=False)
    text = r"^data.source: Walk gives scenes of kind 'episodes': objective.type = '.*:Mae' takes video$"
    with pytest.raises(ConfigError, match=text):
        experiment.assemble(config())


def test_each_kind_that_is_read_has_a_maker():
    assert set(kinds.MAKERS) <= set(kinds.ALL) and set(kinds.FILMED) <= set(kinds.MAKERS)
    assert all(callable(importlib.import_module(module).make) for module in kinds.MAKERS.values())
    assert kinds.of(object()) == "video"


def slot_config(**changes):
    """The shipped config of slots, of almost no size."""
    c = importlib.import_module("configs.slots.balls").get_config().copy_and_resolve_references().unlock()
    own = dict(check.flatten(c))
    c.update_from_flattened_dict({key: value for key, value in SMALL.items() if key in own and key != "data.frames"})
    small = {"data.options.of_options.objects": (2, 3), "data.options.slots": 4, "data.options.width": 16}
    small |= {"data.frames": 5, "objective.future": 2, "train.batch": 8, "data.row_lengths": (1.0,)}
    small |= {"objective.slot_predictor.depth": 1, "objective.slot_predictor.heads": 2, "data.max_objects": 4}
    small |= {"objective.slot_predictor.units": 16, "probe.train": 8, "probe.test": 8, "data.workers": 0}
    c.update_from_flattened_dict(small | {"data.count": 16, "data.eval_count": 16} | changes)
    return c


def train_on_slots(c, folder):
    run = experiment.assemble(c)
    batch = run.example()
    assert batch.video.shape == (8, 5, 1, 4, 16) and batch.video.dtype == np.float32
    assert batch.object_patches.shape == (8, 4, 20) and batch.graph.shape == (8, 4, 4)
    assert jax.eval_shape(run.step, jax.eval_shape(run.init, batch), batch)[1]["loss"].shape == ()


def evaluate_slots(c, folder):
    made = make_bench(c, Restored.of(c, "random"))
    assert made.lengths == {"history": 3, "future": 2}
    result = Rollout(3, 2).run(made)
    assert {score.row for score in result.scores} >= {"trained", "copy", "constant velocity"}
    scenes = [made.prepare(made.source("eval", 3))(i, 0) for i in range(3)]
    video, own, removed = (
        np.stack([scene[name] for scene in scenes]) for name in ("video", "object_patches", "removed")
    )
    graphs = made.model.influence(Hidden(video, own.any(1) & (np.arange(20) < 12), own, removed))
    assert set(graphs) == set(Slots.graph_names) and made.randoms[0].influence is not None
    assert all(graph.shape == (3, 4, 4) and np.isfinite(graph).all() for graph in graphs.values())
    there = np.stack([scene["object_valid"] for scene in scenes])
    assert all((graphs["dropping"][b, i, j] > 1e-12) == there[b, j] for b, i, j in np.ndindex(3, 4, 4) if there[b, i])
    require_kinds(made, {"rollout": Rollout()})
    require_kinds(made, {"rollout": Rollout(), "surprise": Surprise()})


SHOWN = "TrueSlots gives scenes of kind 'slots': {} takes video or episodes"
REFUSED = {
    "evaluate": f"data.source: {SHOWN.format('evals.protocols.surprise')}",
    "data.show": f"data.source: {SHOWN.format('data.show')}",
    "data.inspect": f"data.source: {SHOWN.format('data.inspect')}",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "bench")) for n in COMMANDS])
def test_every_command_takes_slots_or_refuses_them_in_one_line(name, tmp_path):
    evals = {"evals.test_split": "eval", "evals.fit": 8, "evals.test": 8, "evals.batch": 4, "evals.random_inits": 1}
    command = {"train": train_on_slots, "evaluate": evaluate_slots}.get(name, COMMANDS[name])
    if name not in REFUSED:
        command(slot_config(**evals), tmp_path)
        return
    with pytest.raises(ConfigError) as error:
        command(slot_config(**evals), tmp_path)
    assert str(error.value) == REFUSED[name]


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"data.crop": True}, "data.crop = True: must be False for slots, which have no place"),
        ({"data.frames": 6}, "objective.history + objective.future = 5: must be data.frames = 6"),
        ({"mask.history": 2}, "objective.history = 3: must be mask.history = 2"),
        ({"data.max_objects": 3}, "data.max_objects = 3: must be at least the 4 slots of TrueSlots"),
    ],
)
def test_settings_that_slots_do_not_have_are_refused(changes, text):
    with pytest.raises(ConfigError) as error:
        experiment.assemble(slot_config(**changes))
    assert str(error.value) == text


def test_an_objective_of_pixels_refuses_slots_and_the_other_way_round():
    slots = slot_config()
    pixels = config()
    pixels.data.source, pixels.data.options, pixels.data.frames = slots.data.source, slots.data.options, 4
    with pytest.raises(ConfigError, match=r"kind 'slots': objective.type = '.*:Mae' takes video or episodes$"):
        experiment.assemble(pixels)
    slots.data.source, slots.data.options = f"{__name__}:Walk", {}
    with pytest.raises(ConfigError, match=r"kind 'episodes': objective.type = '.*slots:Slots' takes slots$"):
        experiment.assemble(slots)


class Given(Small):
    """A source of slots of any numbers."""

    kind: ClassVar[str] = "slots"
    slots: ClassVar[int] = 4
    width: ClassVar[int] = 16

    def __getitem__(self, i):
        video = np.random.default_rng(i).normal(size=(self.frames, 1, 4, 16)).astype(np.float32)
        raw = {"video": video, "present": np.arange(4) < 3, "actions": np.ones((self.frames, 2), np.float32)}
        if self.broken == "nan":
            video[2, 0, 1] = np.nan
        if self.broken == "double":
            raw["video"] = video.astype(float)
        if self.broken == "present":
            raw["present"] = np.ones(3, bool)
        if self.broken == "actions":
            raw["actions"] = raw["actions"][1:]
        return raw


def test_a_batch_of_slots_has_identity_masks_without_the_empty_slots():
    c = slot_config(**{"data.intervened": "zero_pixels", "mask.least": 1})
    c.data.source, c.data.options = f"{__name__}:Given", {}
    source = assemble.make_source(c, "train")
    scene = assemble.make_scenes(c, source, 1, 1)(0, 0)
    patches = np.tile(np.eye(4, dtype=bool), 5) & (np.arange(4) < 3)[:, None]
    np.testing.assert_array_equal(scene["object_patches"], patches)
    assert scene["object_valid"].tolist() == [True, True, True, False] and scene["actions"].shape == (5, 2)
    np.testing.assert_array_equal(scene["video"], source[0]["video"])
    empty = np.tile(np.arange(4) == 3, 5)
    assert not (scene["context"] | scene["hidden"])[empty].any() and (scene["context"] | scene["hidden"])[~empty].all()
    gone = scene["hidden"].reshape(5, 1, 4) & scene["removed"]
    wanted = np.where(gone[..., None], 0, scene["video"])
    np.testing.assert_array_equal(scene["intervened"], wanted)


@pytest.mark.parametrize(
    "broken, text",
    [
        ("nan", "scene 0 of Given: slot 1 at frame 2: must be finite"),
        ("double", "scene 0 of Given: video is float64 [5, 1, 4, 16]: must be float32 [5, 1, 4, 16] (data.frames = 5)"),
        ("present", "scene 0 of Given: present is bool [3]: must be bool [4]"),
        ("actions", "scene 0 of Given: actions are float32 [4, 2]: must be float32 [5, any]"),
    ],
)
def test_broken_slots_are_refused(broken, text):
    c = slot_config()
    c.data.source, c.data.options = f"{__name__}:Given", {"broken": broken}
    with pytest.raises(DataError) as error:
        assemble.make_scenes(c, assemble.make_source(c, "train"), 1, 1)(0, 0)
    assert str(error.value) == text
