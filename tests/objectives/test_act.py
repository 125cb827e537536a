"""ACT-JEPA: what the context, the actions and the latents depend on, and the two terms by hand."""

import functools

import jax
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.act import Act
from cjepa_jax.objectives.base import Imitator
from tests.objectives.test_world import batch_of

SMALL = dict(
    encoder=dict(variant="12x1x2x12/8", tubelet=1),
    predictor=dict(depth=1, width=8, heads=2),
    decoder=dict(depth=1, width=8, heads=2),
    chunk=2,
    proprio=True,
    latent_weight=0.5,
)
SCENES, TIMES = 4, 5


def batch(valid=None):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (SCENES, TIMES, 8, 16, 3), np.uint8)
    actions, proprio = (rng.standard_normal((SCENES, TIMES, size), np.float32) for size in (3, 2))
    return batch_of(video, actions, proprio, valid)


@functools.cache
def made():
    """(objective, parameters, target, the compiled loss with its gradient, the compiled `act`).

    The parameters are drawn here, which is quicker than to compile `init`.
    """
    objective, rng = Act(**SMALL, steps=10), np.random.default_rng(1)
    shapes = jax.eval_shape(objective.init, jax.random.key(0), batch())[:2]
    assert jax.tree.map(np.shape, shapes[0]["encoder"]) == jax.tree.map(np.shape, shapes[1])
    drawn = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes)
    return objective, *drawn, jax.jit(jax.value_and_grad(objective.loss, has_aux=True)), jax.jit(objective.act)


def keyed(objective, wanted):
    """A key whose drawn frames have this property."""
    keys = (jax.random.key(i) for i in range(200))
    return next(key for key in keys if wanted(np.asarray(objective.starts(key, SCENES, TIMES))))


def terms(loss, params, target, batch, key):
    """The diagnostics of a loss."""
    return loss(params, target, {}, batch, key, 0)[0][1][0]


def changed(frame, scene=0):
    """The batch with another frame of one scene."""
    other = batch()
    other.video[scene, frame] = 255 - other.video[scene, frame]
    return other


def test_kernels_start_by_their_inputs_but_those_of_the_encoder():
    wide = dict(depth=1, width=48, heads=2)
    objective = Act(
        **SMALL | dict(encoder=dict(variant="48x1x2x96/8", tubelet=1), predictor=wide, decoder=wide), steps=10
    )
    params = jax.jit(objective.init)(jax.random.key(0), batch())[0]
    assert set(params) == {"encoder", "context", "predictor", "decoder"}
    found = 0
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "kernel" and value.size > 1000:
            scale = 0.02 if path[0].key == "encoder" else value.shape[-2] ** -0.5
            assert np.std(value) == pytest.approx(0.88 * scale, rel=0.1), path  # 0.88: what is cut off beyond 2
            found += path[0].key != "encoder"
    assert found >= 12


def test_both_terms_by_hand():
    """Of a scene that ends within the chunk, one that does not, and a filling. Each action and each frame that counts
    weighs the same. The last frame is the goal and no target. Floors copy the present frame and the goal."""
    objective, params, target, loss, act = made()
    whole = batch(valid=np.array([True, True, True, False]))
    key = keyed(objective, lambda starts: {3, 1} < set(starts[:3]))
    start = np.asarray(objective.starts(key, SCENES, TIMES))
    zeroed = params | {
        "predictor": params["predictor"] | {"out": jax.tree.map(np.zeros_like, params["predictor"]["out"])}
    }
    rows = np.arange(SCENES)
    found = terms(loss, zeroed, target, whole, key)
    tokens = jax.jit(objective.encode)(target, whole.video)
    tokens = np.asarray(jax.nn.standardize(tokens, axis=-1, epsilon=1e-6)).reshape(SCENES, TIMES, 2, 12)
    said = act(params, whole.video[rows, start], whole.video[:, -1], whole.proprio[rows, start])
    errors, each, copied, goals = [], [], [], []
    for scene, t in enumerate(start[:3]):
        after = [tokens[scene, t + i] for i in (1, 2) if t + i < TIMES - 1]
        copied += [np.abs(tokens[scene, t] - token).mean() for token in after]
        goals += [np.abs(tokens[scene, -1] - token).mean() for token in after]
        errors += [np.abs(said[scene, i] - whole.actions[scene, t + i]).mean() for i in range(2) if t + i < TIMES - 1]
        each += [np.abs(token).mean() for token in after]
    assert len(errors) < 6 and len(each) < len(errors)
    np.testing.assert_allclose(found["loss/action"], np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(found["loss/latent"], np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(found["copy_error"], np.mean(copied), rtol=1e-5)
    np.testing.assert_allclose(found["goal_error"], np.mean(goals), rtol=1e-5)
    np.testing.assert_allclose(found["loss"], np.mean(errors) + 0.5 * np.mean(each), rtol=1e-5)


def test_the_present_frame_is_any_that_an_action_follows():
    objective = made()[0]
    assert set(np.asarray(objective.starts(jax.random.key(0), 400, TIMES)).tolist()) == set(range(TIMES - 1))


def test_without_a_goal_the_last_frame_is_a_target_too():
    """And no floor copies a goal."""
    objective, params, target, *_ = made()
    other = Act(**SMALL | dict(goal="none"), steps=10)
    key = keyed(objective, lambda starts: {3, 2} < set(starts))
    start = np.asarray(objective.starts(key, SCENES, TIMES))
    own = params | {"context": params["context"] | {"frames": params["context"]["frames"][:1]}}
    found = jax.jit(other.loss)(own, target, {}, batch(), key, 0)[1][0]
    tokens = jax.jit(objective.encode)(target, batch().video)
    tokens = np.asarray(jax.nn.standardize(tokens, axis=-1, epsilon=1e-6)).reshape(SCENES, TIMES, 2, 12)
    pairs = [(scene, t, t + i) for scene, t in enumerate(start) for i in (1, 2) if t + i < TIMES]
    copied = [np.abs(tokens[scene, t] - tokens[scene, later]).mean() for scene, t, later in pairs]
    np.testing.assert_allclose(found["copy_error"], np.mean(copied), rtol=1e-5)
    assert "goal_error" not in found


def test_the_actions_depend_on_the_present_frame_and_the_goal_alone():
    """And the latents' targets on the next frames. Nothing depends on frames after them."""
    objective, params, target, loss, _ = made()
    key = keyed(objective, lambda starts: starts[0] == 0)
    plain = terms(loss, params, target, batch(), key)
    for frame, of_actions, of_latents in (
        (0, True, True), (1, False, True), (2, False, True), (3, False, False), (4, True, True),
    ):  # fmt: skip
        found = terms(loss, params, target, changed(frame), key)
        assert (found["loss/action"] != plain["loss/action"]) == of_actions, frame
        assert (found["loss/latent"] != plain["loss/latent"]) == of_latents, frame
    other = batch()
    other.actions[:, -1] += 1  # they lead out of the episode
    assert terms(loss, params, target, other, key)["loss"] == plain["loss"]


def test_every_parameter_learns_and_the_target_follows_slowly():
    objective, params, target, loss, _ = made()
    gradient = loss(params, target, {}, batch(), jax.random.key(1), 0)[1]
    assert all(np.abs(leaf).max() > 0 and np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    following = objective.next_target(params, target, 0)
    jax.tree.map(
        lambda new, own, old: np.testing.assert_allclose(new, 0.996 * old + 0.004 * own, atol=1e-6),
        following, params["encoder"], target,
    )  # fmt: skip


def test_without_the_latent_term_there_is_no_second_network():
    """The action's error is that with the term."""
    objective = Act(**SMALL | dict(latent_weight=0.0), steps=10)
    _, params, target, loss, _ = made()
    shapes, none, _ = jax.eval_shape(objective.init, jax.random.key(0), batch())
    assert set(shapes) == {"encoder", "context", "decoder"} and none == {} == objective.next_target(params, {}, 0)
    own, key = {name: params[name] for name in shapes}, jax.random.key(2)
    found = jax.jit(objective.loss)(own, {}, {}, batch(), key, 0)[1][0]
    assert found["loss"] == found["loss/action"]
    np.testing.assert_allclose(found["loss"], terms(loss, params, target, batch(), key)["loss/action"], rtol=1e-5)


def test_it_acts_with_and_without_a_goal():
    objective, params, *_, act = made()
    assert isinstance(objective, Imitator) and objective.sizes(params) == (3, 2)
    whole = batch()
    frames = whole.video[:, 0], whole.video[:, 1]
    there, back = act(params, *frames, whole.proprio[:, 0]), act(params, *frames[::-1], whole.proprio[:, 0])
    assert there.shape == (SCENES, 2, 3) and np.abs(there - back).max() > 1e-3
    alone = jax.jit(Act(**SMALL | dict(goal="none"), steps=10).act)
    own = params | {"context": params["context"] | {"frames": params["context"]["frames"][:1]}}
    said = [alone(own, whole.video[:, 0], whole.video[:, t], whole.proprio[:, 0]) for t in (1, 2)]
    np.testing.assert_array_equal(*said)
    felt = alone(own, whole.video[:, 0], whole.video[:, 1], whole.proprio[:, 0] + 1)
    assert (felt != said[0]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(chunk=0), "objective.chunk = 0: must be a whole number, at least 1"),
     (dict(latent_weight=-1.0), "objective.latent_weight = -1.0: must be 0 or more"),
     (dict(goal="first"), "objective.goal = 'first': must be one of last, none"),
     (dict(action_distance="l2"), "objective.action_distance = 'l2': must be one of l1, mse"),
     (dict(decoder=dict(layers=2)), "objective.decoder.layers = 2: there is no such option"),
     (dict(proprio=1), "objective.proprio = 1: must be True or False"),
     (dict(context=dict(heads=5)), "objective.context.heads = 5: must divide the width 12"),
     (dict(decoder=dict(width=10, heads=4)), "objective.decoder.heads = 4: must divide the width 10"),
     (dict(predictor=dict(width=50)), "objective.predictor.heads = 4: must divide the width 50"),
     (dict(predictor=dict(width="a")), "objective.predictor.width = 'a': must be a whole number, at least 1"),
     (dict(decoder=dict(depth=0)), "objective.decoder.depth = 0: must be a whole number, at least 1")],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Act(**SMALL | options, steps=10)


def test_episodes_that_do_not_fit_are_refused():
    objective, whole = Act(**SMALL, steps=10), batch()
    for given, message in (
        (batch_of(whole.video, None), "needs episodes with actions"),
        (batch_of(whole.video[:, :2], whole.actions[:, :2]), "data.frames = 2: must be at least 3"),
        (batch_of(whole.video, whole.actions), "objective.proprio = True: the source gives no state"),
    ):
        with pytest.raises(ConfigError, match=message):
            objective.init(jax.random.key(0), given)
