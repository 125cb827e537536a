"""Imported folders of transformers against the models that saved them."""

import json

import numpy as np
import pytest

from cjepa_jax.api import Model
from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights.read import read
from tests.weights.parity import CLOSE, encode, normal, pixels, predict
from tests.weights.test_canonical import equal

pytestmark = pytest.mark.needs("torch")
torch = pytest.importorskip("torch")
from tests.weights.reference import shaken  # noqa: E402

SLOW = pytest.mark.slow


def ijepa(folder, **options):
    from transformers import IJepaConfig, IJepaModel

    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 80}
    config = IJepaConfig(**sizes | {"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-3} | options)
    model = shaken(IJepaModel(config))
    model.save_pretrained(folder)
    return model, read(folder)


def vjepa2(folder, **options):
    from transformers import VJEPA2Config, VJEPA2Model

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2.0}
    sizes |= {"pred_hidden_size": 40, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 2}
    config = VJEPA2Config(**sizes | {"crop_size": 32, "patch_size": 8, "frames_per_clip": 4} | options)
    model = shaken(VJEPA2Model(config))
    model.save_pretrained(folder)
    return model, read(folder)


def layers_of(found, video):
    """The layers [L + 1, B, N, D] of an imported model, as users get them."""
    return Model(found, batch=len(video)).states(video)


@pytest.mark.needs("transformers")
@torch.no_grad()
def test_hugging_faces_ijepa_layer_by_layer(tmp_path):
    model, found = ijepa(tmp_path)
    video = pixels(2, 1, 32, 32, 3)
    layers = model(normal(video, found)[:, 0], output_hidden_states=True)
    for ours, hidden in zip(layers_of(found, video), layers.hidden_states, strict=True):
        np.testing.assert_allclose(ours, hidden, atol=1e-4)
    for depth in (1, 2, 3):
        theirs = model.layernorm(layers.hidden_states[depth])
        np.testing.assert_allclose(encode(found, video, depth), theirs, **CLOSE)
    np.testing.assert_array_equal(theirs, layers.last_hidden_state)
    assert (found.layout, found.licence, found.predictor) == ("hf-ijepa", "CC-BY-NC-4.0", None)
    assert found.encoder["epsilon"] == 1e-3 and found.encoder["position_grid"] == (1, 4, 4)
    assert found.input == {"size": 32, "frames": 1, "anchor": 0, "names_objects": False}


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("height,width", [(48, 24), pytest.param(16, 40, marks=SLOW)])
@torch.no_grad()
def test_hugging_faces_ijepa_on_other_grids(tmp_path, height, width):
    processor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.125]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    model, found = ijepa(tmp_path, num_hidden_layers=1, hidden_act="gelu_pytorch_tanh")
    assert found.encoder["mean"] == (0.5, 0.4, 0.3) and found.encoder["gelu"] == "tanh"
    video = pixels(1, 1, height, width, 3)
    theirs = model(normal(video, found)[:, 0], interpolate_pos_encoding=True).last_hidden_state
    np.testing.assert_allclose(encode(found, video), theirs, **CLOSE)


@pytest.mark.needs("transformers")
@torch.no_grad()
def test_hugging_faces_vjepa2_layer_by_layer_and_its_predictor(tmp_path):
    model, found = vjepa2(tmp_path)
    video = pixels(2, 4, 32, 32, 3)
    context, targets = np.arange(0, 32, 3), np.arange(1, 32, 3)
    masks = [torch.tensor(ids)[None].repeat(2, 1) for ids in (context, targets)]
    out = model(normal(video, found), [masks[0]], [masks[1]], output_hidden_states=True)
    for ours, hidden in zip(layers_of(found, video), out.hidden_states, strict=True):
        np.testing.assert_allclose(ours, hidden, atol=1e-4)
    for depth in (1, 2):
        theirs = model.encoder.layernorm(out.hidden_states[depth])
        np.testing.assert_allclose(encode(found, video, depth), theirs, **CLOSE)
    tokens = out.last_hidden_state.numpy()
    np.testing.assert_array_equal(theirs, tokens)
    ours = predict(found, tokens, context, targets, (2, 4, 4))
    np.testing.assert_allclose(ours, out.predictor_output.last_hidden_state, **CLOSE)
    assert (found.layout, found.licence) == ("hf-vjepa2", "MIT")
    assert found.input == {"size": 32, "frames": 4, "anchor": 0, "names_objects": False}


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("frames,size", [(1, 32), pytest.param(6, 32, marks=SLOW), pytest.param(4, 48, marks=SLOW)])
@torch.no_grad()
def test_hugging_faces_vjepa2_on_images_and_other_grids(tmp_path, frames, size):
    """Its own positions are those of crop_size, so that of the model which is compared is the input's."""
    model, _ = vjepa2(tmp_path, num_hidden_layers=1, crop_size=size)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"crop_size": 32}))
    found = read(tmp_path, images=frames == 1)
    video = pixels(1, frames, size, size, 3)
    theirs = model(normal(video, found), skip_predictor=True).last_hidden_state
    np.testing.assert_allclose(encode(found, video), theirs, **CLOSE)


@pytest.mark.needs("transformers")
def test_shards_and_a_classifiers_encoder(tmp_path):
    from transformers import IJepaForImageClassification

    model, whole = ijepa(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    classifier = IJepaForImageClassification(model.config)
    classifier.ijepa = model
    classifier.save_pretrained(tmp_path / "classifier")
    for name in ("shards", "classifier"):
        equal(read(tmp_path / name).params, whole.params)


@pytest.mark.needs("transformers")
def test_a_processor_without_sense_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": 0.5, "image_std": [1, 1, 1]}))
    with pytest.raises(CheckpointError, match="image_mean = 0.5: must be three numbers"):
        ijepa(tmp_path)
