"""Objects that are learned: the draw against Algorithm 2's, what is replaced in the batch, and who learns from what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import objects
from cjepa_jax.models import packing
from cjepa_jax.objectives import joint
from cjepa_jax.objectives.base import Interventional
from tests import scenes
from tests.objectives.test_jepa import ENCODER, PREDICTOR, as_batch, check_step, flat, started

SLOTS = {"count": 4, "width": 8, "iterations": 1, "hidden": 16, "layers": 1}
AREA = (0.05, 0.6)
DRAWS = 3000


def make(**fields):
    fields = {"encoder": ENCODER, "predictor": PREDICTOR, "slots": SLOTS, "steps": 10, "area": AREA} | fields
    return joint.Joint(**fields)


@functools.cache
def setup():
    """(batch, parameters, target, loss): loss of (params, target, batch, key, w) with its reconstruction term taken off
    w times, and metrics."""
    objective, batch = make(), as_batch(scenes.batch())

    def loss(params, target, batch, key, w):
        total, (metrics, _) = objective.loss(params, target, {}, batch, key, 0)
        return total - w * metrics["loss/slots"], metrics

    rng, shapes = np.random.default_rng(0), jax.eval_shape(objective.init, jax.random.key(0), batch)
    params, target, _ = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.1, 0.3, x.shape), jnp.float32), shapes)
    return batch, params, target, loss


@functools.cache
def parts():
    """`setup` with its loss as a jitted gradient by the slots alone, which compiles in half of the time."""
    batch, params, target, loss = setup()

    def of_slots(slots, params, *rest):
        return loss(params | {"slots": slots}, *rest)

    gradient = jax.jit(jax.grad(of_slots, has_aux=True))
    return batch, params, target, lambda params, *rest: gradient(params["slots"], params, *rest)


def stripes(*sizes, tokens=20):
    """Objects one after the other on a line of tokens, with these numbers of tokens: bool [K, N]."""
    ends = np.cumsum(sizes)
    place = np.arange(tokens)
    return np.stack([(place >= end - size) & (place < end) for size, end in zip(sizes, ends, strict=True)])


@functools.cache
def draws():
    """Jitted, compiled once: DRAWS draws of (patches [5, 20], maskable [20], lower, upper bound of the area)."""

    def many(patches, maskable, low, high):
        one = functools.partial(joint.draw, max_objects=2, area=(low, high), fallback=0.4)
        return jax.vmap(one, (0, None, None))(jax.random.split(jax.random.key(0), DRAWS), patches, maskable)

    return jax.jit(many)


def drawn(sizes, area=(0.1, 0.5), anchor=0):
    """Draws for `stripes(*sizes)`: masked [DRAWS, N], removed [DRAWS, K]."""
    patches = np.concatenate([stripes(*sizes), np.zeros((5 - len(sizes), 20), bool)])
    masked, removed = draws()(patches, np.arange(20) >= 10 * anchor, *area)
    return np.asarray(masked), np.asarray(removed)[:, : len(sizes)]


def frequencies(removed):
    """How often each set of objects was removed: [DRAWS, K] -> [2^K]."""
    return np.bincount(removed @ (1 << np.arange(removed.shape[1])), minlength=1 << removed.shape[1])


@pytest.mark.parametrize(
    "sizes, anchor, sets",
    [
        ((2, 10, 1, 4, 3), 0, 10),  # bounds 2 and 10 are eligible, 1 is not: 4 alone, 6 pairs
        ((10, 10), 0, 3),  # both together would hide everything, so each alone. At the eighth such draw, neither
        ((2, 10, 1, 4, 3), 1, 9),  # the first object stands in the anchor only: alone it hides nothing
    ],
)
def test_the_draw_is_algorithm_2(sizes, anchor, sets):
    """Both implementations' counts, as two samples of one multinomial: chi-square, 9 degrees of freedom at most."""
    patches, rng = stripes(*sizes), np.random.default_rng(0)
    theirs = [objects.draw(rng, patches, patches.any(1), 2, (0.1, 0.5), (2, 1, 10), anchor)[1] for _ in range(DRAWS)]
    mine, chosen = drawn(sizes, anchor=anchor)
    a, b = frequencies(np.stack(theirs)), frequencies(chosen)
    np.testing.assert_array_equal(a > 0, b > 0)
    assert (b > 0).sum() == sets
    chi_square = (np.square(a - b) / np.maximum(a + b, 1)).sum()
    assert chi_square < 33.7  # 1 in 10,000
    expected = (chosen[..., None] & patches).any(1) & (np.arange(20) >= 10 * anchor)
    np.testing.assert_array_equal(mine[chosen.any(1)], expected[chosen.any(1)])
    assert mine.any(1).all() and not mine.all(1).any()


def test_without_an_eligible_slot_a_share_of_the_tokens_is_hidden_at_random():
    for anchor in (0, 1):
        mine, chosen = drawn((1, 19), anchor=anchor)
        assert not chosen.any()
        count, first = (8, 0) if anchor == 0 else (4, 10)
        assert (mine.sum(1) == count).all() and not mine[:, :first].any()
        share = mine[:, first:].mean(0)
        assert np.abs(share - 0.4).max() < 5 * np.sqrt(0.24 / DRAWS)
        assert len(np.unique(mine, axis=0)) > 100


def test_an_empty_slot_is_never_removed():
    _, chosen = drawn((0, 6, 0, 7), area=(0.0, 1.0))
    assert chosen[:, [1, 3]].any(1).all() and not chosen[:, [0, 2]].any()


def test_what_is_replaced_in_the_batch():
    """Rows hold the context on two data shards. Hidden places are blank in the intervened scene, and only they."""
    objective, batch = make(anchor=1), as_batch(scenes.batch(frames=4, shards=2))
    patches = jnp.arange(4)[:, None] == jax.random.randint(jax.random.key(1), (4, 1, 32), 0, 4)
    new = jax.jit(objective.intervene)(jax.random.key(0), batch, patches)
    context = np.asarray(new.context)
    assert context[:, :16].all() and not context[:, 16:].all(1).any()
    hidden = np.asarray((patches & new.removed[..., None]).any(1)) & (np.arange(32) >= 16)
    np.testing.assert_array_equal(context, ~hidden)
    x = np.random.default_rng(0).normal(size=(4, 32, 3)).astype(np.float32)
    there_and_back = jax.jit(lambda x, rows: packing.scatter(packing.gather(x, rows)[0], rows, (4, 32)))
    np.testing.assert_array_equal(there_and_back(x, new.rows), np.where(context[..., None], x, 0))
    np.testing.assert_array_equal(np.asarray(new.rows.segment).reshape(4, -1).sum(1), context.sum(1))
    blank = hidden.reshape(4, 2, 4, 4).repeat(2, 1).repeat(scenes.PATCH, 2).repeat(scenes.PATCH, 3)[..., None]
    np.testing.assert_array_equal(new.intervened, np.where(blank, 0, batch.video))
    assert new.intervened.dtype == jnp.uint8 and isinstance(objective, Interventional)


def test_only_the_reconstruction_teaches_the_slots():
    batch, params, target, gradient = parts()
    jepa, metrics = gradient(params, target, batch, jax.random.key(0), 1.0)
    both, _ = gradient(params, target, batch, jax.random.key(0), 0.0)
    assert all(np.isfinite(value).all() for value in metrics.values()) and metrics["loss/slots"] > 0
    assert all((leaf == 0).all() for leaf in flat(jepa).values())
    assert all((leaf != 0).any() for leaf in flat(both).values())
    # They are fitted to the target encoder's tokens, so that another encoder changes nothing of it.
    other = params | {"encoder": jax.tree.map(jnp.negative, params["encoder"])}
    _, same = gradient(other, target, batch, jax.random.key(0), 0.0)
    assert same["loss/slots"] == metrics["loss/slots"] and same["loss/prediction"] != metrics["loss/prediction"]


@pytest.mark.slow
def test_the_reconstruction_teaches_the_slots_only():
    batch, params, target, loss = setup()
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    jepa, both = (gradient(params, target, batch, jax.random.key(0), w)[0] for w in (1.0, 0.0))
    for part in ("encoder", "predictor"):
        for (name, a), b in zip(flat(jepa[part]).items(), flat(both[part]).values(), strict=True):
            assert (a != 0).any(), name
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_key_alone_decides():
    batch, params, target, gradient = parts()
    one, same, other = (gradient(params, target, batch, jax.random.key(k), 0.0) for k in (0, 0, 1))
    for (name, a), b in zip(flat(one).items(), flat(same).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert float(one[1]["loss/prediction"]) != float(other[1]["loss/prediction"])


def test_the_datas_own_objects_and_masks_are_not_learned_from():
    batch, params, target, gradient = parts()
    blind = dataclasses.replace(
        batch,
        object_patches=~batch.object_patches,
        removed=~batch.removed,
        context=~batch.context,
        intervened=255 - batch.intervened,
    )
    one, other = (gradient(params, target, b, jax.random.key(0), 0.0) for b in (batch, blind))
    for (name, a), b in zip(flat(one[0]).items(), flat(other[0]).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert float(one[1]["slots/mbo"]) != float(other[1]["slots/mbo"])


def test_invalid_scenes_change_nothing():
    batch, params, target, gradient = parts()
    three = dataclasses.replace(batch, valid=jnp.arange(4) < 3)
    spoilt = dataclasses.replace(three, video=batch.video.at[3].set(7))
    one, other = (gradient(params, target, b, jax.random.key(0), 0.0) for b in (three, spoilt))
    for (name, a), b in zip(flat(one[0]).items(), flat(other[0]).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)
    assert float(one[1]["slots/mbo"]) == pytest.approx(float(other[1]["slots/mbo"]), rel=1e-6)


def test_best_overlap():
    found = stripes(4, 8, 8)[None]
    true = np.stack([stripes(4, 8, 8)[0], np.arange(20) < 6, np.arange(20) < 2, np.zeros(20, bool)])[None]
    assert float(joint.best_overlap(found, true)[0]) == pytest.approx((1 + 4 / 6 + 2 / 4) / 3)
    assert float(joint.best_overlap(found, np.zeros((1, 3, 20), bool))[0]) == 0
    assert joint.best_overlap(found, np.zeros((1, 0, 20), bool)).shape == (1,)


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"slots": {"count": 0}}, "objective.slots.count = 0: must be a whole number, at least 1"),
        ({"slots_weight": -1.0}, "objective.slots_weight = -1.0: must be 0 or more"),
        ({"area": (0.5, 0.1)}, "objective.area = .* must be two numbers, the lower bound first"),
        ({"anchor": -1}, "objective.anchor = -1: must be 0 or more"),
        ({"fallback": 1.0}, "objective.fallback = 1.0: must be between 0 and 1"),
    ],
)
def test_bad_values_are_named(fields, named):
    with pytest.raises(ConfigError, match=named):
        make(**fields)


@pytest.mark.slow
@pytest.mark.parametrize("intervened, dtype", [("zero_pixels", "float32"), ("drop_tokens", "bfloat16")])
def test_a_step_moves_everything(intervened, dtype):
    metrics = check_step(*started(make(dtype=dtype), as_batch(scenes.batch(intervened=intervened, frames=4))))
    terms = metrics["loss/prediction"] + 0.5 * metrics["loss/causal"] + 0.01 * metrics["loss/sigreg"]
    assert float(metrics["loss"]) == pytest.approx(float(terms + metrics["loss/slots"]), rel=1e-5)
    assert 0 < float(metrics["slots/mbo"]) < 1
