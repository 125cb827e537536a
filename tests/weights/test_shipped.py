"""The weights that come with the package: found by name everywhere, and as good as their card says."""

import json
import pathlib
import re

import numpy as np
import pytest

import cjepa_jax
from cjepa_jax.configuration import build, check
from cjepa_jax.data import pipeline
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.counterfactual import online
from cjepa_jax.evals.probe import REMOVALS
from cjepa_jax.loading import eval_config, pretrained
from cjepa_jax.loading import model as models
from cjepa_jax.weights import shipped
from cjepa_jax.weights.read import Reading
from configs import tiny


def test_they_are_found_by_name_unless_something_here_has_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.names() == ["tiny"] and shipped.find("tiny") == shipped.HERE / "tiny"
    assert shipped.find(pathlib.Path("tiny")) == shipped.HERE / "tiny"
    assert shipped.find("runs/tiny") == "runs/tiny" and shipped.find(tmp_path) == tmp_path
    for name in ("tiny",):
        size = sum(file.stat().st_size for file in (shipped.HERE / name).iterdir())
        assert size < 3_000_000
    assert models._opened("tiny", (), Reading())[1].layout == "cjepa_jax"
    assert eval_config.of_checkpoint("tiny", ()).data.size == 48
    (tmp_path / "tiny").mkdir()
    assert shipped.find("tiny") == "tiny"
    with pytest.raises(ConfigError, match="tinny: there is no such file or folder; did you mean 'tiny'"):
        pretrained.load_weights("tinny")


def test_tiny_is_what_its_card_says():
    """Do-contrast on scenes that neither training nor its probes have drawn."""
    model = cjepa_jax.load("tiny")
    about, config = model.pretrained.about, json.loads(json.dumps(check.resolve(tiny.get_config())))
    now = dict(check.flatten({key: config[key] for key in ("objective", "mask", "optim")}))
    then = dict(check.flatten({key: about["training"][key] for key in ("objective", "mask", "optim")}))
    assert then.items() <= now.items()  # options that are newer have their defaults
    assert model.info["licence"] == "Apache-2.0" and about["step"] == config["train"]["steps"]
    section = {"type": config["data"]["source"], **config["data"]["options"]}
    source = build.build(section, split="test", size=48, frames=1, count=2000, seed=4242)
    scenes = pipeline.SceneMap(source, REMOVALS, 6, 1, 48, 6, "none", 0)
    network = models.Network.of_weights(model.pretrained, "float32")
    found = online.Removals(scenes, 96, 96, anchor=0, seed=0, batch=32).score(network.functions(32))
    card = (shipped.HERE / "tiny/README.md").read_text()
    assert model.pretrained.digest in (shipped.HERE / "tiny/LICENSE").read_text()
    claimed = float(re.search(r"do-contrast R² .*?\| (0\.\d+) \|", card)[1])
    assert found["do_contrast"] == pytest.approx(claimed, abs=0.15) and found["matched"] > 0.9
    assert found["explained"] > 0.3 > 0 > found["explained_wrong_object"]
    assert np.isfinite(list(found.values())).all()
