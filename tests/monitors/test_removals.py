"""The monitor Removals on a run of almost no size: what it logs and shows, and when it is silent."""

import dataclasses
import functools
import logging

import numpy as np
import pytest

from cjepa_jax import experiment
from cjepa_jax.configuration import check
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.counterfactual import online
from cjepa_jax.monitors import schedule
from cjepa_jax.monitors.removals import Removals
from configs import tiny
from tests import running

SIZES = {"fit": 10, "test": 4, "batch": 8}


@functools.cache
def begun(**values):
    """The monitor, and the run's random initialisation."""
    overrides = {"data.size": 24, "data.frames": 1, "objective.encoder.variant": "16x1x2x32/6", "data.eval_count": 64}
    overrides |= {f"monitors.removals.{name}": value for name, value in SIZES.items()}
    overrides |= {key.replace("__", "."): value for key, value in values.items()}
    config = check.override(tiny.get_config(), running.SMALL | overrides)
    run = experiment.assemble(config)
    state = run.init(run.example())
    (scheduled,) = [each for each in schedule.Monitors(config)._all if each.name == "removals"]
    scheduled.begin(run, state)
    return scheduled, state


def test_it_logs_its_scores_beside_those_of_the_random_initialisation_and_shows_pairs():
    scheduled, state = begun()
    found = scheduled(state, None, {"step": 100})
    scores = {name.removeprefix("removals/"): value for name, value in found.items()}
    assert scores["do_contrast"] == scores["do_contrast_random"] == pytest.approx(0, abs=1e-3)  # untrained head
    assert scores["explained"] == scores["explained_random"]
    assert scores["do_contrast_ceiling"] > 0.1 and 0 <= scores["matched"] <= 1
    assert scores["do_contrast_interval"] >= 0 and "explained_wrong_object" in scores
    ((title, picture),) = scheduled.pictures(state).items()
    assert title == online.TITLE and picture.dtype == np.uint8 and picture.shape[2] == 3
    assert scheduled.interruptible and "target" in scheduled.local
    assert scheduled.due(100, 700) and scheduled.due(700, 700) and not scheduled.due(99, 700)


class Still:
    """The held-out scenes of a source that cannot simulate them without an object."""

    def __init__(self, scenes):
        self.scenes = scenes

    def __getattr__(self, name):
        if name == "can_rerender":
            raise AttributeError(name)
        return getattr(self.scenes, name)


def silent(scheduled, state):
    return scheduled(state, None, {"step": 100}) == {} and scheduled.pictures(state) == {}


def test_it_is_silent_where_there_are_too_few_pairs(caplog):
    with caplog.at_level(logging.WARNING):
        assert silent(*begun(data__eval_count=32, monitors__removals__fit=100))
    assert "no do-contrast: Shadows: " in caplog.text and "of its 32 scenes have two objects" in caplog.text


def test_it_is_silent_where_nothing_can_be_simulated(caplog):
    scheduled, state = begun()
    scenes = scheduled.monitor._pairs._scenes
    with caplog.at_level(logging.WARNING):
        assert scheduled.monitor._drawn(dataclasses.replace(scenes, source=Still(scenes.source))) is None
    assert "no do-contrast: Still cannot simulate removals" in caplog.text


def test_without_a_causal_term_there_is_no_score():
    scheduled, state = begun(objective__causal_weight=0.0)
    assert silent(scheduled, state)


@pytest.mark.parametrize("option", [{"fit": 9}, {"test": 0}, {"batch": 1.5}, {"seed": -1}])
def test_options_that_cannot_work_are_named(option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))} = .*: must be an integer of at least"):
        Removals(**option)


def test_the_line_names_the_section():
    config = check.override(tiny.get_config(), {"monitors.removals.fit": 3})
    with pytest.raises(ConfigError, match=r"^monitors.removals: fit = 3: must be an integer of at least 10$"):
        schedule.Monitors(config)
