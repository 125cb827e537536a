"""The page describes the objective that was trained: its options, its terms, and a glossary of what it logged."""

import json
import re

import numpy as np
import pytest

from cjepa_jax.configuration.check import resolve
from cjepa_jax.reports import charts, html, summary, training
from cjepa_jax.reports.run import Run
from configs import clips
from configs.baselines import byol, lejepa, mae, supervised

OWN = {"type": "my_package.agree:Agree", "spread": 0.01, "encoder": {"variant": "Mu/8"}, "head": {"width": 7}}


def write(folder, rows, objective, probe=None, pictures=None):
    """The text of the page of a run without pictures."""
    config = resolve(clips.get_config())
    config["objective"] = objective
    config["monitors"] = {"norm": {"type": "weights:norm"}}
    config["probe"] |= probe or {}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "result.json").write_text(json.dumps({"step": 2} | ({"pictures": pictures} if pictures else {})))
    return training.write(folder).read_text()


def glossary(page):
    return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page))


def logged(*names):
    return [{"step": step, "compilations": 1} | {name: 0.5 / step for name in names} for step in (1, 2)]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The page of a custom objective that hides nothing."""
    rows = logged("loss", "loss/distance", "loss/spread", "loss/spread_floor", "agreement", "norm/encoder", "rankme")
    why = "my_package.agree:Agree has no encode_context"
    return write(tmp_path_factory.mktemp("runs") / "own", rows, OWN, pictures=why)


def test_every_logged_term_is_drawn_and_only_floors_that_exist(own, tmp_path):
    titles = re.search('aria-label="(total.*?)"', own)[1]
    assert titles == "total, distance, spread and its floor (dashed)"
    rows = [row | {"loss/sigreg_floor": 0.0} for row in logged("loss", "loss/sigreg", "loss/prediction")]
    page = write(tmp_path / "run", rows, dict(resolve(clips.get_config())["objective"]))
    assert re.search('aria-label="(total.*?)"', page)[1] == "total, SIGReg, prediction"
    assert "sigreg 0.01" in page and "causal 0.005" not in page  # a term that was not logged has no weight


def test_the_objectives_section_is_printed_and_masks_only_where_they_matter(own, tmp_path):
    assert "type <b>my_package.agree:Agree</b> · spread <b>0.01</b> · head.width <b>7</b></td>" in own
    assert "<td>masks</td>" not in own
    page = write(tmp_path / "run", logged("loss", "context_fraction"), dict(resolve(clips.get_config())["objective"]))
    assert "type <b>Jepa</b>" in page and "prediction_loss <b>elementwise</b>" in page and "<td>masks</td>" in page


def test_why_there_are_no_pictures(own, tmp_path):
    assert "There are no pictures: my_package.agree:Agree has no encode_context." in own
    assert "report.npz" not in own
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert "The pictures are made at the end of the run." in training.write(tmp_path / "run").read_text()


def test_the_glossary_has_what_was_logged_and_nothing_else(own):
    found = glossary(own)
    assert list(found) == [
        *("loss", "loss/distance", "loss/spread", "loss/spread_floor", "RankMe", "agreement", "norm/encoder")
    ]
    assert found["loss"] == "what my_package.agree:Agree minimises"
    assert found["loss/distance"] == "a term of the loss, logged by my_package.agree:Agree"
    assert found["norm/encoder"] == "logged by the monitor weights:norm"
    assert found["agreement"] == "logged by my_package.agree:Agree"


@pytest.mark.parametrize(
    "name, says",
    [
        ("elementwise", "smooth l1 of each component's error, averaged over D"),
        ("smooth_l1", "smooth l1 of the norm of each patch's error"),
        ("mse", "squared error per component"),
        ("my_losses:cosine", "my_losses:cosine, between"),
    ],
)
def test_the_prediction_loss_is_the_configs(tmp_path, name, says):
    objective = resolve(clips.get_config())["objective"] | {"prediction_loss": name, "sigreg_kind": "epps_pulley"}
    found = glossary(write(tmp_path / "run", logged("loss", "loss/prediction", "loss/sigreg"), objective))
    assert found["loss/prediction"].replace("&#x27;", "'").startswith(says)
    assert "Epps-Pulley" in found["loss/sigreg"]
    assert found["loss"] == "what is minimised: prediction + 0.01 sigreg"


@pytest.mark.parametrize(
    "module, term", [(byol, "cosine"), (lejepa, "invariance"), (mae, "pixels"), (supervised, "labels")]
)
def test_terms_of_this_packages_objectives_are_explained(tmp_path, module, term):
    objective = resolve(module.get_config())["objective"]
    found = glossary(write(tmp_path / "run", logged("loss", f"loss/{term}"), objective))
    assert not found[f"loss/{term}"].startswith("a term")


def test_few_scenes_have_no_colours(tmp_path):
    rows = [
        {"step": 2, "probe/count_r2": 0.9, "probe/count_r2_random": 0.1, "probe/rankme": 3, "probe/rankme_random": 9}
    ]
    few = write(tmp_path / "few", rows, OWN, {"test": 16})
    assert (
        "far too few" in few and "above random (+0.8)" in few and "class='good'" not in few and "class='bad'" not in few
    )
    assert "<span class='good'>above random (+0.8)</span>" in write(tmp_path / "many", rows, OWN, {"test": 500})


def test_windows_that_compile_do_not_count_in_the_times(tmp_path):
    times = {1: (1, 9000.0), 2: (1, 10.0), 3: (2, 8000.0), 4: (2, 12.0), 5: (2, 14.0), 6: (1, 7000.0)}  # a restart at 6
    rows = [{"step": step, "compilations": n, "step_time_ms": ms} for step, (n, ms) in times.items()]
    kept, left = Run(tmp_path, rows).steady("step_time_ms")
    np.testing.assert_array_equal(kept, [10, 12, 14])
    assert left == 3
    page = write(tmp_path / "run", rows, OWN)
    assert "without the 3 in which a step was compiled" in page and "10 to 90 %: 10.4 to 13.6" in page
    assert "the times include compilation" in write(tmp_path / "one", rows[:1], OWN)


def test_steps_are_whole_numbers_on_the_axis():
    one = charts.panels([charts.Panel("a", [charts.Line("random", np.array([12.0]), np.array([0.25]))])])
    two = charts.panels([charts.Panel("a", [charts.Line("trained", np.array([1.0, 2.0]), np.array([0.3, 0.6]))])])
    for svg, steps in ((one, {"12"}), (two, {"1", "2"})):
        labels = {text.strip() for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)} - {"a"}
        assert steps <= labels and not {x for x in labels - steps if float(x.replace("−", "-")) >= 1}
    assert "<use" in one  # a dashed line of one point is a marker


def test_the_console_shows_small_numbers():
    scores = {"probe/response": 0.00047, "probe/response_random": 0.0, "probe/rankme": 9.6391}
    assert summary.probes(scores) == "response 0.00047 (random 0.000)  rankme 9.639 ()"
    assert summary.probes({"probe/x_r2": -8.5e-7, "probe/x_r2_random": 2e-5}) == "x_r2 0.000 (random 2e-05)"
    assert [html.score(value) for value in (-8.5e-7, 0.0, 4e-5, -0.5, 1234.5)] == [
        "0.000", "0.000", "4e-05", "-0.500", "1,234",
    ]  # fmt: skip
