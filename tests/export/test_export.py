"""The export command: from checkpoints as runs leave them to a folder, or to one line and no folder."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from cjepa_jax import api, cli
from cjepa_jax.errors import CheckpointError
from cjepa_jax.export import __main__ as export
from cjepa_jax.export import bundle, other_layouts
from cjepa_jax.loading import pretrained
from cjepa_jax.weights import read
from configs.baselines import ijepa
from tests import run_folders
from tests.export import pairs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = run_folders.write(tmp_path_factory.mktemp("run") / "run")
    lines = [{"step": step, "probe/rankme": 10.0 + step, "probe/rankme_random": 3.0} for step in (1, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    head = {"objective__predictor__width": 24, "objective__predictor__heads": 3}
    c = run_folders.config(ijepa, data__frames=1, **head)
    return run_folders.write(tmp_path_factory.mktemp("images") / "run", c, steps=(2,))


def exported(*flags):
    return export.main([*map(str, flags)])


def refused(code, capsys, *flags):
    """The one line with which the command ends."""
    assert cli.guard(lambda: exported(*flags)) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_a_run_is_exported_and_read_back(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert exported(f"--checkpoint={run}", f"--out={out}", "--licence=MIT") == 0
    files = {
        "model.safetensors",
        "model.safetensors.sha256",
        "config.json",
        "modeling_cjepa.py",
        "README.md",
        "LICENSE",
    }
    assert {file.name for file in out.iterdir()} == files
    out_text = capsys.readouterr().out
    assert all(name in out_text for name in files) and f"--out={out}" in out_text and "licence MIT" in out_text
    found, source = read.read(out), pretrained.load_weights(run)
    same(found.params, source.params)
    assert found.licence == "MIT" and found.about["step"] == 4 and found.about["metrics"]["rankme"] == 13.0
    assert "| rankme | 13 | 3 |  |" in (out / "README.md").read_text()
    assert "These weights: MIT." in (out / "LICENSE").read_text()
    assert exported(f"--checkpoint={out}", f"--out={tmp_path / 'again'}") == 0
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (out / "model.safetensors").read_bytes()


def test_a_step_is_chosen_and_an_export_is_only_replaced_when_told(run, tmp_path, capsys):
    where = f"--checkpoint={run}", f"--out={tmp_path / 'out'}"
    assert exported(*where, "--step=2") == 0
    same(read.read(tmp_path / "out").params, pretrained.load_weights(run, step=2).params)
    assert "give --overwrite" in refused(2, capsys, *where)
    assert exported(*where, "--overwrite") == 0
    assert read.read(tmp_path / "out").about["step"] == 4
    assert "has checkpoints of the steps 2, 4" in refused(2, capsys, *where, "--step=3", "--overwrite")
    assert read.read(tmp_path / "out").about["step"] == 4


def damage(place):
    """Another byte in the checkpoint's largest file."""
    file = max((file for file in place.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def lose(place):
    """One of the files of its arrays is gone."""
    max((file for file in place.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size).unlink()


@pytest.mark.parametrize("harm", [damage, lose])
def test_a_damaged_or_half_written_newest_checkpoint_is_refused(harm, run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    harm(copy / "checkpoints" / "4")
    line = refused(4, capsys, f"--checkpoint={copy}", f"--out={tmp_path / 'out'}")
    assert "step 4" in line
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy"]
    assert exported(f"--checkpoint={copy}", f"--out={tmp_path / 'out'}", "--step=2") == 0


def test_other_layouts_and_parts(images, run, tmp_path, capsys):
    where = f"--checkpoint={images}", f"--out={tmp_path / 'timm'}"
    assert exported(*where, "--layout=timm", "--part=target") == 0
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert config["model_args"]["img_size"] == 32 and config["num_features"] == 96
    assert exported(f"--checkpoint={images}", f"--out={tmp_path / 'ijepa'}", "--layout=ijepa") == 0
    found, source = read.read(tmp_path / "ijepa" / "model.safetensors"), pretrained.load_weights(images)
    assert found.layout == "ijepa" and not source.input["names_objects"]
    for part in ("encoder", "target"):
        same(found.params[part], source.params[part])
    unlike = {"object_embedding", "residual"}  # which I-JEPA's predictor has not
    ours = {name: tree for name, tree in source.params["predictor"].items() if name not in unlike}
    same({name: tree for name, tree in found.params["predictor"].items() if name not in unlike}, ours)
    for flags, text in (
        (("--layout=timm",), "these weights take clips"),
        (("--part=target",), "goes with --layout=timm"),
        (("--layout=timm", "--onnx"), "--onnx: goes with --layout=cjepa_jax"),
    ):
        assert text in refused(2, capsys, f"--checkpoint={run}", f"--out={tmp_path / 'no'}", *flags)
    assert not (tmp_path / "no").exists()


def test_public_weights_keep_their_licence(tmp_path, capsys):
    model = pairs.model(names_objects=False, variant="192x2x3x768/4", predictor={"heads": 3})
    bundle.write_weights(tmp_path, other_layouts.ijepa(model))
    (tmp_path / "model.safetensors").rename(tmp_path / "ijepa.safetensors")
    where = f"--checkpoint={tmp_path / 'ijepa.safetensors'}", f"--out={tmp_path / 'out'}"
    assert "which stays with them" in refused(2, capsys, *where, "--licence=MIT")
    assert exported(*where) == 0
    found = read.read(tmp_path / "out")
    assert found.licence == "CC-BY-NC-4.0" and {"target", "predictor"} < set(found.params) and not found.input["change"]
    assert "may not be used commercially" in (tmp_path / "out" / "README.md").read_text()
    assert exported(where[0], f"--out={tmp_path / 'target'}", "--part=target_encoder") == 0
    same(read.read(tmp_path / "target").params["encoder"], found.params["target"])
    assert "goes with --layout=timm" in refused(2, capsys, where[0], f"--out={tmp_path / 'no'}", "--part=target")
    assert exported(where[0], f"--out={tmp_path / 'timm'}", "--layout=timm", "--part=target") == 0
    again = read.read(tmp_path / "timm")
    same(again.params["encoder"]["stack"], found.params["target"]["stack"])
    assert (again.layout, again.licence) == ("timm", "CC-BY-NC-4.0")


@pytest.mark.parametrize("layout", ["timm", "ijepa"])
def test_other_layouts_keep_the_licence_and_their_sum_is_checked(layout, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir(), (tmp_path / "out").mkdir()
    bundle.write(tmp_path / "own", pairs.model(variant="192x2x3x768/4", predictor=False), "card")
    monkeypatch.chdir(tmp_path / "out")
    where, out = (f"--checkpoint={tmp_path / 'own'}", f"--layout={layout}"), tmp_path / "out"
    assert exported(*where, "--out=.") == 0
    assert {"timm": '"local-dir:out"', "ijepa": '"out/model.safetensors"'}[layout] in (out / "README.md").read_text()
    for path in (out, out / "model.safetensors"):
        assert (read.read(path).layout, read.read(path).licence) == (layout, "unspecified")
    assert exported(*where, f"--out={out}", "--licence=My own: 1", "--overwrite") == 0
    assert read.read(out).licence == "My own: 1"
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (out / "model.safetensors").write_bytes(data)
    for path in (out, out / "model.safetensors"):
        with pytest.raises(CheckpointError, match="not the file that was written"):
            read.read(path)


def test_what_cannot_be_meant_is_one_line(tmp_path, capsys):
    out = f"--out={tmp_path / 'out'}"
    assert "there is no such file or folder" in refused(2, capsys, f"--checkpoint={tmp_path / 'nowhere'}", out)
    assert "--checkpoint" in refused(2, capsys, out)
    assert "invalid choice" in refused(2, capsys, f"--checkpoint={tmp_path}", out, "--layout=jax")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    assert "is not empty" in refused(2, capsys, f"--checkpoint={tmp_path}", f"--out={tmp_path / 'mine'}")


@pytest.mark.slow
@pytest.mark.needs("torch")
def test_what_is_exported_answers_as_the_python_api_does(run, tmp_path):
    """The exported file runs by itself, in a process that has never heard of this package."""
    assert exported(f"--checkpoint={run}", f"--out={tmp_path / 'out'}") == 0
    video = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3), np.uint8)
    masks = np.zeros((3, 2, 2, 32, 32), bool)
    masks[:, 0, :, 4:20, 4:12] = masks[:, 1, :, 16:, 16:] = True
    np.savez(tmp_path / "given.npz", video=video, masks=masks)
    code = (
        "import sys, numpy, torch, modeling_cjepa\n"
        "given = numpy.load('../given.npz')\n"
        "model = modeling_cjepa.CausalJEPA.from_pretrained('.')\n"
        "with torch.no_grad():\n"
        "    answer = model.intervene(torch.tensor(given['video']), torch.tensor(given['masks']), [0])\n"
        "    numpy.savez('../found.npz', tokens=model.encode(torch.tensor(given['video'])), **answer.readouts)\n"
        "assert not {'jax', 'cjepa_jax', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "out", check=True)
    found, ours = np.load(tmp_path / "found.npz"), api.load(run)
    wanted = {"tokens": ours.encode(video)} | ours.intervene(video, masks, remove=[0]).readouts
    assert set(found) == set(wanted) == {"tokens", "masked", "counterfactual", "both"}
    assert all(pairs.apart(found[name], wanted[name]) < 1e-5 for name in wanted)
