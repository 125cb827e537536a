"""Reconstruction: the loss by independent code, what the encoder sees, and whether it learns."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import random
from cjepa_jax.models.tokenizers import MEAN, STD
from cjepa_jax.objectives.base import Interventional
from cjepa_jax.objectives.mae import Mae
from tests import running, scenes
from tests.objectives.test_jepa import as_batch, flat, started

ENCODER = {"variant": f"Mu/{scenes.PATCH}", "depth": 1}
DECODER = {"depth": 1, "width": 16, "heads": 2}
CASES = [(4, True), pytest.param(1, False, marks=pytest.mark.slow)]  # frames, norm_pixels


def make(kind=Mae, **fields):
    return kind(**{"encoder": ENCODER, "decoder": DECODER, "steps": 10} | fields)


@dataclasses.dataclass(frozen=True)
class Told(Mae):
    """Paints what it is given instead of parameters."""

    def encode_context(self, params, batch):
        return jnp.ones((*batch.context.shape, 2))

    def decode(self, params, context, batch):
        return params


def noise(frames=1):
    """A batch of images or clips of noise, where no two patches look alike."""
    mask = functools.partial(random.draw, ratio=0.75)
    batch = as_batch(scenes.batch(frames=frames, intervened="none", mask=mask))
    video = np.random.default_rng(0).integers(0, 256, batch.video.shape, np.uint8)
    return dataclasses.replace(batch, video=jnp.asarray(video))


@functools.cache
def setup(frames, norm):
    """(batch, parameters, jitted parts): of (params, batch), metrics, encoded context, what is painted, the picture."""
    objective, batch = make(norm_pixels=norm), noise(frames)

    def parts(params, batch):
        context = objective.encode_context(params, batch)
        metrics = objective.loss(params, {}, {}, batch, None, 0)[1][0]
        return metrics, context, objective.decode(params, context, batch), objective.reconstruct(params, batch)

    return batch, jax.jit(objective.init)(jax.random.key(0), batch)[0], jax.jit(parts)


@functools.cache
def training():
    """(batch, state, jitted step) on images."""
    return started(make(), noise())[1:]


def boxes(video, tubelet, patch=scenes.PATCH):
    """Every token's pixels, by loops, float64 [B, N, P]."""
    pixels = (np.asarray(video) / 255 - MEAN) / STD
    times, rows, cols = pixels.shape[1] // tubelet, pixels.shape[2] // patch, pixels.shape[3] // patch
    cut = [
        pixels[:, t * tubelet : (t + 1) * tubelet, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
        for t, r, c in np.ndindex(times, rows, cols)
    ]
    return np.stack([box.reshape(len(pixels), -1) for box in cut], axis=1)


@pytest.mark.parametrize("frames, norm", CASES)
def test_the_loss_by_loops(frames, norm):
    batch, params, parts = setup(frames, norm)
    metrics, _, painted, _ = parts(params, batch)
    wanted, errors = boxes(batch.video, 1 if frames == 1 else scenes.TUBELET), []
    assert painted.shape == wanted.shape and painted.dtype == jnp.float32
    for scene, token in zip(*np.nonzero(~np.asarray(batch.context)), strict=True):
        box = wanted[scene, token]
        if norm:
            mean = sum(box) / len(box)
            box = (box - mean) / np.sqrt(sum((box - mean) ** 2) / (len(box) - 1) + 1e-6)
        errors.append(np.mean((painted[scene, token] - box) ** 2))
    assert float(metrics["loss"]) == pytest.approx(np.mean(errors), rel=1e-5)
    np.testing.assert_allclose(metrics["per_scene"], np.reshape(errors, (4, -1)).mean(1), rtol=1e-5)
    assert float(metrics["context_fraction"]) == 0.25


@pytest.mark.slow
@pytest.mark.needs("torch")
@pytest.mark.needs("transformers")
def test_the_loss_of_another_library():
    """Its own predictions on our pixels, under its own mask. A nearly flat patch is where eps counts."""
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    batch = noise()
    video = batch.video.at[:, :, :16].set(77).at[:, :, 0, 0].set(78)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {f"decoder_{name}": value for name, value in sizes.items()}
    torch.manual_seed(0)
    other = ViTMAEForPreTraining(
        ViTMAEConfig(image_size=scenes.SIZE, patch_size=scenes.PATCH, norm_pix_loss=True, **sizes)
    )
    pixels = torch.tensor((np.asarray(video)[:, 0] / 255 - MEAN) / STD).permute(0, 3, 1, 2).float()
    out = jax.tree.map(lambda x: jnp.asarray(x.detach().numpy()), dict(other(pixels)))

    batch = dataclasses.replace(batch, video=video, context=out["mask"] == 0)
    loss, _ = make(Told).loss(out["logits"], {}, {}, batch, None, 0)
    assert float(loss) == pytest.approx(float(out["loss"]), rel=1e-4)


def test_the_encoder_sees_visible_pixels_and_the_loss_hidden_ones():
    batch, params, parts = setup(4, True)
    hidden = np.repeat(~np.asarray(batch.context).reshape(4, 2, 4, 4), scenes.TUBELET, axis=1)
    hidden = hidden.repeat(scenes.PATCH, 2).repeat(scenes.PATCH, 3)[..., None]

    def change(where):
        """Whether the encoded context, what is painted and the loss change with these pixels."""
        other = dataclasses.replace(batch, video=jnp.where(where, 255 - batch.video, batch.video))
        changed = jax.tree.map(lambda x, y: bool((x != y).any()), parts(params, batch), parts(params, other))
        return changed[1], changed[2], changed[0]["loss"]

    assert (np.asarray(parts(params, batch)[1])[~np.asarray(batch.context)] == 0).all()
    assert change(hidden) == (False, False, True)
    assert change(~hidden) == (True, True, True)


def test_only_hidden_patches_have_an_error():
    """The gradient to what is painted is 0 at visible places, and at those that are neither shown nor asked for."""
    batch = noise()
    dropped = np.asarray(batch.context).argmin(1)  # the first hidden token of each scene
    hidden = ~np.asarray(batch.context) & (np.arange(16) != dropped[:, None])
    batch, painted = dataclasses.replace(batch, hidden=hidden), np.ones((4, 16, 3 * scenes.PATCH**2), np.float32)
    gradient = jax.jit(jax.grad(lambda painted: make(Told).loss(painted, {}, {}, batch, None, 0)[0]))(painted)
    np.testing.assert_array_equal((np.asarray(gradient) != 0).any(-1), hidden)


def test_a_step_moves_everything_and_there_is_no_target():
    batch, state, step = training()
    assert state.target == {} and state.extra == {} and not isinstance(make(), Interventional)
    new, metrics = step(state, batch)
    assert all(np.isfinite(value).all() for value in metrics.values()) and int(new.skipped) == 0
    assert new.target == {}
    assert all((a != b).any() for a, b in zip(flat(state.params).values(), flat(new.params).values(), strict=True))


def test_invalid_scenes_change_nothing():
    batch, state, step = training()
    three = dataclasses.replace(batch, valid=jnp.arange(4) < 3)
    spoilt = dataclasses.replace(three, video=batch.video.at[3].set(7))
    one, two = step(state, three)[1], step(state, spoilt)[1]
    for name in ("loss", "feature_std", "rankme", "grad_norm"):
        assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-6)


def test_one_batch_can_be_learned():
    batch, state, step = training()
    batch = dataclasses.replace(batch, video=jnp.asarray(scenes.batch(intervened="none")["video"]))
    losses = []
    for _ in range(200):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] / 2, losses[::20]


@pytest.mark.parametrize("frames, norm", CASES)
def test_a_picture_is_the_scene_where_it_is_visible(frames, norm):
    batch, params, parts = setup(frames, norm)
    picture, tubelet = parts(params, batch)[3], 1 if frames == 1 else scenes.TUBELET
    assert picture.dtype == jnp.uint8 and picture.shape == batch.video.shape
    same = (boxes(picture, tubelet) == boxes(batch.video, tubelet)).all(-1)
    np.testing.assert_array_equal(same, batch.context)


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"decoder": {"depth": 0}}, "objective.decoder.depth = 0: must be a whole number, at least 1"),
        ({"decoder": {"width": 48, "heads": 5}}, "objective.decoder.width = 48: must be a multiple of .*heads = 5"),
        ({"norm_pixels": 1}, "objective.norm_pixels = 1: must be True or False"),
    ],
)
def test_bad_values_are_named(fields, named):
    with pytest.raises(ConfigError, match=named):
        make(**fields)


@pytest.mark.slow
def test_the_config_trains_resumes_and_reports(tmp_path):
    """A run without a target or predictor: stopped, resumed, probed, reported."""
    alone = {key.replace(".", "__"): None for key in running.SMALL if key.startswith(("mask.", "objective.predictor"))}
    config = {"config": "configs/baselines/mae.py", "log__report": True, **alone}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    running.run(running.command(whole, **config))
    process = running.start(running.command(parts, **config))
    running.read_until(process, "step 8/24")
    process.terminate()
    process.communicate(timeout=60)
    running.run(running.command(parts, **config))
    assert running.digest(whole) == running.digest(parts)
    result = json.loads((whole / "result.json").read_text())
    assert {"loss", "rankme", "probe/count_r2", "probe/rankme_random"} <= set(result)
    assert (whole / "report.html").exists()
