"""A world of one's own as CONTRIBUTING tells it: one file, one config, one test, and no edit in the package."""

import json
import re
import sys

import numpy as np
import pytest

from cjepa_jax.configuration import locate
from cjepa_jax.configuration.check import resolve
from cjepa_jax.data import assemble, build, show
from cjepa_jax.data.materialise import builders, dataset_spec
from cjepa_jax.data.sources.records import Records
from cjepa_jax.data.worlds import promises
from cjepa_jax.errors import CheckpointError, ConfigError, DataError
from cjepa_jax.runtime import foreign, run_manifest
from tests import running

NAME, FILES = "drift:Drift", ("drift.py", "drifting.py", "drifting_stored.py", "test_drift.py")
SMALL = dict(size=16, frames=4)


def write_files(folder):
    """Writes the blocks of CONTRIBUTING that begin with the names of their files."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (running.ROOT / "CONTRIBUTING.md").read_text(), re.S)
    for name, text in blocks:
        if name in FILES:
            (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the three files, on the import path, and the world's scenes in records/."""
    folder = write_files(tmp_path_factory.mktemp("own"))
    sys.path.append(str(folder))
    flags = [f"--world={NAME}", "--size=16", "--frames=4", "--shard=4", "--workers=2", "--log=warning"]
    build.main([*flags, "--count=8", f"--out={folder / 'records'}"])  # in separate processes
    yield folder
    sys.path.remove(str(folder))
    for name in ("drift", "test_drift"):
        sys.modules.pop(name, None)


def module(name):
    return __import__(name)


def test_it_keeps_the_promises(folder):
    module("test_drift").test_drift()


def test_records_are_its_own_scenes(folder):
    path, own = str(folder / "records"), module("drift").Drift(**SMALL, count=8)
    assert dataset_spec.read(folder / "records", "train")["spec"]["world"] == NAME
    records = Records(path=path, world=NAME, **SMALL)
    for i in range(8):
        assert promises.equal(records[i], own[i])
        removed = np.arange(len(own[i]["masks"])) == 0
        np.testing.assert_array_equal(records.intervene(i, removed), own.intervene(i, removed))
    with pytest.raises(DataError, match="asks no question"):
        records.outcomes(0)
    assert "world" not in run_manifest.fingerprint(records)["options"]
    build.main([f"--out={folder / 'records'}", "--verify"])


def test_a_folder_alone_names_no_code(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "drift", raising=False)
    path = str(folder / "records")
    with pytest.raises(DataError, match=f"{NAME}: is code of another package: data.options.world = '{NAME}' if it is"):
        Records(path=path, **SMALL)
    for other in ("drift:Setup", "balls"):
        with pytest.raises(ConfigError, match=rf"data.options.world is '{other}'. .* holds scenes of '{NAME}'"):
            Records(path=path, world=other, **SMALL)
    assert "drift" not in sys.modules
    for name in ("cjepa_jax.cli:run", "cjepa_jax.data.worlds.base:Outcomes", "cjepa_jax.data.sources.records:Records"):
        spec = dataset_spec.read(folder / "records", "train")["spec"] | {"world": name}
        with pytest.raises(ConfigError, match=f"{name}: this package has no such world"):
            builders.world_of(spec)


def test_a_world_in_the_package_needs_no_entry_to_be_read_back(folder):
    from cjepa_jax.data.worlds import Balls

    spec = builders.spec_of(Balls(**SMALL, count=2), 2) | {"world": "cjepa_jax.data.worlds.balls:Balls"}
    assert builders.world_of(spec) == Balls(**SMALL, count=2)
    made = builders.make_world("cjepa_jax.data.worlds.balls:Balls", {}, **SMALL)
    assert builders.spec_of(made, 2)["world"] == "balls"


@pytest.mark.parametrize(
    "name, text",
    [
        ("drift:Drft", "the module has no 'Drft'; did you mean 'Drift'"),
        ("drft:Drift", "drft"),
        ("drift:Setup", "--world=drift:Setup: must be a class that derives from cjepa_jax.data.worlds.base:World"),
        ("os:system", "--world=os:system: must be a class that derives from"),
        ("cjepa_jax.data.worlds.rigid:Rigid", "with its own setup"),
    ],
)
def test_what_is_no_world_is_one_line(folder, tmp_path, name, text):
    with pytest.raises(ConfigError, match=text) as error:
        build.main([f"--world={name}", "--count=2", f"--out={tmp_path / 'out'}", "--log=warning"])
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def configs(folder):
    """The configs of CONTRIBUTING, simulating, and reading the records."""
    locate.make_importable(folder / "drifting.py")
    for name, path in (("drifting", ""), ("drifting_stored", str(folder / "records"))):
        config = module(name).get_config()
        config.data.update(size=16, frames=4, count=8, path=path)
        yield config


def test_show_and_the_source_take_it(folder, tmp_path):
    simulated, stored = configs(folder)
    text = show.draw(simulated, str(tmp_path / "drift.png"), count=2)
    assert "scenes 0 to 1" in text and (tmp_path / "drift.png").read_bytes()[:4] == b"\x89PNG"
    one, two = (assemble.make_source(config, "train") for config in (simulated, stored))
    assert promises.equal(one[5], two[5])


def test_a_run_s_config_names_it_only_where_it_is_trusted(folder, tmp_path):
    simulated, stored = configs(folder)
    for config, field in ((simulated, "data.source"), (stored, "data.options.world")):
        config.data.update(size=32, frames=4)
        (tmp_path / "config.json").write_text(json.dumps(resolve(config)))
        with pytest.raises(CheckpointError, match=f"{field} = '{NAME}': is code of another package: --trust=drift"):
            foreign.read(tmp_path / "config.json")
        assert foreign.read(tmp_path / "config.json", trust=("drift",)).data.size == 32
        assert foreign.named(config) == (NAME,)
        assert resolve(foreign.read(tmp_path / "config.json", trust=foreign.named(config))) == resolve(config)


@pytest.mark.slow
def test_it_is_trained_on_from_any_folder(tmp_path):
    """As a user does: a config with its world beside it, simulated and from disk, in data workers too."""
    write_files(tmp_path)
    losses = []
    flags = ["--count=64", "--size=32", "--frames=2", "--workers=1", "--log=warning", f"--out={tmp_path / 'data'}"]
    sys.path.append(str(tmp_path))
    try:
        for split in ("train", "eval"):
            build.main([f"--world={NAME}", f"--split={split}", *flags])
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("drift", None)
    stored = {
        "data__source": "cjepa_jax.data.sources.records:Records", "data__path": tmp_path / "data",
        "data__options": f"{{'world': '{NAME}'}}",
    }  # fmt: skip
    for name, values in (("simulated", {}), ("stored", stored)):
        argv = running.command(tmp_path / name, tmp_path / "drifting.py", train__steps=4, data__workers=2, **values)
        running.run(argv)
        losses.append([row["loss"] for row in running.metrics(tmp_path / name)[0]])
    assert losses[0] == losses[1] and len(losses[0]) == 2
