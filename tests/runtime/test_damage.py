"""Damaged checkpoints: found, never silently wrong, set aside and passed over. On one process and on two."""

import errno
import json
import logging
import os
import random
import shutil
import socket

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from cjepa_jax.errors import CheckpointError
from cjepa_jax.runtime import checkpoint, run_manifest
from cjepa_jax.runtime.checkpoint import Checkpoints
from tests.runtime.test_checkpoint import files, make, restored, same, saved, script


def damage(kind, path, rng):
    content = bytearray(path.read_bytes())
    at = rng.randrange(max(len(content), 1))
    if kind == "delete":
        path.unlink()
        return
    if kind == "flip" and content:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif kind == "truncate":
        content = content[:at]
    path.write_bytes(content)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The folder of two checkpoints, of which tests damage copies."""
    folder = tmp_path_factory.mktemp("checkpoints") / "good"
    saved(folder, [1, 2])
    return folder


@pytest.mark.parametrize("kind", ["flip", "zero", "truncate", "delete"])
def test_damage_in_any_file_is_found_and_the_older_checkpoint_serves(good, tmp_path, kind):
    rng = random.Random(kind)
    largest = max(files(good, 2), key=lambda path: path.stat().st_size)
    every = files(good, 2)
    for path in [*(every if kind == "flip" else rng.sample(every, 4)), largest]:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(good, tmp_path / "bad")
        damage(kind, tmp_path / "bad" / path.relative_to(good), rng)
        step, state = restored(tmp_path / "bad")
        assert same(state, make(step)), path
        # What Orbax writes last has no checksum. Without checksums of files the arrays' own ones are left.
        name = path.relative_to(good / "2").as_posix()
        assert step == 1 or name in run_manifest.LATER or (kind, name) == ("delete", run_manifest.SUMS), path


@pytest.mark.parametrize("content", [b'{"score": 1.', b"\xff\xfe{", "a folder"])
def test_damaged_metrics_of_a_checkpoint_are_damage_like_any_other(tmp_path, content):
    manager = Checkpoints(tmp_path, best="score")
    for step in (1, 2):
        manager.save(step, make(step), {"score": step})
    manager.close()
    file = tmp_path / "2" / "metrics" / "metrics"
    if content == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match="2/metrics/metrics: damaged. Without the folder 2"):
        Checkpoints(tmp_path, read_only=True)
    step, state = restored(tmp_path)
    assert step == 1 and same(state, make(1))


def test_metrics_of_a_checkpoint_that_cannot_be_read_now_change_nothing(tmp_path, monkeypatch):
    manager = Checkpoints(tmp_path, best="score")
    manager.save(1, make(1), {"score": 1})
    manager.close()

    def fail(file, *options, **named):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("cjepa_jax.runtime.checkpoint.door.read", fail)
    with pytest.raises(CheckpointError, match="1/metrics/metrics: cannot be read at present, nothing was changed"):
        Checkpoints(tmp_path)
    assert (tmp_path / "1" / "metrics" / "metrics").exists()


@pytest.mark.parametrize(
    "name, field, text",
    [
        ("state.", "chunks", "is stored in chunks of"),
        ("checksums", "chunks", "is stored in chunks of"),
        ("checksums", "shape", "its checksums have the shape"),
    ],
    ids=["a chunk", "a chunk of sums", "sums"],
)
def test_claimed_sizes_are_refused_before_memory_is_taken_for_them(tmp_path, name, field, text):
    """By somebody who writes matching checksums too."""
    saved(tmp_path, [1])
    base = f"file://{tmp_path / '1' / 'default'}/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    found = {key: json.loads(store.read(key).result().value) for key in store.list().result() if b".zarray" in key}
    key = next(key for key, about in found.items() if key.startswith(name.encode()) and about["shape"])
    claim = [*found[key]["shape"][:-1], 2**40]
    store.write(key, json.dumps(found[key] | {field: claim})).result()
    del store
    run_manifest.seal(tmp_path / "1", 1)
    with pytest.raises(CheckpointError, match=text):
        restored(tmp_path)


@pytest.mark.parametrize("value", ['"x"', "[]", "1" * 400, "null"])
def test_a_score_that_is_none_is_not_the_best(tmp_path, value):
    manager = Checkpoints(tmp_path, keep=1, best="score")
    manager.save(1, make(1), {"score": 1.0})
    manager.close()
    (tmp_path / "1" / "metrics" / "metrics").write_text(f'{{"score": {value}}}')
    manager = Checkpoints(tmp_path, keep=1, best="score")
    for step, score in ((2, 0.5), (3, 0.1)):
        manager.save(step, make(step), {"score": score})
    manager.close()
    assert sorted(os.listdir(tmp_path)) == ["2", "3"]


def test_metadata_that_is_nested_too_deeply_is_one_line(tmp_path):
    saved(tmp_path, [1])
    (tmp_path / "1" / "_CHECKPOINT_METADATA").write_text("[" * 10**5)
    with pytest.raises(CheckpointError, match="_CHECKPOINT_METADATA is damaged"):
        restored(tmp_path)


def test_files_that_changed_places_are_found(good, tmp_path):
    # The same bytes may stand in several files, which may well change places.
    content = {path.read_bytes(): path for path in files(good, 2) if path.parent.name == "d"}
    data = sorted(path.relative_to(good) for path in content.values())
    swaps = [data[:2], ["1/default", "2/default"], ["1", "2"], [f"{step}/{run_manifest.SUMS}" for step in (1, 2)]]
    for one, other in swaps:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(good, tmp_path / "bad")
        (tmp_path / "bad" / one).rename(tmp_path / "bad" / "third")
        (tmp_path / "bad" / other).rename(tmp_path / "bad" / one)
        (tmp_path / "bad" / "third").rename(tmp_path / "bad" / other)
        if one == data[0]:
            assert same(restored(tmp_path / "bad")[1], make(1))
        else:
            with pytest.raises(CheckpointError, match="no checkpoint is readable"):
                restored(tmp_path / "bad")


def test_without_checksums_of_files_the_arrays_own_ones_serve(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    for step in (1, 2):
        (tmp_path / str(step) / run_manifest.SUMS).unlink()
    largest = max(files(tmp_path, 2), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 3 : -len(content) // 3] = bytes(len(content[len(content) // 3 : -len(content) // 3]))
    largest.write_bytes(content)
    step, state = restored(tmp_path)
    assert step == 1 and same(state, make(1))


def test_checksums_of_arrays_tell_round_values_apart(tmp_path, monkeypatch):
    ones = jnp.ones(384)
    altered = [ones, ones.at[0].set(0).at[255].set(0), ones.at[:128].set(0), ones.at[3].set(2)]
    altered += [jnp.zeros(384), jnp.ones((2, 192)).at[:, ::2].set(0)]
    assert len({checkpoint.checksums([array]).tobytes() for array in map(jnp.asarray, altered)}) == len(altered)
    both = checkpoint.checksums
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "checksums", lambda leaves: both(leaves)[0])  # as in earlier versions
        saved(tmp_path, [1])
    assert same(restored(tmp_path)[1], make(1))
    for row in (0, 1):  # one wrong sum of the two is enough
        wrong = np.uint32([[row == 0], [row == 1]])
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "checksums", lambda leaves, wrong=wrong: both(leaves) + wrong)
            saved(tmp_path / str(row), [1])
        with pytest.raises(CheckpointError, match="step 1: checksum mismatch in "):
            restored(tmp_path / str(row))


def test_files_beside_the_checkpoints_own_do_no_harm(tmp_path):
    saved(tmp_path, [1])
    for name in ("1/.DS_Store", "1/default/notes.txt", "1/default/d/0123"):
        (tmp_path / name).write_text("x")
    assert same(restored(tmp_path)[1], make(1))


def test_a_set_aside_step_can_be_saved_again(good, tmp_path, caplog):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    largest = max(files(tmp_path, 2), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    (tmp_path / "3").mkdir()  # what a kill at a bad moment may leave
    checkpoints = Checkpoints(tmp_path)
    with caplog.at_level(logging.WARNING, "cjepa_jax"):
        assert checkpoints.restore(make(0))[0] == 1
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("cjepa_jax")]
    assert [text.split(" is passed over")[0] for text in warnings] == ["checkpoint 3", "checkpoint 2"]
    checkpoints.save(2, make(2))
    checkpoints.close()
    assert restored(tmp_path)[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "2.bad", "3.bad"]
    (tmp_path / "2" / run_manifest.SUMS).write_text("{}")
    assert restored(tmp_path)[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2.bad", "2.bad2", "3.bad"]  # nothing is deleted


def test_reading_only_changes_nothing(good, tmp_path, caplog):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    largest = max(files(tmp_path, 2), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()  # what another process is about to save
    (tmp_path / "3.orbax-checkpoint-tmp" / "part").write_text("half")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    checkpoints = Checkpoints(tmp_path, read_only=True)
    with caplog.at_level(logging.WARNING, "cjepa_jax"):
        step, state = checkpoints.restore(make(0))
    with pytest.raises(RuntimeError, match="reading only"):
        checkpoints.save(4, make(4))
    checkpoints.close()
    assert step == 1 and same(state, make(1))
    assert "checkpoint 2 is passed over: " in caplog.text and "set aside" not in caplog.text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_no_readable_checkpoint_is_an_error_and_nothing_is_renamed(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    for step in (1, 2):
        shutil.rmtree(tmp_path / str(step) / "default")
    with pytest.raises(CheckpointError, match="no checkpoint is readable .step 2: .*; step 1: "):
        restored(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
        ValueError("UNAVAILABLE: Error reading from file [os_error_code='5']"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1099511627776 bytes"),
    ],
    ids=repr,
)
def test_an_error_that_may_pass_leaves_every_checkpoint_in_place(good, tmp_path, error, monkeypatch):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:

        def fail(step, args):
            raise RuntimeError("wrapped") from error

        patch.setattr(checkpoints._manager, "restore", fail)
        with pytest.raises(CheckpointError, match="step 2: cannot be read at present, nothing was changed"):
            checkpoints.restore(make(0))
    assert checkpoints.restore(make(0))[0] == 2
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_running_out_of_open_files_leaves_every_checkpoint_in_place(tmp_path):
    process = script(
        """
        import os, resource
        checkpoints = Checkpoints(sys.argv[1])
        state = {"w": jax.random.normal(jax.random.key(0), (512, 512)), "n": jnp.int32(0)}
        for step in (1, 2):
            checkpoints.save(step, state)
            checkpoints.wait()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))  # no file can be opened any more
        try:
            checkpoints.restore(state)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        print(text.replace(sys.argv[1], ""), sorted(os.listdir(sys.argv[1])), checkpoints.restore(state)[0])
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=180)
    assert out.startswith("Unreachable: , step 2: cannot be read at present, nothing was changed ("), out + err
    assert out.endswith("['1', '2'] 2\n")


PROCESSES = """
    import os
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
    mesh = Mesh(jax.devices(), "d")

    def put(array, *axes):
        home = NamedSharding(mesh, P(*axes))
        return jax.make_array_from_callback(array.shape, home, lambda index: array[index])

    def state(step):
        rows, columns = np.arange(64, dtype=np.float32).reshape(16, 4) * step, np.full((4, 8), step, np.float32)
        return {"rows": put(rows, "d"), "columns": put(columns, None, "d"), "n": put(np.array(step))}

    checkpoints = Checkpoints(sys.argv[3], keep=3)
    if sys.argv[4] == "save":
        for step in (1, 2, 3):
            checkpoints.save(step, state(step))
    else:
        step, back = checkpoints.restore(state(0))
        pairs = zip(jax.tree.leaves(back), jax.tree.leaves(state(step)), strict=True)
        same = all((a.addressable_shards[0].data == b.addressable_shards[0].data).all() for a, b in pairs)
        print(step, same, sorted(os.listdir(sys.argv[3])))
    checkpoints.close()
    jax.distributed.shutdown()
    """


@pytest.mark.slow
def test_two_processes_save_together_and_agree_on_what_is_damaged(tmp_path):
    def both(what):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        pair = [script(PROCESSES, port, rank, tmp_path, what) for rank in (0, 1)]
        results = [process.communicate(timeout=240) for process in pair]
        assert [process.returncode for process in pair] == [0, 0], results
        return [out.splitlines()[-1] if out else "" for out, _ in results]

    both("save")
    for step in (1, 2, 3):
        assert run_manifest.verify(tmp_path / str(step), step) == []
    assert both("restore") == ["3 True ['1', '2', '3']"] * 2
    data = sorted((tmp_path / "3" / "default").rglob("d/*"))[-1]  # one process's: the other one finds nothing wrong
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    (tmp_path / "2" / "default" / "manifest.ocdbt").unlink()
    assert both("restore") == ["1 True ['1', '2.bad', '3.bad']"] * 2
