"""Reading weights: what is recognised, told, licensed and refused."""

import hashlib
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from cjepa_jax.errors import CheckpointError
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.positions import sincos
from cjepa_jax.weights.canonical import to_canonical
from cjepa_jax.weights.read import read
from tests.weights.test_canonical import SIZE, encoder, equal, predictor


def names(frames=1, table=None, **changes):
    """A bare state dict of our small encoder under timm's names; `table` its positions, by default our formula's."""
    grid = (max(frames // 2, 1), 2, 2)
    tensors = to_canonical(encoder(frames), 4, 2)
    return tensors | {"pos_embed": (sincos(grid, 24) if table is None else table)[None]} | changes


def prefixed(prefix, tensors):
    return {prefix + name: array for name, array in tensors.items()}


def saved(path, tensors):
    save_file({name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}, path)
    return path


def test_timms_names_with_our_own_positions(tmp_path):
    found = read(saved(tmp_path / "vit.safetensors", names(**{"head.weight": np.zeros((5, 24))})), heads=2)
    assert (found.layout, found.licence, found.predictor) == ("timm", "unknown", None)
    assert found.encoder["variant"] == SIZE and found.encoder["positions"] == "sincos"
    assert found.input == {"size": 8, "frames": 1, "anchor": 0, "names_objects": False}
    assert found.about == {"encoder": "", "notes": ["left out: head"]}
    equal(found.params["encoder"], encoder())


def test_a_folder_of_timms_says_more(tmp_path):
    saved(tmp_path / "model.safetensors", names())
    assert read(tmp_path, heads=2).licence == "unknown"  # of the weights alone
    trained = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.125], "license": "mit"}
    built = {"num_heads": 2, "act_layer": "gelu_tanh"}
    for model_args, expected in ((built, "tanh"), ({"num_heads": 2}, "exact")):
        config = {"architecture": "vit_base_patch16_224", "pretrained_cfg": trained, "model_args": model_args}
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = read(tmp_path)
        assert (found.layout, found.licence, found.encoder["variant"]) == ("timm", "MIT", SIZE)
        assert (found.encoder["mean"], found.encoder["gelu"]) == ((0.5, 0.4, 0.3), expected)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": 3}, "model_args": {"num_heads": 2}}))
    with pytest.raises(CheckpointError, match="config.json: mean = 3: must be three numbers"):
        read(tmp_path)


def test_clips_of_our_own_positions_need_not_say_how_long_they_are(tmp_path):
    found = read(saved(tmp_path / "vit.safetensors", names(8)), heads=2, layout="timm")
    assert found.encoder["positions"] == "sincos" and found.encoder["tubelet"] == 2
    equal(found.params["encoder"], encoder(8))


def test_other_positions_of_clips_do(tmp_path):
    table = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    path = saved(tmp_path / "vit.safetensors", names(8, table))
    with pytest.raises(CheckpointError, match=r"pos_embed has 16 places.*frames=\.\.\."):
        read(path, heads=2, layout="timm")
    for frames, grid in ((8, (4, 2, 2)), (2, (1, 4, 4))):
        found = read(path, heads=2, frames=frames, layout="timm")
        assert found.encoder["positions"] == "table" and found.encoder["position_grid"] == grid
        np.testing.assert_array_equal(found.params["encoder"]["tokenizer"]["positions"], table)
    with pytest.raises(CheckpointError, match="not a square grid of 3 times"):
        read(path, heads=2, frames=6, layout="timm")


def test_queries_keys_and_values_without_bias_have_a_bias_of_zero(tmp_path):
    tensors = {name: array for name, array in names().items() if not name.endswith("qkv.bias")}
    found = read(saved(tmp_path / "vit.safetensors", tensors), heads=2)
    assert not found.params["encoder"]["stack"]["blocks"]["attention"]["qkv"]["bias"].any()


def test_a_folders_licence_is_that_of_its_weights(tmp_path):
    path = saved(tmp_path / "model.safetensors", names())
    (tmp_path / "README.md").write_text("---\ntags: [x]\nlicense: cc-by-nc-4.0\n---\nlicense: mit\n")
    assert read(tmp_path, heads=2).licence == "CC-BY-NC-4.0"
    assert read(path, heads=2).licence == "unknown"  # a file may lie among those of somebody else
    (tmp_path / "README.md").write_text("---\nlicense: 'apache-2.0'\n---\n")
    assert read(tmp_path, heads=2).licence == "Apache-2.0"
    (tmp_path / "README.md").write_text("license: mit\n")
    assert read(tmp_path, heads=2).licence == "unknown"


def test_the_summary_says_what_it_is_and_under_which_licence(tmp_path):
    parts = prefixed("encoder.module.", names()) | prefixed("target_encoder.module.", names())
    path = saved(tmp_path / "in1k.safetensors", parts)
    found = read(path, heads=2)
    count = sum(leaf.size for leaf in jax.tree.leaves(found.params["encoder"]))
    text = f"ijepa, {SIZE}, {count / 1e6:.1f} M parameters (encoder, target), licence CC-BY-NC-4.0"
    assert found.summary() == f"{path}: {text}\n  encoder: 'encoder', target: 'target_encoder'"
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "told,message",
    [
        (
            {},
            r"heads an encoder of width 24 has is not in the weights: give it, heads=\.\.\.",
        ),
        ({"heads": 5}, "heads = 5: must divide the encoder's width 24"),
        ({"heads": 2, "layout": "vjepa3"}, "layout = 'vjepa3': must be one of ijepa, vjepa, vjepa2, vjepa2.1, timm"),
        ({"heads": 2, "part": "teacher"}, "part = 'teacher': must be one of 'encoder', 'target_encoder'"),
    ],
)
def test_what_is_told_must_make_sense(tmp_path, told, message):
    parts = prefixed("encoder.module.", names()) | prefixed("target_encoder.module.", names())
    with pytest.raises(CheckpointError, match=message):
        read(saved(tmp_path / "in1k.safetensors", parts), **told)


def refused(tmp_path, tensors, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read(saved(tmp_path / "weights.safetensors", tensors), heads=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name,message",
    [
        ("weight", "no encoder of I-JEPA, V-JEPA or timm found"),
        ("embeddings.patch_embeddings.projection.weight", "give the folder, with its config.json"),
        ("predictor.module.predictor_norm.bias", "no encoder of I-JEPA"),
    ],
)
def test_what_is_no_encoder_is_refused(tmp_path, name, message):
    refused(tmp_path, {name: np.zeros(3)}, message)


@pytest.mark.parametrize(
    "name,shape,message",
    [
        ("cls_token", (1, 1, 24), "1 not in the model: cls_token"),
        ("blocks.1.ls1.gamma", (24,), "1 not in the model: blocks.1.ls1.gamma"),
        ("patch_embed.proj.weight", (24, 1, 4, 4), r"shape \[24, 1, 4, 4\]: must be \[D, 3, p, p\]"),
        ("blocks.2.mlp.fc1.weight", (30, 24), r"blocks.2.mlp.fc1.weight is \[30, 24\], must be \[40, 24\]"),
        ("pos_embed", (1, 5, 24), "pos_embed has 5 places, which are not a square grid of 1 times"),
        ("pos_embed", (4, 24), r"pos_embed is \[4, 24\], must be \[1, 4, 24\]"),
    ],
)
def test_what_is_no_such_encoder_is_refused(tmp_path, name, shape, message):
    refused(tmp_path, names(**{name: np.zeros(shape)}), message)


def test_a_lone_encoder_of_clips_is_refused(tmp_path):
    refused(tmp_path, prefixed("encoder.module.", names(4)), "an encoder of clips alone .* layout='vjepa2'")


def test_missing_and_mistaken_names_are_all_listed_with_the_closest(tmp_path):
    tensors = names()
    tensors["blocks.1.attn.qkv_weight"] = tensors.pop("blocks.1.attn.qkv.weight")
    del tensors["norm.bias"]
    with pytest.raises(CheckpointError) as error:
        read(saved(tmp_path / "vit.safetensors", tensors), heads=2)
    text = str(error.value)
    assert "2 missing: blocks.1.attn.qkv.weight (there is 'blocks.1.attn.qkv_weight'), norm.bias" in text


def test_the_layout_of_a_lone_encoder_can_be_told(tmp_path):
    path = saved(tmp_path / "encoder.safetensors", prefixed("encoder.module.backbone.", names(16)))
    old, new = (read(path, heads=2, layout=layout) for layout in ("vjepa", "vjepa2"))
    assert (old.encoder["positions"], new.encoder["positions"]) == ("sincos", "rope_tile")
    assert (old.licence, new.licence) == ("CC-BY-NC-4.0", "MIT")


def published(hidden=64, **changes):
    """I-JEPA's names of our small predictor, its MLPs of another size if so."""
    theirs = {"embed.": "predictor_embed.", "blocks.": "predictor_blocks.", "norm.": "predictor_norm."}
    theirs |= {"prediction.": "predictor_proj.", "mask_token": "mask_token"}
    tensors = {"predictor_pos_embed": sincos((1, 2, 2), 16)[None]}
    for name, array in to_canonical(predictor(), 4, 2).items():
        for ours, beginning in theirs.items():
            if name.startswith(ours):
                tensors[beginning + name.removeprefix(ours)] = array
    shapes = {"fc1.weight": (hidden, 16), "fc1.bias": (hidden,), "fc2.weight": (16, hidden)}
    other = {f"predictor_blocks.{i}.mlp.{name}": np.zeros(shape) for i in (0, 1) for name, shape in shapes.items()}
    return prefixed("predictor.module.", tensors | (other if hidden != 64 else {}) | changes)


def test_what_a_published_predictor_has_not_is_zero(tmp_path):
    found = read(saved(tmp_path / "in1k.safetensors", prefixed("encoder.module.", names()) | published()), heads=2)
    assert found.predictor["positions"] == "sincos"
    zero = {name: found.params["predictor"].pop(name) for name in ("object_embedding", "residual")}
    assert not any(leaf.any() for leaf in jax.tree.leaves(zero))
    equal(found.params["predictor"], {name: part for name, part in predictor().items() if name not in zero})


@pytest.mark.parametrize(
    "heads,change,message",
    [
        (2, {"hidden": 30}, "left out: its MLPs have 30 units, ours 64"),
        (3, {}, "left out: its 3 heads do not divide its width 16"),
        (2, {"action_encoder.weight": np.zeros((16, 7))}, "left out: it has 'action_encoder.weight', ours has not"),
        (2, {"predictor_proj.bias": np.zeros(48)}, "left out: it predicts 48 numbers, the encoder has 24"),
    ],
)
def test_a_predictor_of_another_form_is_left_out(tmp_path, heads, change, message):
    path = saved(tmp_path / "in1k.safetensors", prefixed("encoder.module.", names()) | published(**change))
    found = read(path, heads=heads)
    assert found.predictor is None and "predictor" not in found.params
    assert any(message in note for note in found.about["notes"])


def test_a_damaged_predictor_is_refused(tmp_path):
    broken = prefixed("predictor.module.", {"predictor_embed.weight": np.zeros((16, 24))})
    message = (
        "the predictor: is not this model: .* missing: blocks.0.norm1.weight.*. To read the encoder without it, save"
    )
    with pytest.raises(CheckpointError, match=message):
        read(saved(tmp_path / "in1k.safetensors", prefixed("encoder.module.", names()) | broken), heads=2)


def test_an_encoder_whose_mlps_have_no_units_is_refused(tmp_path):
    empty = {"mlp.fc1.weight": (0, 24), "mlp.fc1.bias": (0,), "mlp.fc2.weight": (24, 0)}
    changes = {f"blocks.{i}.{name}": np.zeros(shape) for i in range(3) for name, shape in empty.items()}
    refused(tmp_path, names(**changes), r"encoder.variant = '24x3x2x0/4': must be SIZE/PATCH")


def test_a_predictor_without_biases_of_queries_keys_and_values_has_zeros(tmp_path):
    bare = {name: array for name, array in published().items() if not name.endswith("qkv.bias")}
    found = read(saved(tmp_path / "in1k.safetensors", prefixed("encoder.module.", names()) | bare), heads=2)
    qkv = found.params["predictor"]["stack"]["blocks"]["attention"]["qkv"]
    assert not qkv["bias"].any() and qkv["kernel"].any()


def transformers(folder, table, **config):
    """A folder of transformers' IJepaModel of our small encoder."""
    tensors = names(table=table)
    theirs = {
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
        "pos_embed": "embeddings.position_embeddings",
        "norm.": "layernorm.",
        "norm1.": "layernorm_before.",
        "norm2.": "layernorm_after.",
        "attn.proj.": "attention.output.dense.",
        "mlp.fc1.": "intermediate.dense.",
        "mlp.fc2.": "output.dense.",
    }
    named = {"embeddings.mask_token": np.ones((1, 1, 24))}
    for name, array in tensors.items():
        block = re.match(r"blocks\.\d+\.", name)
        head, rest = (f"encoder.layer.{name.split('.')[1]}.", name[block.end() :]) if block else ("", name)
        if rest.startswith("attn.qkv."):
            for which, part in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                named[f"{head}attention.attention.{which}.{rest.removeprefix('attn.qkv.')}"] = part
            continue
        old = next(beginning for beginning in theirs if rest.startswith(beginning))
        named[f"{head}{theirs[old]}{rest.removeprefix(old)}"] = array
    saved(folder / "model.safetensors", named)
    config = {"model_type": "ijepa", "num_attention_heads": 2, "patch_size": 4} | config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_pictures_that_are_no_squares(tmp_path):
    table = np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32)
    found = read(transformers(tmp_path, table, image_size=[8, 16]))
    assert found.encoder["position_grid"] == (1, 2, 4) and found.input["size"] == 8
    np.testing.assert_array_equal(found.params["encoder"]["tokenizer"]["positions"], table)
    assert "left out: mask_token" in found.about["notes"]
    equal(found.params["encoder"]["stack"], encoder()["stack"])
    for size, message in (([8, 20], r"8 places, which are not a grid of \(1, 2, 5\)"), ([8], "a height and a width")):
        with pytest.raises(CheckpointError, match=message):
            read(transformers(tmp_path, table, image_size=size))
    read(transformers(tmp_path, table[:4], image_size=8))


@pytest.mark.parametrize(
    "mean,std,name",
    [
        ([1e300] * 3, [1, 1, 1], "image_mean"),
        ([0, 0, -0.1], [1, 1, 1], "image_mean"),
        ([0, 0, 0], [1, 1, 2**31], "image_std"),
        ([0, 0, 0], [1, 1, 0], "image_std"),
        ([10**400] * 3, [1, 1, 1], "image_mean"),
    ],
)
def test_colours_beyond_reason_are_refused(tmp_path, mean, std, name):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    with pytest.raises(CheckpointError, match=f"{name} = .*: must be three numbers of 0 to 2"):
        read(transformers(tmp_path, None))


@pytest.mark.parametrize(
    "config,message",
    [
        ({"x": 1}, "model_type = 'None': must be 'ijepa', 'vjepa2' or 'dinov2'"),
        ({"model_type": "vit"}, "model_type = 'vit'"),
        ({"model_type": "ijepa", "num_attention_heads": 0}, "num_attention_heads = '0': must be a number above 0"),
        ({"model_type": "ijepa", "layer_norm_eps": "x"}, "layer_norm_eps = 'x'"),
        ({"model_type": "vjepa2", "hidden_act": "relu"}, "hidden_act = 'relu': must be one of gelu"),
    ],
)
def test_a_folders_config_must_make_sense(tmp_path, config, message):
    saved(tmp_path / "model.safetensors", names())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant,tubelet,count",
    [
        ("H/14", 1, 630_434_560),  # I-JEPA
        ("H/16", 1, 630_664_960),
        ("g/16", 1, 1_011_092_608),
        ("L/16", 2, 303_885_312),  # V-JEPA
        ("H/16", 2, 631_648_000),
        ("1408x40x22x6144/16", 2, 1_012_173_952),  # V-JEPA 2
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(variant, tubelet, count):
    video = jnp.zeros((1, tubelet, 224, 224, 3))
    params = jax.eval_shape(Encoder(variant, tubelet).init, jax.random.key(0), video)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(
    "out,mask_tokens,count", [(1280, 1, 22_279_424), (1024, 2, 22_082_944), (1024, 10, 22_086_016)]
)
def test_published_predictors_have_the_published_number_of_parameters(out, mask_tokens, count):
    rest = jnp.ones((1, 4), bool), jnp.ones((1, 2, 4), bool), jnp.ones((1, 2), bool)
    network = Predictor(depth=12, width=384, heads=12, out=out)
    start = lambda key: network.init(key, jnp.zeros((1, 4, out)), *rest, grid=(1, 2, 2))["params"]  # noqa: E731
    params = jax.eval_shape(start, jax.random.key(0))
    del params["object_embedding"], params["residual"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) + (mask_tokens - 1) * 384 == count


def test_a_path_to_the_weights_of_a_folder_is_the_folder(tmp_path):
    saved(tmp_path / "model.safetensors", names())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(CheckpointError, match="model_type"):
        read(tmp_path / "model.safetensors")
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "other.safetensors")
    assert read(tmp_path / "other.safetensors", heads=2).layout == "timm"


def test_what_is_no_weights_is_refused_before_it_is_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("cjepa_jax.weights.read._digest", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(CheckpointError, match="has none of model.safetensors, model.safetensors.index.json"):
        read(tmp_path)
    (tmp_path / "film.mp4").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match="is neither safetensors nor a checkpoint of PyTorch"):
        read(tmp_path / "film.mp4")
