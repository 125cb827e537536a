"""Suites: what a file may say, which cells follow, and what a cell changes of its method's config."""

import runpy

import pytest

from cjepa_jax.compare import suite as suites
from cjepa_jax.compare.suite import Cell
from cjepa_jax.configuration import build
from cjepa_jax.data import kinds
from cjepa_jax.errors import ConfigError
from tests.running import ROOT

MICRO = ROOT / "configs/suites/micro.py"


@pytest.fixture(scope="module")
def micro():
    return suites.load(str(MICRO))


@pytest.mark.parametrize("file", sorted((ROOT / "configs/suites").glob("[!_]*.py")), ids=lambda file: file.stem)
def test_every_shipped_suite_loads_with_three_seeds_and_documents_its_command(file):
    suite = suites.load(str(file))
    assert len(suite.seeds) >= 3 and f"--suite=configs/suites/{file.name}" in file.read_text()
    assert len({cell.name for cell in [*suite.cells(), *suite.tuned()]}) == len(suite.cells()) + len(suite.tuned())
    assert not any(map(suite.smoke, sum(suite.contrasts, ()))), "a difference of one run has no interval"


SIZES = {"point_jepa_published", "audio_jepa_published", "lewm_published"}  # configs of methods that are in a suite
ALONE = {  # methods that share no modality or no score with others: see configs/suites/family.py
    *("act_jepa", "jepa2022", "lewm", "pldm", "vjepa2_ac", "mcjepa", "think_jepa"),
    *("dino_wm", "eb_jepa_video", "jepa2022_press"),
}


def test_every_method_of_the_family_is_in_the_suite_of_its_modality():
    found = {}
    for name in ("family", "family_points", "family_sounds"):
        suite = suites.load(str(ROOT / f"configs/suites/{name}.py"))
        assert {"random"} == {m for m in suite.methods if suite.methods[m].get("steps") == 0}
        kind = {build.locate(suite.config(Cell(next(iter(suite.worlds)), m, 1)).data.source) for m in suite.methods}
        assert len({kinds.of(source) for source in kind}) == 1, name
        found[name] = {entry["config"].rpartition("/")[2] for entry in suite.methods.values()}
    configs = {path.stem for path in (ROOT / "configs/family").glob("[!_]*.py")} - SIZES
    assert configs - ALONE <= set.union(*found.values()) and not ALONE & set.union(*found.values())
    assert {"point_jepa", "threed_jepa"} == found["family_points"] and "hjepa" in found["family"]


@pytest.mark.parametrize("file", sorted((ROOT / "configs/suites").glob("[!_]*.py")), ids=lambda file: file.stem)
def test_every_protocol_of_a_shipped_suite_takes_the_scenes_of_its_worlds(file):
    """A suite that nobody has run must not end, after its training runs, at the first evaluation."""
    suite = suites.load(str(file))
    for cell in suite.cells():
        config = suite.config(cell)
        kind = kinds.of(build.locate(config.data.source))
        for name, section in config.evals.protocols.items():
            taken = getattr(build.locate(section.type), "kinds", kinds.FILMED)
            assert kind in taken, (cell.name, name)
            if section.type.endswith(":Collapse") and section.get("views", 8):
                assert kind in kinds.FILMED, (cell.name, name)


def test_the_first_seed_of_everything_comes_first_and_smoke_cells_once(micro):
    cells = micro.cells()
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert sum(cell.method == "byol" for cell in cells) == 1 and sum(cell.method == "cjepa" for cell in cells) == 6


def test_tuning_leaves_out_reported_seeds_and_untrained_methods(micro):
    assert {cell.seed for cell in micro.tuned()}.isdisjoint(micro.seeds)
    assert {cell.method for cell in micro.tuned()}.isdisjoint({"random", "byol"})
    assert len(micro.tuned()) == 3 * len({cell.method for cell in micro.tuned()})
    assert "displaced" not in {cell.method for cell in micro.tuned()} and micro.tuned_as("displaced") == "cjepa_anchor"


def test_a_cells_config_file_is_its_config(micro, tmp_path):
    cell = Cell("balls", "cjepa", 2)
    text = suites.config_file("configs.clips", micro.overrides(cell, 7, 2e-3))
    (tmp_path / "config.py").write_text(text)
    config = runpy.run_path(str(tmp_path / "config.py"))["get_config"]()
    assert config.to_json() == micro.config(cell, 7, 2e-3).to_json()
    assert (config.seed, config.train.steps, config.optim.peak, config.data.size) == (2, 7, 2e-3, 48)
    assert config.data.options.objects == (3, 4) and "interventional" in config.evals.protocols


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('"about"', '"abuot"', "unknown field abuot; did you mean 'about'?"),
        ('"flops": 3.375e12', '"flops": 0', "flops must be above 0"),
        ('"seeds": (1, 2, 3)', '"seeds": (1, 1)', "all different"),
        ('"seed": 0', '"seed": 1', "tuning.seed must not be one of seeds"),
        ('"data.size": 48', '"data.sise": 48', "data.sise: there is no such key"),
        ('("objects", "displaced")', '("objects", "displacd")', "no method 'displacd'; did you mean 'displaced'?"),
        ("def get_suite", "def suite", "AttributeError: module 'suite' has no attribute 'get_suite'"),
        ("def get_suite():", "def get_suite(:", "SyntaxError: invalid syntax"),
        ('"data.size": 48', '"data.size": "48"', "TypeError"),
        ('"overrides": CONTROL |', '"override": CONTROL |', "methods: unknown field override"),
        ('"steps": 60', '"steps": -1', "steps must be 0 or more"),
        (
            '"steps": 60',
            '"steps_of": "random"',
            "steps_of = 'random': must be a method with the budget's steps, and alone",
        ),
        ('"steps": 60', '"steps": 60, "steps_of": "cjepa"', "steps_of = 'cjepa': must be a method"),
        ('"steps": 60', '"steps_of": "byol"', "steps_of = 'byol': must be a method"),
        ('"world": "balls"', '"world": "bals"', "tuning.world must be one of worlds"),
        ('"key": "optim.peak"', '"key": "optim.peek"', "optim.peek: there is no such key"),
        (
            '("states", "scene/count")',
            '("stats", "scene/count")',
            "there is no protocol 'stats'; did you mean 'states'?",
        ),
        ('"scenes": 256', '"scenses": 256', "scenses: cjepa_jax.evals.collapse:Collapse has no such parameter"),
        ('"baselines/byol"', '"configs.baselines.boyl"', "configs.baselines.boyl: is not a config"),
        ('"baselines/byol"', '"baselines/boyl"', "boyl: is not a config; did you mean 'baselines/byol'?"),
    ],
)
def test_mistakes_are_one_line(tmp_path, old, new, message):
    text = MICRO.read_text()
    assert old in text
    (tmp_path / "mine.py").write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")) as error:
        suites.load(str(tmp_path / "mine.py"))
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean '.*micro.py'"):
        suites.load(str(MICRO.with_name("mikro.py")))
