"""Folders of somebody else: what their configs name is never run, whichever entry point reads them."""

import importlib
import json
import pathlib
import shutil
import sys

import pytest
from ml_collections import ConfigDict

import cjepa_jax
from cjepa_jax import doctor
from cjepa_jax.configuration import catalogue
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import CheckpointError, CjepaError, ConfigError
from cjepa_jax.export import __main__ as export
from cjepa_jax.loading import init_from, model, pretrained
from cjepa_jax.masks.naming import names_objects
from cjepa_jax.reports import training
from cjepa_jax.runtime import foreign
from cjepa_jax.runtime.workdir import Workdir
from configs import clips, vitl
from tests import run_folders

WITNESS = """
import pathlib
SAW = pathlib.Path(__file__).with_name("saw")
SAW.write_text("imported")
def draw(rng, object_patches, object_valid, grid=None):
    SAW.write_text("called")
    return object_patches.any(0), object_valid
class Thing:
    def __init__(self, **options):
        SAW.write_text("built")
"""
FIELDS = ["objective.type", "objective.encoder.type", "mask.type", "data.source", "data.options.of"]
FIELDS += ["evals.protocols.a.type", "monitors.a.type", "objective.prediction_loss"]
FIELDS += ["data.options.sources.a.type", "objective.encoder.tokenizer.type"]
# Below this package, but no code that the field may name.
WRONG = [
    "cjepa_jax.cli:run", "cjepa_jax.configuration.build:os",
    "cjepa_jax.configuration.build:importlib.import_module", "cjepa_jax.errors:re.compile",
    "cjepa_jax.masks.naming:names_objects", "cjepa_jax.masks.objects:np", "cjepa_jax.masks.objects:blocks",
    "cjepa_jax.masks.objects:patches", "cjepa_jax.masks.grid:anchored", "cjepa_jax.objectives.base:Objective",
    "cjepa_jax.objectives.jepa:_wide", "cjepa_jax.objectives.jepa:losses.sigreg", "cjepa_jax.data.pipeline:Loader",
    "cjepa_jax.data.sources.phyre_client:Simulator", "cjepa_jax.evals.probe:Probe", "cjepa_jax.evals.base:Evaluation",
    "cjepa_jax..masks.objects:draw", "cjepa_jax.masks.objects.draw", "cjepa_jax.masks:objects.draw", "cjepa_jax:load",
    "cjepa_jax.losses:sigreg", "cjepa_jax.losses:named",
    "cjepa_jax.masks.__init__:draw", "cjepa_jax/masks/objects:draw", "cjepa_jax.masks.objects:draw ", "cjepa_jax.x:y",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folders.write(tmp_path_factory.mktemp("run") / "run", steps=(2,))


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture
def witness(tmp_path, monkeypatch):
    """A module that tells when it is imported, called or built. The test fails if it ever was."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "witness.py").write_text(WITNESS)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield tmp_path / "path" / "saw"
    assert not (tmp_path / "path" / "saw").exists() and "witness" not in sys.modules


def put(folder, field, value):
    """Sets a field of the folder's config.json."""
    saved = json.loads((folder / "config.json").read_text())
    *sections, name = field.split(".")
    place = saved
    for key in sections:
        place = place.setdefault(key, {})
    place[name] = value
    (folder / "config.json").write_text(json.dumps(saved))


def refusal(call, kind=CjepaError):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    return str(caught.value)


ENTRIES = {
    "load": lambda folder, _: cjepa_jax.load(folder),
    "open": lambda folder, _: pretrained.load_weights(folder, step=2, strict=True),
    "export": lambda folder, tmp: export.main([f"--checkpoint={folder}", f"--out={tmp / 'out'}"]),
    "evaluate": lambda folder, _: model.Restored.of(run_folders.config(), str(folder)),
    "init_from": lambda folder, tmp: init_from.prepare(run_folders.config(init_from=str(folder)), tmp / "new"),
    "start": lambda folder, tmp: init_from.start(run_folders.config(init_from=str(folder)), None, None, tmp / "new"),
    "train": lambda folder, _: Workdir(folder, run_folders.config()).__enter__(),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("field", FIELDS)
def test_no_entry_point_runs_what_a_folder_names(copy, tmp_path, witness, entry, field):
    for name in ("witness:draw", "witness:Thing"):
        put(copy, field, name)
        if entry == "train" and field in ("evals.protocols.a.type", "monitors.a.type"):  # nothing that a run computes
            with Workdir(copy, run_folders.config()):
                continue
        text = refusal(lambda: ENTRIES[entry](copy, tmp_path))
        assert field in text and (entry == "train" or name in text), text
        assert ("--trust=witness" in text) == (entry != "train")


@pytest.mark.parametrize("field", FIELDS)
def test_the_doctor_and_the_report_only_say_what_a_folder_names(copy, witness, capsys, field):
    put(copy, field, "witness:draw")
    (copy / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n')
    assert doctor.main([str(copy)]) == 0
    assert f"{field} = 'witness:draw'" in capsys.readouterr().out
    assert doctor.main([str(copy), f"--diff={copy}"]) == 0
    assert "witness:draw" in training.write(copy).read_text()


@pytest.mark.parametrize("name", WRONG)
def test_names_of_this_package_are_of_the_expected_kind(copy, name):
    kinds = {"objective.type": "objective", "mask.type": "mask", "data.source": "source"}
    for field, kind in kinds.items():
        assert catalogue.keywords(kind, name) is None
        put(copy, field, name)
        assert f"{field} = " in refusal(lambda: foreign.read(copy / "config.json"), CheckpointError)
        put(copy, field, {"objective": run_folders.config().objective.type}.get(kind, "cjepa_jax.masks.objects:draw"))
    assert catalogue.keywords("loss", name) is None
    text = refusal(lambda: foreign.read(copy / "config.json", trust=("cjepa", "masks", "os")), CheckpointError)
    assert "data.source = 'cjepa_jax.masks.objects:draw': this package has no such source" in text


def test_sources_inside_sources_are_found_with_the_fields_that_name_them(copy, witness):
    movi, mixture = "cjepa_jax.data.sources.movi:Movi", "cjepa_jax.data.sources.mixture:Mixture"
    pieces = {"type": "cjepa_jax.data.sources.superpixels:Superpixels", "of": mixture, "weight": 2}
    put(copy, "data.source", mixture)
    put(copy, "data.options", {"sources": {"a": {"type": movi}, "b": pieces}})
    inner = "data.options.sources.b.of_options.sources.c.type"
    for name, text in ((movi, ""), ("witness:Thing", f"{inner} = 'witness:Thing': is code of another package")):
        put(copy, inner, name)
        if not text:
            assert foreign.read(copy / "config.json").data.options.sources.b.weight == 2
            continue
        assert text in refusal(lambda: foreign.read(copy / "config.json"), CheckpointError)
    put(copy, inner, movi)
    put(copy, inner.replace(".type", ".wieght"), 2)
    text = refusal(lambda: foreign.read(copy / "config.json"), CheckpointError)
    assert f"{inner.replace('.type', '.wieght')}: unknown key; did you mean 'weight'?" in text


def test_what_the_catalogue_knows_is_what_the_code_is():
    """Every name that a config of ours uses, with the keywords of the object itself."""
    import inspect

    names = {
        "loss": ["cjepa_jax.losses:l1"],
        "mask": [f"cjepa_jax.masks.{name}" for name in ("objects:draw", "blocks:draw", "random:matched", "tubes:draw")],
        "objective": [f"cjepa_jax.objectives.{n}" for n in ("jepa:Jepa", "joint:Joint", "siamese:Byol", "mae:Mae")],
        "source": [
            "cjepa_jax.data.worlds:Balls",
            "cjepa_jax.data.sources.movi:Movi",
            "cjepa_jax.data.sources.superpixels:Superpixels",
            "cjepa_jax.data.sources.mixture:Mixture",
        ],
        "protocol": ["cjepa_jax.evals.states:States", "cjepa_jax.evals.finetune:Finetune"],
        "model": ["cjepa_jax.models.encoder:Encoder", "cjepa_jax.models.heads:Projector"],
    }
    for kind, paths in names.items():
        for path in paths:
            module, _, name = path.partition(":")
            thing = getattr(importlib.import_module(module), name)
            known = {each for each in inspect.signature(thing).parameters if each not in catalogue.FIRST.get(kind, ())}
            assert catalogue.keywords(kind, path) == known - catalogue.GIVEN.get(kind, set()), path


def test_the_keys_are_those_of_the_schema():
    c = vitl.get_config()
    known = {name: set(keys.split()) for name, keys in foreign.KEYS.items()}
    for name, section in c.items():
        if hasattr(section, "keys") and name not in ("mask", "objective"):
            assert set(section.keys()) == known[name], name
    assert {key for key in c if not hasattr(c[key], "keys")} == known[""]


def test_every_config_of_ours_is_read_and_locked(tmp_path):
    count, home = 0, pathlib.Path(clips.__file__).parent
    for file in sorted(home.rglob("*.py")):
        parts = file.relative_to(home).with_suffix("").parts
        module = importlib.import_module(".".join(("configs", *parts)))
        c = module.get_config() if hasattr(module, "get_config") else None
        if isinstance(c, ConfigDict) and "objective" in c:
            (tmp_path / "config.json").write_text(json.dumps(config_lib.resolve(c)))
            found = foreign.read(tmp_path / "config.json")
            assert config_lib.resolve(found) == config_lib.resolve(c) and found.is_locked
            count += 1
    assert count > 40


REFUSED = {
    "mask.__class__": "x", "mask.max_objects": 10**6, "mask.anchor": 10**6, "mask.other": 1, "mask.type": None,
    "mask.grid": [1, 1, 1], "mask.area": [[[[[[[[[0]]]]]]]]], "objective.encoder.parent": "x", "objective.items": 1,
    "objective.encoder.name": "x", "objective.encoder.depth": 10**9, "objective.encoder.tubelet": 2**40,
    "objective.encoder.variant": "999999x9x9x9/8", "objective.encoder.position_grid": [2**20, 2**20, 1],
    "objective.predictor.width": 2**40, "objective.predictor.heads": 10**6, "objective.predictor.max_objects": 2**31,
    "objective.steps": 3, "objective.dtype": "float64", "objective.type": ["os:system"], "data.frames": 10**9,
    "data.size": 8 * 10**9, "data.max_objects": 2**40, "data.options.__init__": 1, "data.options.update": {"a": 1},
    "data.options": [1], "data.eval_split": "a\x1b[2Jb", "seed": 2**60, "train.keys": 1, "train.a.b": 1,
    "optim.lock": 1, "extra": 1, "data.path": "x" * 5000, "optim.freeze": [1] * 20_000, "log.level": "\u202e",
    "evals.protocols.a": {"type": "cjepa_jax.evals.states:States", "no_such": 1}, "evals.protocols.b.type": 3,
    "": 1, "a b": 1, "probe.train": 10**400,
}  # fmt: skip


@pytest.mark.parametrize("field", REFUSED)
def test_keys_and_values_that_no_config_has_are_one_line(copy, field):
    put(copy, field, REFUSED[field])
    refusal(lambda: pretrained.load_weights(copy), CheckpointError)
    refusal(lambda: model.Restored.of(run_folders.config(), str(copy)), CheckpointError)


def test_a_package_that_the_user_names_is_trusted_and_only_that(copy, tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "own_masks.py").write_text(WITNESS)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    put(copy, "mask", {"type": "own_masks:draw"})
    put(copy, "data.source", "own_data.sources:Mine")
    assert "--trust=own_masks" in refusal(lambda: pretrained.load_weights(copy))
    assert "--trust=own_data" in refusal(lambda: pretrained.load_weights(copy, trust="own_masks"))
    assert "--trust=own_data" in refusal(lambda: pretrained.load_weights(copy, trust=("own_masks", "own_data.source")))
    assert not (tmp_path / "path" / "saw").exists()
    found = pretrained.load_weights(copy, trust="own_masks, own_data")
    assert (tmp_path / "path" / "saw").read_text() == "called" and found.input["names_objects"]
    for wrong in ("cjepa_jax", "a b", "../x", "os.", ".os", "-"):
        assert "--trust=" in refusal(lambda wrong=wrong: pretrained.load_weights(copy, trust=wrong), ConfigError)


def test_what_the_user_s_own_config_names_may_be_named_by_its_runs():
    c = run_folders.config()
    assert foreign.named(c) == ()
    with c.unlocked():
        c.mask.type = "mine:draw"
    assert foreign.named(c) == ("mine:draw",)
    assert foreign.is_trusted("mine:draw", foreign.named(c)) and not foreign.is_trusted("mine:other", foreign.named(c))
    assert not foreign.is_trusted("mine_too:draw", ("mine",)) and foreign.is_trusted("mine.masks:draw", ("mine",))


def test_records_of_what_a_run_was_started_from_are_data(tmp_path, copy):
    texts = {"source": "a\x1b[2J\nb", "licence": "MIT\x1b]0;x\x07", "path": "/x", "encoder": {"variant": "Mu/8"}}
    (copy / "init_from.json").write_text(json.dumps(texts))
    found = pretrained.load_weights(copy)
    assert found.licence == r"MIT\x1b]0;x\x07" and found.summary().replace("\n", "").isprintable()
    wrong = [{"licence": 3}, {"encoder": []}, {"encoder": {"depth": 10**9}}, {"encoder": {"__class__": "x"}}]
    wrong += [{"encoder": {"variant": "9" * 9}}, {"encoder": {"position_grid": [1] * 20_000}}, {"init_from": ["x"]}]
    for change in wrong:
        (copy / "init_from.json").write_text(json.dumps(texts | change))
        refusal(lambda: init_from.recorded(copy), CjepaError)
        refusal(lambda: pretrained.load_weights(copy), CjepaError)


def test_masks_are_named_the_same_with_few_and_with_very_many_tokens():
    mask = {"type": "cjepa_jax.masks.objects:draw", "max_objects": 3, "area": (0.05, 0.4)}
    assert names_objects(mask, (2, 16, 16)) and names_objects({**mask, "anchor": 250}, (252, 16, 16))
    assert not names_objects({"type": "cjepa_jax.masks.blocks:draw"}, (252, 16, 16))
