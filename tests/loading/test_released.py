"""`cjepa_jax.load` of released weights that are for one objective: fixtures in the exact published layouts."""

import functools

import jax
import numpy as np
import pytest
import safetensors.numpy

import cjepa_jax
from cjepa_jax.data import clouds
from cjepa_jax.data.kinds.points import Grouping
from cjepa_jax.loading import released
from cjepa_jax.loading.inputs import InputError
from cjepa_jax.objectives.points import PointJepa
from cjepa_jax.objectives.world import World
from cjepa_jax.weights import points, published, worlds
from tests.objectives.test_points import ENCODER, PREDICTOR
from tests.objectives.test_world import AC, LEWM, ac, lewm
from tests.weights.test_points import arrays as point_arrays
from tests.weights.test_worlds import ac_arrays, before_5, encoder_arrays, lewm_arrays

RNG = np.random.default_rng(0)
CLIPS = RNG.integers(0, 256, (3, 4, 28, 28, 3), np.uint8)


def store(path, arrays):
    safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def refused(function, *args, **options):
    with pytest.raises(InputError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("names", [lambda x: x, before_5], ids=["transformers 5", "transformers 4"])
def test_lewm_gives_what_its_objective_gives(tmp_path, monkeypatch, names):
    monkeypatch.setattr(worlds, "lewm", functools.partial(worlds.lewm, head=8))
    path = store(tmp_path / "model.safetensors", names(lewm_arrays()))
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    model = cjepa_jax.load(tmp_path, heads=2, batch=2)
    assert (model.info["layout"], model.info["licence"]) == ("lewm", "Apache-2.0")
    assert cjepa_jax.load(path, heads=2).info["licence"] == "unknown"  # a card beside a single file is of anything
    _, _, _, params, _, _ = lewm()
    tokenizer = LEWM["encoder"]["tokenizer"] | {"mean": published.MEAN, "std": published.STD}
    objective = World(**LEWM | {"encoder": LEWM["encoder"] | {"tokenizer": tokenizer}}, steps=1)
    extra = model.pretrained.world.extra
    wanted = np.asarray(jax.jit(objective.latents)(params | extra, CLIPS[:2]))
    np.testing.assert_array_equal(model.latents(CLIPS)[:2], wanted)
    np.testing.assert_array_equal(model.encode(CLIPS), model.latents(CLIPS))
    assert model.grid(CLIPS) == (4, 1, 1) and model.features(CLIPS).shape == (3, 24)
    assert model.features(CLIPS, pooling="mean+max").shape == (3, 48)
    assert model.features(CLIPS[:0], pooling="mean+max").shape == (0, 48)
    for other in ("cls", "first"):  # the class token is not among the tokens
        assert "must be one of mean, max, mean+max" in refused(model.features, CLIPS, pooling=other)
    z, actions = model.latents(CLIPS), RNG.normal(size=(3, 4, 10)).astype(np.float32)
    following = np.asarray(jax.jit(objective.predict)(params, extra, z[:2, 1:], actions[:2, 1:]))
    np.testing.assert_array_equal(model.advance(z, actions)[:2], following)
    assert "must be 28, as its positions are" in refused(model.encode, np.zeros((1, 4, 42, 42, 3), np.uint8))
    assert "must be [B, T, H, W, 3]" in refused(model.latents, CLIPS[0])
    assert "must have a clip" in refused(model.latents, CLIPS[:0])
    assert "must be (3, 4, 10)" in refused(model.advance, z, actions[..., :2])
    assert "takes no state of the agent" in refused(model.advance, z, actions, actions)
    for wrong in (z[0], z[..., :-1], np.concatenate([z, z], -1), z[:, :0], z[:0]):
        text = f"latents: shape {wrong.shape}: must be [B, t, 24], as `latents` gives them"
        assert refused(model.advance, wrong, actions) == text
    assert "1 values are not finite" in refused(
        model.advance, np.where(np.arange(z.size).reshape(z.shape), z, np.nan), 0
    )
    assert "layers can be read" in refused(model.states, CLIPS)
    assert "it can only encode" in refused(model.intervene, CLIPS, CLIPS[..., 0] > 3, 0)


def test_point_jepa_encodes_clouds(tmp_path, monkeypatch):
    monkeypatch.setattr(points, "HEADS", {24: 2, 16: 2})
    path = store(tmp_path / "pointjepa.safetensors", point_arrays())
    model, cloud = cjepa_jax.load(path, batch=2), RNG.normal(size=(3, 100, 3)) * 5 + 7
    assert (model.info["layout"], model.info["licence"]) == ("point-jepa", "MIT")
    found = model.encode(cloud)
    objective = PointJepa(encoder=ENCODER | {"groups": 64, "neighbours": 32}, predictor=PREDICTOR, steps=1)
    groups = np.stack([Grouping(64, 32).frames(each[None, None].astype(np.float32), 0) for each in cloud])
    np.testing.assert_allclose(groups[0, 0], clouds.grouped(clouds.unit(cloud[0]), 64, 32), atol=1e-5)
    held = model.pretrained
    encode = jax.jit(objective.encode)
    np.testing.assert_array_equal(found[:2], encode(held.params | held.world.extra, groups[:2]))
    np.testing.assert_array_equal(model.encode(cloud[0]), model.encode(cloud[:1]))
    assert found.shape == (3, 64, 24) and model.grid(cloud) == (1, 64, 1) and model.encode(cloud[:0]).shape[0] == 0
    swapped = model.encode(np.concatenate([cloud[:, :1], cloud[:, :0:-1]], axis=1))
    np.testing.assert_allclose(swapped, found, atol=1e-4)  # a cloud is a set
    other = cjepa_jax.load(path, weights="target", batch=2)
    params = {"encoder": held.params["encoder"] | {"trunk": held.params["target"]}, **held.world.extra}
    np.testing.assert_array_equal(other.encode(cloud)[:2], encode(params, groups[:2]))
    assert np.abs(other.encode(cloud) - found).max() > 0.1
    assert "must be [P, 3] or [B, P, 3] with P at least 64" in refused(model.encode, cloud[:, :50])
    assert "1 values are not finite" in refused(model.encode, np.where(cloud == cloud[0, 0, 0], np.inf, cloud))
    assert "has no predictor that takes actions" in refused(model.latents, CLIPS)


@pytest.mark.needs("torch")
def test_point_jepas_lightning_checkpoint_is_loaded(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(points, "HEADS", {24: 2, 16: 2})
    state = {name: torch.tensor(array) for name, array in point_arrays().items()}
    torch.save({"epoch": 499, "pytorch-lightning_version": "2.0.0", "state_dict": state}, tmp_path / "last.ckpt")
    cloud = RNG.normal(size=(1, 80, 3))
    same = store(tmp_path / "same.safetensors", point_arrays())
    found = cjepa_jax.load(tmp_path / "last.ckpt").encode(cloud)
    np.testing.assert_array_equal(found, cjepa_jax.load(same).encode(cloud))


def test_vjepa2_ac_encodes_clips_and_predicts_the_next_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(worlds, "AC_HEADS", {48: 3})
    own = {f"predictor.module.backbone.{name}": array for name, array in ac_arrays().items()}
    model = cjepa_jax.load(store(tmp_path / "ac.safetensors", own | encoder_arrays()), heads=2)
    plain = cjepa_jax.load(store(tmp_path / "vitg.safetensors", encoder_arrays()), heads=2)
    assert model.info["licence"] == "MIT"
    video = RNG.integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(model.encode(video), plain.encode(video))
    z = model.latents(video)
    still = plain.encode(video.reshape(8, 1, 32, 32, 3).repeat(2, 1)).reshape(2, 4, 16, 24)  # each frame as a clip
    np.testing.assert_allclose(z, jax.nn.standardize(still, epsilon=1e-5), atol=1e-4)
    actions, states = (RNG.normal(size=(2, 4, 7)).astype(np.float32) for _ in "as")
    _, _, _, wanted = ac()
    objective = World(**AC | {"predictor": AC["predictor"] | {"history": 15}}, steps=1)
    following = jax.jit(objective.predict)({"predictor": wanted}, {}, z[:1], actions[:1], states[:1])
    np.testing.assert_allclose(model.advance(z, actions, states)[:1], following, atol=1e-5)
    assert released.sizes_of(model.pretrained) == {"latent": 24, "action": 7, "proprio": 7}
    assert "proprio: " in refused(model.advance, z, actions)
    for wrong in (z[0], z[..., :-1], z[:, :, :15], z[:, :, :0]):
        text = f"latents: shape {wrong.shape}: must be [B, t, M, 24], M a square, as `latents` gives them"
        assert refused(model.advance, wrong, actions, states) == text
    assert "has no predictor that takes actions" in refused(plain.latents, video)
