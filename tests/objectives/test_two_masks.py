"""Both of V-JEPA's masks for one clip: the loss is the mean of two predictions, and off means off."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax import experiment
from cjepa_jax.data import batching
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import check, tubes
from cjepa_jax.objectives.jepa import second_of
from cjepa_jax.types import batch_of
from configs.baselines import mae, vjepa, vjepa_both
from configs.family import hjepa, vjepa2_1

SHORT, LONG = (8, 0.15), (2, 0.7)
NONE = np.zeros((2, 2 * 196), bool)


def drawn(seed, **options):
    return tubes.draw(np.random.default_rng(seed), NONE, NONE[:, 0], grid=(2, 14, 14), **options)


def of_two(rng, object_patches, object_valid, grid):
    """A mask of a user: the first or second half of the tokens, and the other one."""
    half = np.arange(object_patches.shape[1]) * 2 < object_patches.shape[1]
    none = np.zeros_like(half)
    return half, np.zeros_like(object_valid), none, ~half, none


def small(base, **changes):
    config = base.get_config().copy_and_resolve_references().unlock()
    config.objective.encoder.variant, config.objective.predictor.depth = "24x2x2x48/8", 1
    config.update_from_flattened_dict({"data.size": 32, "data.frames": 4, "train.batch": 8, "data.workers": 0,
                                       "data.count": 32, "probe.every": 0} | changes)  # fmt: skip
    return config.lock()


def test_each_mask_is_of_its_kind_and_the_pair_is_checked():
    shares = np.array([[masked.mean() for masked in drawn(seed, both=True)[0:4:3]] for seed in range(300)])
    alone = [np.mean([drawn(seed, kinds=(kind,))[0].mean() for seed in range(300)]) for kind in (SHORT, LONG)]
    np.testing.assert_allclose(shares.mean(0), alone, atol=0.015)
    assert abs(np.corrcoef(shares.T)[0, 1]) < 0.2  # drawn apart
    masked, removed, dropped, second, second_dropped = drawn(0, both=True)
    assert not removed.any() and not dropped.any() and not second_dropped.any()
    cut = drawn(0, both=True, batch=24)
    assert cut[2].any() and cut[4].any() and not (cut[0] & cut[2]).any() and not (cut[3] & cut[4]).any()
    fields = check.second(cut)
    np.testing.assert_array_equal(fields["second_hidden"], cut[3])
    np.testing.assert_array_equal(fields["second_context"], ~cut[3] & ~cut[4])
    assert check.second(drawn(0)) == {}
    with pytest.raises(ConfigError, match="mask.both = True: must be False unless there are two kinds"):
        drawn(0, both=True, kinds=(SHORT,))
    mask = check.Mask(lambda *_, grid: (masked, removed, dropped, ~masked | masked, second_dropped), "mine:draw", True)
    with pytest.raises(ConfigError, match="left no token"):
        mask(np.random.default_rng(0), NONE, NONE[:, 0], (2, 14, 14))


def test_both_contexts_have_rows_that_hold_them():
    scenes = [{"context": np.arange(32) < 4, "second_context": np.arange(32) >= 12} for _ in range(2)]
    found = batching.collate(scenes, 1, [(2, 8), (2, 24), (2, 32)])
    assert found["rows"]["index"].shape == found["second_rows"]["index"].shape == (1, 2, 24)
    np.testing.assert_array_equal(found["second_rows"]["index"][0, 0, :20], np.arange(12, 32))
    assert (found["rows"]["segment"][0, 0] > 0).sum() == 4
    wider = batching.with_rows(found, 1, (2, 32))
    assert wider["second_rows"]["index"].shape == (1, 2, 32)


@pytest.mark.parametrize("base", [vjepa_both, vjepa2_1], ids=["V-JEPA", "V-JEPA 2.1"])
def test_the_loss_is_the_mean_of_the_two_masks_losses(base):
    images = (
        {"objective.images": 0.0, "objective.encoder.levels": (0, 1)} if base is vjepa2_1 else {}
    )  # which have the first mask
    config = small(base, **{"mask.both": True} | images)
    run = experiment.assemble(config)
    batch = run.example()
    objective, key = run.objective, jax.random.key(3)
    state = run.init(batch)
    other = second_of(batch)
    first = dataclasses.replace(batch, second_context=None, second_hidden=None, second_rows=None)
    assert (np.asarray(other.context) != np.asarray(first.context)).any()

    @jax.jit
    def losses(one):
        def loss(params):
            return objective.loss(params, state.target, state.extra, one, key, 20_000)[0]

        return jax.value_and_grad(loss)(state.params)

    both, one, two = losses(batch), losses(first), losses(other)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, one, two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), both, mean)
    assert abs(float(one[0]) - float(two[0])) > 1e-4
    _, metrics = run.step(state, batch)
    assert np.isfinite(metrics["loss"])


def test_a_batch_in_slices_has_the_whole_batchs_loss():
    runs = [experiment.assemble(small(vjepa_both, **{"train.accumulate": k, "train.batch": 16})) for k in (1, 2)]
    found = []
    for run in runs:
        state, metrics = run.step(run.init(run.example()), run.example())
        found.append((metrics["loss"], state.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)


def test_off_is_off_and_other_objectives_refuse_it():
    arrays = {"second_context", "second_hidden", "second_rows"}
    run = experiment.assemble(small(vjepa))
    assert not arrays & next(iter(run.loader.iterate(0, 1))).keys() and second_of(run.example()) is None
    assert arrays <= next(iter(experiment.assemble(small(vjepa_both)).loader.iterate(0, 1))).keys()
    assert batch_of(batching.collate([run.scenes(0, 0)])).second_rows is None
    own = ConfigDict(dict(type=f"{__name__}:of_two"))
    for base, mask in itertools.product((hjepa, mae), (small(vjepa_both).mask, own)):
        config = small(vjepa_both)
        config.unlock().objective = base.get_config().objective
        config.objective.encoder.variant = "24x2x2x48/8"
        config.mask = mask
        kind, name = config.mask.type, config.objective.type
        message = f"^mask.type = '{kind}': draws two masks, objective.type = '{name}' takes one$"
        with pytest.raises(ConfigError, match=message):
            experiment.assemble(config.lock())
