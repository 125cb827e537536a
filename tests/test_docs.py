"""docs/METRICS.md names exactly what a run writes."""

import importlib
import json
import re
import shlex
import sys

import jax
import pytest

from cjepa_jax import cli
from cjepa_jax.configuration import build
from tests import running
from tests.test_configs import abstract_batch

OBJECTIVES = [
    ("BYOL", "baselines.byol"),
    ("LeJEPA", "baselines.lejepa"),
    ("MAE", "baselines.mae"),
    ("Supervised", "baselines.supervised"),
    ("Joint", "ablations.slots"),
    ("Slots", "slots.balls"),
    ("CTT", "slots.ctt"),
    ("SAVi", "slots.savi"),
    ("VideoSAUR", "slots.videosaur"),
    ("SlotContrast", "slots.slotcontrast"),
    ("Dense", "family.vjepa2_1"),
    ("H-JEPA", "family.hjepa"),
    ("SimCLR", "baselines.simclr"),
    ("VICReg", "baselines.vicreg"),
    ("DINO", "baselines.dino"),
    ("Point-JEPA", "family.point_jepa"),
    ("MC-JEPA", "family.mcjepa"),
    ("Factored", "family.mcjepa_factored"),
    ("ACT-JEPA", "family.act_jepa"),
    ("ThinkJEPA", "family.think_jepa"),
]
METRICS = (running.ROOT / "docs/METRICS.md").read_text()


def commands(page):
    """The training commands of a page, as lists of words. A remark follows after several spaces."""
    text = re.sub(r"\\\n\s+", "", (running.ROOT / page).read_text())
    lines = re.findall(r"^ {4}\.venv/bin/python -m (cjepa_jax\.train .*)$", text, flags=re.M)
    return [shlex.split(line.split("    ")[0]) for line in lines]


def test_the_training_commands_of_the_family_are_valid(monkeypatch, tmp_path):
    monkeypatch.chdir(running.ROOT)
    words = commands("docs/FAMILY.md")
    assert len(words) > 10
    for one in words:
        monkeypatch.setattr(sys, "argv", [*one, f"--workdir={tmp_path}"])
        assert cli.parse(sys.argv)[0].is_locked


def test_every_metric_that_a_run_writes_is_documented_and_the_other_way_round(finished):
    lines = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()]
    written = {name for line in lines for name in line}
    assert {"loss", "compilations", "probe/rankme_random", "probe/count_r2_pixels"} <= written
    written = {re.sub("^(probe/.*)_(random|pixels)$", r"\1", name) for name in written}  # explained for all together
    cells = re.findall(r"^\| (`.*?) \|", METRICS, flags=re.M)
    documented = {name for cell in cells for name in re.findall("`(.+?)`", cell)}
    assert (written - documented, documented - written) == (set(), set())


@pytest.mark.parametrize("objective, config", OBJECTIVES)
def test_the_metrics_of_other_objectives_are_documented_and_the_other_way_round(objective, config):
    c = importlib.import_module(f"configs.{config}").get_config()
    built = build.build(c.objective, steps=1, dtype="float32")
    batch = abstract_batch(c, built)

    def metrics(batch):
        key = jax.random.key(0)
        return built.loss(*built.init(key, batch), batch, key, 0)[1][0]

    common = set(re.findall("`(.+?)`", "".join(re.findall(r"^\| (`.*?) \|", METRICS, flags=re.M)))) | {"per_scene"}
    rows = re.findall(r"^\| ([A-Z].*?) \| `(.+?)` \|", METRICS, flags=re.M)
    assert set(jax.eval_shape(metrics, batch)) - common == {name for who, name in rows if objective in who}


def test_every_system_of_the_family_has_an_objection_in_its_row_and_on_its_page():
    lines = (running.ROOT / "docs/RESULTS_FAMILY.md").read_text().partition("| system |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()[2:]]
    rows = [row for row in rows if row[0]]
    pages = " ".join((running.ROOT / f"docs/{name}.md").read_text() for name in ("FAMILY", "WORLD_MODELS", "PLANNING"))
    pages = " ".join(pages.split())  # lines may be wrapped
    assert len(rows) >= 20
    for row in rows:
        assert len(row) == 8 and len(row[-1]) > 60 and row[-1] in pages, row[0]
