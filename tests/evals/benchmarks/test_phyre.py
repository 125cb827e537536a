"""PHYRE's agent: its pictures of actions, its balance, and its score in the real simulator (docs/DATA.md, PHYRE)."""

import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.sources.phyre import PALETTE, Phyre
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Hidden, Model, Seen
from cjepa_jax.evals.benchmarks import auccess, phyre

WHITE = np.full((256, 256, 3), 255, np.uint8)
real = pytest.mark.needs("phyre")


def bench(source, *encoders):
    """The first encoder is the model, the others are random initialisations."""

    def hide(hidden: Hidden) -> Seen:
        return Seen(None, None, None)

    names = [TRAINED, *(f"{RANDOM} {index}" for index in range(len(encoders) - 1))]
    model, *randoms = (Model(name, encode, hide) for name, encode in zip(names, encoders, strict=True))
    size = source("train", 4).size
    return Bench(
        model,
        tuple(randoms),
        source,
        lambda scenes: pipeline.SceneMap(scenes, None, 16, 1, size, 4, "none", 0),
        "train", 4, "test", 4, batch=32, seed=5, rate=1e-3,
    )  # fmt: skip


def brightness(video):
    return video.astype(np.float32).mean((1, 2, 3))[:, None]


def test_balls_are_discs_of_their_size_at_their_place_rows_upwards():
    actions = np.array([[0.25, 0.75, 1.0, 0.8, 0.2, 0.0]])
    (picture,) = phyre.pictures(WHITE, actions, 256)
    red = (picture == PALETTE[1]).all(-1)
    assert ((picture == 255).all(-1) | red).all()
    large, small = red[:, :128], red[:, 128:]
    assert large.sum() == pytest.approx(np.pi * 32**2, rel=0.02) and 9 <= small.sum() <= 16
    y, x = np.nonzero(large)
    assert y.mean() + 0.5 == pytest.approx(256 - 191) and x.mean() + 0.5 == pytest.approx(63)
    y, x = np.nonzero(small)
    assert y.mean() + 0.5 == pytest.approx(256 - 51) and x.mean() + 0.5 == pytest.approx(204 - 128)
    (shrunk,) = phyre.pictures(WHITE, actions, 64)
    assert np.abs(shrunk - picture.reshape(64, 4, 64, 4, 3).mean((1, 3))).max() <= 0.51
    assert (WHITE == 255).all()


@pytest.mark.parametrize("statuses, rows", [([1, 1, 1, -1, -1, 0], 4), ([1, -1] * 9, 6), ([-1, -1, 0], 0), ([1], 0)])
def test_a_task_gives_as_many_solving_as_failing_actions(statuses, rows):
    actions = np.random.default_rng(0).random((len(statuses), 3))
    trial = phyre.balanced(phyre.Trial(WHITE, actions, np.array(statuses)), 7, np.random.default_rng(1))
    assert len(trial.statuses) == len(trial.actions) == rows
    assert (trial.statuses == 1).sum() == (trial.statuses == -1).sum() == rows // 2
    for action, status in zip(trial.actions, trial.statuses, strict=True):
        assert statuses[int(np.flatnonzero((actions == action).all(1))[0])] == status
    assert len(np.unique(trial.actions, axis=0)) == rows


def test_an_action_s_products():
    assert phyre.coordinates(np.array([[2.0, 3.0, 5.0]])).tolist() == [[2, 3, 5, 4, 6, 10, 9, 15, 25]]
    assert phyre.coordinates(np.zeros((7, 6))).shape == (7, 27)


def test_the_highest_score_is_tried_first():
    """What solves has a large first coordinate: so the order of another task is by it, the largest first."""
    actions = np.random.default_rng(0).random((2, 20, 3))
    actions[:, :, 1:] = 0.5
    fitting, testing = (phyre.Trial(WHITE, each, np.where(each[:, 0] > 0.5, 1, -1)) for each in actions)
    nothing = lambda trial: np.zeros((len(trial.actions), 0))  # noqa: E731
    (order,) = phyre.ranked(nothing, [fitting], (testing,), ("linear",), 0)["linear"]
    assert sorted(order) == list(range(20))
    assert (testing.statuses[order][: (testing.statuses > 0).sum()] > 0).mean() >= 0.8


def test_a_row_is_its_tasks_mean_and_random_initialisations_follow_the_model():
    agent = phyre.PhyreAgent(attempts=10, candidates=10)
    solved = {TRAINED: np.array([1, 0, 3, 11]), "any candidate": np.array([1, 0, 1, 1])}
    at_random = [np.array([0, 0, 0, 1]), np.array([0, 2, 0, 1])]
    scores = agent.table("auccess/linear", solved, at_random, 0)
    assert [(s.row, s.kind) for s in scores] == [(TRAINED, "result"), (RANDOM, "floor"), ("any candidate", "ceiling")]
    assert scores[0].value == pytest.approx(auccess.auccess([1, 0, 3, 11], 10))
    assert scores[1].value == pytest.approx(np.mean([auccess.auccess(each, 10) for each in at_random]))
    assert scores[2].value == 0.75 and all(s.count == 4 and s.interval > 0 for s in scores)
    k, within = agent.curves(solved, at_random)[TRAINED]
    assert k.tolist() == list(range(1, 11)) and within.tolist() == [0.25] * 2 + [0.5] * 8


@pytest.mark.parametrize(
    "options, text",
    [
        ({"actions_fit": 1}, r"phyre\.actions_fit = 1: must be an integer from 2"),
        ({"tasks_test": True}, r"phyre\.tasks_test = True"),
        ({"candidates": 50}, r"phyre\.candidates = 50: must be at least attempts = 100"),
        ({"rankers": ("forest",)}, r"phyre\.rankers = \('forest',\): must name linear or mlp"),
        ({"rankers": ()}, r"phyre\.rankers = \(\)"),
    ],
)
def test_options_out_of_their_limits_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        phyre.PhyreAgent(**options)


def test_only_phyre_s_tasks_can_be_tried():
    balls = bench(lambda split, count: Balls(split, size=32, count=count), brightness)
    with pytest.raises(ConfigError, match="PhyreAgent needs PHYRE"):
        phyre.PhyreAgent().run(balls)


@real
@pytest.mark.slow
@pytest.mark.parametrize("setup", ["ball_within_template", "two_balls_cross_template"])
def test_a_picture_is_the_clip_s_first_frame(setup):
    """Where nothing has crossed a pixel's border in the step between them. Balls to the pixel."""
    source = Phyre(setup=setup, size=256, frames=1)
    same = []
    for i in range(12):
        task, scene = source.tasks[source.order[i]], source[i]
        (picture,) = phyre.pictures(source.initial_scenes([task])[0], scene["action"][None], 256)
        balls = scene["masks"][-(source.dimensions // 3) :, 0].any(0)
        drawn = (picture == PALETTE[1]).all(-1)
        same.append((balls ^ drawn).sum() / drawn.sum())
        assert (picture != scene["video"][0]).any(-1).mean() < 0.02
    assert np.median(same) == 0 and max(same) < 0.1


@real
@pytest.mark.slow
def test_a_random_agent_is_within_bounds_and_knowing_the_outcome_beats_it():
    def source(split, count):
        return Phyre(split, size=128, frames=2, count=count, seed=1)

    agent = phyre.PhyreAgent(tasks_fit=25, actions_fit=8, tasks_test=6, candidates=100)
    outcome = {}
    for number, split in enumerate(("train", "test")):
        count = (agent.tasks_fit, agent.tasks_test)[number]
        for _, trial in agent.trials(source(split, 0), count, 5, number):
            keys = [picture.tobytes() for picture in phyre.pictures(trial.scene, trial.actions, 128)]
            outcome |= dict(zip(keys, trial.statuses.tolist(), strict=True))

    def knowing(video):
        assert video.shape[1:] == (2, 128, 128, 3) and (video[:, 0] == video[:, 1]).all()
        return np.array([[[outcome[clip[0].tobytes()]]] for clip in video], np.float32)

    result = agent.run(bench(source, knowing, brightness, brightness))
    rows = {score.row: score for score in result.scores}
    floors = {TRAINED: "result", RANDOM: "floor", "action alone": "floor", "pixel PCA": "floor"}
    assert {row: s.kind for row, s in rows.items()} == floors | {"random agent": "floor", "any candidate": "ceiling"}
    assert 0 < rows["random agent"].value < 0.6 < rows["any candidate"].value <= 1
    assert rows[TRAINED].value == pytest.approx(rows["any candidate"].value)
    for row in ("random agent", "action alone", "pixel PCA", RANDOM):
        assert rows[row].value < rows[TRAINED].value
    assert rows[TRAINED].count == 6 and rows[RANDOM].interval == 0  # two equal initialisations
    (image,) = result.images.values()
    assert image.shape == (268, 6 * 268, 3)
