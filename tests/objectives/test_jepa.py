"""The objective and its step: every alternative of the config trains. Gradients, EMA and skipped steps as stated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cjepa_jax import losses, optim, train_step
from cjepa_jax.configuration import check
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import multiblock, tubes
from cjepa_jax.models import tokenizers
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Batch, Rows
from configs import vitl
from tests import scenes, test_three_steps, three_steps

ENCODER = {"variant": f"Mu/{scenes.PATCH}", "depth": 1}
PREDICTOR = {"depth": 1, "width": 16, "heads": 2, "max_objects": 3}
RATE = 1e-3


def make(encoder=None, predictor=None, **fields):
    return Jepa(
        **{"encoder": ENCODER | (encoder or {}), "predictor": PREDICTOR | (predictor or {}), "steps": 10} | fields
    )


def as_batch(arrays):
    return jax.tree.map(jnp.asarray, Batch(**arrays | {"rows": Rows(**arrays["rows"])}))


def drawn(**options):
    """A batch for the program of `default`. Its pixels are floats, so that a test can set them to NaN."""
    batch = as_batch(scenes.batch(**options))
    return dataclasses.replace(batch, video=batch.video.astype(jnp.float32))


@functools.cache
def default():
    """(objective, batch, state, jitted step) of the default objective on images."""
    return started(make(), drawn())


def started(objective, batch, **changes):
    optimizer = vitl.get_config().optim.copy_and_resolve_references().unlock()
    optimizer.update(changes)
    optimizer = optim.make(optimizer)
    state = jax.jit(functools.partial(train_step.init_state, objective, optimizer, 0))(batch)
    return objective, batch, state, jax.jit(train_step.make(objective, optimizer, lambda step: RATE, 0))


def flat(tree):
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def check_step(objective, batch, state, step, still=()):
    """One step: finite metrics, every leaf of the parameters moved but those named in `still`, target by the EMA."""
    new, metrics = step(state, batch)
    assert all(np.isfinite(value).all() for value in metrics.values()), metrics
    assert int(new.step) == 1 and int(new.skipped) == 0 and int(metrics["skipped"]) == 0
    before, after = flat(state.params), flat(new.params)
    for name in before:
        moved = (before[name] != after[name]).any()
        assert moved != any(part in name for part in still), name
        assert after[name].dtype == np.float32
    tau = objective.ema[0]  # at step 0, whichever way it goes from there
    for name, value in flat(new.target).items():
        encoder = after[f"['encoder']{name}"]
        np.testing.assert_allclose(value, tau * flat(state.target)[name] + (1 - tau) * encoder, atol=1e-6)
    return metrics


ALONE = {  # every alternative of the method on its own: (objective's fields, batch's options, optimiser's)
    "elementwise": ({"prediction_loss": "elementwise"}, {}, {}),
    "mse": ({"prediction_loss": "mse"}, {}, {}),
    "l1": ({"prediction_loss": "l1"}, {}, {}),
    "beta": ({"beta": 0.1}, {}, {}),
    "layer_norm": ({"target_norm": "layer_norm"}, {}, {}),
    "zeroed": ({"encoder_input": "zeroed"}, {}, {}),
    "drop_tokens": ({}, {"intervened": "drop_tokens"}, {}),
    "rerender": ({}, {"intervened": "rerender"}, {}),
    "rerender other": ({}, {"intervened": "rerender_other"}, {}),
    "second view": ({}, {"intervened": "second_view"}, {}),
    "all context": ({"causal_tokens": "context"}, {}, {}),
    "none": ({"causal_weight": 0.0}, {"intervened": "none"}, {}),
    "no sigreg": ({"sigreg_weight": 0.0}, {}, {}),
    "epps-pulley": ({"sigreg_kind": "epps_pulley"}, {}, {}),
    "cross": ({"predictor": {"attention": "cross"}}, {}, {}),
    "predictor 12": ({"predictor": {"depth": 12}}, {}, {}),
    "gelu": ({"encoder": {"gelu": "tanh"}, "predictor": {"gelu": "tanh"}}, {}, {}),
    "remat dots": ({"encoder": {"remat": "dots"}, "predictor": {"remat": "dots"}}, {}, {}),
    "remat full": ({"encoder": {"remat": "full"}, "predictor": {"remat": "full"}}, {}, {}),
    "bfloat16": ({"dtype": "bfloat16"}, {}, {}),
    "video": ({}, {"frames": 4}, {}),
    "anchor": ({}, {"frames": 4, "anchor": 1}, {}),
    "fixed ema": ({"ema": (0.9, 0.9)}, {}, {}),
    "linear ema": ({"ema_kind": "linear"}, {}, {}),
    "dropped": ({}, {"mask": multiblock.draw}, {}),
    "clip": ({}, {}, {"clip": 1.0}),
    "no decay": ({}, {}, {"weight_decay": 0.0}),
}
# Those without golden numbers, which one fast step has together. The others train in tests/test_three_steps.py.
CONTROLS = ("rerender other", "second view")
REST = ("bfloat16", "epps-pulley", "l1", "none", "no decay")


def alternative(names):
    """(objective, batch, leaves that stay, optimiser's changes) of the named alternatives together."""
    fields, options, changes = {}, {}, {}
    for name in names:
        for merged, part in zip((fields, options, changes), ALONE[name], strict=True):
            merged.update({k: merged.get(k, {}) | v if isinstance(v, dict) else v for k, v in part.items()})
    if "anchor" in options:
        options["mask"] = functools.partial(scenes.objects.draw, area=(0.05, 0.6), anchor=options.pop("anchor"))
    still = []
    if not fields.get("causal_weight", 0.5):  # nothing asks for the residual: only decay acts on it
        still.append("['residual']['bias']" if changes.get("weight_decay", 1.0) else "['residual']")
    if options.get("mask") is multiblock.draw:  # it removes no object, and embeddings have no decay
        still.append("['object_embedding']")
    return make(**fields), as_batch(scenes.batch(**options)), still, changes


def test_the_alternatives_without_golden_numbers_train_together():
    objective, batch, still, changes = alternative(REST)
    check_step(*started(objective, batch, **changes), still)


def test_the_controls_of_the_causal_term_train_by_one_program():
    """Other objects simulated away, or nothing: the batch has the form of the default. No removal, no change."""
    objective, _, state, step = default()  # their objective, too
    assert all(not fields and not changes for fields, _, changes in map(ALONE.get, CONTROLS))
    batch, nothing = (drawn(**ALONE[name][1]) for name in CONTROLS)
    metrics = check_step(objective, batch, state, step)
    assert (nothing.intervened == nothing.video).all() and (batch.intervened != batch.video).any()
    other = check_step(objective, nothing, state, step)
    assert float(other["loss/prediction"]) == float(metrics["loss/prediction"])
    assert float(other["loss/causal"]) < float(metrics["loss/causal"])


def test_a_fast_test_trains_a_step_under_every_choice():
    """Of the method. How tokens are given their places is for imported weights."""
    settings = [three_steps.SETTINGS[name] for name in test_three_steps.FAST]
    rest = {"dtype": {"float32"}, "sigreg_kind": {"kl"}}  # of all settings
    for name in (*REST, *CONTROLS):
        for key, value in (ALONE[name][0] | ALONE[name][1]).items():
            rest.setdefault(key, set()).add(value)
    for key, choices in check.CHOICES.items():
        name = key.rpartition(".")[2]
        if key.startswith(("objective.", "data.", "dtype")) and name != "positions":
            run = {getattr(setting, name) for setting in settings if hasattr(setting, name)} | rest.get(name, set())
            assert run >= set(choices) - {"auto"}, key


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_every_alternative_trains(name):
    objective, batch, still, changes = alternative([name])
    metrics = check_step(*started(objective, batch, **changes), still)
    _, batch, state, step = default()
    # Another step than the default's. But remat only saves memory, and fresh weights leave GELU nearly linear.
    same = step(state, batch)[1]["update_norm" if name in ("no decay", "clip") else "loss"]
    if name not in ("remat dots", "remat full", "fixed ema", "linear ema", "gelu", "all context"):
        assert float(metrics["update_norm" if name in ("no decay", "clip") else "loss"]) != pytest.approx(float(same))


def test_the_default_trains_and_reports_every_term():
    objective, batch, state, step = default()
    metrics = check_step(objective, batch, state, step)
    total = metrics["loss/prediction"] + 0.5 * metrics["loss/causal"] + 0.01 * metrics["loss/sigreg"]
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-6)
    assert float(metrics["context_fraction"]) == pytest.approx(float(batch.context.mean()))
    assert int(metrics["fallback_scenes"]) == int((~batch.removed.any(-1)).sum())
    assert float(metrics["loss/sigreg_floor"]) == pytest.approx(np.log(96 / 3), rel=1e-5)
    assert float(metrics["ema_momentum"]) == pytest.approx(0.996)
    assert float(metrics["learning_rate"]) == pytest.approx(RATE)
    assert metrics["per_scene"].shape == (4,)


def loss_and_gradient(objective, state, batch):
    def loss(params):
        return objective.loss(params, state.target, {}, batch, jax.random.key(0), 3)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)


def test_without_an_anchor_both_readings_of_the_causal_term_are_one_to_the_bit():
    objective, batch, state, _ = default()
    one, two = (loss_and_gradient(make(causal_tokens=name), state, batch) for name in ("remaining", "context"))
    assert flat(one).keys() == flat(two).keys() and float(one[0][1][0]["loss/causal"]) > 0
    for (name, a), b in zip(flat(one).items(), flat(two).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_with_an_anchor_removed_objects_leave_the_causal_term():
    """By hand: for every visible token, whether any removed object touches it, one object and one token at a time."""
    names = ("remaining", "context")
    objective = make()
    mask = functools.partial(scenes.objects.draw, area=(0.05, 0.6), anchor=1)
    batch = as_batch(scenes.batch(frames=4, mask=mask, intervened="rerender"))
    params, target, _ = jax.jit(objective.init)(jax.random.key(0), batch)

    @jax.jit
    def parts(params, target):
        residual = objective.predict(params, objective.encode_context(params, batch), batch)[1]
        found = [make(causal_tokens=name).loss(params, target, {}, batch, jax.random.key(0), 3) for name in names]
        return residual, [objective.encode(target, clip) for clip in (batch.video, batch.intervened)], found

    target = jax.tree.map(lambda x: np.float32(1.1) * np.asarray(x), target)
    residual, (full, without), found = jax.device_get(parts(params, target))
    square = (np.asarray(residual, np.float64) - full + without) ** 2
    each = {name: [] for name in names}
    for b in range(len(square)):
        kept = {name: [] for name in names}
        for token in np.flatnonzero(batch.context[b]):
            gone = [k for k in np.flatnonzero(batch.removed[b]) if batch.object_patches[b, k, token]]
            kept["context"].append(square[b, token].sum())
            if not gone:
                kept["remaining"].append(square[b, token].sum())
        assert len(kept["remaining"]) < len(kept["context"]) or not batch.removed[b].any()
        for name in names:
            each[name].append(np.mean(kept[name]))
    for name, (total, (metrics, _)) in zip(names, found, strict=True):
        counted = [value for value, has in zip(each[name], batch.intervened_valid, strict=True) if has]
        assert float(metrics["loss/causal"]) == pytest.approx(np.mean(counted), rel=1e-5)
        rest = metrics["loss/prediction"] + 0.01 * metrics["loss/sigreg"]
        assert float(total) == pytest.approx(float(rest + 0.5 * np.mean(counted)), rel=1e-5)
    assert abs(np.mean(each["context"]) / np.mean(each["remaining"]) - 1) > 0.1


@pytest.mark.parametrize("kind, collapsed", [("kl", np.log(8)), ("epps_pulley", 0.40 * 64)])
def test_either_sigreg_tells_normal_features_from_collapsed_ones(kind, collapsed):
    objective, valid = make(sigreg_kind=kind), jnp.arange(80) < 64
    normal = np.random.default_rng(0).standard_normal((80, 8), np.float32)

    @jax.jit
    def run(features, seed):
        """(value, the least that it can be), and the value's gradient."""
        return jax.value_and_grad(lambda x: objective._sigreg(x, valid, jax.random.key(seed))[:2], has_aux=True)(
            features
        )

    ((spread, floor), gradient), ((narrow, _), slope) = run(normal, 0), run(1e-3 * np.ones_like(normal), 0)
    assert float(narrow) == pytest.approx(collapsed, rel=0.01)
    assert floor <= spread < 0.1 * narrow
    assert np.isfinite(gradient).all() and np.isfinite(slope).all()
    assert (gradient[:64] != 0).any(1).all() and (gradient[64:] == 0).all()
    assert (float(run(normal, 1)[0][0]) != float(spread)) == (kind == "epps_pulley")  # slices are drawn again


CALLED = []  # names of losses


def own(prediction, target, mask, beta=1.0, valid=None, *, per_example=False):
    """A prediction loss of the user's."""
    CALLED.append("tests.objectives.test_jepa:own")
    return losses.mse(prediction, target, mask, beta, valid, per_example=per_example)


@pytest.mark.parametrize("name", [*losses.LOSSES, "tests.objectives.test_jepa:own"])
def test_training_calls_the_losses_by_their_names(monkeypatch, name):
    def seen(name, function):
        return lambda *arguments, **options: CALLED.append(name) or function(*arguments, **options)

    for other, function in losses.LOSSES.items():
        monkeypatch.setitem(losses.LOSSES, other, seen(other, function))
    for other in ("causal_consistency", "sigreg"):
        monkeypatch.setattr(losses, other, seen(other, getattr(losses, other)))
    CALLED.clear()
    batch, objective = jax.eval_shape(lambda: as_batch(scenes.batch())), make(prediction_loss=name)
    params, target, extra = jax.eval_shape(objective.init, jax.random.key(0), batch)
    jax.eval_shape(objective.loss, params, target, extra, batch, jax.random.key(0), 0)
    assert CALLED == [name, "causal_consistency", "sigreg"]


def test_other_kinds_of_losses_and_of_causal_tokens_are_refused():
    with pytest.raises(ConfigError, match="'l2': must be written as 'module:Name'"):
        make(prediction_loss="l2")
    with pytest.raises(ConfigError, match="has no 'l2'; did you mean 'l1'"):
        make(prediction_loss="cjepa_jax.losses:l2")
    with pytest.raises(ConfigError, match="objective.sigreg_kind = 'bcs'"):
        make(sigreg_kind="bcs")
    with pytest.raises(ConfigError, match="objective.causal_tokens = 'all': must be remaining or context"):
        make(causal_tokens="all")


@pytest.mark.slow
def test_the_kind_of_sigreg_changes_its_term_only():
    _, batch, state, step = default()
    objective = make(sigreg_kind="epps_pulley")
    new = jax.jit(train_step.make(objective, optim.make(vitl.get_config().optim), lambda step: RATE, 0))(state, batch)[
        1
    ]
    old = step(state, batch)[1]
    same = set(old) - {"loss", "loss/sigreg", "loss/sigreg_floor", "grad_norm", "update_norm"}
    for name in same:
        np.testing.assert_allclose(new[name], old[name], rtol=1e-5, err_msg=name)
    change = 0.01 * (new["loss/sigreg"] - old["loss/sigreg"])
    assert float(new["loss"] - old["loss"]) == pytest.approx(float(change), abs=1e-5) and abs(change) > 1e-3
    assert float(new["loss/sigreg_floor"]) == 0


def test_gradients_reach_encoder_and_predictor_and_never_the_target():
    objective, batch, state, _ = default()

    def loss(params, target):
        return objective.loss(params, target, {}, batch, jax.random.key(0), 0)[0]

    gradient, to_target = jax.jit(jax.grad(loss, (0, 1)))(state.params, state.target)
    assert all(np.isfinite(x).all() and (x != 0).any() for x in flat(gradient).values())
    assert all((x == 0).all() for x in flat(to_target).values())


def test_the_target_starts_as_a_copy():
    _, _, state, _ = default()
    for name, value in flat(state.target).items():
        np.testing.assert_array_equal(value, flat(state.params["encoder"])[name])


def test_ema_by_its_formula_at_any_step():
    objective, _, state, _ = default()
    moved = jax.tree.map(lambda x: np.asarray(x) + 1, state.params)
    following = jax.jit(objective.next_target)
    for step, tau in ((0, 0.996), (5, 0.998), (10, 1.0)):  # half a cosine of ten steps
        new = following(moved, state.target, step)
        jax.tree.map(
            lambda n, o: np.testing.assert_allclose(n, np.asarray(o) + (1 - tau), atol=1e-6),  # noqa: B023
            new,
            state.target,
        )


def test_neighbours_leave_a_scenes_own_terms():
    """The same scene in two batches. Rows of another length too."""
    objective, batch, state, step = default()
    other = drawn(scenes=(0, 5, 6, 7))
    one, two = (step(state, b)[1]["per_scene"][0] for b in (batch, other))
    assert float(one) == pytest.approx(float(two), rel=1e-5)
    longest = int(batch.context.sum(-1).max())
    short = drawn(shapes=[(4, longest)])
    for name, value in step(state, short)[1].items():
        np.testing.assert_allclose(value, step(state, batch)[1][name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_invalid_scenes_change_nothing():
    """Four scenes, the last one a filling: as three scenes, with any pixels in the filling."""
    objective, batch, state, step = default()
    valid = jnp.arange(4) < 3
    spoilt = dataclasses.replace(
        batch, valid=valid, video=batch.video.at[3].set(7), intervened=batch.intervened.at[3].set(9)
    )
    one, two = step(state, dataclasses.replace(batch, valid=valid)), step(state, spoilt)
    for (name, a), b in zip(flat(one[0].params).items(), flat(two[0].params).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)
    assert float(one[1]["loss"]) == pytest.approx(float(two[1]["loss"]), rel=1e-6)


def test_scenes_without_an_intervened_one_leave_the_causal_term():
    objective, batch, state, step = default()
    some = dataclasses.replace(batch, intervened_valid=jnp.array([True, False, True, True]))
    spoilt = dataclasses.replace(some, intervened=batch.intervened.at[1].set(200))
    assert float(step(state, some)[1]["loss/causal"]) == float(step(state, spoilt)[1]["loss/causal"])
    assert float(step(state, some)[1]["loss/causal"]) != float(step(state, batch)[1]["loss/causal"])
    nowhere = dataclasses.replace(batch, intervened_valid=jnp.zeros(4, bool))
    assert float(step(state, nowhere)[1]["loss/causal"]) == 0


def test_a_step_that_is_not_finite_changes_nothing_and_names_the_scene():
    objective, batch, state, step = default()
    good = step(state, batch)
    new, metrics = step(good[0], dataclasses.replace(batch, video=batch.video.at[2].set(np.nan)))
    for field in ("params", "target", "opt_state"):
        for (name, a), b in zip(flat(getattr(good[0], field)).items(), flat(getattr(new, field)).values(), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert (int(new.step), int(new.skipped), int(metrics["skipped"])) == (2, 1, 1)
    assert np.isfinite(metrics["per_scene"]).tolist() == [True, True, False, True]
    again, metrics = step(new, batch)  # the next step is applied again
    assert int(metrics["skipped"]) == 0 and np.isfinite(metrics["loss"]) and int(again.skipped) == 1


@functools.cache
def multi_block():
    """I-JEPA's objective on its own masks, at almost no size."""
    method = dict(prediction_loss="elementwise", target_norm="layer_norm", causal_weight=0.0, sigreg_weight=0.0)
    objective = make(ema_kind="linear", **method)
    return started(objective, as_batch(scenes.batch(mask=multiblock.draw, intervened="none")))


def test_what_is_dropped_is_neither_seen_nor_predicted():
    """Other pixels at dropped tokens: the same predictions, another target. And the loss is of hidden tokens alone."""
    objective, batch, state, _ = multi_block()
    context, hidden = np.asarray(batch.context), np.asarray(batch.hidden)
    dropped = ~context & ~hidden
    assert not (context & hidden).any() and dropped.any() and hidden.any(1).all() and context.any(1).all()
    blank = jnp.kron(dropped.reshape(4, 1, 4, 4), np.ones((1, 1, scenes.PATCH, scenes.PATCH)))[..., None] > 0
    other = dataclasses.replace(batch, video=jnp.where(blank, 255 - batch.video, batch.video))

    @jax.jit
    def parts(batch):
        prediction, _ = objective.predict(state.params, objective.encode_context(state.params, batch), batch)
        full, none = objective.targets(state.target, batch)
        assert none is None
        total, (metrics, _) = objective.loss(state.params, state.target, {}, batch, jax.random.key(0), 0)
        return prediction, jax.nn.standardize(full, epsilon=1e-6), total, metrics

    (a, full, total, metrics), (b, changed, *_) = parts(batch), parts(other)
    np.testing.assert_array_equal(np.asarray(a)[context | hidden], np.asarray(b)[context | hidden])
    assert (np.abs(np.asarray(full - changed)).max(-1)[hidden] > 0).all()
    error = np.abs(np.asarray(a - full, np.float64))
    each = np.where(error < 1, error**2 / 2, error - 0.5).mean(-1)
    assert float(total) == pytest.approx(np.mean([each[i][hidden[i]].mean() for i in range(4)]), rel=1e-5)
    assert float(metrics["context_fraction"]) == pytest.approx(context.mean())


class Unstopped(Jepa):
    """Both sides of the error learn, and the target is the encoder itself: nothing keeps features from one constant."""

    def loss(self, params, target, extra, batch, key, step):
        prediction, _ = self.predict(params, self.encode_context(params, batch), batch)
        error = jnp.abs(prediction - jax.nn.standardize(self.encode(params, batch.video), epsilon=1e-6))
        error = error if self.prediction_loss == "l1" else losses.huber(error, self.beta)
        hidden = ~batch.context if batch.hidden is None else batch.hidden
        return losses.scene_mean(error.mean(-1), hidden), ({}, extra)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, options",
    [
        pytest.param(dict(prediction_loss="elementwise"), dict(mask=multiblock.draw), id="I-JEPA"),
        pytest.param(dict(prediction_loss="l1", ema=(0.998, 1.0)), dict(mask=tubes.draw, frames=4), id="V-JEPA"),
    ],
)
def test_without_a_stopped_averaged_target_features_collapse(method, options):
    """The negative control. (Only the average taken away, ema = (0, 0), does not collapse in so few steps.)"""
    scene_of = scenes.scene_map(intervened="none", count=160, **options)
    drawn = [scene_of(i, 0) for i in range(160)]
    batches = [as_batch(scenes.batching.collate(drawn[i : i + 16])) for i in range(0, 160, 16)]
    fields = ENCODER, PREDICTOR, 60
    common = dict(target_norm="layer_norm", causal_weight=0.0, sigreg_weight=0.0, ema_kind="linear")
    spread = {}
    for kind in (Jepa, Unstopped):
        objective, optimizer = kind(*fields, **common | method), optim.make(vitl.get_config().optim)
        state = jax.jit(functools.partial(train_step.init_state, objective, optimizer, 0))(batches[0])
        step = jax.jit(train_step.make(objective, optimizer, lambda step: 3e-3, 0))
        encode = jax.jit(lambda params: objective.encode(params, batches[-1].video).mean(1))  # noqa: B023
        fresh = losses.feature_std(encode(state.params))
        for i in range(60):
            state, _ = step(state, batches[i % 9])
        spread[kind] = float(losses.feature_std(encode(state.params)) / fresh)
    assert spread[Unstopped] < 0.15 and spread[Jepa] > 0.4, spread


def test_encode_is_of_whole_scenes_by_the_context_encoder():
    objective, batch, state, _ = default()
    encode = jax.jit(objective.encode)
    out = encode(state.params, batch.video)
    np.testing.assert_array_equal(out, encode(state.params["encoder"], batch.video))
    whole = dataclasses.replace(batch, context=np.ones(batch.context.shape, bool))
    grid = tokenizers.grid(batch.video.shape, objective.patch, objective.tubelet)
    assert out.shape == (4, np.prod(grid), 96)
    rows = Rows(np.arange(64, dtype=np.int32).reshape(1, 4, 16), np.ones((1, 4, 16), np.int32))
    context = jax.jit(objective.encode_context)(state.params, dataclasses.replace(whole, rows=rows))
    np.testing.assert_allclose(out, context, atol=1e-5)


def test_state_derives_from_the_seed():
    objective, batch, state, _ = default()
    other = as_batch(scenes.batch(scenes=(4, 5, 6, 7)))
    init = jax.jit(lambda seed, batch: train_step.init_state(objective, optax.identity(), seed, batch))
    same, another = init(0, other), init(1, batch)
    for (name, a), b in zip(flat(state.params).items(), flat(same.params).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7, err_msg=name)
    kernel = "['encoder']['tokenizer']['projection']['kernel']"
    assert (flat(state.params)[kernel] != flat(another.params)[kernel]).any()
