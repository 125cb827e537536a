"""Folders for transformers: its models compute what ours do, and what it saves comes back from us unchanged."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from cjepa_jax import cli
from cjepa_jax.errors import ConfigError
from cjepa_jax.export import __main__ as export
from cjepa_jax.export import bundle, huggingface, other_layouts
from cjepa_jax.weights.read import read
from tests.export import pairs
from tests.weights.parity import CLOSE, encode, normal, predict

TABLE = {"positions": "table", "position_grid": (1, 4, 4)}
ROPE = {"positions": "rope_tile"}
CLIPS = {"frames": 4, "encoder": ROPE, "names_objects": False, "predictor": ROPE}
NO_TARGET = {"target": False, "predictor": False}
NOT_KEPT = ("object_embedding", "residual")  # of a predictor, in transformers' models


def exported(folder, model, *flags):
    """A transformers folder of `model`, by the command."""
    own = folder / "own"
    own.mkdir(exist_ok=True)
    bundle.write(own, model, "card")
    out = folder / "out"
    assert export.main([f"--checkpoint={own}", f"--out={out}", "--layout=transformers", "--overwrite", *flags]) == 0
    return out


def equal(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def loaded(kind, folder, missing=()):
    """transformers' model, with no key too many, and none missing but `missing`."""
    import transformers

    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {name.split(".")[0] for name in info["missing_keys"]} == set(missing)
    return model.eval()


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("case", [
    {},
    {"encoder": TABLE | {"gelu": "tanh", "epsilon": 1e-3, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}},
    {"encoder": {"positions": "table", "position_grid": (1, 2, 6)}},
    {"variant": "36x2x3x29/4"},
])  # fmt: skip
def test_ijepa_models_compute_the_same_and_are_read_back_to_the_bit(case, tmp_path):
    import torch

    model = pairs.model(**NO_TARGET | case)
    out = exported(tmp_path, model)
    grid = model.encoder["position_grid"] or (1, 4, 4)
    video = np.random.default_rng(0).integers(0, 256, (2, 1, 4 * grid[1], 4 * grid[2], 3)).astype(np.float32)
    theirs = loaded("IJepaModel", out)
    with torch.no_grad():
        tokens = theirs(normal(video, model)[:, 0]).last_hidden_state
    np.testing.assert_allclose(encode(model, video), tokens, **CLOSE)
    found = read(out)
    equal(found.params, model.params)
    assert {"tubelet"} >= {key for key in found.encoder if found.encoder[key] != model.encoder[key]}
    assert (found.layout, found.licence) == ("hf-ijepa", "unspecified")
    assert 'IJepaModel.from_pretrained("out")' in (out / "README.md").read_text()


@pytest.mark.needs("transformers")
def test_vjepa2_models_compute_the_same_and_are_read_back_to_the_bit(tmp_path):
    import torch

    model = pairs.model(**CLIPS)
    out = exported(tmp_path, model)
    video = pairs.scenes(model, 2)[0].astype(np.float32)
    context, targets = np.arange(0, 32, 3), np.arange(1, 32, 3)
    masks = [torch.tensor(ids)[None].repeat(2, 1) for ids in (context, targets)]
    theirs = loaded("VJEPA2Model", out)
    with torch.no_grad():
        answer = theirs(normal(video, model), [masks[0]], [masks[1]])
    tokens = encode(model, video)
    np.testing.assert_allclose(tokens, answer.last_hidden_state, **CLOSE)
    residual = model.params["predictor"]["residual"]  # not exported, and `predict` wants zeros
    zeros = model.params["predictor"] | {"residual": jax.tree.map(np.zeros_like, residual)}
    plain = dataclasses.replace(model, params=model.params | {"predictor": zeros})
    ours = predict(plain, tokens, context, targets, (2, 4, 4))
    np.testing.assert_allclose(ours, answer.predictor_output.last_hidden_state, **CLOSE)
    found = read(out)
    equal(found.params["encoder"], model.params["encoder"])
    kept = [{n: a for n, a in each.params["predictor"].items() if n not in NOT_KEPT} for each in (found, model)]
    equal(*kept)
    assert found.encoder == model.encoder and found.predictor == {k: model.predictor[k] for k in found.predictor}
    assert {name: found.input[name] for name in ("size", "frames")} == {"size": 16, "frames": 4}


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("case, flags, part", [
    ({"names_objects": True}, ["--part=encoder"], "encoder"),
    ({}, ["--part=target"], "target"),
    ({"predictor": False}, [], "encoder"),
    ({"frames": 1, "tubelet": 1}, ["--part=encoder"], "encoder"),
])  # fmt: skip
def test_an_encoder_of_clips_is_written_alone(case, flags, part, tmp_path):
    import torch

    model = pairs.model(**CLIPS | case)
    out = exported(tmp_path, model, *flags)
    video = pairs.scenes(model, 2)[0].astype(np.float32)
    theirs = loaded("VJEPA2Model", out, missing=["predictor"])
    with torch.no_grad():
        tokens = theirs(normal(video, model), skip_predictor=True).last_hidden_state
    np.testing.assert_allclose(encode(model, video, which=part), tokens, **CLOSE)
    found = read(out)
    equal(found.params, {"encoder": model.params[part]})
    assert found.predictor is None and "There is no predictor in the folder" in (out / "README.md").read_text()
    assert ("EMA copy" in (out / "README.md").read_text()) == (part == "target")


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("kind", ["IJepa", "VJEPA2"])
def test_what_transformers_saves_comes_back_unchanged(kind, tmp_path):
    import torch
    import transformers

    from tests.weights.reference import shaken

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 8}
    if kind == "IJepa":
        sizes |= {"intermediate_size": 80, "image_size": 32, "layer_norm_eps": 1e-5}
    else:
        sizes |= {"mlp_ratio": 2.5, "crop_size": 32, "frames_per_clip": 4, "pred_hidden_size": 40}
        sizes |= {"pred_num_attention_heads": 2, "pred_num_hidden_layers": 1, "pred_num_mask_tokens": 3}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    first = shaken(getattr(transformers, f"{kind}Model")(config))
    first.save_pretrained(tmp_path / "first")
    folder = f"--checkpoint={tmp_path / 'first'}", f"--out={tmp_path / 'out'}", "--layout=transformers"
    assert export.main([*folder]) == 0
    again = loaded(f"{kind}Model", tmp_path / "out")
    wanted, found = first.state_dict(), again.state_dict()
    token = "predictor.embeddings.mask_tokens"
    if token in wanted:  # of several, the one that its forward pass uses
        wanted[token] = wanted[token][1:2]
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted)
    ours, theirs = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("out", "first"))
    one = {"pred_num_mask_tokens": 1} if kind == "VJEPA2" else {}
    assert ours.items() <= (theirs | one).items()
    before, after = (each.config.to_dict() | one | {"_name_or_path": ""} for each in (first, again))
    assert before == after


@pytest.mark.needs("transformers")
def test_the_processor_gives_the_pixels_of_the_training(tmp_path):
    from transformers import AutoImageProcessor

    model = pairs.model(**NO_TARGET, encoder={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)})
    out = exported(tmp_path, model)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pixels = AutoImageProcessor.from_pretrained(out)(image, return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(pixels, normal(image[None, None].astype(np.float32), model)[:, 0], atol=1e-6)
    clips = huggingface.folder(pairs.model(**CLIPS)).processor
    assert clips[0] == "video_preprocessor_config.json" and clips[1]["crop_size"] == {"height": 16, "width": 16}


@pytest.mark.parametrize("case, text", [
    ({"encoder": {"positions": "rope"}}, "encoder.positions = 'rope': must be 'rope_tile'"),
    ({"frames": 4}, "encoder.positions = 'sincos': must be 'rope_tile' (VJEPA2Model) for clips"),
    (CLIPS | {"encoder": ROPE | {"position_grid": (1, 2, 2)}}, "encoder.position_grid = (1, 2, 2): must be ()"),
    (CLIPS | {"names_objects": True}, "input.names_objects = True (object embeddings)"),
    (CLIPS | {"predictor": ROPE | {"attention": "cross"}}, "predictor.attention = 'cross', not 'joint'"),
    (CLIPS | {"predictor": {}}, "predictor.positions = 'sincos', not 'rope_tile'"),
    (CLIPS | {"predictor": ROPE | {"epsilon": 1e-5}}, "predictor.epsilon = 1e-05, not 1e-06"),
    (CLIPS | {"predictor": ROPE | {"gelu": "tanh"}}, "predictor.gelu = 'tanh', not 'exact'"),
    (CLIPS | {"predictor": ROPE | {"position_grid": (1, 2, 2)}}, "predictor.position_grid = (1, 2, 2), not ()"),
])  # fmt: skip
def test_what_they_cannot_express_is_one_line_with_the_setting(case, text):
    with pytest.raises(ConfigError, match=re.escape(f"--layout=transformers: {text}")):
        huggingface.folder(pairs.model(**case))


def test_the_command_ends_with_that_line_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    bundle.write(tmp_path / "own", pairs.model(frames=4), "card")
    flags = [f"--checkpoint={tmp_path / 'own'}", f"--out={tmp_path / 'out'}", "--layout=transformers"]
    assert cli.guard(lambda: export.main(flags)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "encoder.positions = 'sincos'" in line and not (tmp_path / "out").exists()


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="--part=target: these weights have encoder"):
        huggingface.folder(pairs.model(**NO_TARGET), "target")


def test_mlp_ratios_give_any_number_of_units():
    """PyTorch code computes int(width * ratio), which for 49 and 1/49 would be 0."""
    assert int(49 * (1 / 49)) == 0
    sizes = [(width, hidden) for width in range(6, 300, 3) for hidden in range(1, 700, 3)]
    assert all(int(width * other_layouts.mlp_ratio(width, hidden)) == hidden for width, hidden in sizes)
