"""Alarms on features that have collapsed and on features that have not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import losses
from cjepa_jax.errors import NumericsError
from cjepa_jax.runtime.collapse_monitor import Alarms, collapsed

B, D = 32, 48


@jax.jit
def measured(features):
    return {"rankme": losses.rankme(features), "feature_std": losses.feature_std(features)}


def numbers(features):
    return {name: float(value) for name, value in measured(jnp.asarray(features, jnp.float32)).items()}


def healthy(seed):
    """Features whose spectrum falls like 1/k ** power, on an offset, of any scale: (at the start, later)."""
    rng = np.random.default_rng(seed)
    scale, power = 10 ** rng.uniform(-2, 2), rng.uniform(0, 1.3)
    spectrum = np.arange(1, D + 1) ** -power
    basis, _ = np.linalg.qr(rng.normal(size=(D, D)))
    first, later = (scale * (rng.normal(size=(B, D)) * spectrum @ basis + rng.normal(size=D)) for _ in range(2))
    return first, later * rng.uniform(0.1, 3)


def constant(seed):
    """The same for every scene, but for rounding."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=(1, D)) * 10 ** rng.uniform(-2, 2), B, 0) * (1 + 1e-7 * rng.normal(size=(B, D)))


def one_direction(seed):
    """Multiples of one vector with as much spread as ever, and a little noise."""
    rng = np.random.default_rng(seed)
    return 3 * (rng.normal(size=(B, 1)) * rng.normal(size=D) + 1e-3 * rng.normal(size=(B, D)))


@pytest.mark.parametrize("kind, sign", [(constant, "feature_std"), (one_direction, "rankme"), (None, "")])
def test_a_hundred_of_each(kind, sign):
    found = []
    for seed in range(100):
        first, later = healthy(seed)
        found.append(collapsed(**numbers(kind(seed) if kind else later), first=numbers(first), limit=min(B - 1, D)))
    assert all(text.startswith(sign) for text in found) if kind else found == [""] * 100


def test_features_that_were_collapsed_from_the_start():
    for features in (constant(0), one_direction(0), np.zeros((B, D))):
        assert collapsed(**numbers(features), first=numbers(features), limit=B - 1)


GOOD, BAD = {"rankme": 15.0, "feature_std": 0.2}, {"rankme": 14.0, "feature_std": 0.001}
NONE = {"loss": "nan", "rankme": "nan", "feature_std": "nan"}


def test_two_scenes_have_one_direction_whatever_they_show():
    healthy = {"rankme": 1.0, "feature_std": 0.2}
    assert collapsed(**healthy, first=healthy, limit=1) == ""
    assert collapsed(**healthy, first=healthy, limit=4)


@pytest.mark.parametrize("limit, healthy, low", [(40, 2.1, 1.9), (1000, 4.1, 3.9)])
def test_a_low_rank_is_below_both_limits(limit, healthy, low):
    """A twentieth of the highest rank, 2 or 50, and a fifth of the first one, 4."""
    first = {"rankme": 20.0, "feature_std": 0.2}
    signs = [collapsed(rank, 0.2, first, limit) for rank in (healthy, low)]
    assert signs[0] == "" and signs[1].startswith("rankme")


def test_it_warns_once_per_collapse(caplog):
    alarms = Alarms("warn", 31)
    signs = [bool(alarms.check(step, line)) for step, line in enumerate([GOOD, BAD, BAD, GOOD, BAD, {"loss": 1.0}])]
    assert signs == [False, True, True, False, True, False]
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "collapse at step 1",
        "collapse at step 4",
    ]
    assert "feature_std 0.001 < 0.004 (at first 0.2): all scenes alike. A lower optim.peak" in caplog.text


def test_it_stops_and_the_first_line_may_be_from_before_a_restart():
    alarms = Alarms("stop", 31, logged=[NONE, GOOD | {"step": 1, "feature_std": "0.3"}, BAD])
    with pytest.raises(NumericsError, match="train.collapse = 'stop': step 7: feature_std 0.001 < 0.006"):
        alarms.check(7, BAD)
    assert Alarms("stop", 31).check(7, BAD) == ""  # nothing to compare with: the features' scale is anybody's guess
    assert alarms.check(8, {"rankme": float("nan"), "feature_std": 0.1}) == ""


CURVES = [  # rankme and feature_std of runs of this package that learned, where they were lowest
    ("ijepa", (15.73, 0.2123), [(5.04, 0.0876), (5.27, 0.2535)]),
    ("vjepa", (12.06, 0.2577), [(4.33, 0.0402), (5.32, 0.2581)]),
    ("lejepa", (4.45, 0.5513), [(4.08, 0.6416)]),
    ("cjepa", (14.42, 0.0902), [(15.0, 0.0222), (28.6, 0.0968)]),
    ("byol", (6.45, 0.3121), [(4.63, 0.3565)]),
]


@pytest.mark.parametrize("name, first, curve", CURVES, ids=lambda value: value if isinstance(value, str) else "")
def test_runs_that_learned_raise_no_alarm(name, first, curve):
    names = ("rankme", "feature_std")
    alarms = Alarms("stop", 31, [dict(zip(names, first, strict=True))])
    assert [alarms.check(step, dict(zip(names, line, strict=True))) for step, line in enumerate(curve)] == [
        "" for _ in curve
    ]


def test_no_alarm_before_the_steps_of_grace_have_passed():
    """Methods that collapse at first and recover."""
    good, flat = {"rankme": 20.0, "feature_std": 1.0}, {"rankme": 1.0, "feature_std": 1e-9}
    alarms = Alarms("stop", B - 1, grace=100)
    assert [alarms.check(step, row) for step, row in ((1, good), (50, flat), (99, flat), (100, good))] == [""] * 4
    with pytest.raises(NumericsError, match="step 110"):
        alarms.check(110, flat)
