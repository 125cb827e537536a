"""The folder that an export is: whole or not there, read back bit for bit, and what its texts say."""

import dataclasses
import hashlib
import json
import os

import jax
import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.export import bundle, card, other_layouts
from cjepa_jax.weights import read
from tests.export import pairs

FORMS = {
    "images": {},
    "clips, tables, across": {
        "frames": 4,
        "encoder": {"positions": "table", "position_grid": (2, 4, 4), "gelu": "tanh"},
        "predictor": {"positions": "table", "position_grid": (2, 4, 4), "attention": "cross", "remat": "dots"},
    },
    "an encoder": {"predictor": False, "target": False, "encoder": {"positions": "rope", "position_grid": (1, 2, 2)}},
}


@pytest.mark.parametrize("form", FORMS)
def test_an_export_is_read_back_bit_for_bit_and_exported_again_to_the_same_bytes(form, tmp_path):
    model = pairs.model(**FORMS[form])
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    bundle.write(tmp_path / "one", model, "card")
    found = read.read(tmp_path / "one")
    assert jax.tree.structure(found.params) == jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, model.params)
    assert found.encoder == model.encoder
    assert (found.predictor or {}) == {k: v for k, v in (model.predictor or {}).items() if k != "remat"}
    assert model.input.items() <= found.input.items() and found.input["change"] == bool(model.predictor)
    assert (found.source, found.digest, found.licence) == ("run", model.digest, model.licence)  # no path of this disk
    bundle.write(tmp_path / "two", found, "card")
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_colours_that_no_config_states_are_written_as_the_usual_ones():
    """The PyTorch code reads them from config.json. Configs of older runs do not have them."""
    model = pairs.model()
    older = {key: value for key, value in model.encoder.items() if key not in ("mean", "std")}
    found = bundle.description(dataclasses.replace(model, encoder=older))["encoder"]
    assert (found["mean"], found["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_the_control_that_names_visible_objects_is_refused():
    with pytest.raises(ConfigError, match="objective.predictor.name_context = True: a model of this control cannot be"):
        bundle.description(pairs.model(predictor={"name_context": True}))
    assert "name_context" not in bundle.description(pairs.model(predictor={"name_context": False}))["predictor"]


@pytest.mark.parametrize("key, value", [("tokenizer", {"type": "a:B"}), ("causal", "frame"), ("levels", (0,))])
def test_an_encoder_with_options_that_no_other_code_has_is_refused(key, value):
    model = pairs.model()
    off = dict(tokenizer=None, causal="none", levels=())
    same = bundle.exportable(dataclasses.replace(model, encoder=model.encoder | off))
    assert same.encoder == model.encoder
    with pytest.raises(ConfigError, match=f"^objective.encoder.{key} = .*: such an encoder cannot be exported"):
        bundle.exportable(dataclasses.replace(model, encoder=model.encoder | off | {key: value}))


def test_the_sum_is_of_the_weights_and_a_changed_byte_is_seen(tmp_path):
    bundle.write(tmp_path, pairs.model(), "card")
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    assert (tmp_path / "model.safetensors.sha256").read_text() == f"{hashlib.sha256(data).hexdigest()}  {file.name}\n"
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="not the file that was written"):
        read.read(tmp_path)


@pytest.mark.needs("torch")
def test_the_code_refuses_what_is_damaged_or_does_not_fit(tmp_path):
    from cjepa_jax.export.modeling_cjepa import CausalJEPA

    bundle.write(tmp_path, pairs.model(), "card")
    file, config = tmp_path / "model.safetensors", json.loads((tmp_path / "config.json").read_text())
    for changed, text in (
        ({"version": 2}, "version 1"),
        ({"format": "other"}, "not of the format cjepa_jax"),
        ({"encoder": config["encoder"] | {"variant": "36x3x3x56/4"}}, "Missing key.*encoder.blocks.2"),
        ({"encoder": config["encoder"] | {"variant": "36x1x3x56/4"}}, "Unexpected key.*encoder.blocks.1"),
        ({"encoder": config["encoder"] | {"variant": "36x2x3x40/4"}}, "size mismatch for encoder.blocks.0.mlp.fc1"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(ValueError, match=f"(?s){text}"):
            CausalJEPA.from_pretrained(tmp_path)
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    (tmp_path / "config.json").write_text(json.dumps(config))
    for left in ((tmp_path / "model.safetensors.sha256").read_text(), ""):
        (tmp_path / "model.safetensors.sha256").write_text(left)
        with pytest.raises(ValueError, match="damaged: its SHA-256"):
            CausalJEPA.from_pretrained(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(ZeroDivisionError), bundle.whole(out) as folder:
        (folder / "half").write_text("")
        assert not out.exists()
        1 / 0  # noqa: B018
    assert not list(out.parent.iterdir())
    with bundle.whole(out) as folder:
        (folder / bundle.SUM).write_text("first")
    with pytest.raises(ConfigError, match="holds an export already"), bundle.whole(out):
        pass
    with pytest.raises(ZeroDivisionError), bundle.whole(out, overwrite=True) as folder:
        1 / 0  # noqa: B018
    assert (out / bundle.SUM).read_text() == "first"
    with bundle.whole(out, overwrite=True) as folder:
        (folder / bundle.SUM).write_text("second")
    assert (out / bundle.SUM).read_text() == "second" and os.listdir(out.parent) == ["out"]
    with pytest.raises(ConfigError, match="not empty, and no export"), bundle.whole(tmp_path / "mine", overwrite=True):
        (tmp_path / "mine").mkdir()  # somebody else takes the place in the meantime
        (tmp_path / "mine" / "work").write_text("theirs")
    assert (tmp_path / "mine" / "work").read_text() == "theirs"


def test_nothing_that_is_no_export_is_replaced(tmp_path):
    (tmp_path / "export" / "mine").mkdir(parents=True)
    (tmp_path / "export" / bundle.SUM).write_text("")
    with pytest.raises(ConfigError, match="holds 'mine', which is not part"):
        bundle.require_free(tmp_path / "export", overwrite=True)
    (tmp_path / "mine").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for out, text in ((tmp_path, "not empty, and no export"), (tmp_path / "mine", "is not a folder")):
        with pytest.raises(ConfigError, match=text), bundle.whole(out, overwrite=True):
            pass
    with pytest.raises(ConfigError, match="is not a folder"), bundle.whole(tmp_path / "link", overwrite=True):
        pass
    with pytest.raises(ConfigError, match="cannot be made"), bundle.whole(tmp_path / "mine" / "out"):
        pass


def test_a_head_for_the_change_that_was_not_trained_is_not_offered():
    assert read.foresees(pairs.model())
    assert not read.foresees(pairs.model(change=False))
    zeros = pairs.model()
    zeros.params["predictor"]["residual"]["kernel"][:] = 0
    assert not read.foresees(zeros)
    assert not read.foresees(pairs.model(predictor=False))


def test_the_card_says_what_is_known_and_invents_nothing():
    unknown = card.text(pairs.model(), "DIR")
    assert "license: other" in unknown and "unspecified" in unknown and "Nothing is known of how" in unknown
    training = {"seed": 3, "objective": {"causal_weight": 0.005}, "data": {"source": "cjepa_jax.data.worlds:Balls"}}
    training["probe"] = {"train": 1024, "test": 512}
    metrics = {"count_r2": 0.52749, "count_r2_random": 0.3, "rankme": 87.8}
    about = {"step": 750, "objective": "cjepa_jax.objectives.jepa:Jepa", "training": training, "metrics": metrics}
    known = dataclasses.replace(pairs.model(frames=4), about=about, licence="CC-BY-NC-4.0")
    text = card.text(known, "DIR")
    assert "| count_r2 | 0.5275 | 0.3 |  |" in text and "| rankme | 87.8 |  |  |" in text
    assert "step 750, seed 3, one run, no spread" in text and "1024 to fit on, 512 to score" in text
    assert "license: cc-by-nc-4.0" in text and "may not be used commercially" in text
    assert "- weight of the causal term: 0.005" in text and "worlds:Balls" in text and "peak learning" not in text
    assert 'from_pretrained("DIR")' in text and "[B, T, H, W, 3]" in text and "model.intervene" in text


def test_a_card_quotes_texts_of_a_run_without_their_markup():
    text = "\n---\n# A heading | <script> `"
    training = {"init_from": text, "seed": [text], "probe": {"train": text, "test": 1}, "data": {"source": text}}
    about = {"training": training, "metrics": {text: 1.0}, "notes": [text], "objective": text, "step": text}
    written = card.text(dataclasses.replace(pairs.model(), source=text, licence=text, about=about), "name")
    body = written.split("\n---\n", 1)[1]
    assert "\n# A heading" not in written and "<script" not in body and "\n---" not in body


def test_a_description_tells_no_folders_of_this_disk():
    training = {"init_from": "/home/me/ijepa.pth.tar", "data": {"path": "/data/mine", "source": "a.b:C"}}
    about = {"training": training, "init_from": {"source": "/home/me/ijepa.pth.tar", "licence": "CC-BY-NC-4.0"}}
    model = dataclasses.replace(pairs.model(), about=about)
    text = json.dumps(bundle.description(model))
    assert "/home" not in text and "/data" not in text and "a.b:C" in text and text.count("ijepa.pth.tar") == 2


def test_a_description_is_plain_json():
    about = {"score": float("nan"), "step": np.int64(3), "grid": (1, 2), "nested": {"x": [np.float32(0.5)]}}
    found = bundle.description(dataclasses.replace(pairs.model(), about=about))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["about"] == {"score": None, "step": 3, "grid": [1, 2], "nested": {"x": [0.5]}}


def test_other_channels_and_another_scale_survive(tmp_path):
    settings = {"channels": 5, "scale": 2.0, "mean": (0.1,) * 5, "std": (0.5,) * 5}
    model = pairs.model(encoder=settings, predictor=False, target=False)
    assert bundle.scene_shape(model) == (16, 16, 5)
    bundle.write(tmp_path, model, "card")
    found = read.read(tmp_path)
    assert found.encoder == model.encoder
    jax.tree.map(np.testing.assert_array_equal, found.params, model.params)
    for layout in ("timm", "transformers"):
        with pytest.raises(ConfigError, match=f"--layout={layout}: holds encoders of RGB.* channels = 5.*cjepa_jax"):
            other_layouts.require_rgb(model, layout)
    written = json.loads((tmp_path / "config.json").read_text())
    for change in ({"mean": [0.1] * 3}, {"channels": 0}, {"channels": 10**9}, {"scale": 0}):
        (tmp_path / "config.json").write_text(json.dumps(written | {"encoder": written["encoder"] | change}))
        with pytest.raises(CheckpointError, match=f"encoder.{next(iter(change))} "):
            read.read(tmp_path)


def test_an_export_of_rgb_says_no_more_than_before(tmp_path):
    model = pairs.model(encoder={"channels": 3, "scale": 255.0}, predictor=False, target=False)
    assert (
        bundle.description(model)["encoder"]
        == bundle.description(pairs.model(predictor=False, target=False))["encoder"]
    )
