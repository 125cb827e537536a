"""Point-JEPA against stored outputs of the public code."""

import functools

import jax
import numpy as np
import pytest

from cjepa_jax.data import clouds
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.points import PointPredictor
from cjepa_jax.objectives.points import PointJepa
from cjepa_jax.types import Batch
from tests.objectives import family
from tests.objectives.family import close, dense, norm

ENCODER = dict(variant="24x2x2x96/1", groups=16, neighbours=8)
PREDICTOR = dict(depth=2, width=16, heads=2)
T = "tokenizer.embedding.encoder"


def batch_of(video, context, hidden, valid=None):
    fields = dict.fromkeys(Batch.__dataclass_fields__) | {"video": video, "context": context, "hidden": hidden}
    return Batch(**fields | {"valid": np.ones(len(video), bool) if valid is None else valid})


def places(p, at):
    return {"up": dense(p, f"{at}positional_encoding.0"), "down": dense(p, f"{at}positional_encoding.2")}


def trunk(p, at):
    def block(i):
        own = f"{at}.blocks.{i}"
        return {
            "norm1": norm(p, f"{own}.norm1"),
            "norm2": norm(p, f"{own}.norm2"),
            "attention": {"qkv": dense(p, f"{own}.attn.qkv"), "out": dense(p, f"{own}.attn.proj")},
            "mlp": {"up": dense(p, f"{own}.mlp.fc1"), "down": dense(p, f"{own}.mlp.fc2")},
        }

    return {f"block{i}": block(i) for i in range(2)} | {"norm": norm(p, f"{at}.norm")}


def parameters(p):
    """The public names' parameters in our layout: (params, target)."""
    p = p | {name: array[..., 0] for name, array in p.items() if array.ndim == 3 and name.startswith(T)}
    tokenizer = {
        f"in{i}": {"kernel": p[f"{T}.{conv}_conv.0.weight"].T} for i, conv in enumerate(("first", "second"))
    } | {f"norm{i}": {"BatchNorm_0": norm(p, f"{T}.{conv}_conv.1")} for i, conv in enumerate(("first", "second"))}
    tokenizer |= {f"out{i}": dense(p, f"{T}.{conv}_conv.3") for i, conv in enumerate(("first", "second"))}
    predictor = {
        "mask_token": p["predictor.mask_token"].ravel(),
        "embed": dense(p, "predictor.predictor_embed"),
        "places": places(p, "predictor."),
        "trunk": trunk(p, "predictor.predictor"),
        "prediction": dense(p, "predictor.predictor_proj"),
    }
    encoder = {"tokenizer": tokenizer, "places": places(p, ""), "trunk": trunk(p, "student")}
    target = trunk(p, "teacher.ema_model") if "teacher.ema_model.norm.weight" in p else encoder["trunk"]
    return {"encoder": encoder, "predictor": predictor}, target


@functools.cache
def published():
    numbers, arrays = family.stored("point_jepa")
    objective = PointJepa(encoder=ENCODER, predictor=PREDICTOR, steps=10)
    params, target = parameters(family.parameters(numbers["parameters"], numbers["seed"]))
    video = np.stack([clouds.grouped(points, 16, 8) for points in arrays["points"].astype(np.float64)])[:, None]
    context = np.zeros((3, 16), bool)
    context[:, arrays["context_indices"]] = True
    runs = [np.isin(np.arange(16), run) & np.ones((3, 1), bool) for run in arrays["target_indices"]]
    batches = [batch_of(video, context, hidden) for hidden in runs]
    made, aim, extra = jax.eval_shape(objective.init, jax.random.key(0), batches[0])
    assert jax.tree.map(np.shape, (made, aim)) == jax.tree.map(np.shape, (params, target))
    extra = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), extra)
    return numbers, arrays, objective, (params, target, extra), batches


def test_groups_and_their_order_are_the_public_codes():
    _, arrays, _, _, batches = published()
    ordered = np.take_along_axis(arrays["centres"], arrays["order"][..., None].astype(int), axis=1)
    np.testing.assert_allclose(batches[0].video[:, 0, :, 0], ordered, atol=1e-6)


def test_the_public_codes_tokens_predictions_and_loss():
    numbers, arrays, objective, (params, target, extra), batches = published()

    def seen(batch):
        variables = {"params": params["encoder"], **extra}
        apply = functools.partial(objective._encoder.apply, variables)
        tokens, _ = apply(batch.video, batch.valid, True, method="tokens", mutable=["batch_stats"])
        context = apply(*tokens, batch.context, method="attend")[0]
        of = {"params": params["predictor"]}
        prediction = objective._predictor.apply(of, context, batch.video[:, 0, :, 0], batch.context, batch.hidden)
        total = objective.loss(params, target, extra, batch, jax.random.key(0), 0)[0]
        return tokens[0], prediction, objective.targets(params, target, tokens), total

    apply = jax.jit(seen)
    order, totals = arrays["order"][..., None].astype(int), []
    for i, batch in enumerate(batches):
        tokens, prediction, wanted, total = map(np.asarray, apply(batch))
        totals.append(total)
        close(tokens, np.take_along_axis(arrays["tokens"], order, axis=1))
        run = arrays["target_indices"][i]
        close(prediction[:, run], arrays["prediction"][i])
        close(wanted[:, run], arrays["target"][i])
    close(np.mean(totals), numbers["loss"])


@pytest.mark.slow
def test_the_public_codes_gradients():
    numbers, _, objective, (params, target, extra), batches = published()

    def loss(params):
        found = [objective.loss(params, target, extra, batch, jax.random.key(0), 0) for batch in batches]
        return sum(total for total, _ in found) / 4

    gradient = jax.jit(jax.grad(loss))(params)
    names, found = sorted(numbers["parameters"]), {}
    numbered = {n: np.full(numbers["parameters"][n], j, np.float32) for j, n in enumerate(names)}
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(parameters(numbered)[0]), strict=True):
        for j in np.unique(other):
            found[names[int(j)]] = float(np.sqrt((np.asarray(one)[other == j] ** 2).sum()))
    for name, wanted in numbers["gradnorm"].items():
        if wanted is not None and name in found:
            # A bias before a norm by the batch's mean has no gradient but rounding.
            assert found[name] == pytest.approx(wanted, rel=5e-5, abs=2e-7), name


@pytest.mark.slow
def test_filling_scenes_change_nothing():
    _, _, objective, (params, target, extra), batches = published()
    step = jax.jit(lambda batch: objective.loss(params, target, extra, batch, jax.random.key(0), 0))
    batch = batches[0]
    total, (_, following) = step(batch)
    video = np.concatenate([batch.video, 9 + 3 * batch.video[:1]])
    masks = [np.concatenate([mask, mask[:1]]) for mask in (batch.context, batch.hidden)]
    filled = batch_of(video, *masks, np.array([True] * 3 + [False]))
    other, (_, changed) = step(filled)
    assert float(other) == pytest.approx(float(total), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), following, changed)


@pytest.mark.slow
def test_with_cross_attention_hidden_groups_see_visible_ones_and_no_others():
    of = dict(depth=1, width=12, heads=2, out=8, attention="cross")
    predictor = PointPredictor(**of)
    rng = np.random.default_rng(0)
    tokens, centres = rng.normal(size=(2, 6, 8)).astype(np.float32), rng.normal(size=(2, 6, 3)).astype(np.float32)
    context, hidden = np.array([[1, 1, 0, 0, 0, 0]] * 2, bool), np.array([[0, 0, 1, 1, 0, 0]] * 2, bool)
    params = jax.jit(predictor.init)(jax.random.key(0), tokens, centres, context, hidden)
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), params)
    apply = jax.jit(predictor.apply)
    found = np.asarray(apply(params, tokens, centres, context, hidden))[:, 2:4]
    other = tokens.copy()
    other[:, 2:] += 5  # neither hidden nor dropped tokens are looked at
    np.testing.assert_array_equal(np.asarray(apply(params, other, centres, context, hidden))[:, 2:4], found)
    other[:, 0] += 1
    assert np.abs(np.asarray(apply(params, other, centres, context, hidden))[:, 2:4] - found).max() > 1e-3
    with pytest.raises(ConfigError, match=r"^objective.predictor.attention = 'both': must be joint or cross"):
        PointPredictor(**of | {"attention": "both"}).init(jax.random.key(0), tokens, centres, context, hidden)
