"""A world model with a memory: which frames it sees, and that only the memory tells what only the first frames show."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.base import World as Contract
from cjepa_jax.objectives.remembering import Remembering
from tests.objectives.test_world import SMALL, batch_of

PREDICTOR = SMALL["predictor"] | dict(history=4)
MEMORY = SMALL | dict(predictor=PREDICTOR, memory=2, window=3)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (5, 7, 8, 8, 3), np.uint8)
    return batch_of(video, rng.standard_normal((5, 7, 2), np.float32))


@functools.cache
def made():
    """(objective, its state with open gates, the compiled loss)."""
    objective = Remembering(**MEMORY, steps=10)
    params, target, extra = jax.jit(objective.init)(jax.random.key(0), batch())
    block = params["predictor"]["block0"]
    block["modulation_bias"] = block["modulation_bias"] + 0.5
    return objective, (params, target, extra), jax.jit(jax.value_and_grad(objective.loss, has_aux=True))


def test_a_clip_is_cut_into_memory_and_window_with_the_windows_actions():
    objective, whole = made()[0], batch()
    cut = objective.cut(whole, jnp.array([1, 2, 3, 4, 4]))
    assert cut.video.shape == (5, 5, 8, 8, 3)
    for scene, start in enumerate((1, 2, 3, 4, 4)):
        rows = [0, 1, *range(start, start + 3)]
        np.testing.assert_array_equal(cut.video[scene], whole.video[scene, rows])
        np.testing.assert_array_equal(cut.actions[scene, 2:], whole.actions[scene, rows[2:]])
    assert not cut.actions[:, :2].any()


def test_windows_start_anywhere_from_the_last_frame_of_the_memory_on():
    objective = made()[0]
    starts = np.asarray(objective.starts(jax.random.key(0), 2000, 7))
    np.testing.assert_allclose(np.bincount(starts, minlength=5) / 2000, [0, 0.25, 0.25, 0.25, 0.25], atol=0.05)


def test_the_loss_is_that_of_predictions_one_at_a_time():
    """Teacher-forced predictions of a window against `predict` from the memory and the frames before, without batch
    statistics (a projector of layer norms)."""
    norms = dict(projector=dict(hidden=(8,), norm="layer"), sigreg_weight=0.0, variance_weight=1.0)
    objective = Remembering(**MEMORY | norms, steps=10)
    whole, key = batch(), jax.random.key(3)

    @jax.jit
    def both():
        params, target, extra = objective.init(jax.random.key(0), whole)
        cut = objective.cut(whole, objective.starts(jax.random.fold_in(key, 1), 5, 7))
        z = objective.latents(params | extra, cut.video)
        said = [objective.predict(params, extra, z[:, :t], cut.actions[:, :t]) for t in (3, 4)]
        return z, said, objective.loss(params, target, extra, batch=whole, key=key, step=0)[1][0]

    z, said, metrics = both()
    errors = [np.square(found - z[:, t]).mean() for found, t in zip(said, (3, 4), strict=True)]
    np.testing.assert_allclose(metrics["loss/teacher"], np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(metrics["copy_error"], np.square(z[:, 2:4] - z[:, 3:]).mean(), rtol=1e-5)


def test_the_gradient_reaches_the_memory_and_no_frame_between_it_and_the_window():
    objective, (params, target, extra), loss = made()
    key, whole = jax.random.key(3), batch()
    start = np.asarray(objective.starts(jax.random.fold_in(key, 1), 5, 7))
    scene = int(start.argmax())
    assert start[scene] > 2
    wanted = loss(params, target, extra, whole, key, 0)[0][0]
    for frame, changes in ((0, True), (1, True), (2, False), (start[scene], True)):
        other = batch()
        other.video[scene, frame] = 255 - other.video[scene, frame]
        assert (loss(params, target, extra, other, key, 0)[0][0] != wanted) == changes
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loss(params, target, extra, whole, key, 0)[1]))


def test_a_prediction_uses_the_first_and_the_last_latents():
    objective, (params, _, extra), _ = made()
    assert isinstance(objective, Contract) and objective.recent == 2
    rng = np.random.default_rng(0)
    z, a = rng.standard_normal((3, 6, 6), np.float32), rng.standard_normal((3, 6, 2), np.float32)
    predict = jax.jit(objective.predict)
    wanted = predict(params, extra, z, a)
    for frame, changes in enumerate((True, True, False, False, True, True)):
        other = z.copy()
        other[:, frame, 0] += 1
        assert (np.abs(predict(params, extra, other, a) - wanted).max() > 1e-6) == changes, frame
    alone = predict(params, extra, z[:, :1], a[:, :1])  # stands for the frames of the memory that are missing
    np.testing.assert_allclose(alone, predict(params, extra, z[:, [0, 0, 0]], a[:, [5, 5, 0]]), atol=1e-6)


def test_without_a_memory_it_is_a_world_model_of_its_window():
    objective = Remembering(**MEMORY | dict(memory=0), steps=10)
    params, _, extra = jax.jit(objective.init)(jax.random.key(0), batch())
    z = np.random.default_rng(0).standard_normal((3, 5, 6), np.float32)
    a = np.ones((3, 5, 2), np.float32)
    predict = jax.jit(objective.predict)
    np.testing.assert_allclose(predict(params, extra, z, a), predict(params, extra, z[:, 3:], a[:, 3:]), atol=1e-6)
    assert objective.cut(batch(), objective.starts(jax.random.key(0), 5, 7)).video.shape[1] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(memory=-1), "objective.memory = -1: must be 0 or more"), (dict(window=1), "objective.window = 1: must be"),
     (dict(window=4), "window = 4: must be at most predictor.history"), (dict(proprio=True), "proprio = True"),
     (dict(rollout=1, rollout_weight=1.0), "rollout_weight = 1.0: must be 0 with a memory")],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Remembering(**MEMORY | options, steps=10)


def test_short_clips_are_refused():
    with pytest.raises(ConfigError, match="data.frames = 3: must be at least 4"):
        Remembering(**MEMORY, steps=10).init(jax.random.key(0), batch_of(batch().video[:, :3], batch().actions[:, :3]))
