"""Monitors: when they are called, what they may return, and one line for one that fails."""

import importlib
import logging

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax.configuration import catalogue
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import ConfigError, DataError, NumericsError
from cjepa_jax.monitors import schedule
from cjepa_jax.monitors.base import Monitor
from cjepa_jax.monitors.collapse import Collapse
from configs import clips

FILE = """
import jax.numpy as jnp
from cjepa_jax.errors import DataError

VALUES = {}

def steps(state, batch, metrics, scale=1.0):
    return {"step": scale * state, "loss": metrics["loss"]}

def given(state, batch, metrics):
    return VALUES["now"]

def failing(state, batch, metrics):
    raise VALUES["now"]

class Sum:
    def __init__(self, start=0):
        self.total = start
    def resume(self, rows):
        self.total += sum(row.get("sum/each", 0) for row in rows)
    def __call__(self, state, batch, metrics):
        self.total += state
        return {"each": state, "total": self.total}

class Mute:
    pass

class Broken(Sum):
    def begin(self, run, state):
        {}["no such key"]
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A module of the user's."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_monitors.py").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("my_monitors")


def config(**monitors):
    c = clips.get_config()
    with c.unlocked():
        c.monitors = ConfigDict(
            {name: {"type": f"my_monitors:{kind}", **more} for name, (kind, more) in monitors.items()}
        )
    return c


def names(scheduled):
    return [each.name for each in scheduled]


def test_they_are_called_at_their_steps_at_log_lines_or_at_the_end(mine):
    found = schedule.Monitors(config(often=("steps", {"every": 2}), lines=("steps", {}), sum=("Sum", {"every": 5})))
    assert names(found.at_log_lines()) == ["collapse", "fallbacks", "lines"] and found.want_batches
    due = {step: names(found.due(step, 11)) for step in range(1, 12)}
    assert due[1] == due[3] == [] and due[2] == ["often"] and due[5] == ["sum"] and due[10] == ["often", "sum"]
    assert due[11] == ["often", "sum", "probe"]
    probed = clips.get_config()
    probed.probe.every = 3
    found = schedule.Monitors(probed)
    assert not found.want_batches and names(found.at_log_lines()) == ["collapse", "fallbacks"]
    assert [step for step in range(1, 12) if found.due(step, 11)] == [3, 6, 9, 11]
    assert names(found.missed(3, 11, [{"step": 3, "loss": 1.0}, {"step": 1, "probe/rankme": 1.0}])) == ["probe"]
    assert found.missed(3, 11, [{"step": 3, "probe/rankme": 1.0}]) == found.missed(4, 11, []) == []


def test_a_config_from_before_has_none(mine):
    c = clips.get_config()
    with c.unlocked():
        del c.monitors
    config_lib.check(c)
    assert names(schedule.Monitors(c).due(1, 1)) == ["probe"]


def own(found):
    return next(each for each in found._all if each.target)


def test_metrics_have_the_monitor_s_name_and_options_and_memory_work(mine):
    call = own(schedule.Monitors(config(mine=("steps", {"scale": 2.0}))))
    assert call(4, None, {"step": 4, "loss": jnp.float32(0.5)}) == {"mine/step": 8.0, "mine/loss": 0.5}
    total = own(schedule.Monitors(config(sum=("Sum", {"start": 1}))))
    total.resume([{"step": 1, "sum/each": 2.0}, {"step": 2, "loss": 1.0}])
    assert total(4, None, {"step": 4}) == {"sum/each": 4.0, "sum/total": 7.0}


def test_arrays_of_few_numbers_are_logged_one_by_one(mine):
    call = own(schedule.Monitors(config(mine=("given", {}))))
    mine.VALUES["now"] = {"a": np.array([1, 2]), "b/c": jnp.bfloat16(1.5), "d": True, "e": np.ones((1, 1)), "f": [3]}
    expected = {"mine/a_0": 1.0, "mine/a_1": 2.0, "mine/b/c": 1.5, "mine/d": 1.0, "mine/e_0": 1.0, "mine/f_0": 3.0}
    assert call(None, None, {"step": 1}) == expected
    mine.VALUES["now"] = None
    assert call(None, None, {"step": 1}) == {}


LIMIT = "must be a finite number, or an array of at most 64"


@pytest.mark.parametrize(
    "value, text",
    [
        ({"a": float("nan")}, f"monitors.mine: a = nan: {LIMIT}"),
        ({"a": np.array([0.0, np.inf])}, LIMIT),
        ({"a": "3"}, f"a = '3': {LIMIT}"),
        ({"a": np.ones(65)}, LIMIT),
        ({"a": [[1], [2, 3]]}, LIMIT),
        ({"a": 1j}, LIMIT),
        ({"a": None}, LIMIT),
        ({"a": {"b": 1}}, LIMIT),
        ({"a b": 1}, "returned the name 'a b': must be letters and digits"),
        ({"a\nb": 1}, "returned the name"),
        ({3: 1}, "returned the name 3"),
        (7.0, "monitors.mine: returned 7.0: must be numbers by name, or None"),
        ("x" * 500, r"returned 'xxx.*\.\.\.: must be"),
    ],
)
def test_anything_but_finite_numbers_is_one_line(mine, value, text):
    call = own(schedule.Monitors(config(mine=("given", {}))))
    mine.VALUES["now"] = value
    with pytest.raises(ConfigError, match=text) as caught:
        call(None, None, {"step": 1})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_one_that_fails_is_named_with_its_line(mine):
    call = own(schedule.Monitors(config(mine=("failing", {}))))
    line = FILE.splitlines().index('    raise VALUES["now"]') + 1
    for error in (ValueError("no\nway"), KeyError("x"), ZeroDivisionError()):
        mine.VALUES["now"] = error
        where = rf"\(my_monitors.py, line {line}\)"
        with pytest.raises(ConfigError, match=rf"^monitors.mine at step 7: {type(error).__name__}: .*{where}$"):
            call(None, None, {"step": 7})
    for error in (DataError("a scene"), MemoryError(), KeyboardInterrupt()):  # these are told as ever
        mine.VALUES["now"] = error
        with pytest.raises(type(error)):
            call(None, None, {"step": 7})
    with pytest.raises(ConfigError, match="monitors.mine before the first step: KeyError: no such key .my_monitors.py"):
        schedule.Monitors(config(mine=("Broken", {}))).begin(None, None)
    with pytest.raises(ConfigError, match="monitors.loss: the run's own metrics have this name"):
        own(schedule.Monitors(config(loss=("steps", {}))))(1, None, {"step": 1, "loss/prediction": 1.0})


@pytest.mark.parametrize(
    "kind, options, text",
    [
        ("no_such", {}, "my_monitors:no_such"),
        ("steps", {"scal": 1}, "scal: my_monitors:steps has no such parameter; did you mean 'scale'"),
        ("Mute", {}, r"monitors.mine.type = 'my_monitors:Mute': must have __call__"),
        ("VALUES", {}, "is not a class or a function"),
    ],
)
def test_one_that_cannot_be_built_is_refused(mine, kind, options, text):
    with pytest.raises(ConfigError, match=text):
        schedule.Monitors(config(mine=(kind, options)))


@pytest.mark.parametrize(
    "name, section, text",
    [
        (
            "probe",
            {"type": "m:f"},
            "monitors.probe: must be named .*, and not probe, collapse, fallbacks",
        ),
        ("a-b", {"type": "m:f"}, "monitors.a-b: must be named"),
        ("a", {"type": "m"}, "monitors.a: must be a section with type"),
        ("a", {}, "monitors.a: must be a section with type"),
        ("a", 3, "monitors.a: must be a section"),
        ("a", {"type": "m:f", "every": -1}, "monitors.a.every = -1: must be a whole number"),
        ("a", {"type": "m:f", "every": 1.5}, "monitors.a.every = 1.5"),
    ],
)
def test_sections_that_cannot_work_are_refused_before_jax_starts(name, section, text):
    c = clips.get_config()
    with c.unlocked():
        c.monitors = ConfigDict({name: section})
    with pytest.raises(ConfigError, match=text):
        config_lib.check(c)


def test_the_package_s_own_may_be_named_by_any_run():
    found = catalogue.keywords("monitor", "cjepa_jax.monitors.online_probe:OnlineProbe")
    assert found == {"train", "test", "batch"}
    assert catalogue.keywords("monitor", "cjepa_jax.monitors.collapse:Collapse") == {"mode", "batch"}
    for other in ("base:Monitor", "schedule:Monitors", "schedule:Scheduled", "online_probe:Probe", "schedule:build"):
        assert catalogue.keywords("monitor", f"cjepa_jax.monitors.{other}") is None


def test_the_collapse_alarm_is_one_that_logs_nothing(caplog):
    alarm = Collapse("warn", 32)
    alarm.resume([{"step": 1, "rankme": 15.0, "feature_std": 0.2}])
    with caplog.at_level(logging.WARNING):
        assert alarm(None, None, {"step": 5, "rankme": 14.0, "feature_std": 0.001}) is None
    assert "collapse at step 5" in caplog.text and isinstance(alarm, Monitor)
    stop = Collapse("stop", 32)
    stop.resume([{"step": 1, "rankme": 15.0, "feature_std": 0.2}])
    with pytest.raises(NumericsError, match="step 5"):
        stop(None, None, {"step": 5, "rankme": 14.0, "feature_std": 0.001})
