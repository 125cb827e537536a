"""World models against stored outputs of the public code, and what must hold for each of their options."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.world import World
from cjepa_jax.types import Batch
from tests.objectives import family
from tests.objectives.family import close, dense, draw, norm

VIT = dict(variant="24x2x2x48/14", epsilon=1e-12, tubelet=1)
RAW = dict(type="cjepa_jax.models.tokenizers:ClassToken", patch=14, mean=(0.0,) * 3, std=(1 / 255,) * 3)
LEWM = dict(
    encoder=dict(VIT, tokenizer=RAW),
    predictor=dict(type="cjepa_jax.models.dynamics:Causal", history=3, depth=2, heads=3, head=8, hidden=32),
    latent="first",
    projection=24,
    projector=dict(hidden=(40,), activation="gelu"),
    predictor_projector=dict(hidden=(40,), activation="gelu"),
    sigreg_weight=0.09,
    slices=32,
)


def batch_of(video, actions, proprio=None, valid=None):
    """A batch with what world models use."""
    fields = dict.fromkeys(Batch.__dataclass_fields__) | {"video": video, "actions": actions, "proprio": proprio}
    return Batch(**fields | {"valid": np.ones(len(video), bool) if valid is None else valid})


def projector(p, name):
    return {
        "dense0": dense(p, f"{name}.net.0"),
        "norm0": {"BatchNorm_0": norm(p, f"{name}.net.1")},
        "out": dense(p, f"{name}.net.3"),
    }


def lewm_parameters(p):
    """The public names' parameters in our layout."""

    def block(i):
        at = f"encoder.layers.{i}"
        parts = [dense(p, f"{at}.attention.{name}_proj") for name in "qkv"]
        return {
            "norm1": norm(p, f"{at}.layernorm_before"),
            "norm2": norm(p, f"{at}.layernorm_after"),
            "attention": {
                "qkv": {key: np.concatenate([part[key] for part in parts], -1) for key in ("kernel", "bias")},
                "out": dense(p, f"{at}.attention.o_proj"),
            },
            "mlp": {"up": dense(p, f"{at}.mlp.fc1"), "down": dense(p, f"{at}.mlp.fc2")},
        }

    def modulated(i):
        at = f"predictor.transformer.layers.{i}"
        change = dense(p, f"{at}.adaLN_modulation.1")
        return {
            "modulation_kernel": change["kernel"],
            "modulation_bias": change["bias"],
            "norm1": norm(p, f"{at}.attn.norm"),
            "norm2": norm(p, f"{at}.mlp.net.0"),
            "qkv_kernel": p[f"{at}.attn.to_qkv.weight"].T,
            "out": dense(p, f"{at}.attn.to_out.0"),
            "up": dense(p, f"{at}.mlp.net.1"),
            "down": dense(p, f"{at}.mlp.net.4"),
        }

    at = "encoder.embeddings"
    patches = p[f"{at}.patch_embeddings.projection.weight"].transpose(2, 3, 1, 0).reshape(-1, 24)
    return {
        "encoder": {
            "tokenizer": {
                "projection": {"kernel": patches, "bias": p[f"{at}.patch_embeddings.projection.bias"]},
                "class_token": p[f"{at}.cls_token"],
                "positions": p[f"{at}.position_embeddings"],
            },
            "stack": {"blocks": family.layers([block(0), block(1)]), "norm": norm(p, "encoder.layernorm")},
        },
        "projector": projector(p, "projector"),
        "predictor": {
            "action": {
                "mix": {
                    "kernel": p["action_encoder.patch_embed.weight"][..., 0].T,
                    "bias": p["action_encoder.patch_embed.bias"],
                },
                "up": dense(p, "action_encoder.embed.0"),
                "down": dense(p, "action_encoder.embed.2"),
            },
            "positions": p["predictor.pos_embedding"],
            "block0": modulated(0),
            "block1": modulated(1),
            "norm": norm(p, "predictor.transformer.norm"),
        },
        "predictor_projector": projector(p, "pred_proj"),
    }


@functools.cache
def lewm():
    """(numbers, arrays, objective, parameters, batch, running statistics before training)."""
    numbers, arrays = family.stored("lewm")
    objective = World(**LEWM, steps=10)
    params = lewm_parameters(family.parameters(numbers["parameters"], numbers["seed"]))
    video = draw(1, 4, 4, 3, 28, 28).transpose(0, 1, 3, 4, 2)
    batch = batch_of(video, draw(2, 4, 4, 10))
    made, _, extra = jax.eval_shape(objective.init, jax.random.key(0), batch)
    assert jax.tree.map(np.shape, made) == jax.tree.map(np.shape, params)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), extra)
    return numbers, arrays, objective, params, batch, fresh


def test_lewm_gives_the_public_codes_loss_and_gradients(monkeypatch):
    numbers, arrays, objective, params, batch, extra = lewm()
    slices = draw(3, 24, 32)
    slices /= np.linalg.norm(slices, axis=0)
    monkeypatch.setattr(losses, "random_slices", lambda *_: slices)

    def loss(params):
        return objective.loss(params, {}, extra, batch, jax.random.key(0), 0)

    (total, (metrics, following)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(metrics["loss/teacher"], numbers["prediction"])
    close(metrics["loss/epps_pulley"], numbers["sigreg"])
    close(total, numbers["loss"])
    wanted = lewm_parameters(
        {name: np.full(shape, j, np.float32) for j, (name, shape) in enumerate(sorted(numbers["parameters"].items()))}
    )
    names = sorted(numbers["parameters"])
    found = dict.fromkeys(names, 0.0)  # squared norms: each element of `wanted` says which parameter it belongs to
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        for j in np.unique(other):
            found[names[int(j)]] += float((np.asarray(one)[other == j] ** 2).sum())
    for name, value in numbers["gradnorm"].items():
        assert abs(np.sqrt(found[name]) - value) < 2e-5 * max(numbers["gradnorm"].values()), name
    mean = following["batch_stats"]["projector"]["norm0"]["BatchNorm_0"]["mean"]
    close(mean, arrays["projector/net/1/running_mean"])  # momentum 0.1 from 0


def test_lewm_gives_the_public_codes_latents_predictions_and_rollout():
    _, arrays, objective, params, batch, _ = lewm()
    stats = {}
    for ours, theirs in (("projector", "projector"), ("predictor_projector", "pred_proj")):
        running = {key: arrays[f"{theirs}/net/1/running_{key}"] for key in ("mean", "var")}
        stats[ours] = {"norm0": {"BatchNorm_0": running}}
    extra = {"batch_stats": stats}
    z = jax.jit(objective.latents)(params | extra, batch.video)
    close(z, arrays["eval_emb"])
    predict = jax.jit(objective.predict)
    for t in (1, 2, 3):
        close(predict(params, extra, z[:, :t], batch.actions[:, :t]), arrays["eval_pred"][:, t - 1])
    actions = draw(5, 2, 3, 5, 10)
    rolled = jnp.repeat(z[:2, :1], 3, axis=0)  # three candidates each
    flat = actions.reshape(6, 5, 10)
    for t in range(5):
        following = predict(params, extra, rolled, flat[:, : t + 1])
        rolled = jnp.concatenate([rolled, following[:, None]], axis=1)
    close(rolled.reshape(2, 3, 6, 24), arrays["rollout"])


AC = dict(
    encoder=dict(variant="24x1x2x48/8", tubelet=1),
    predictor=dict(type="cjepa_jax.models.dynamics:Interleaved", history=3, depth=2, width=48, heads=3),
    latent="tokens",
    target="frozen",
    target_norm="layer_norm",
    distance="l1",
    proprio=True,
    rollout=2,
    rollout_weight=1.0,
)


@functools.cache
def ac():
    """(numbers, arrays, objective, parameters of the predictor)."""
    numbers, arrays = family.stored("vjepa2_ac")
    p = family.parameters(numbers["parameters"], numbers["seed"])

    def block(i):
        at = f"predictor_blocks.{i}"
        return {
            "norm1": norm(p, f"{at}.norm1"),
            "norm2": norm(p, f"{at}.norm2"),
            "attention": {"qkv": dense(p, f"{at}.attn.qkv"), "out": dense(p, f"{at}.attn.proj")},
            "mlp": {"up": dense(p, f"{at}.mlp.fc1"), "down": dense(p, f"{at}.mlp.fc2")},
        }

    params = {
        "embed": dense(p, "predictor_embed"),
        "action": dense(p, "action_encoder"),
        "state": dense(p, "state_encoder"),
        "stack": {"blocks": family.layers([block(0), block(1)]), "norm": norm(p, "predictor_norm")},
        "prediction": dense(p, "predictor_proj"),
    }
    return numbers, arrays, World(**AC, steps=10), params


class Given(World):
    """A world model whose encoder's tokens are given in place of the video."""

    def _tokens(self, params, frames):
        return frames


def test_vjepa2_ac_gives_the_public_codes_losses_predictions_and_gradients():
    numbers, arrays, objective, params = ac()
    objective = Given(**AC, steps=10)
    h = arrays["h"].reshape(2, 4, 16, 24)
    actions = np.pad(arrays["actions"], ((0, 0), (0, 1), (0, 0)))
    batch, extra = batch_of(h, actions, arrays["states"]), {"batch_stats": {}}

    def loss(predictor):
        return objective.loss({"encoder": {}, "predictor": predictor}, {}, extra, batch, None, 0)

    (_, (metrics, _)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(metrics["loss/teacher"], numbers["loss_teacher"])
    close(metrics["loss/rollout"], numbers["loss_rollout"])
    for theirs, ours in (
        ("predictor_embed.weight", gradient["embed"]["kernel"]),
        ("state_encoder.bias", gradient["state"]["bias"]),
    ):
        close(np.linalg.norm(ours), numbers["gradnorm"][theirs], max(filter(None, numbers["gradnorm"].values())))
    predict = jax.jit(lambda z, a, s: objective.predict({"predictor": params}, extra, z, a, s))
    teacher = arrays["z_tf"].reshape(2, 3, 16, 24)
    for t in (1, 2, 3):
        found = predict(h[:, :t], arrays["actions"][:, :t], arrays["states"][:, :t])
        close(found, teacher[:, t - 1])
    first = np.concatenate([h[:, :1], teacher[:, :1]], axis=1)
    close(predict(first, arrays["actions"][:, :2], arrays["states"][:, :2]), arrays["z_ar"].reshape(2, 2, 16, 24)[:, 1])
    raw = jax.jit(objective.networks["predictor"].apply)(
        {"params": params}, h[:, :3], arrays["actions"], arrays["states"][:, :3]
    )
    close(raw.reshape(2, 48, 24), arrays["raw"])


def test_what_comes_later_changes_no_bit_of_an_interleaved_prediction():
    _, arrays, objective, params = ac()
    h, network = jnp.asarray(arrays["h"].reshape(2, 4, 16, 24)[:, :3]), objective.networks["predictor"]
    apply = jax.jit(lambda z, a, s: network.apply({"params": params}, z, a, s))
    told = jnp.asarray(arrays["actions"]), jnp.asarray(arrays["states"][:, :3])
    wanted = apply(h, *told)
    for other in (apply(h.at[:, 2].multiply(-2), *told), apply(h, *(x.at[:, 2].add(1) for x in told))):
        assert (np.asarray(other)[:, :2] == np.asarray(wanted)[:, :2]).all()
        assert (np.asarray(other)[:, 2] != np.asarray(wanted)[:, 2]).any((0, 2)).all()


@pytest.mark.parametrize("samples, name", [("first", "default"), ("all", "all_t"), ("space", "spatial")])
def test_the_terms_against_collapse_are_those_of_eb_jepa(samples, name):
    numbers, arrays = family.stored("eb_jepa")
    wanted = numbers["regulariser"][name]
    weights = dict(covariance_weight=8.0, variance_weight=16.0, similarity_weight=12.0, inverse_weight=1.0)
    objective = World(**AC | weights | dict(samples=samples, inverse_hidden=16), steps=10)
    p = family.parameters(numbers["idm_parameters"], numbers["idm_seed"])
    place = np.arange(20).reshape(5, 4).T.ravel()  # their features are channel by channel, ours token by token
    kernel = p["net.0.weight"].T.reshape(2, 20, 16)[:, place].reshape(40, 16)
    inverse = {"dense0": {"kernel": kernel, "bias": p["net.0.bias"]}, "out": dense(p, "net.2")}
    state, actions = draw(11, 6, 5, 4, 2, 2), draw(12, 6, 2, 4).transpose(0, 2, 1)
    batch = batch_of(np.zeros(6), actions)

    def total(state):
        z = state.transpose(0, 2, 3, 4, 1).reshape(6, 4, 4, 5)  # [B, T, tokens, D]
        terms = objective._regularisers({"inverse": inverse}, z, batch, jax.random.key(0))
        return sum(getattr(objective, f"{key}_weight") * value for key, value in terms.items()), terms

    (value, terms), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(state))
    names = {"covariance": "cov_loss", "variance": "std_loss", "similarity": "sim_loss_t", "inverse": "idm_loss"}
    for ours, theirs in names.items():
        close(terms[ours], wanted[theirs])
    close(value, wanted["total"])
    close(np.linalg.norm(gradient), wanted["grad_norm"])
    if name == "default":
        close(gradient, arrays["grad_state_default"])


class Linear(nn.Module):
    """eb_jepa's toy predictor: tanh of a linear map of the state and of the action, the same for all tokens."""

    dtype: str = "float32"
    history: int = 1

    @nn.compact
    def __call__(self, latents, actions, proprio=None):
        a = self.param("a", nn.initializers.zeros, (latents.shape[-1], actions.shape[-1]))
        w = self.param("w", nn.initializers.zeros, (latents.shape[-1],) * 2)
        return jnp.tanh(latents @ w.T + (actions @ a.T)[:, :, None])


class Straight(nn.Module):
    """The next frame if the last motion lasts. Nothing moves at the first frame."""

    dtype: str = "float32"
    history: int = 9

    @nn.compact
    def __call__(self, latents, actions, proprio=None):
        before = jnp.concatenate([latents[:, :1], latents[:, :-1]], axis=1)
        return 2 * latents - before


class Shown(World):
    """Its latents are the frames themselves."""

    def _tokens(self, params, frames):
        return frames


ROLLED = dict(rollout=3, rollout_weight=1.0, teacher_weight=0.0, distance="mse", target="none", target_norm="none")
TOY = AC | ROLLED | dict(predictor=dict(type=f"{__name__}:Linear"), proprio=False)


def test_unrolled_predictions_are_those_of_eb_jepa():
    numbers = family.stored("eb_jepa")[0]["unroll"]
    weights = dict(covariance_weight=8.0, variance_weight=16.0, similarity_weight=12.0, samples="first")
    objective = Given(**TOY | weights, steps=10)
    params = {"predictor": {"a": draw(700, 5, 2) / np.sqrt(2), "w": draw(701, 5, 5) / np.sqrt(5)}}
    params["w"] = draw(600, 5, 3) / np.sqrt(3)
    observed, actions = draw(15, 6, 3, 4, 2, 2).transpose(0, 2, 3, 4, 1).reshape(6, 4, 4, 3), draw(12, 6, 2, 4)

    def loss(params):
        batch = batch_of(jnp.tanh(observed @ params["w"].T), actions.transpose(0, 2, 1))
        return objective.loss(params, {}, {"batch_stats": {}}, batch, jax.random.key(0), 0)[1][0]["loss/rollout"]

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    close(value, numbers["prediction"])
    for name in "aw":
        close(np.linalg.norm(gradient["predictor"][name]), numbers["grads"][f"pred.{name}"])


def test_a_rollout_starts_from_the_given_true_frames():
    """With a predictor that adds what happened last, two given frames of a straight motion are enough, one is not."""
    errors = {}
    frames = jnp.asarray(np.arange(6)[None, :, None] * np.array([[[1.0, -2.0]], [[0.5, 3.0]]]), jnp.float32)
    for given in (1, 2):
        kind = dict(type=f"{__name__}:Straight")
        more = dict(rollout=3, rollout_weight=1.0, given=given, predictor=kind, latent="flat")
        objective = Shown(**SMALL | dict(projector={}, sigreg_weight=0.0) | more, steps=10)
        batch = batch_of(frames, np.zeros((2, 6, 1), np.float32))
        params = {"predictor": {}}
        loss = jax.jit(objective.loss)(params, {}, {"batch_stats": {}}, batch, jax.random.key(0), 0)[1][0]
        errors[given] = float(loss["loss/rollout"])
    # One frame: no motion is known, so the frame is repeated. The error of step k is the mean of (k v)^2.
    still = np.mean([k**2 for k in (1, 2, 3)]) * np.mean(np.square([1.0, -2.0, 0.5, 3.0]))
    assert errors[2] < 1e-9 and abs(errors[1] - still) < 1e-4


SMALL = dict(
    encoder=dict(variant="12x1x2x16/4", tubelet=1),
    predictor=dict(type="cjepa_jax.models.dynamics:Causal", history=3, depth=1, heads=2, head=4, hidden=8),
    projection=6,
    projector=dict(hidden=(8,)),
    sigreg_weight=0.1,
    slices=8,
)
EVERYTHING = SMALL | dict(
    rollout=2, rollout_weight=1.0, variance_weight=1.0, covariance_weight=1.0, similarity_weight=1.0,
    inverse_weight=1.0, inverse_hidden=4, target="ema",
)  # fmt: skip


def small_batch(**more):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (6, 4, 8, 8, 3), np.uint8)
    return batch_of(video, rng.standard_normal((6, 4, 2), np.float32), **more)


@functools.cache
def everything():
    """(objective, its state, the compiled loss with gradient)."""
    objective = World(**EVERYTHING, steps=10)
    state = jax.jit(objective.init)(jax.random.key(0), small_batch())
    loss = jax.jit(jax.value_and_grad(objective.loss, argnums=(0, 1), has_aux=True))
    return objective, state, loss


def test_the_loss_is_the_weighted_sum_of_its_terms_and_reaches_every_parameter():
    objective, (params, target, extra), loss = everything()
    (total, (metrics, following)), (gradient, of_target) = loss(
        params, target, extra, small_batch(), jax.random.key(1), 0
    )
    gradient, of_target, following = jax.device_get((gradient, of_target, following))
    names = ("teacher", "rollout", "sigreg", "variance", "covariance", "similarity", "inverse")
    logged = {name: f"loss/{'epps_pulley' if name == 'sigreg' else name}" for name in names}
    terms = {name: float(metrics[key]) for name, key in logged.items()}
    assert set(logged.values()) == {name for name in metrics if name.startswith("loss/")}
    np.testing.assert_allclose(total, sum(getattr(objective, f"{n}_weight") * v for n, v in terms.items()), rtol=1e-5)
    assert set(gradient) == {"encoder", "projector", "predictor", "inverse"} and set(target) == {"encoder", "projector"}
    assert not any(leaf.any() for leaf in jax.tree.leaves(of_target))  # none reaches the target
    gates = {"modulation_kernel", "modulation_bias"}  # they start at 0, and nothing flows behind a closed gate
    block = gradient["predictor"]["block0"]
    assert all(np.asarray(block[name]).any() for name in gates)
    assert all(leaf.any() for name in ("encoder", "projector", "inverse") for leaf in jax.tree.leaves(gradient[name]))
    assert jax.tree.structure(following) == jax.tree.structure(extra)
    assert jax.tree.leaves(following)[0].any()
    moved = jax.jit(objective.next_target)(params, jax.tree.map(np.zeros_like, target), 0)
    np.testing.assert_allclose(
        moved["projector"]["out"]["kernel"], 0.004 * params["projector"]["out"]["kernel"], rtol=1e-4
    )


def test_scenes_that_fill_up_a_batch_change_nothing():
    _, (params, target, extra), loss = everything()
    short, other = small_batch(valid=np.arange(6) < 4), small_batch(valid=np.arange(6) < 4)
    other.video[4:], other.actions[4:] = 255 - other.video[4:], 7
    key = jax.random.key(1)
    (one, (_, stats)), gradient = loss(params, target, extra, short, key, 0)
    (two, (_, others)), changed = loss(params, target, extra, other, key, 0)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    for a, b in zip(jax.tree.leaves((gradient, stats)), jax.tree.leaves((changed, others)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_frame_has_the_same_latent_alone_and_in_a_clip_and_a_prediction_uses_the_last_frames():
    objective, (params, _, extra), _ = everything()
    batch = small_batch()
    latents = jax.jit(objective.latents)
    z = latents(params | extra, batch.video)
    assert z.shape == (6, 4, 6) == jax.jit(objective.encode)(params | extra, batch.video).shape
    for t in range(4):
        np.testing.assert_allclose(latents(params | extra, batch.video[:, t : t + 1])[:, 0], z[:, t], atol=1e-5)
    predict = jax.jit(objective.predict)
    following = predict(params, extra, z, batch.actions)
    assert following.shape == (6, 6)
    np.testing.assert_allclose(following, predict(params, extra, z[:, 1:], batch.actions[:, 1:]), atol=1e-6)


def test_with_a_frozen_target_only_the_predictor_learns():
    objective = World(**SMALL | dict(target="frozen", sigreg_weight=0.0), steps=10)
    params, target, extra = jax.jit(objective.init)(jax.random.key(0), small_batch())
    loss = lambda params: objective.loss(params, target, extra, small_batch(), jax.random.key(1), 0)[0]  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(params)
    assert not any(leaf.any() for name in ("encoder", "projector") for leaf in jax.tree.leaves(gradient[name]))
    assert np.asarray(gradient["predictor"]["block0"]["modulation_bias"]).any() and target == {}


def test_a_recurrent_prediction_is_the_cells_and_uses_the_last_latent_alone():
    objective = World(**SMALL | dict(predictor=dict(type="cjepa_jax.models.dynamics:Recurrent")), steps=10)
    params, _, extra = jax.jit(objective.init)(jax.random.key(0), small_batch())
    rng = np.random.default_rng(1)
    params["predictor"] = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), params["predictor"])
    z, actions, p = draw(2, 3, 2, 6), draw(3, 3, 2, 2), params["predictor"]["cell"]
    h, x = z[:, -1], actions[:, -1]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    reset, keep = (sigmoid(x @ p[f"i{g}"]["kernel"] + p[f"i{g}"]["bias"] + h @ p[f"h{g}"]["kernel"]) for g in "rz")
    new = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"] + reset * (h @ p["hn"]["kernel"] + p["hn"]["bias"]))
    close(jax.jit(objective.predict)(params, extra, z, actions), (1 - keep) * new + keep * h)


@pytest.mark.parametrize(
    "changes, text",
    [
        (dict(latent="mean"), "objective.latent = 'mean': must be one of first, flat, tokens"),
        (dict(target="self"), "objective.target = 'self': must be one of none, ema, frozen"),
        (dict(samples="space-time"), "objective.samples = 'space-time': must be one of"),
        (dict(variance_weight=-1.0), "objective.variance_weight = -1.0: must be 0 or more"),
        (dict(teacher_weight=0.0), "objective.teacher_weight = 0.0: must be above 0, or rollout_weight"),
        (dict(rollout_weight=1.0), "objective.rollout = 0: must be at least 1 with rollout_weight"),
        *((dict(given=x), f"objective.given = {x}: must be a whole number, at least 1$") for x in (0, 2.0, True)),
        (dict(latent="tokens"), "objective.latent = tokens: must be one vector"),
        (dict(predictor=dict(type="cjepa_jax.models.dynamics:Causal", depths=1)), "objective.predictor.depths: "),
    ],
)
def test_options_that_cannot_work_are_refused(changes, text):
    with pytest.raises(ConfigError, match=f"^{text}"):
        World(**SMALL | changes, steps=10)


@pytest.mark.parametrize(
    "changes, text",
    [
        (
            dict(rollout=4, rollout_weight=1.0),
            "objective.rollout = 4: must be at most data.frames - .* = 3",
        ),
        (dict(rollout=2, rollout_weight=1.0, given=3), "objective.rollout = 2: must be at most .* objective.given = 1"),
        (dict(rollout=2, rollout_weight=1.0, given=4), "objective.given = 4: must be at most data.frames - 1 = 3"),
        (dict(given=4), "objective.given = 4: must be at most data.frames - 1 = 3"),
        (dict(proprio=True), "objective.proprio = True: the source gives no state of the agent"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(changes, text):
    with pytest.raises(ConfigError, match=f"^{text}"):
        jax.eval_shape(World(**SMALL | changes, steps=10).init, jax.random.key(0), small_batch())
    with pytest.raises(ConfigError, match=r"^data.frames: a world model needs episodes of at least 2 frames"):
        jax.eval_shape(World(**SMALL, steps=10).init, jax.random.key(0), batch_of(np.zeros((2, 4, 8, 8, 3)), None))
