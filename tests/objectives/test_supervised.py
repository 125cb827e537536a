"""Supervised learning: its losses against NumPy, label statistics, both backbones, running statistics for probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.supervised import Supervised, joined
from tests import scenes
from tests.objectives.test_jepa import ENCODER, as_batch, flat, started

BACKBONES = {
    "resnet": {"type": "cjepa_jax.models.resnet:ResNet", "blocks": (1, 1), "width": 4, "zero_last": False},
    "vit": {"type": "cjepa_jax.models.encoder:Encoder", **ENCODER},
}


@functools.cache
def default(name, classes=0):
    """(objective, batch, state, jitted step). A class is the number of objects."""
    objective = Supervised(backbone=BACKBONES[name], steps=10, classes=classes)
    return started(objective, as_batch(scenes.batch(range(8))), weight_decay=0.0)


def test_label_statistics_are_exact_over_batches():
    rng = np.random.default_rng(0)
    labels = (rng.normal(size=(12, 3)) * [1, 5, 0] + [0, 100, 7]).astype(np.float32)
    seen = {"count": jnp.zeros(()), "mean": jnp.zeros(3), "square": jnp.zeros(3)}
    for part in (labels[:4], labels[4:10]):
        valid = np.arange(6) < len(part)
        padded = np.concatenate([part, np.full((6 - len(part), 3), 1e6, np.float32)])
        seen = joined(seen, padded, valid)
    assert float(seen["count"]) == 10
    np.testing.assert_allclose(seen["mean"], labels[:10].mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(seen["square"] / 10, labels[:10].var(0), rtol=1e-4, atol=1e-5)


def test_errors_of_classes_and_of_labels_by_hand():
    """Three scenes, of which the last does not count: cross-entropy of the first label, or the mean squared error of
    labels standardised by all that were seen, ten scenes of before among them."""
    out = np.array([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0], [9.0, 9.0, 9.0]])
    labels = np.array([[2, 40], [1, 60], [0, 1e6]], np.float32)
    stats = {"pooled": np.eye(3, dtype=np.float32), "labels": labels, "valid": np.arange(3) < 2, "batch_stats": {}}

    def total(classes, out, seen):
        objective = Supervised(backbone=BACKBONES["vit"], steps=1, classes=classes)
        reduce = jax.jit(lambda *given: objective.reduce(*given, None, 0)[0])
        return float(reduce({"out": out.astype(np.float32)}, stats, {"labels": seen}))

    likely = np.exp(out) / np.exp(out).sum(1, keepdims=True)
    assert total(3, out, {}) == pytest.approx(-np.log([likely[0, 2], likely[1, 1]]).mean(), rel=1e-5)
    before = np.stack([np.arange(10.0), 50 - 2 * np.arange(10.0)], 1)
    seen = {"count": 10.0, "mean": before.mean(0), "square": ((before - before.mean(0)) ** 2).sum(0)}
    every = np.concatenate([before, labels[:2]])
    standardised = (labels[:2] - every.mean(0)) / every.std(0)
    assert total(0, out[:, :2], seen) == pytest.approx(np.square(out[:2, :2] - standardised).mean(), rel=1e-5)


@pytest.mark.parametrize("name, classes", [("resnet", 0), pytest.param("vit", 7, marks=pytest.mark.slow)])
def test_a_step_and_its_loss(name, classes):
    objective, batch, state, step = default(name, classes)
    new, metrics = step(state, batch)
    assert int(new.skipped) == 0 and all(np.isfinite(value).all() for value in metrics.values())
    labels = np.asarray(batch.labels)
    if not classes:  # a fresh head says nearly 0, the mean of standardised labels: their variance, where they vary
        np.testing.assert_allclose(new.extra["labels"]["mean"], labels.mean(0), atol=1e-4)
        assert float(metrics["loss"]) == pytest.approx((labels.std(0) > 1e-6).mean(), abs=0.2)
    else:
        assert float(metrics["loss"]) == pytest.approx(np.log(classes), abs=0.2)
    before, after = flat(state.params), flat(new.params)
    assert all((before[path] != after[path]).any() for path in before)
    stats = flat(state.extra["batch_stats"]), flat(new.extra["batch_stats"])
    assert (name == "resnet") == bool(stats[0]) and all((stats[0][path] != stats[1][path]).any() for path in stats[0])


@pytest.mark.slow
def test_a_fixed_batch_is_learned_and_probes_get_the_running_statistics():
    objective, batch, state, step = default("resnet")
    first = float(step(state, batch)[1]["loss"])
    for _ in range(60):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.5 * first
    encode = jax.jit(objective.encode)
    together = encode(state.params | state.extra, batch.video)
    assert together.shape == (8, 16, 32)
    alone = encode(state.params | state.extra, jnp.repeat(batch.video[:1], 8, 0))
    np.testing.assert_allclose(together[0], alone[0], atol=1e-4)  # a scene's features are its own
    fresh = default("resnet")[2].extra
    assert np.abs(np.asarray(encode(state.params | fresh, batch.video) - together)).max() > 1e-2


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="objective.classes = 1"):
        Supervised(backbone=BACKBONES["vit"], steps=1, classes=1)
    objective = Supervised(backbone=BACKBONES["vit"], steps=1)
    arrays = scenes.batch()
    arrays.pop("labels")
    with pytest.raises(ConfigError, match="needs labels"):
        objective.init(jax.random.key(0), as_batch(arrays))
