"""Two predictors for two kinds of masks: which of them a scene gets, and what the masks hide."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import factored
from cjepa_jax.objectives.factored import Factored
from cjepa_jax.objectives.jepa import Jepa
from tests.objectives.test_dense import SIZES, batch_of

GRID = (2, 3, 3)


def drawn(seed, grid=GRID, **options):
    none = np.zeros((2, int(np.prod(grid))), bool)
    masked, removed = factored.draw(np.random.default_rng(seed), none, none[:, 0], grid=grid, **options)
    assert not removed.any() and 0 < masked.sum() < masked.size
    return masked.reshape(grid[0], -1)


def test_masks_hide_whole_times_or_places_at_all_times():
    whole = []
    for seed in range(400):
        masked = drawn(seed, (4, 3, 3))
        times = (masked.all(1) == masked.any(1)).all()
        whole.append(times)
        assert masked.all(1).sum() == 2 if times else (masked == masked[0]).all() and masked[0].sum() in (4, 5)
    assert 0.42 < np.mean(whole) < 0.58
    assert all(drawn(seed, motion=1.0).all(1).sum() == 1 for seed in range(20))
    assert {int(drawn(seed, (4, 3, 3), motion=1.0, times=0.1).all(1).sum()) for seed in range(5)} == {1}
    assert (drawn(0, (1, 3, 3), motion=1.0).sum()) in (4, 5)  # an image has one time, which is not hidden


@pytest.mark.parametrize("option, value", [("motion", 1.5), ("times", 0.0), ("places", 1.0)])
def test_shares_that_hide_nothing_or_all_are_refused(option, value):
    with pytest.raises(ConfigError, match=f"mask.{option} = {value}"):
        drawn(0, **{option: value})


@pytest.mark.slow
def test_each_kind_of_mask_has_its_predictor_and_equal_predictors_are_jepa():
    context = np.ones((3, 2, 9), bool)
    context[0, 1] = False  # a whole time
    context[1, :, :4] = False  # places
    context[2, 0] = context[2, 1, :4] = False  # a time and more
    video = np.random.default_rng(1).integers(0, 256, (3, 4, 24, 24, 3), np.uint8)
    batch, key = batch_of(video, context.reshape(3, -1)), jax.random.key(0)
    two, plain = Factored(**SIZES), Jepa(**SIZES, causal_weight=0.0)
    state = params, target, extra = jax.jit(two.init)(key, batch)
    own = params["predictor"]
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, own.values()), strict=True))

    @jax.jit
    def predicted(predictors):
        tokens = two.encode_context(params, batch)
        return two.predict({"predictor": predictors}, tokens, batch)[0]

    zero = jax.tree.map(jnp.zeros_like, own)
    both = predicted(own)
    np.testing.assert_array_equal(predicted(zero | {"motion": own["motion"]})[0], both[0])
    np.testing.assert_array_equal(predicted(zero | {"content": own["content"]})[1:], both[1:])
    assert (predicted(zero | {"content": own["content"]})[0] == 0).all()

    same = params | {"predictor": dict.fromkeys(own, own["motion"])}
    single = params | {"predictor": own["motion"]}
    (found, (metrics, _)), (wanted, (its, _)) = (
        jax.jit(objective.loss)(p, target, extra, batch, key, 5) for objective, p in ((two, same), (plain, single))
    )
    assert float(found) == float(wanted)
    error = np.asarray(its["per_scene"])
    assert np.isfinite(error).all() and state[1] is target
    mean = (float(metrics["error/motion"]) + 2 * float(metrics["error/content"])) / 3
    assert mean == pytest.approx(float(its["loss/prediction"]), rel=1e-5)
    assert dataclasses.is_dataclass(two) and two.exports == ("encoder",)
