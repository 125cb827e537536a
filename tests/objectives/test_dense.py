"""V-JEPA 2.1 against stored outputs of the public code, and what it becomes without its additions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.models import packing, transformer
from cjepa_jax.objectives.dense import Dense, distance
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Batch
from tests.objectives import family
from tests.objectives.family import close, dense, draw, norm


@pytest.fixture(autouse=True, scope="module")
def one_compiled_block():
    """All blocks in one compiled loop: it compiles several times faster than a copy of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer, "UNROLLED", 0)
        yield


LEVELS = (2, 5, 8, 11)
RAW = dict(patch=16, tubelet=2, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
ROPE = dict(positions="rope", position_grid=(2, 16, 16))
ENCODER = dict(variant="24x12x2x48/16", levels=LEVELS, **ROPE)
ENCODER["tokenizer"] = dict(type="cjepa_jax.models.tokenizers:ClipsAndImages", **RAW)
PREDICTOR = dict(depth=4, width=24, heads=2, max_objects=1, embed_units=24, scene_code=True, **ROPE)


def batch_of(video, context, hidden=None, objects=1):
    """A batch with these context tokens, bool [B, N], in rows of the whole grid."""
    scenes, tokens = context.shape
    fields = dict.fromkeys(Batch.__dataclass_fields__) | {"video": video, "context": context, "hidden": hidden}
    fields |= {"object_patches": np.zeros((scenes, objects, tokens), bool), "valid": np.ones(scenes, bool)}
    fields |= {"removed": np.zeros((scenes, objects), bool), "rows": packing.unpacked(jnp.asarray(context))}
    return Batch(**fields)


def chosen(index, tokens=32):
    found = np.zeros((len(index), tokens), bool)
    np.put_along_axis(found, index, True, axis=1)
    return found


def boxes(weight):
    return weight.transpose(2, 3, 4, 1, 0).reshape(-1, len(weight))


def block(p, at):
    return {
        "norm1": norm(p, f"{at}.norm1"),
        "norm2": norm(p, f"{at}.norm2"),
        "attention": {"qkv": dense(p, f"{at}.attn.qkv"), "out": dense(p, f"{at}.attn.proj")},
        "mlp": {"up": dense(p, f"{at}.mlp.fc1"), "down": dense(p, f"{at}.mlp.fc2")},
    }


def encoder_parameters(p):
    tokenizer = {"clip_code": p["video_mod_embed"].ravel(), "image_code": p["img_mod_embed"].ravel()}
    for ours, name in (("projection", "patch_embed"), ("image_projection", "patch_embed_img")):
        tokenizer[ours] = {"kernel": boxes(p[f"{name}.proj.weight"]), "bias": p[f"{name}.proj.bias"]}
    norms = {f"norm{i}": norm(p, f"norms_block.{i}") for i in range(4)}
    blocks = family.layers([block(p, f"blocks.{i}") for i in range(12)])
    return {"tokenizer": tokenizer, "stack": norms | {"blocks": blocks}}


def predictor_parameters(p):
    blocks = family.layers([block(p, f"predictor_blocks.{i}") for i in range(4)])
    return {
        "embed_up": dense(p, "predictor_embed.0"),
        "embed": dense(p, "predictor_embed.2"),
        "mask_token": p["mask_tokens.0"].ravel(),
        "object_embedding": np.zeros((1, 24), np.float32),
        "clip_code": p["video_mod_embed"].ravel(),
        "image_code": p["img_mod_embed"].ravel(),
        "stack": {"blocks": blocks, "norm": norm(p, "predictor_norm")},
        "prediction": dense(p, "predictor_proj"),
        "residual": dense(p, "predictor_proj_context"),
    }


@functools.cache
def published():
    """(numbers, arrays, objective, parameters, the two mask sets' batches)."""
    numbers, arrays = family.stored("vjepa2_1")
    objective = Dense(encoder=ENCODER, predictor=PREDICTOR, steps=1, ramp=(15_000, 30_000))
    of = {part: family.parameters(numbers[part], numbers["seeds"][part]) for part in ("encoder", "predictor")}
    params = {"encoder": encoder_parameters(of["encoder"]), "predictor": predictor_parameters(of["predictor"])}
    video = draw(1, 2, 3, 4, 64, 64).transpose(0, 2, 3, 4, 1)
    batches = [batch_of(video, chosen(arrays[f"context{i}"]), chosen(arrays[f"hidden{i}"])) for i in (1, 2)]
    made = jax.eval_shape(objective.init, jax.random.key(0), batches[0])[0]
    assert jax.tree.map(np.shape, made) == jax.tree.map(np.shape, params)
    return numbers, arrays, objective, params, batches


def test_the_public_codes_outputs_and_losses():
    numbers, arrays, objective, params, batches = published()
    encoder = objective._encoder
    apply = jax.jit(lambda scene: encoder.apply({"params": params["encoder"]}, scene))
    close(apply(batches[0].video), arrays["encoded_levels"])
    close(apply(draw(2, 2, 3, 1, 64, 64).transpose(0, 2, 3, 4, 1)), arrays["image_levels"])

    @jax.jit
    def both(batch):
        wanted = objective._wanted(params["encoder"], batch)
        hidden, context, terms = objective._terms(params, wanted, batch, batch.hidden)
        last = objective.encode(params, batch.video)
        return (context, hidden, objective._predict(params, context, batch)[1], last), terms

    found = []
    for i, batch in enumerate(batches, start=1):
        arrays_of, terms = both(batch)
        context, hidden, visible, last = map(np.asarray, arrays_of)
        found.append(terms)
        close(last, arrays["encoded_last"])
        place = [(arrays[f"{name}{i}"] + [[0], [32]]).ravel() for name in ("context", "hidden")]
        if i == 1:
            close(context.reshape(64, -1)[place[0]], arrays["encoded_context1"].reshape(-1, 96))
        close(hidden.reshape(64, -1)[place[1]], arrays[f"predicted{i}"].reshape(-1, 96))
        close(visible.reshape(64, -1)[place[0]], arrays[f"context_predicted{i}"].reshape(-1, 96))
        near = np.asarray(distance(batch.hidden, (2, 4, 4))).ravel()[place[0]]
        np.testing.assert_allclose(np.sqrt(near), arrays[f"distance{i}"].ravel(), rtol=1e-6)
    for name, wanted in (("prediction", "loss_prediction"), ("visible", "loss_context")):
        close(np.mean([terms[name].mean() for terms in found]), numbers[wanted])


@pytest.mark.slow
def test_the_public_codes_gradients():
    numbers, _, objective, params, batches = published()

    def loss(params, target):
        found = [objective.loss(params, target, {}, batch, jax.random.key(0), 30_000) for batch in batches]
        return sum(total for total, _ in found) / 2, [metrics for _, (metrics, _) in found]

    (total, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, params["encoder"])
    close(np.mean([each["loss/prediction"] for each in metrics]), numbers["loss_prediction"])
    close(np.mean([each["loss/visible"] for each in metrics]), numbers["loss_context"])
    close(total, numbers["loss"])
    for part, tree in (("encoder", encoder_parameters), ("predictor", predictor_parameters)):
        names, found = sorted(numbers[part]), {}
        numbered = tree({n: np.full(numbers[part][n], j, np.float32) for j, n in enumerate(names)})
        for one, other in zip(jax.tree.leaves(gradient[part]), jax.tree.leaves(numbered), strict=True):
            for j in np.unique(other):
                found[names[int(j)]] = float(np.sqrt((np.asarray(one)[other == j] ** 2).sum()))
        for name, wanted in numbers[f"gradnorm_{part}"].items():
            if wanted is not None and name != names[0]:  # number 0 is also the object embedding's
                assert found[name] == pytest.approx(wanted, rel=5e-5, abs=1e-7), name


def test_the_weight_of_visible_tokens_rises_as_published():
    numbers, _, objective, *_ = published()
    for step, wanted in numbers["ramp"].items():
        assert float(objective._context_weight(int(step))) == pytest.approx(wanted, abs=1e-7)


def test_distances_are_those_of_all_pairs():
    hidden = np.random.default_rng(0).random((4, 24)) < [[0.1], [0.3], [0.9], [0.0]]
    hidden[0, 5], grid = True, (2, 3, 4)
    place = np.stack(np.unravel_index(np.arange(24), grid), -1)
    pairs = np.linalg.norm(place[:, None] - place, axis=-1)
    wanted = np.where(hidden[:, None], pairs, np.inf).min(-1)
    np.testing.assert_allclose(distance(hidden, grid), wanted, rtol=1e-6)


SIZES = dict(encoder=dict(variant="24x1x2x48/8", positions="rope_tile"), steps=10, ema=(0.99925, 0.99925))
SIZES["predictor"] = dict(depth=1, width=24, heads=2, max_objects=1, positions="rope_tile")


@pytest.mark.slow
def test_without_its_additions_it_is_v_jepa_2():
    plain = Jepa(**SIZES, prediction_loss="l1", target_norm="layer_norm", causal_weight=0.0, sigreg_weight=0.0)
    level = SIZES | {"encoder": SIZES["encoder"] | {"levels": (0,)}}
    video = np.random.default_rng(1).integers(0, 256, (3, 4, 24, 24, 3), np.uint8)
    context = np.random.default_rng(2).random((3, 18)) < 0.5
    batch, key = batch_of(video, context), jax.random.key(0)
    params, target, _ = plain.init(key, batch)

    def rename(tree, old, new):
        stack = {new if name == old else name: value for name, value in tree["stack"].items()}
        return tree | {"stack": stack}

    own = params | {"encoder": rename(params["encoder"], "norm", "norm0")}
    step = lambda objective: jax.jit(  # noqa: E731
        jax.value_and_grad(lambda p, t: objective.loss(p, t, {}, batch, key, 5)[0])
    )
    wanted, slope = step(plain)(params, target)
    found, own_slope = step(Dense(**level, context_weight=0.0))(own, rename(target, "norm", "norm0"))
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)
    own_slope = own_slope | {"encoder": rename(own_slope["encoder"], "norm0", "norm")}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), own_slope, slope)


@pytest.mark.slow
def test_images_add_the_loss_of_one_frame_of_each_clip():
    objective = Dense(**SIZES, images=0.25, ramp=(0, 1))
    video = np.random.default_rng(1).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
    context = np.random.default_rng(2).random((2, 32)) < 0.5
    batch = batch_of(video, context, ~context)
    params, target, _ = jax.jit(objective.init)(jax.random.key(0), batch)
    terms, stats = jax.jit(objective.per_example_terms)(params, target, {}, batch, jax.random.key(3))
    frame = np.asarray(jax.random.randint(jax.random.key(3), (2,), 0, 4))
    plane = lambda mask: mask.reshape(2, 2, 16)[np.arange(2), frame // 2]  # noqa: E731
    image = batch_of(batch.video[np.arange(2), frame][:, None], plane(batch.context), plane(batch.hidden))
    wanted, _ = jax.jit(dataclasses.replace(objective, images=0.0).per_example_terms)(
        params, target, {}, image, jax.random.key(3)
    )
    for name in ("prediction", "visible"):
        np.testing.assert_allclose(terms[f"image_{name}"], wanted[name], rtol=1e-5)
    total, (metrics, _) = objective.reduce(terms, stats, {}, jax.random.key(0), 30_000)
    clip = terms["prediction"] + 0.5 * terms["visible"]
    still = terms["image_prediction"] + 0.5 * terms["image_visible"]
    assert float(total) == pytest.approx(float((0.75 * clip + 0.25 * still).mean()), rel=1e-6)
    assert float(metrics["loss/prediction"]) == pytest.approx(float(terms["prediction"].mean()), rel=1e-6)


@pytest.mark.parametrize(
    "field, value", [("prediction_loss", "mse"), ("causal_weight", 0.5), ("ramp", (5, 2)), ("images", 1.0)]
)
def test_values_that_cannot_work_are_refused(field, value):
    with pytest.raises(ConfigError, match=rf"^objective.{field} = "):
        Dense(**SIZES, **{field: value})
