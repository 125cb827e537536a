"""Checkpoints on real files: kept, verified, and never silently wrong."""

import dataclasses
import errno
import functools
import logging
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cjepa_jax.checkpoint import Checkpoints, size_in_bytes
from cjepa_jax.errors import CheckpointError

ROOT = pathlib.Path(__file__).parents[1]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["step", "params", "target", "opt_state"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict
    target: dict
    opt_state: tuple


def make(seed, width=16):
    weights = jax.random.normal(jax.random.key(seed), (8, width))
    params = {"encoder": {"kernel": weights, "bias": jnp.zeros(7, jnp.bfloat16)}, "on": jnp.array([True, False])}
    floats = {"encoder": params["encoder"]}
    return State(jnp.int32(seed), params, jax.tree.map(jnp.copy, params), optax.adamw(1e-3).init(floats))


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs
    )


def saved(folder, steps, **options):
    checkpoints = Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(step, make(step))
    checkpoints.wait()
    checkpoints.close()


def restored(folder, like=None):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(make(0) if like is None else like)
    finally:
        checkpoints.close()


def files(folder, step):
    return sorted(path for path in (folder / str(step)).rglob("*") if path.is_file())


def test_nothing_to_restore(tmp_path):
    assert restored(tmp_path / "new") is None


def test_state_comes_back_bit_for_bit_from_abstract_leaves_too(tmp_path):
    saved(tmp_path, [1, 2])
    for like in (make(0), jax.eval_shape(lambda: make(0))):
        step, state = restored(tmp_path, like)
        assert step == 2 and isinstance(state, State) and same(state, make(2))


def test_keeps_the_newest_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, best="score")
    values = {1: 0.1, 2: 0.9, 3: float("nan"), 4: None, 5: 0.3, 6: 0.2}
    for step, value in values.items():
        checkpoints.save(step, make(step), None if value is None else {"score": np.float32(value), "other": 1.0})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 5, 6]
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=2, best="score")  # the metrics are known after a restart
    checkpoints.save(7, make(7), {"score": 0.5})
    checkpoints.save(8, make(8), {"score": 0.95})
    checkpoints.save(9, make(9), {})
    checkpoints.wait()
    assert checkpoints.steps() == [8, 9]
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8", "9"]


def test_keeps_the_newest_only_when_nothing_is_best(tmp_path):
    saved(tmp_path, [1, 2, 3], keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_a_step_is_saved_once(tmp_path):
    saved(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make(5))
    checkpoints.close()
    assert same(restored(tmp_path)[1], make(1))


def test_a_step_that_donates_its_state_does_not_disturb_the_save(tmp_path):
    double = jax.jit(lambda state: jax.tree.map(lambda x: x + x, state), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, keep=9)
    state = {"w": jnp.ones((512, 512)), "n": jnp.int32(1)}
    for step in range(5):
        checkpoints.save(step, state)
        state = double(double(state))
        checkpoints.check_for_errors()
    checkpoints.close()
    for step in reversed(range(5)):
        found, state = restored(tmp_path, state)
        assert (found, float(state["w"].min()), float(state["w"].max())) == (step, 4.0**step, 4.0**step)
        shutil.rmtree(tmp_path / str(step))


def test_another_model_is_refused_with_every_difference(tmp_path):
    saved(tmp_path, [1, 2])
    other = make(0)
    other.params["encoder"]["kernel"] = jnp.zeros((3, 3))
    other.params["encoder"]["bias"] = jnp.zeros(7, jnp.float32)
    other.params["new"] = jnp.zeros(2)
    del other.target["on"]
    with pytest.raises(CheckpointError, match="step 2: belongs to another model") as caught:
        restored(tmp_path, other)
    text = str(caught.value)
    assert "params/new is missing" in text and "target/on is not in the model" in text
    assert "params/encoder/kernel is float32[8, 16], the model has float32[3, 3]" in text
    assert "params/encoder/bias is bfloat16[7], the model has float32[7]" in text
    assert "\n" not in text and sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


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


@pytest.mark.parametrize("kind", ["flip", "zero", "truncate", "delete"])
def test_damage_in_any_file_is_found_and_the_older_checkpoint_serves(tmp_path, kind):
    rng = random.Random(kind)
    saved(tmp_path / "good", [1, 2])
    largest = max(files(tmp_path / "good", 2), key=lambda path: path.stat().st_size)
    fallbacks = 0
    for path in [*files(tmp_path / "good", 2), largest, largest, largest]:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        damage(kind, tmp_path / "bad" / path.relative_to(tmp_path / "good"), rng)
        step, state = restored(tmp_path / "bad")
        assert same(state, make(step)), path
        fallbacks += step == 1
    assert fallbacks >= 3


def test_a_set_aside_step_can_be_saved_again(tmp_path, caplog):
    saved(tmp_path, [1, 2])
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


def test_reading_only_changes_nothing(tmp_path, caplog):
    saved(tmp_path, [1, 2])
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


def test_no_readable_checkpoint_is_an_error_and_nothing_is_renamed(tmp_path):
    saved(tmp_path, [1, 2])
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
def test_an_error_that_may_pass_leaves_every_checkpoint_in_place(tmp_path, error, monkeypatch):
    saved(tmp_path, [1, 2])
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
    out, err = process.communicate(timeout=60)
    assert out.startswith("CheckpointError: , step 2: cannot be read at present, nothing was changed ("), out + err
    assert out.endswith("['1', '2'] 2\n")


def test_a_best_metric_that_no_probe_has_is_warned_of_once(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, best="probe/cuont_r2")
    with caplog.at_level(logging.WARNING, "cjepa_jax"):
        for step, metrics in enumerate([None, {}, {"probe/count_r2": 0.5, "probe/rankme": 3.0}, {"probe/count_r2": 1}]):
            checkpoints.save(step, make(step), metrics)
    checkpoints.close()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("cjepa_jax")] == [
        "checkpoint.best = 'probe/cuont_r2': not among the probe's metrics; did you mean 'probe/count_r2'?"
    ]


def script(body, *arguments, **environment):
    code = "import sys\nimport jax, jax.numpy as jnp\nfrom cjepa_jax.checkpoint import Checkpoints\n"
    command = [sys.executable, "-c", code + textwrap.dedent(body), *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk_surfaces_as_a_storage_error_and_the_last_good_one_stays(tmp_path):
    process = script(
        """
        import resource, signal, time
        from cjepa_jax.cli import set_up_logging, storage_error
        set_up_logging("info")
        checkpoints = Checkpoints(sys.argv[1])
        state = {"w": jax.random.normal(jax.random.key(0), (512, 512))}
        checkpoints.save(1, state)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        checkpoints.save(2, state)  # returns: the failure comes later
        try:
            for _ in range(1000):
                checkpoints.check_for_errors()
                time.sleep(0.01)
        except Exception as error:
            print(storage_error(error).exit_code, checkpoints.restore(state)[0])
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("6 1\n", "")


def test_other_device_counts_and_shardings(tmp_path):
    body = """
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        mesh = Mesh(jax.devices(), "d")
        value = {"w": jnp.arange(64.0).reshape(16, 4), "n": jnp.int32(3)}
        put = {"w": NamedSharding(mesh, P("d")), "n": NamedSharding(mesh, P())}
        state = jax.device_put(value, put)
        checkpoints = Checkpoints(sys.argv[1])
        if sys.argv[2] == "save":
            checkpoints.save(5, state)
        else:
            step, back = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
            assert step == 5 and jax.tree.map(lambda x: x.sharding, back) == put
            assert (jax.device_get(back["w"]) == jax.device_get(value["w"])).all() and back["n"] == 3
            print(len(back["w"].sharding.device_set))
        checkpoints.close()
        """
    for what, devices in (("save", 8), ("restore", 8), ("restore", 2)):
        flags = f"--xla_force_host_platform_device_count={devices}"
        out, err = script(body, tmp_path, what, XLA_FLAGS=flags, JAX_PLATFORMS="cpu").communicate(timeout=60)
        assert out == ("" if what == "save" else f"{devices}\n"), err


def test_kill_during_saves_leaves_readable_checkpoints(tmp_path):
    body = """
        checkpoints = Checkpoints(sys.argv[1])
        step, state = checkpoints.restore({"w": jnp.zeros((1024, 1024)), "n": jnp.int32(0)}) or (0, None)
        if state is not None:
            assert state["n"] == step and (state["w"] == step).all()
        print(step, flush=True)
        while True:
            step += 1
            checkpoints.save(step, {"w": jnp.full((1024, 1024), float(step)), "n": jnp.int32(step)})
            print(step, flush=True)
        """
    rng, last = random.Random(0), 0
    for _ in range(3):
        process = script(body, tmp_path)
        first = process.stdout.readline()
        assert first, process.stderr.read()
        assert int(first) >= last - 1  # printed when the save starts: the one before it is complete
        for _ in range(rng.randrange(3, 9)):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert last >= 7  # each start goes on from where the last one got


def test_size():
    assert size_in_bytes({"a": jnp.zeros((3, 4)), "b": jnp.zeros(5, jnp.bfloat16)}) == 58
