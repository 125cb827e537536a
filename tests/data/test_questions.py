"""Counterfactual questions: balanced, matched in distance, answered by simulation."""

import colorsys

import numpy as np
import pytest

from cjepa_jax.data import questions
from cjepa_jax.data.worlds import Balls, Blocks, Craft, Ramps, Shadows
from cjepa_jax.data.worlds.craft.layouts import ROLES
from cjepa_jax.errors import ConfigError, DataError

WORLDS = pytest.mark.parametrize(
    "world", [Balls(size=16, frames=16), Shadows(size=16, frames=4)], ids=["balls", "shadows"]
)


@WORLDS
def test_copying_the_factual_outcome_scores_half(world):
    drawn = questions.draw(world, 80, seed=0)
    assert all(len(column) == 80 for column in drawn)
    assert (drawn.factual == drawn.answer).mean() == drawn.answer.mean() == drawn.factual.mean() == 0.5
    assert len(set(drawn.scene.tolist())) == 80 and (drawn.removed != drawn.asked).all()
    ranges = np.searchsorted(questions.DISTANCES, drawn.distance)
    for known in np.unique(ranges):  # nor does the distance help
        inside = ranges == known
        assert drawn.answer[inside].mean() == (drawn.factual == drawn.answer)[inside].mean() == 0.5
    assert len(np.unique(ranges)) > 2


def test_nothing_is_asked_that_looks_alone_decide():
    """Ramps' goal and Craft's basket are never removed: without them the answer is always no. And among questions whose
    objects look alike, every combination of fact and answer is there equally often."""
    for world in (Ramps(size=8, frames=16), Craft(size=8, frames=16), Blocks(size=8, frames=16)):
        drawn = questions.draw(world, 8, seed=0)
        cells = {}
        for scene, k, j, factual, answer, distance, _ in zip(*drawn, strict=True):
            setup, looks = world.setup(scene), world.outcomes(scene).looks
            if isinstance(world, Ramps):
                assert k != setup.goal and j == setup.subject
            if isinstance(world, Craft):
                assert setup.role[k] != ROLES.index("basket")
            alike = looks[k], looks[j], np.searchsorted(questions.DISTANCES, distance)
            cells.setdefault(tuple(map(int, alike)), []).append((factual, answer))
        for group in cells.values():
            assert all(group.count(cell) == len(group) / 4 for cell in questions.CELLS)


def test_answers_are_what_the_simulation_shows():
    world = Balls(size=16, frames=16)
    drawn = questions.draw(world, 24, seed=1, first=100)
    assert drawn.scene.min() >= 100
    column = world.state_names.index("position/x")
    for scene, k, j, factual, answer, distance, final in zip(*drawn, strict=True):
        objects = len(world.setup(scene).depth)
        as_it_is, without = world.rollout(scene)["states"], world.rollout(scene, np.arange(objects) == k)["states"]
        assert (as_it_is[-1, j, column] > 0.5) == factual and (without[-1, j, column] > 0.5) == answer
        assert np.array_equal(without[-1, j, column : column + 2], final)
        apart = as_it_is[0, j, column : column + 2] - as_it_is[0, k, column : column + 2]
        assert np.hypot(*apart) == pytest.approx(distance, abs=1e-5)
    pairs = [row[1:3] for *_, row in questions.of_scene(world, 100)]
    assert pairs and all(k != j for k, j in pairs)  # of an object that is gone nothing is asked


def test_same_seed_same_questions_and_a_longer_set_begins_alike():
    world = Balls(size=16, frames=12)
    one, two, longer = (questions.draw(world, n, seed=3) for n in (16, 16, 24))
    assert all(np.array_equal(a, b) and np.array_equal(a, c[:16]) for a, b, c in zip(one, two, longer, strict=True))
    assert not np.array_equal(one.asked, questions.draw(world, 16, seed=4).asked)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="multiple of 4"):
        questions.draw(Balls(), 6, seed=0)
    with pytest.raises(ConfigError, match="list has no outcomes"):
        questions.draw([], 4, seed=0)
    with pytest.raises(DataError, match="asked for 400"):
        questions.draw(Balls(size=16, frames=4, count=20), 400, seed=0)


@pytest.mark.parametrize("cls", [Balls, Shadows])
def test_held_out_combinations_are_in_their_split_only(cls):
    def scenes(split, **options):
        world = cls(size=8, split=split, count=150, hold_out=True, **options)
        setups = [world.setup(i) for i in range(150)]
        bodies = [getattr(setup, "bodies", setup) for setup in setups]
        return [
            (len(b.kind), np.asarray(b.kind), setup.colour, b.position.mean(0))
            for b, setup in zip(bodies, setups, strict=True)
        ]

    def sectors(split):
        return {
            (int(kind), sector(colour))
            for _, kinds, colours, _ in scenes(split)
            for kind, colour in zip(kinds, colours, strict=True)
        }

    for split in ("train", "eval", "test"):
        assert {count for count, *_ in scenes(split)} == {3, 4, 5, 6}
        assert not any((mean > 0.5).all() for *_, mean in scenes(split))
    assert {count for count, *_ in scenes("count")} == {7, 8}
    assert all((mean > 0.5).all() for *_, mean in scenes("layout"))
    assert len(sectors("train")) == 10 and sectors("colour") == {(0, 0), (1, 5)}
    assert not sectors("train") & sectors("colour") and sectors("train") == sectors("eval")


def sector(colour: np.ndarray) -> int:
    """Which sixth of the circle of hues, colours that rounding leaves on a border aside."""
    hue = colorsys.rgb_to_hsv(*(colour / 255).tolist())[0] * 6
    return int(np.floor(hue + 1e-6 if hue % 1 > 0.5 else hue)) % 6
