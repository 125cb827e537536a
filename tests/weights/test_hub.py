"""hf:// addresses, in the cache that huggingface_hub itself fills from a hub on this machine."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from cjepa_jax import api, cli
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.export import __main__ as export
from cjepa_jax.export import bundle
from cjepa_jax.loading import eval_config, init_from, model, pretrained
from cjepa_jax.weights import hub
from cjepa_jax.weights.read import Reading, read
from tests import hubs
from tests.export import pairs

NAME = "someone/small"
pytestmark = pytest.mark.needs("huggingface_hub")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with a repository, and an empty cache. As in a shell without HF_HUB_OFFLINE."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with hubs.serving() as (made, url):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        made.commit(NAME, folder(tmp_path / "own", 0))
        yield made


def folder(path, seed):
    """The files of an export of random weights."""
    path.mkdir()
    bundle.write(path, dataclasses.replace(pairs.model(seed), digest=f"{seed}" * 64), "card")
    return {file.name: file.read_bytes() for file in path.iterdir()}


def download(monkeypatch, address):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    found = pretrained.load_weights(address)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub._resolved.cache_clear()
    return found


def equal(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_nothing_is_downloaded_unless_asked_and_a_cached_revision_needs_no_network(server, tmp_path, monkeypatch):
    address, commit = f"hf://{NAME}@main", server.branches[NAME]["main"]
    for way in ({}, {"HF_HUB_OFFLINE": "1"}):
        with monkeypatch.context() as patch:
            for key, value in way.items():
                patch.setenv(key, value)
            with pytest.raises(
                ConfigError, match=f"is not, or not whole, in .*cache.*`hf download {NAME} --revision main`"
            ):
                pretrained.load_weights(address)
    assert not server.requests
    found = download(monkeypatch, address)
    own = read(tmp_path / "own")
    equal(found.params, own.params)
    assert (found.source, found.digest) == (f"hf://{NAME}@{commit}", own.digest)
    fetched = {os.path.basename(path) for method, path in server.requests if "/resolve/" in path}
    assert "modeling_cjepa.py" not in fetched and "model.safetensors" in fetched  # no code
    server.requests.clear()
    for again in (address, f"hf://{NAME}", f"hf://{NAME}@{commit}"):
        assert pretrained.load_weights(again).source == f"hf://{NAME}@{commit}"
    assert api.load(address).info["source"] == f"hf://{NAME}@{commit}" and not server.requests


def test_a_damaged_or_incomplete_cache_is_one_line(server, tmp_path, monkeypatch):
    address = f"hf://{NAME}@main"
    place = hub.snapshot
    download(monkeypatch, address)
    for name in ("model.safetensors", "config.json"):
        file = place(address).folder / name
        assert file.is_symlink()  # huggingface_hub's layout: snapshots/COMMIT/NAME -> blobs/DIGEST
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        (tmp_path / "before").write_bytes(file.read_bytes())
        hub._resolved.cache_clear()
        os.chmod(os.path.realpath(file), 0o644)
        with open(os.path.realpath(file), "r+b") as stream:
            stream.write(data)
        with pytest.raises(CheckpointError, match=f"{name}: is damaged: its digest"):
            pretrained.load_weights(address)
        with open(os.path.realpath(file), "r+b") as stream:
            stream.write((tmp_path / "before").read_bytes())
    inside = place(address).folder
    hub._resolved.cache_clear()
    (inside / "README.md").unlink()
    (inside / "README.md").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="leads out of this folder"):
        pretrained.load_weights(address)
    (inside / "README.md").unlink()
    (inside / "model.safetensors").unlink()
    with pytest.raises((ConfigError, CheckpointError), match="not whole|has none of model.safetensors"):
        pretrained.load_weights(address)


@pytest.mark.parametrize("address", [
    "hf://", "hf://name", "hf://a/b/c", "hf://a/b@", "hf://a/b@../../x", "hf://a/..", "hf://a--b/c", "hf://a/b@x\n",
    "hf://a/b@/x", f"hf://a/b@{'x' * 300}",
])  # fmt: skip
def test_other_forms_of_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="must be hf://OWNER/NAME@REVISION"):
        pretrained.load_weights(address)


def test_a_revision_that_is_not_there_is_one_line(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for address, text in ((f"hf://{NAME}@none", "404|Revision"), ("hf://no/body", "404|Repository")):
        with pytest.raises(ConfigError, match=f"{address}.*({text})"):
            pretrained.load_weights(address)
    with pytest.raises(ConfigError, match="step = 3"):
        pretrained.load_weights(f"hf://{NAME}", step=3)


def test_without_the_library_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"needs the package huggingface_hub .*: pip install 'cjepa_jax\[hub\]'"):
        pretrained.load_weights("hf://a/b")


def test_a_run_keeps_the_commit_of_a_branch_that_moves(server, tmp_path, monkeypatch):
    from tests.loading.test_init_from import config

    address = f"hf://{NAME}@main"
    first = download(monkeypatch, address)
    made = config(init_from=address)
    found, lines = init_from.prepare(made, tmp_path / "run")
    assert found.source == first.source and first.source in lines[0]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "init_from.json").write_text(json.dumps(init_from.record(made, found)))
    server.commit(NAME, folder(tmp_path / "other", 1))
    second = download(monkeypatch, address)
    assert second.source != first.source
    known = init_from.recorded(tmp_path / "run")
    assert (known["init_from"], known["source"], known["digest"]) == (address, first.source, first.digest)
    again, _ = init_from.prepare(config(init_from=address), tmp_path / "run")
    assert (again.source, again.digest) == (first.source, first.digest)
    fresh, _ = init_from.prepare(config(init_from=address), tmp_path / "new")
    assert fresh.source == second.source
    with pytest.raises(CheckpointError, match="its digest is 1+, not the recorded 0+"):
        hub.read(second.source, digest=first.digest)


def test_evaluations_take_addresses(server, monkeypatch):
    address = f"hf://{NAME}@main"
    found = download(monkeypatch, address)
    run, weights = model._opened(address, (), Reading())
    assert run is None and weights.source == found.source
    assert eval_config.of_checkpoint(address, ()) is None  # these weights record no training


def test_an_export_of_an_address_names_it_and_a_push_makes_a_private_commit(server, tmp_path, monkeypatch, capsys):
    address = f"hf://{NAME}@main"
    found = download(monkeypatch, address)
    out = tmp_path / "out"
    assert export.main([f"--checkpoint={address}", f"--out={out}", "--push=me/mine"]) == 0
    assert found.source in (out / "README.md").read_text() and found.source in (out / "LICENSE").read_text()
    commit = server.branches["me/mine"]["main"]
    assert capsys.readouterr().out.strip().endswith(f"pushed: hf://me/mine@{commit}")
    assert server.private["me/mine"] is True
    assert server.commits["me/mine"][commit] == {file.name: file.read_bytes() for file in out.iterdir()}
    again = download(monkeypatch, f"hf://me/mine@{commit}")
    equal(again.params, found.params)


@pytest.mark.parametrize("name, offline, text", [
    ("mine", False, "--push=mine: must be OWNER/NAME"),
    ("me/mine", True, "HF_HUB_OFFLINE is set, and a push needs the network"),
])  # fmt: skip
def test_a_push_that_cannot_begin_writes_nothing(name, offline, text, server, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    flags = [f"--checkpoint={tmp_path / 'own'}", f"--out={tmp_path / 'out'}", f"--push={name}"]
    assert cli.guard(lambda: export.main(flags)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert text in line and not (tmp_path / "out").exists() and not server.requests


def test_a_push_that_fails_leaves_the_export(server, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    flags = [f"--checkpoint={tmp_path / 'own'}", f"--out={tmp_path / 'out'}", "--push=me/mine"]
    assert cli.guard(lambda: export.main(flags)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "`hf upload me/mine" in line
    assert read(tmp_path / "out").digest == read(tmp_path / "own").digest


def test_weights_of_leworldmodel_are_fetched_and_checked_too(server, tmp_path, monkeypatch):
    server.commit(NAME, {"config.json": b"{}", "weights.pt": b"no checkpoint"}, "lewm")
    address = f"hf://{NAME}@lewm"
    with pytest.raises(CheckpointError, match="weights.pt: is not readable as an archive"):
        download(monkeypatch, address)
    hub._resolved.cache_clear()
    (file,) = (tmp_path / "cache").rglob("weights.pt")
    blob = file.resolve()
    blob.chmod(0o600)
    blob.write_bytes(b"other bytes")
    with pytest.raises(CheckpointError, match="weights.pt: is damaged: its digest"):
        hub.snapshot(address)
