"""The monitor Place: its formula by loops, on a run of almost no size, and what it refuses."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import experiment
from cjepa_jax.configuration import check
from cjepa_jax.errors import ConfigError
from cjepa_jax.monitors import place
from cjepa_jax.objectives import jepa
from configs import tiny
from tests import running

SMALL = {"data.size": 24, "data.frames": 1, "objective.encoder.variant": "16x1x2x32/6", "data.eval_count": 64}


def test_the_mean_of_the_other_scenes_at_the_same_place():
    rng = np.random.default_rng(0)
    mask, target = rng.random((6, 5)) < 0.6, rng.standard_normal((6, 5, 3)).astype(np.float32)
    wanted = np.zeros_like(target)
    for b, n in np.argwhere(mask):
        others = [target[c, n] for c in range(6) if c != b and mask[c, n]]
        wanted[b, n] = np.mean(others, 0) if others else 0
    np.testing.assert_allclose(place.of_others(jnp.asarray(target), jnp.asarray(mask)), wanted, atol=1e-6)


def test_a_code_of_the_place_is_explained_whole_and_independent_tokens_are_not():
    rng, every = np.random.default_rng(0), jnp.ones((400, 5), bool)
    code = jnp.asarray(np.broadcast_to(rng.standard_normal((1, 5, 3)), (400, 5, 3)).astype(np.float32))
    noise = jnp.asarray(rng.standard_normal((400, 5, 3)).astype(np.float32))
    spread = float(code.var(1).mean())
    for target, wanted in ((code, 1.0), (noise, 0.0), (code + noise, spread / (spread + 1))):
        found = jepa.moments(place.of_others(target, every), target, every, jnp.ones(400, bool))
        np.testing.assert_allclose(jepa.explained(found), wanted, atol=0.03)


def test_it_logs_the_share_of_a_runs_batch_which_fillings_do_not_change():
    run = experiment.assemble(check.override(tiny.get_config(), running.SMALL | SMALL))
    batch = run.example()
    state, monitor = run.init(batch), place.Place()
    monitor.begin(run, state)
    found = monitor(state, batch, {"step": 1})
    assert set(found) == {"explained"} and 0 < found["explained"] < 1  # a fresh network tells places apart
    video = np.array(batch.video)
    video[-1] = 255 - video[-1]
    less = dataclasses.replace(batch, valid=np.arange(len(video)) < len(video) - 1)
    other = dataclasses.replace(less, video=video)
    assert monitor(state, less, {}) == monitor(state, other, {}) != found


def test_objectives_without_hidden_patches_are_refused():
    with pytest.raises(ConfigError, match="SimpleNamespace does not predict the tokens of hidden patches"):
        place.Place().begin(SimpleNamespace(objective=SimpleNamespace()), None)
