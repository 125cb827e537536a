"""What an evaluation's config is made of: the command line, the file, the run, a training config. In this order."""

import importlib
import json
import re
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import ConfigDict

from cjepa_jax import cli
from cjepa_jax.compare import suite
from cjepa_jax.configuration import build, locate
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.loading import eval_config
from configs import clips, vitl
from configs.baselines import byol
from tests import run_folders

STATES = {"evals": {"protocols": {"states": {"type": "cjepa_jax.evals.states:States"}}}}


def written(folder, c):
    """What eval_config reads of a run's folder."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_lib.resolve(c)))
    return folder


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """The config of `python -m cjepa_jax.evaluate` with these words. A dict is a config file's content."""

    def parse(config, *words):
        if isinstance(config, dict):
            text = f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({config!r})\n"
            (tmp_path / "asked.py").write_text(text)
            config = tmp_path / "asked.py"
        argv = ["evaluate", f"--config={config}", *map(str, words)]
        monkeypatch.setattr(sys, "argv", argv)
        return cli.parse(argv, define, eval_config.complete)[0]

    def define():
        flags.DEFINE_string("checkpoint", None, "")
        flags.DEFINE_string("training", "", "")

    return parse


@pytest.mark.parametrize("base", [clips, byol], ids=["jepa", "byol"])
@pytest.mark.parametrize("name", ["worlds", "surprise", "finetune", "interventional"])
def test_one_eval_config_serves_every_objective(parsed, tmp_path, base, name):
    trained = run_folders.config(base, data__frames=6, seed=3, evals__fit=5)
    run = written(tmp_path / "run", trained)
    found = parsed(f"evals/{name}", f"--checkpoint={run}")
    for section in ("objective", "data", "mask", "seed", "optim", "train"):
        assert config_lib.resolve({"": found[section]}) == config_lib.resolve({"": trained[section]}), section
    assert found.is_locked and found.evals.fit == vitl.get_config().evals.fit  # not what the run says of it
    built = [build.build(section) for section in found.evals.protocols.values()]
    assert built and all(hasattr(protocol, "run") for protocol in built)
    assert parsed(f"evals/{name}", f"--checkpoint={run / 'checkpoints'}") == found


def test_the_command_line_wins_over_the_file_and_the_file_over_the_run(parsed, tmp_path):
    run = written(tmp_path / "run", run_folders.config(data__count=77))
    asked = {"evals": STATES["evals"] | {"fit": 9, "test": 8}}
    found = parsed(
        asked, f"--checkpoint={run}", "--config.evals.test=7", "--config.data.source=cjepa_jax.data.worlds:Ramps"
    )
    assert (found.evals.fit, found.evals.test, found.data.count) == (9, 7, 77)
    assert found.data.source.endswith("Ramps") and list(found.evals.protocols) == ["states"]
    with pytest.raises(ConfigError, match="--config.data.cound: unknown key"):
        parsed(asked, f"--checkpoint={run}", "--config.data.cound=3")
    with pytest.raises(ConfigError, match="evals.batch = 0: must be"):
        parsed(asked, f"--checkpoint={run}", "--config.evals.batch=0")


def test_a_benchmark_replaces_the_data_of_a_run_on_other_data_only(parsed, tmp_path):
    options = {"dt": 0.2}
    trained = config_lib.override(run_folders.config(data__path="mine"), {"data.options.dt": 0.2})
    run = written(tmp_path / "run", trained)
    found = parsed("evals/clevrer", f"--checkpoint={run}", "--config.data.path=CLEVRER")
    assert (found.data.source, found.data.path) == ("cjepa_jax.data.sources.clevrer:Clevrer", "CLEVRER")
    assert (found.data.size, found.data.frames, found.data.options.stride) == (32, 2, 8)
    assert "dt" not in found.data.options and found.evals.test_split == "eval"
    assert parsed("evals/clevrer", f"--checkpoint={run}").data.path == ""

    same = {"data": {"source": "cjepa_jax.data.worlds:Balls", "options": {"dt": 9.0}, "count": 3}}
    found = parsed(STATES | same, f"--checkpoint={run}")
    assert (found.data.options.to_dict(), found.data.path, found.data.count) == (options, "mine", 64)


def test_a_whole_training_config_is_used_unchanged(parsed, tmp_path):
    run = written(tmp_path / "run", run_folders.config(byol))
    assert parsed("clips", f"--checkpoint={run}", "--config.data.size=48").objective.type.endswith(":Jepa")


def test_weights_without_a_config_have_that_of_training(parsed, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"anything")
    for checkpoint in ("random", tmp_path / "weights.pth", tmp_path / "nothing"):
        assert parsed(STATES, f"--checkpoint={checkpoint}").objective == clips.get_config().objective
        found = parsed(STATES, f"--checkpoint={checkpoint}", "--training=baselines/byol", "--config.data.size=32")
        assert found.objective == byol.get_config().objective and found.data.size == 32
    run = written(tmp_path / "run", run_folders.config())
    with pytest.raises(ConfigError, match="--training=clips: is for checkpoints without a config"):
        parsed(STATES, f"--checkpoint={run}", "--training=clips")


def test_an_export_has_the_config_that_it_records(parsed, tmp_path):
    trained = config_lib.resolve(run_folders.config(byol))
    told = {"format": "cjepa_jax", "about": {"training": trained}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert config_lib.resolve(parsed(STATES, f"--checkpoint={path}").objective) == trained["objective"]
    trained["mask"]["type"] = "theirs:draw"
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="about.training: mask.type = 'theirs:draw': .* --trust=theirs"):
        parsed(STATES, f"--checkpoint={tmp_path}")
    assert parsed(STATES, f"--checkpoint={tmp_path}", "--trust=theirs").mask.type == "theirs:draw"


@pytest.mark.parametrize(
    "config, words, text",
    [
        (STATES, [], "--checkpoint is missing"),
        (STATES | {"optim": {}}, ["--checkpoint=random"], "--config: optim: an evaluation's config has the sections"),
        ({"evals": {"fits": 3}}, ["--checkpoint=random"], "--config: evals.fits: unknown key"),
        (STATES | {"data": {"path": "x"}}, ["--checkpoint=random"], "data.source is missing"),
        (STATES | {"data": {"source": "a:B", "sise": 3}}, ["--checkpoint=random"], "--config: data.sise: unknown key"),
    ],
)
def test_refusals(parsed, config, words, text):
    with pytest.raises(ConfigError) as caught:
        parsed(config, *words)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"log": 3}, {"train": None}, {"evals": 1}, {"mask": {"type": "os:system"}}, "none"])
def test_a_folder_of_somebody_else_is_guarded(parsed, tmp_path, change):
    run = written(tmp_path / "run", run_folders.config())
    saved = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text("{" if change == "none" else json.dumps(saved | change))
    with pytest.raises(CheckpointError) as caught:
        parsed(STATES, f"--checkpoint={run}")
    assert str(caught.value).isprintable()


def test_an_older_run_lacks_keys(parsed, tmp_path):
    run = written(tmp_path / "run", run_folders.config())
    saved = json.loads((run / "config.json").read_text())
    del saved["log"], saved["data"]["pack"], saved["optim"]["freeze"], saved["init_from"]
    (run / "config.json").write_text(json.dumps(saved))
    found = parsed(STATES, f"--checkpoint={run}")
    assert (found.log.level, found.data.pack, found.optim.freeze, found.init_from) == ("info", 0, (), "")


def test_shipped_eval_configs_hold_protocols_and_benchmarks_only(parsed, tmp_path):
    run = written(tmp_path / "run", run_folders.config(data__frames=4))
    for name in locate.names("evals"):
        found = cli._load(f"evals/{name}")
        assert set(found) <= {"evals", "data"} and found.is_locked and "evals" in found, name
        parsed(f"evals/{name}", f"--checkpoint={run}")


def test_shipped_eval_configs_pass_the_checks_with_the_training_configs_that_they_name(parsed, tmp_path):
    for name in locate.names("evals"):
        module = importlib.import_module(f"configs.evals.{name}")
        found = re.findall(r"(?:cjepa_jax\.train --config|--training)=(?:configs/)?([\w/]+)", module.__doc__)
        for number, training in enumerate(set(found)):
            run = written(tmp_path / f"{name}{number}", cli._load(training))
            for section in parsed(f"evals/{name}", f"--checkpoint={run}").evals.protocols.values():
                build.build(section)


def test_a_cell_of_a_comparison_asks_the_same_of_run_and_random_network(tmp_path):
    folder = suite.load("micro")
    cell = folder.cells()[0]
    (tmp_path / "evals.py").write_text(suite.evals_file(folder.overrides(cell, 1, None)))
    found = cli._load(str(tmp_path / "evals.py"))
    assert isinstance(found, ConfigDict) and set(found) == {"evals"}
    whole = folder.config(cell).evals
    made = eval_config.complete(found, {"checkpoint": "random", "training": "", "trust": ""}.get, cli._load).evals
    assert config_lib.resolve(made) == config_lib.resolve(whole)


def test_jax_is_not_imported():
    code = "import sys\nimport cjepa_jax.loading.eval_config\nassert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
