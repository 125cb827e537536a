"""Weights of a run's folder: which checkpoint, what is passed over, what is refused. And that no data are needed."""

import json
import shutil

import jax
import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError, CjepaError, ConfigError
from cjepa_jax.loading import pretrained
from configs import clips
from configs.ablations import slots
from configs.baselines import byol, lejepa, mae, supervised
from tests import run_folders


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folders.write(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def copy(run, tmp_path):
    """A folder that may be damaged."""
    return shutil.copytree(run, tmp_path / "copy")


def change(folder, **sections):
    """Other values in the folder's config.json, by section."""
    saved = json.loads((folder / "config.json").read_text())
    for name, values in sections.items():
        saved[name] = saved[name] | values if isinstance(values, dict) else values
    (folder / "config.json").write_text(json.dumps(saved))


def damage(folder, step):
    """Some bytes of a checkpoint's largest file are others."""
    files = (file for file in (folder / "checkpoints" / str(step)).rglob("*") if file.is_file())
    file = max(files, key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def refusal(kind, *args, **options):
    with pytest.raises(kind) as caught:
        pretrained.load_weights(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_runs_newest_checkpoint_with_what_the_config_says_of_it(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found, state = pretrained.load_weights(run), run_folders.state_of(run_folders.config(), 4)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    same(found.params, {"encoder": state.params["encoder"], "target": state.target} | {
        "predictor": state.params["predictor"]
    })  # fmt: skip
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 for leaf in jax.tree.leaves(found.params))
    assert pretrained.OFF.keys().isdisjoint(found.encoder)  # other configs have no such keys
    assert found.encoder["variant"] == "96x1x3x384/8" and found.encoder["depth"] == 0  # Mu/8 with one block
    assert (found.predictor["width"], found.predictor["max_objects"]) == (16, 3) and "out" not in found.predictor
    assert (found.layout, found.source, found.licence) == ("cjepa_jax", str(run), "unspecified")
    expected = {"size": 32, "frames": 2, "anchor": 0, "names_objects": True, "encoder_input": "context", "change": True}
    assert found.input == expected
    assert found.about["step"] == 4 and found.about["training"]["data"]["size"] == 32 and not found.about["metrics"]


def test_a_step_is_chosen_and_an_absent_one_lists_those_there_are(run):
    newest, older = pretrained.load_weights(str(run)), pretrained.load_weights(run / "checkpoints", step=2)
    same(older.params["target"], run_folders.state_of(run_folders.config(), 2).target)
    assert older.digest != newest.digest
    assert refusal(ConfigError, run, step=3).endswith("has checkpoints of the steps 2, 4")


def test_a_damaged_checkpoint_is_passed_over_or_refused(copy, caplog):
    damage(copy, 4)
    assert pretrained.load_weights(copy).about["step"] == 2
    assert "checkpoint 4 is passed over" in caplog.text
    for options in ({"strict": True}, {"step": 4}):
        assert "checkpoints, step 4: is damaged: its files are not what was written" in refusal(
            CheckpointError, copy, **options
        )
    assert pretrained.load_weights(copy, step=2, strict=True).about["step"] == 2
    damage(copy, 2)
    assert "no checkpoint is readable" in refusal(CheckpointError, copy)


@pytest.mark.parametrize("gone", ["sha256.json", "default/manifest.ocdbt", "default"])
def test_a_half_written_checkpoint_is_refused_when_strict(copy, gone):
    place = copy / "checkpoints/4" / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    try:
        found = pretrained.load_weights(copy, strict=True)
    except CheckpointError as error:
        assert "step 4" in str(error) and "\n" not in str(error)
    else:  # what is left is all that was written
        same(found.params["target"], run_folders.state_of(run_folders.config(), 4).target)
        assert gone == "sha256.json"


def test_neither_data_nor_the_code_of_source_and_mask_are_needed(copy):
    change(copy, data={"source": "nowhere:Source", "path": "/nowhere"}, mask={"type": "nowhere:draw"})
    assert "mask.type = 'nowhere:draw': is code of another package: --trust=nowhere" in refusal(CheckpointError, copy)
    same(
        pretrained.load_weights(copy, trust="nowhere").params["target"],
        run_folders.state_of(run_folders.config(), 4).target,
    )


@pytest.mark.slow
def test_scores_of_the_last_probe_before_the_checkpoint(copy):
    lines = [{"step": step, "probe/rankme": 10.0 + step, "probe/bad": "nan", "loss": 1.0} for step in (1, 3, 5)]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "pro')
    assert pretrained.load_weights(copy).about["metrics"] == {"rankme": 13.0}
    assert pretrained.load_weights(copy, step=2).about["metrics"] == {"rankme": 11.0}


def test_the_licence_of_what_the_run_was_started_from(copy):
    started = {"source": "elsewhere", "digest": "0", "licence": "CC-BY-NC-4.0"}
    (copy / "init_from.json").write_text(json.dumps(started | {"path": "/home/somebody"}))
    found = pretrained.load_weights(copy)
    assert found.licence == "CC-BY-NC-4.0" and found.about["init_from"] == started
    assert "licence CC-BY-NC-4.0" in found.summary()


@pytest.mark.parametrize(
    "sections, text",
    [
        ({"objective": 3}, "not a run's config"),
        ({"optim": None}, "not a run's config"),
        ({"objective": {"type": "os:system"}}, "objective.type = 'os:system': is code of another package: --trust=os "),
        ({"objective": {"encoder": None}}, "is not usable"),
        ({"objective": {"encoder": {"variant": "Mu/0"}}}, "objective.encoder.variant = 'Mu/0'"),
        ({"objective": {"encoder": {"variant": "Mu/8", "hands": 2}}}, "hands"),
        ({"objective": {"more": 2}}, "more"),
        ({"data": {"size": "large"}}, "data.size"),
        ({"data": {"frames": [2]}}, "data.frames"),
        ({"mask": {"type": "cjepa_jax.masks.objects:nothing"}}, "nothing"),
        ({"optim": {"b1": None}}, "optim.b1"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(copy, sections, text):
    change(copy, **sections)
    line = refusal(CheckpointError, copy)
    assert "config.json: " in line and text in line, line


def test_another_model_than_the_config_says_is_refused(copy):
    change(copy, objective={"encoder": {"variant": "Mu/8", "depth": 2}})
    assert "belongs to another model" in refusal(CheckpointError, copy)


def test_a_backbone_without_patches_is_refused(copy):
    run_folders.write(copy, run_folders.config(supervised), steps=())
    line = refusal(CheckpointError, copy)
    text = "objective.type = 'cjepa_jax.objectives.supervised:Supervised': exports = (): must be 'encoder'"
    assert f"{text}, and may be 'predictor' too, for its weights to be loaded" in line


def test_where_there_is_nothing(tmp_path, run):
    assert "there is no such file or folder" in refusal(ConfigError, tmp_path / "none")
    assert "step = 2" in refusal(ConfigError, tmp_path, step=2)
    folder = run_folders.write(tmp_path / "empty", steps=())
    assert "there is no checkpoint in" in refusal(ConfigError, folder)
    (folder / "config.json").unlink()
    assert "config.json" in refusal(CjepaError, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "base, frames, parts",
    [
        (clips, 1, ["encoder", "predictor", "target"]),
        (slots, 2, ["encoder", "predictor", "target"]),
        (mae, 2, ["encoder"]),
        (byol, 1, ["encoder", "target"]),
        (lejepa, 2, ["encoder"]),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_every_objective_with_an_encoder_is_opened(tmp_path, base, frames, parts):
    c = run_folders.config(base, data__frames=frames)
    found, state = pretrained.load_weights(run_folders.write(tmp_path, c, steps=(1,))), run_folders.state_of(c, 1)
    assert sorted(found.params) == parts
    same(found.params["encoder"], state.params["encoder"])
    if "target" in parts:
        same(found.params["target"], state.target.get("encoder", state.target))
    assert (found.predictor is not None) == ("predictor" in parts) and found.input["frames"] == frames


@pytest.mark.slow
def test_a_config_from_before_some_settings(copy):
    saved = json.loads((copy / "config.json").read_text())
    for section, names in (("encoder", ("positions", "position_grid", "epsilon")), ("predictor", ("positions",))):
        for name in names:
            del saved["objective"][section][name]
    saved["optim"].pop("freeze"), saved.pop("init_from")
    (copy / "config.json").write_text(json.dumps(saved))
    found = pretrained.load_weights(copy)
    assert (found.encoder["epsilon"], found.encoder["positions"], found.predictor["position_grid"]) == (
        1e-6,
        "sincos",
        (),
    )
