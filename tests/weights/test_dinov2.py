"""DINOv2's folders of transformers: an encoder with a class token, LayerScale and interpolated positions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import cjepa_jax
from cjepa_jax.data.batching import lay_out
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.types import Rows
from cjepa_jax.weights import canonical
from cjepa_jax.weights.read import read
from tests.weights.parity import CLOSE, encode, normal, pixels
from tests.weights.test_canonical import equal

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2}
WITH_CLASS = {"variant": "48x2x2x96/8", "tubelet": 1, "class_token": True, "layer_scale": 0.5}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def dinov2(folder, **options):
    """A random model, saved, and what we read of it."""
    from transformers import Dinov2Config, Dinov2Model

    from tests.weights.reference import shaken

    config = Dinov2Config(**SIZES | {"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-3} | options)
    model = shaken(Dinov2Model(config))
    model.save_pretrained(folder)
    return model, read(folder)


@pytest.mark.needs("torch")
@pytest.mark.needs("transformers")
@pytest.mark.parametrize("height,width", [(32, 32), (48, 24), (16, 40)])
def test_every_token_is_transformers(torch, tmp_path, height, width):
    model, found = dinov2(tmp_path)
    video = pixels(2, 1, height, width, 3)
    with torch.no_grad():
        theirs = model(normal(video, found)[:, 0]).last_hidden_state.numpy()
    np.testing.assert_allclose(encode(found, video), theirs[:, 1:], rtol=1e-5, atol=2e-5)
    network, params = Encoder(**found.encoder), {"params": found.params["encoder"]}
    both = jax.jit(lambda params: network.apply(params, video, whole=True))(params)
    np.testing.assert_allclose(both, theirs, rtol=1e-5, atol=2e-5)
    assert (found.layout, found.licence, found.predictor) == ("hf-dinov2", "Apache-2.0", None)
    assert found.encoder["position_grid"] == (1, 4, 4) and found.encoder["class_token"]
    assert found.input == {"size": 32, "frames": 1, "anchor": 0, "names_objects": False}
    assert any("mask_token" in note for note in found.about["notes"])


@pytest.mark.needs("torch")
@pytest.mark.needs("transformers")
def test_a_folder_loads_as_an_encoder_of_frames(torch, tmp_path):
    model, found = dinov2(tmp_path, qkv_bias=False)
    loaded = cjepa_jax.load(tmp_path)
    images = pixels(3, 32, 32, 3)
    with torch.no_grad():
        theirs = model(normal(images[:, None], found)[:, 0]).last_hidden_state.numpy()
    np.testing.assert_allclose(loaded.encode(images), theirs[:, 1:], rtol=1e-5, atol=2e-5)
    assert loaded.grid(images) == (1, 4, 4)
    with pytest.raises(ConfigError, match="is not one Transformer whose layers can be read"):
        loaded.states(images)


@pytest.mark.needs("torch")
@pytest.mark.needs("transformers")
def test_a_classifiers_encoder_and_names_of_older_versions(torch, tmp_path):
    from transformers import Dinov2ForImageClassification

    model, whole = dinov2(tmp_path / "whole")
    classifier = Dinov2ForImageClassification(model.config)
    classifier.dinov2 = model
    classifier.save_pretrained(tmp_path / "classifier")
    equal(read(tmp_path / "classifier").params["encoder"], whole.params["encoder"])
    old = {}
    for name, array in model.state_dict().items():
        for new, before in (("q", "query"), ("k", "key"), ("v", "value")):
            name = name.replace(f"attention.{new}_proj", f"attention.attention.{before}")
        old[name.replace("attention.o_proj", "attention.output.dense")] = array.numpy()
    (tmp_path / "old").mkdir()
    save_file(old, tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    equal(read(tmp_path / "old").params["encoder"], whole.params["encoder"])


@pytest.mark.needs("torch")
@pytest.mark.needs("transformers")
@pytest.mark.parametrize(
    "change,message",
    [
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn = 'True': must be False"),
        ({"model_type": "dinov2_with_registers"}, "model_type = 'dinov2_with_registers': must be"),
        ({"num_attention_heads": 7}, "heads = 7: must divide the encoder's width 48"),
    ],
)
def test_what_is_refused(torch, tmp_path, change, message):
    dinov2(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def arrays():
    """A small state dict of the layout, with names of older versions."""
    rng, width, found = np.random.default_rng(0), 8, {}
    put = lambda name, *shape: found.update({name: rng.standard_normal(shape).astype(np.float32)})  # noqa: E731
    put("embeddings.cls_token", 1, 1, width)
    put("embeddings.position_embeddings", 1, 5, width)
    put("embeddings.patch_embeddings.projection.weight", width, 3, 4, 4)
    put("embeddings.patch_embeddings.projection.bias", width)
    for name in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
        put(f"encoder.layer.0.{name}.weight", width, width)
        put(f"encoder.layer.0.{name}.bias", width)
    for name, shape in (("attention.output.dense", (width, width)), ("mlp.fc1", (16, width)), ("mlp.fc2", (width, 16))):
        put(f"encoder.layer.0.{name}.weight", *shape)
        put(f"encoder.layer.0.{name}.bias", shape[0])
    for name in ("encoder.layer.0.norm1", "encoder.layer.0.norm2", "layernorm"):
        put(f"{name}.weight", width)
        put(f"{name}.bias", width)
    put("encoder.layer.0.layer_scale1.lambda1", width)
    put("encoder.layer.0.layer_scale2.lambda1", width)
    return found


@pytest.mark.parametrize(
    "name,shape,message",
    [
        ("embeddings.cls_token", (2, 1, 8), r"cls_token has the shape \[2, 1, 8\]: must be \[1, 1, 8\]"),
        ("embeddings.position_embeddings", (1, 5, 7), r"pos_embed has the shape \[1, 5, 7\]: must be \[1, 1 \+ N, 8\]"),
        ("embeddings.position_embeddings", (1, 7, 8), "pos_embed has 6 places"),
        ("encoder.layer.0.layer_scale1.lambda1", (7,), "blocks.0.ls1.gamma"),
        ("encoder.layer.0.layer_scale2.lambda1", None, "blocks.0.ls2.gamma"),
        ("embeddings.cls_token", None, r"cls_token has the shape \[\]"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, name, shape, message):
    found = arrays()
    config = {"model_type": "dinov2", "num_attention_heads": 2, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(found, tmp_path / "model.safetensors")
    assert read(tmp_path).encoder["variant"] == "8x1x2x16/4"
    found.pop(name)
    found |= {} if shape is None else {name: np.zeros(shape, np.float32)}
    save_file(found, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def made(**options):
    network = Encoder(**WITH_CLASS | options)
    video = np.random.default_rng(0).integers(0, 256, (3, 1, 16, 24, 3)).astype(np.float32)
    params = jax.jit(network.init)(jax.random.key(0), video)["params"]
    noise = np.random.default_rng(1)
    return network, video, jax.tree.map(lambda x: x + 0.1 * noise.standard_normal(x.shape).astype(np.float32), params)


def test_hidden_tokens_change_nothing_and_packed_rows_are_the_visible_tokens_alone():
    """A scene's visible tokens do not depend on the values of its hidden ones, nor on the other scenes."""
    network, video, params = made()
    context = np.random.default_rng(2).random((3, 6)) < 0.5
    context[:, 0] = True
    rows = Rows(*map(jnp.asarray, lay_out(context, 1, context.shape)))
    apply = jax.jit(network.apply)
    found = np.asarray(apply({"params": params}, video, rows))
    assert not found[~context].any()
    changed = video.copy()
    hidden = ~context.reshape(3, 2, 3).repeat(8, 1).repeat(8, 2)
    changed[:, 0][hidden] = 255 - changed[:, 0][hidden]
    np.testing.assert_allclose(apply({"params": params}, changed, rows), found, **CLOSE)
    everything = Rows(*map(jnp.asarray, lay_out(np.ones((3, 6), bool), 1, (3, 6))))
    np.testing.assert_allclose(apply({"params": params}, video, everything), apply({"params": params}, video), **CLOSE)
    assert np.abs(np.asarray(apply({"params": params}, video)) - found)[context].max() > 1e-3


def test_a_fresh_scale_multiplies_both_updates():
    """With a scale of 1 the block is the plain one, and its class token changes the others' tokens."""
    network, video, params = made(layer_scale=1.0)
    for name in ("scale1", "scale2"):
        params["stack"]["blocks"][name] = jnp.ones_like(params["stack"]["blocks"][name])
    plain = {**params, "stack": {**params["stack"], "blocks": dict(params["stack"]["blocks"])}}
    for name in ("scale1", "scale2"):
        del plain["stack"]["blocks"][name]
    apply = jax.jit(network.apply)
    found = apply({"params": params}, video)
    without = jax.jit(Encoder(**WITH_CLASS | {"layer_scale": 0.0}).apply)({"params": plain}, video)
    np.testing.assert_array_equal(found, without)
    halved = jax.tree.map(lambda x: x, params)
    halved["stack"]["blocks"]["scale1"] = jnp.zeros_like(params["stack"]["blocks"]["scale1"])
    halved["stack"]["blocks"]["scale2"] = jnp.zeros_like(params["stack"]["blocks"]["scale2"])
    still = apply({"params": halved}, video)  # no block moves a token
    tokens = jax.jit(Encoder(**WITH_CLASS | {"class_token": False, "layer_scale": 0.0, "depth": 2}).apply)(
        {"params": {"tokenizer": params["tokenizer"], "stack": zeros_of(plain["stack"])}}, video
    )
    np.testing.assert_allclose(still, tokens, **CLOSE)


def zeros_of(stack):
    """A stack whose blocks add nothing."""
    return {**stack, "blocks": jax.tree.map(jnp.zeros_like, stack["blocks"])}


def test_options_that_a_class_token_excludes():
    for options, message in (
        ({"positions": "rope"}, "objective.encoder.positions = 'rope': an encoder with a class token"),
        ({"causal": "frame"}, "objective.encoder.causal = 'frame': an encoder with a class token"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(**options)


def test_canonical_names_both_ways():
    network, _, params = made()
    names = canonical.to_canonical(params, 8, 1)
    assert {"class_token", "blocks.0.ls1.gamma", "blocks.1.ls2.gamma"} < set(names)
    equal(canonical.from_canonical(names), jax.tree.map(np.asarray, params))
