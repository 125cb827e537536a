"""The evaluation of a real run of almost no size: what is computed again, what is kept, what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax import evaluate
from cjepa_jax.configuration import build, seeds
from cjepa_jax.errors import CjepaError, DataError
from cjepa_jax.evals.base import RANDOM, TRAINED, Result, Score, require
from cjepa_jax.loading.model import Restored
from cjepa_jax.reports import evaluation as page
from cjepa_jax.reports import results
from cjepa_jax.runtime import trees
from tests.loading.test_model import config

HERE = "tests.test_evaluate"
SMALL = {"evals__fit": 8, "evals__test": 6, "evals__batch": 4, "evals__random_inits": 1}
CALLS = []  # the protocols that were computed


@dataclasses.dataclass(frozen=True)
class Spread:
    """How far features are apart, and a number that is not one."""

    power: int = 1

    def run(self, bench):
        CALLS.append(self.power)
        values = [float(model.encode(bench.testing.arrays["video"]).std() ** self.power) for model in bench.models]
        nothing = Score("nothing", TRAINED, float("nan"), float("inf"))
        return Result([Score("spread", TRAINED, values[0]), Score("spread", RANDOM, values[1], kind="floor"), nothing])


@dataclasses.dataclass(frozen=True)
class Fits:
    """Only asks for scenes."""

    def run(self, bench):
        require("class" in bench.fitting.arrays, "Fits", "classes")


@dataclasses.dataclass(frozen=True)
class Stored:
    """Five stored scenes, of which the first `count` cannot be read."""

    split: str
    path: str
    size: int
    frames: int
    count: int
    seed: int
    unreadable: int = 0

    label_names = ("count",)
    can_rerender = True

    def __post_init__(self):
        if self.count > 5:
            raise DataError(f"{self.path}: data.count = {self.count}")

    def __len__(self):
        return self.count or 5

    def __getitem__(self, i):
        if i < self.unreadable:
            raise DataError(f"scene {i}: is broken")
        video = np.full((self.frames, self.size, self.size, 3), i, np.uint8)
        return {"video": video, "masks": np.zeros((0, *video.shape[:3]), bool), "labels": np.zeros(1, np.float32)}


@pytest.fixture(scope="module")
def run(finished):
    return finished[0]


@pytest.fixture(scope="module")
def model(run):
    return Restored.of(config(**SMALL), str(run))


def asked(protocols=("spread",), power=1, **values):
    """A config of these protocols."""
    made = config(**SMALL | values)
    with made.unlocked():
        known = {"spread": dict(type=f"{HERE}:Spread", power=power), "second": dict(type=f"{HERE}:Spread", power=2)}
        made.evals.protocols = ConfigDict({name: known[name] for name in protocols})
    return made


def evaluated(model, folder, *arguments, **values):
    """results.json, and which protocols were computed for it."""
    made = asked(*arguments, **values)
    CALLS.clear()
    built = {name: build.build(section) for name, section in made.evals.protocols.items()}
    evaluate.evaluate(made, model, built, folder)

    def strict(text):
        raise AssertionError(f"{text} is not JSON")

    return json.loads((folder / "results.json").read_text(), parse_constant=strict), list(CALLS)


def retold(run, folder, **values):
    """A copy of the run whose config.json has other values, by dotted keys with __."""
    shutil.copytree(run, folder)
    saved = json.loads((folder / "config.json").read_text())
    for key, value in values.items():
        *sections, name = key.split("__")
        place = saved
        for section in sections:
            place = place[section]
        place[name] = value
    (folder / "config.json").write_text(json.dumps(saved))
    return folder


def test_what_is_finished_is_kept_beside_what_comes(model, run, tmp_path, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    first, computed = evaluated(model, tmp_path)
    assert computed == [1] and first["about"]["checkpoint"]["step"] == 24
    assert first["protocols"]["spread"]["scores"][2]["value"] is None  # strict JSON
    assert first["protocols"]["spread"]["scores"][2]["interval"] is None

    both, computed = evaluated(model, tmp_path, ["second"], data__threads=3)  # another config set, the same setting
    assert computed == [2] and both["protocols"]["spread"] == first["protocols"]["spread"]
    assert both["made"]["spread"] == first["made"]["spread"] and both["made"]["second"]["section"]["power"] == 2
    text = (tmp_path / "report.html").read_text()
    assert "spread</h2>" in text and "second</h2>" in text
    assert np.isnan(page._result(tmp_path, "x", both["protocols"]["second"]).scores[2].value)

    assert evaluated(model, tmp_path, ["spread", "second"])[1] == []
    other, computed = evaluated(model, tmp_path, ["spread"], power=3)  # the protocol's own section
    assert computed == [3] and other["protocols"].keys() == {"spread", "second"}

    def kept(model=model, **values):
        setting, _ = evaluate._setting(asked(**values), model)
        return results.read(tmp_path, setting)["protocols"]

    assert kept().keys() == {"spread", "second"}
    for values in (
        {"objective__encoder__depth": 2}, {"dtype": "bfloat16"}, {"mask__max_objects": 2}, {"data__max_objects": 9},
        {"evals__test": 7}, {"objective__causal_weight": 1.0},
    ):  # fmt: skip
        assert not kept(**values), values
    for key, value in (("digest", "0"), ("seed", 1), ("step", 25), ("batch", 16), ("optim", {}), ("mask", {})):
        assert not kept(dataclasses.replace(model, about=model.about | {key: value})), key
    with monkeypatch.context() as patch:
        patch.setattr(seeds, "FORMAT", 1)  # questions were drawn otherwise
        assert not kept()
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before  # the run's folder is only read


def test_other_parameters_have_another_digest(model):
    other = dataclasses.replace(
        model.state, params=jax.tree.map(lambda x: np.asarray(x) * np.float32(1 + 1e-6), model.state.params)
    )
    states = (model.state, other, model.fresh(0), model.fresh(1))
    digests = [trees.digest((state.params, state.extra, state.target)) for state in states]
    assert model.about["digest"] == digests[0] and len(set(digests)) == 4


def test_a_run_is_judged_by_how_it_was_trained_and_transfer_is_said(model, run, tmp_path):
    assert (model.names_objects, model.rate, model.about["seed"], model.about["transfer"]) == (True, 0.001, 0, [])
    told = {"seed": 7, "optim__peak": 0.25, "data__source": "cjepa_jax.data.worlds:Ramps"}
    other = retold(run, tmp_path / "run", mask__type="cjepa_jax.masks.displaced:draw", **told)
    other = Restored.of(config(**SMALL, seed=9), str(other))
    assert (other.names_objects, other.rate, other.about["seed"]) == (False, 0.25, 7)
    line = "data.source: cjepa_jax.data.worlds:Ramps -> cjepa_jax.data.worlds:Balls"
    assert other.about["transfer"] == [line]
    shown = page.facts(evaluate._setting(asked(), other)[0], [{}])
    assert line.replace(">", "&gt;") in dict(shown)["other data than the training's"].replace("<code>", "")
    assert "other data than the training's" not in dict(page.facts(evaluate._setting(asked(), model)[0], [{}]))


def test_a_short_batch_of_a_real_model(model):
    video = np.random.default_rng(0).integers(0, 256, (6, 2, 32, 32, 3), np.uint8)
    encode = model.trained(4).encode
    alone = np.concatenate([encode(video[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(encode(video), alone, rtol=1e-5, atol=1e-6)


STORED = {"data__source": f"{HERE}:Stored", "data__path": "somewhere", "data__count": 5, "data__eval_count": 32}


@pytest.mark.parametrize(
    "values,code,text",
    [
        ({"evals__test_split": "train"}, 2, "evals.test_split = 'train': must not be evals.fit_split = 'train'"),
        (
            {"evals__fit_split": "validation", "evals__test_split": "eval"},
            2,
            "evals.test_split = 'eval': must not be evals.fit_split = 'validation'",
        ),
        ({"evals__seed": 0}, 2, "evals.seed = 0: must not be the run's seed, which generated its training scenes"),
        ({"evals__fit": 0}, 2, "evals.fit = 0: must be at least 1, Balls has no end"),
        ({"evals__test": 0}, 2, "evals.test = 0: must be at least 1, Balls has no end"),
        (STORED, 3, "evals.fit = 8: the split 'train' has 5 scenes"),
        (STORED | {"evals__fit": 5}, 3, "evals.test = 6: the split 'test' has 5 scenes"),
        ({}, 2, "evals.protocols: Fits needs classes"),
    ],
)
def test_refusals(model, values, code, text):
    with pytest.raises(CjepaError) as caught:
        bench = evaluate.make_bench(config(**SMALL | values), model)
        assert len(bench.fitting.arrays["video"]) and len(bench.testing.arrays["video"])
        require("class" in bench.fitting.arrays, "Fits", "classes")
    assert (str(caught.value), caught.value.exit_code) == (text, code)


def test_a_training_split_that_cannot_be_read():
    with pytest.raises(DataError, match="^scene 0: is broken$"):
        Restored.of(config(**STORED, data__options__unreadable=5), "random")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"about": []}', '{"about": {}, "protocols": 3}'])
def test_damaged_results(model, tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match="results.json: is damaged .*. Delete it$") as caught:
        evaluated(model, tmp_path)
    assert "\n" not in str(caught.value) and (tmp_path / "results.json").read_text() == text
