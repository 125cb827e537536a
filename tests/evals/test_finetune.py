"""Fine-tuning on tiny linear problems whose answers are known."""

import dataclasses
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import finetune as module
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Scenes
from cjepa_jax.evals.finetune import FIXED, Finetune, finetune

ITEMS = 40


def apply(params, video):
    """Two tokens, each a product of the one "pixel" row. Statistics are added, not learned."""
    x = jnp.asarray(video, jnp.float32).reshape(len(video), -1)
    tokens = x @ params["kernel"] + params[FIXED]["shift"]
    return jnp.stack([tokens, tokens], 1)


def make_model(name="model", seed=0):
    params = {
        "kernel": jax.random.normal(jax.random.key(seed), (12, 3)) / 50,
        FIXED: {"shift": jnp.ones(3)},
        "unused": {"kernel": jnp.ones((2, 2))},
    }
    return Model(name, lambda video: np.asarray(apply(params, video)), None, None, params, apply)


def data(seed=0, items=ITEMS):
    """Labels that are linear in pixels of which the encoder at its start keeps three directions only."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 60, (items, 1, 2, 2, 3), dtype=np.uint8)
    weights = np.random.default_rng(9).normal(size=(12, 2)) / 60
    return {"video": video, "labels": (video.reshape(items, -1) @ weights).astype(np.float32)}


def head_init(key):
    return module.mlp_init(key, (3, 2)) | {FIXED: {"offset": jnp.full(2, 0.5)}}


def head_apply(encode, head, arrays):
    return module.mlp(head, encode(arrays["video"]).mean(1)) + head[FIXED]["offset"]


def loss(out, arrays):
    return jnp.square(out - arrays["labels"]).mean(-1)


def fitted(model=None, arrays=None, **options):
    options = dict(seed=0, rate=0.02, steps=200, batch=8) | options
    return finetune(model or make_model(), head_init, head_apply, loss, arrays or data(), **options)


def error(predict, arrays):
    return float(np.square(predict(arrays) - arrays["labels"]).mean())


@pytest.fixture(scope="module")
def trained():
    return fitted(share=1.0)


def test_it_learns_and_leaves_the_model_alone(trained):
    model = make_model()
    before = jax.tree.map(np.array, model.params)
    start, end = fitted(model, steps=1, rate=0.0), fitted(model, share=1.0)
    assert error(end, data()) < 0.2 * error(start, data())
    assert error(end, data(1)) < 0.3 * error(start, data(1))
    jax.tree.map(np.testing.assert_array_equal, before, model.params)
    np.testing.assert_array_equal(end(data()), trained(data()))  # same seed, same bits
    assert (fitted(model, share=1.0, seed=1)(data()) != end(data())).any()


def test_the_encoder_makes_the_difference(trained):
    """share = 0 is a linear head on three directions of twelve, so it cannot explain what is left."""
    arrays = data()
    features = np.asarray(apply(make_model().params, arrays["video"])).mean(1)
    centred = np.concatenate([features, np.ones((ITEMS, 1))], 1)
    best = arrays["labels"] - centred @ np.linalg.lstsq(centred, arrays["labels"], rcond=None)[0]
    frozen = error(fitted(share=0.0), arrays)
    assert np.square(best).mean() - 1e-6 <= frozen and error(trained, arrays) < 0.5 * np.square(best).mean()


def test_rates_and_what_is_never_trained():
    """One step of Adam moves every weight with a gradient by its rate (and decay), of which each part has its share."""
    model = make_model()
    params = {"encoder": model.params, "head": head_init(jax.random.key(1))}
    params["head"]["dense0"]["kernel"] = jnp.ones((3, 2))
    arrays = data(items=8)
    functions = apply, head_apply, loss
    start = params, module.OPTIMISER.init(params), arrays, 0.01, 0.1, 0.5
    new, _, _ = module._step(functions, *start, layer_decay=1.0)
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a - b)), new, params)
    assert moved["head"]["dense0"]["bias"] == pytest.approx(0.005, rel=1e-3)
    decay = 0.05 * np.abs(model.params["kernel"])
    assert (np.abs(moved["encoder"]["kernel"] - 0.001) <= 0.001 * decay + 1e-6).all()
    assert not moved["encoder"][FIXED]["shift"].any() and not moved["head"][FIXED]["offset"].any()


def test_the_rate_falls_by_the_encoders_layers():
    """An encoder of two stacked blocks: one step of Adam moves each layer by its own rate."""
    kernels = jax.random.normal(jax.random.key(3), (2, 3, 3)) / 2
    model = make_model()
    params = {
        "encoder": model.params | {"stack": {"blocks": {"kernel": kernels}}},
        "head": head_init(jax.random.key(1)) | {"dense0": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}},
    }
    functions = deep, head_apply, loss
    start = params, module.OPTIMISER.init(params), data(items=8), 0.01, 0.1, 0.5
    whole, falling = (module._step(functions, *start, layer_decay=decay)[0] for decay in (1.0, 0.5))
    ratio = jax.tree.map(lambda a, b, c: np.asarray((a - c) / (b - c)), falling, whole, params)
    np.testing.assert_allclose(ratio["encoder"]["kernel"], 0.125, rtol=1e-2)
    np.testing.assert_allclose(ratio["encoder"]["stack"]["blocks"]["kernel"][0], 0.25, rtol=1e-2)
    np.testing.assert_allclose(ratio["encoder"]["stack"]["blocks"]["kernel"][1], 0.5, rtol=1e-2)
    np.testing.assert_allclose(ratio["head"]["dense0"]["bias"], 1.0, rtol=1e-2)
    with pytest.raises(ConfigError, match="layer_decay = 0.5: the encoder has no blocks"):
        fitted(layer_decay=0.5, steps=1)


def deep(params, video):
    x = jnp.asarray(video, jnp.float32).reshape(len(video), -1) @ params["kernel"]
    for kernel in params["stack"]["blocks"]["kernel"]:
        x = x + x @ kernel
    return jnp.stack([x, x], 1)


def test_the_documents_rate_is_a_tenth_of_the_pretrainings():
    assert module.Finetune().share == module.Finetune().head_share == 0.1
    defaults = inspect.signature(module.finetune).parameters
    assert defaults["share"].default == 0.1 and defaults["head_share"].default == 1.0


def test_every_epoch_is_another_order_of_all_items():
    rows = np.stack(list(module._order(3, 10, 3, 6)))
    first, second = rows[:3].ravel(), rows[3:].ravel()
    assert len(set(first)) == len(set(second)) == 9 and (first != second).any()
    assert (rows == np.stack(list(module._order(3, 10, 3, 6)))).all()
    assert [len(r) for r in module._order(0, 2, 5, 3)] == [2, 2, 2]


def test_early_stopping_keeps_what_is_best_on_the_held_out_fifth():
    """The last fifth contradicts the rest, so all that is learned makes it worse, and the first look is kept."""
    arrays = data()
    arrays["labels"][32:] *= -1
    rest, last = ({name: a[part] for name, a in arrays.items()} for part in (slice(32), slice(32, None)))
    stopped, on = fitted(arrays=arrays, share=1.0, stop=True), fitted(arrays=rest, share=1.0)
    assert error(stopped, last) < error(on, last) and error(stopped, rest) > error(on, rest)
    alike, start = fitted(share=1.0, stop=True), fitted(steps=1, rate=0.0)  # all items agree: the end is the best
    assert error(alike, data()) < 0.3 * error(start, data())


def test_early_stopping_fits_the_first_four_fifths():
    """One step with the last fifth held out is one step on the others."""
    arrays = data()
    rest = {name: a[:32] for name, a in arrays.items()}
    held_out, alone = fitted(arrays=arrays, steps=1, stop=True), fitted(arrays=rest, steps=1)
    np.testing.assert_array_equal(held_out(arrays), alone(arrays))


def test_a_rate_that_diverges_is_named():
    with pytest.raises(ConfigError, match="fine-tuning at rate 1e\\+30 diverged within .* steps: loss = "):
        fitted(rate=1e30, share=1.0)


def make_bench(classes=0):
    def scenes(seed):
        arrays = data(seed, 4 * ITEMS)
        if classes:
            arrays["labels"] = (arrays["labels"][:, :1] > np.median(arrays["labels"][:, 0])).astype(np.float32)
        else:
            arrays["labels"] = np.concatenate([arrays["labels"] * [1, 100], np.ones((4 * ITEMS, 1))], 1)
        return Scenes(types.SimpleNamespace(label_names=("a/x", "a/y", "constant")), None, arrays)

    models = [make_model(name, seed) for seed, name in enumerate((TRAINED, f"{RANDOM} 0", f"{RANDOM} 1"))]
    bench = Bench(models[0], tuple(models[1:]), None, None, "train", 0, "test", 0, 16, 0, 0.03)
    bench.__dict__.update(fitting=scenes(0), testing=scenes(1))  # as the cached properties would
    return bench


def test_regression_rows():
    found = Finetune(steps=800, batch=8, share=1.0, head_share=1.0).run(make_bench())
    rows = {score.row: score for score in found.scores}
    assert {score.metric for score in found.scores} == {"r2/a"}  # a constant label explains nothing
    assert list(rows) == [TRAINED, RANDOM, "frozen, linear"]
    assert rows[TRAINED].value > 0.8 > 0.4 > rows["frozen, linear"].value and rows[TRAINED].interval > 0
    assert rows[RANDOM].of == "inits" and rows[RANDOM].kind == "floor"


@pytest.mark.slow
def test_classification_rows():
    found = Finetune(classes=2, label=0, hidden=4, steps=800, batch=8, share=1.0, head_share=1.0).run(make_bench(2))
    rows = {score.row: score for score in found.scores}
    assert list(rows) == [TRAINED, RANDOM, "frozen, linear", "most frequent class"]
    assert rows[TRAINED].value > 0.8 > 0.7 > rows["frozen, linear"].value and rows["most frequent class"].value == 0.5
    assert rows[TRAINED].kind == "result" and rows[TRAINED].count == 4 * ITEMS


def test_the_class_is_what_the_source_says_and_not_the_first_label():
    bench = make_bench(2)
    for scenes in (bench.fitting, bench.testing):
        scenes.arrays["class"] = np.arange(4 * ITEMS) % 5
    found = Finetune(classes=5)._classes(bench.testing)
    assert found["labels"].tolist() == [i % 5 for i in range(4 * ITEMS)] and found["labels"].dtype == np.int32
    assert (found["video"] == bench.testing.arrays["video"]).all()
    for label in (0, "a/x"):
        counts = Finetune(classes=2, label=label)._classes(bench.testing)["labels"]
        assert (counts == bench.testing.arrays["labels"][:, 0]).all()


def test_explained_is_r2():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 2))
    value, half = module.explained(truth + rng.normal(size=(500, 2)) * [0.5, 0.1], truth, 0)
    assert value == pytest.approx(1 - (0.25 + 0.01) / 2, abs=0.03) and 0.005 < half < 0.05
    units = np.array([1, 100])  # a target counts the same in any unit
    guess = truth * [0.9, 0.5]
    assert module.explained(guess * units, truth * units, 0) == pytest.approx((1 - (0.01 + 0.25) / 2, 0))
    assert module.explained(truth, truth, 0) == (1.0, 0.0) and module.explained(0 * truth, truth, 0)[0] == 0


def test_data_and_models_that_cannot_serve_it():
    bench = make_bench(2)
    with pytest.raises(ConfigError, match="finetune needs a class of each scene, or finetune.label = one of .'a/x'"):
        Finetune(classes=2).run(bench)
    bench.testing.arrays["labels"][3] = 7
    with pytest.raises(ConfigError, match=r"finetune needs classes 0 to 1 \(classes = 2\). The data have 7"):
        Finetune(classes=2, label="a/x").run(bench)
    bench.fitting.arrays["labels"] = np.zeros((4 * ITEMS, 0), np.float32)
    with pytest.raises(ConfigError, match="finetune needs labels"):
        Finetune().run(bench)
    plain = Model(TRAINED, None, None)
    with pytest.raises(ConfigError, match="finetune needs a model whose parameters"):
        Finetune().run(dataclasses.replace(bench, model=plain))


@pytest.mark.parametrize(
    "bad, named",
    [
        (dict(classes=1), "classes = 1: must be 0"),
        (dict(hidden=-1), "hidden = -1"),
        (dict(steps=0), "steps = 0: must be an integer of at least 1"),
        (dict(steps="x"), "steps = 'x': must be an integer"),
        (dict(hidden=None), "hidden = None"),
        (dict(share="x"), "share = 'x': must be between"),
        (dict(batch=0), "batch = 0"),
        (dict(layer_decay=0), "layer_decay = 0: must be above 0 and at most 1"),
        (dict(layer_decay=1.2), "layer_decay = 1.2: must be above 0 and at most 1"),
        (dict(share=1.5), "share = 1.5: must be between 0 and 1"),
    ],
)
def test_bad_options(bad, named):
    with pytest.raises(ConfigError, match=f"evals.protocols: finetune.{named}"):
        Finetune(**bad)
