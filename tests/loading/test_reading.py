"""What published weights do not say themselves can be said to load, export, init_from and evaluate alike."""

import json

import pytest

import cjepa_jax
from cjepa_jax import cli
from cjepa_jax.errors import CheckpointError
from cjepa_jax.export import __main__ as export
from cjepa_jax.loading import init_from, model, pretrained
from cjepa_jax.loading.inputs import InputError
from cjepa_jax.weights.read import Reading
from configs import clips
from tests import run_folders
from tests.loading import test_init_from
from tests.weights.test_read import names, prefixed, saved

TOLD = Reading("vjepa2", heads=2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A lone encoder of clips with stored positions, which V-JEPA 2 does not use and V-JEPA does."""
    return saved(tmp_path_factory.mktemp("weights") / "clips.safetensors", prefixed("encoder.module.", names(16)))


def test_load(stored):
    with pytest.raises(CheckpointError, match=r"layout='vjepa2' if not.*\(commands: --from-layout\)"):
        cjepa_jax.load(stored)
    found = cjepa_jax.load(stored, layout="vjepa2", heads=2)
    assert found.info["layout"] == "vjepa2"
    assert cjepa_jax.load(stored, layout="vjepa2", heads=2, images=True).info["frames"] == 1 != found.info["frames"]
    with pytest.raises(InputError, match="heads = -1"):
        cjepa_jax.load(stored, heads=-1)
    with pytest.raises(CheckpointError, match="layout = 'x': must be one of"):
        cjepa_jax.load(stored, layout="x")


def test_init_from_and_evaluate(stored, tmp_path):
    config = clips.get_config()
    config.init_from = str(stored)
    with pytest.raises(CheckpointError, match="--from-layout"):
        init_from.prepare(config, tmp_path / "run")
    weights, _ = init_from.prepare(config, tmp_path / "run", (), TOLD._replace(images=True))
    assert weights.layout == "vjepa2" and weights.input["frames"] == 1
    assert model._opened(str(stored), (), TOLD)[1].layout == "vjepa2"


def test_a_run_without_checkpoints_reloads_them_as_told(stored, tmp_path):
    made = test_init_from.config(init_from=str(stored))
    (tmp_path / "run").mkdir()
    weights, _ = init_from.prepare(made, tmp_path / "run", (), TOLD)
    state = test_init_from.blank(made)
    first = init_from.start(made, state, weights, tmp_path / "run")
    with pytest.raises(CheckpointError, match="--from-layout"):
        init_from.start(made, state, None, tmp_path / "run")
    again = init_from.start(made, state, None, tmp_path / "run", reading=TOLD)
    test_init_from.equal(again.params["encoder"], first.params["encoder"])


def test_export_and_what_says_itself(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("cjepa_jax.cli.set_up_logging", lambda level: None)
    monkeypatch.setattr("cjepa_jax.cli.keep_compiled_code", lambda: None)
    out = tmp_path / "exported"
    assert export.main([f"--checkpoint={stored}", f"--out={out}", "--from-layout=vjepa2", "--from-heads=2"]) == 0
    assert json.loads((out / "config.json").read_text())["encoder"]["positions"] == "rope_tile"
    run = run_folders.write(tmp_path / "run")
    for path in (out, run):
        assert pretrained.load_weights(path).encoder
        for call in (pretrained.load_weights, lambda path, reading: model._opened(str(path), (), reading)):
            with pytest.raises(CheckpointError, match="heads = 2: only for published weights. A run or an export"):
                call(path, reading=TOLD)


def test_flags():
    cli.parse(["x", "--config=tiny", "--from-layout=vjepa", "--from-frames=64", "--from-images"], cli.define_reading)
    assert cli.reading() == Reading("vjepa", 0, 64, True)
    cli.parse(["x", "--config=tiny"])
    assert cli.reading() == Reading()
