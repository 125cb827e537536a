"""Checkpoints on real files: kept, verified, and never silently wrong."""

import dataclasses
import functools
import logging
import random
import shutil
import signal
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.runtime import run_manifest
from cjepa_jax.runtime.checkpoint import Checkpoints, size_in_bytes
from tests import running


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
    checkpoints = Checkpoints(tmp_path, keep=1, best="score")  # from now on one is: those without a score are not kept
    for step, score in ((4, 0.5), (5, 0.1)):
        checkpoints.save(step, make(step), {"score": score})
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "5"]


def test_a_step_is_saved_once(tmp_path):
    saved(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make(5))
    checkpoints.close()
    assert same(restored(tmp_path)[1], make(1))


def test_what_orbax_does_not_put_together_is_an_error_and_not_committed(tmp_path):
    checkpoints = Checkpoints(tmp_path / "[x]")
    checkpoints.save(1, make(1))
    with pytest.raises(CheckpointError, match="Orbax has written no manifest.ocdbt"):
        checkpoints.wait()
    assert not (tmp_path / "[x]" / "1").exists()


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


def test_a_best_metric_that_no_probe_has_is_warned_of_once(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, best="probe/cuont_r2")
    with caplog.at_level(logging.WARNING, "cjepa_jax"):
        for step, metrics in enumerate([None, {}, {"probe/count_r2": 0.5, "probe/rankme": 3.0}, {"probe/count_r2": 1}]):
            checkpoints.save(step, make(step), metrics)
    checkpoints.close()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("cjepa_jax")] == [
        "checkpoint.best = 'probe/cuont_r2': not among the probe's metrics; did you mean 'probe/count_r2'?"
    ]


def script(body, *arguments, devices=1):
    code = "import sys\nimport jax, jax.numpy as jnp\nfrom cjepa_jax.runtime.checkpoint import Checkpoints\n"
    return running.start([sys.executable, "-c", code + textwrap.dedent(body), *map(str, arguments)], devices)


def test_a_full_disk_surfaces_as_a_storage_error_and_the_last_good_one_stays(tmp_path):
    process = script(
        """
        import resource, signal, time
        from cjepa_jax.cli import prepare_process, set_up_logging, storage_error
        set_up_logging("info")
        prepare_process()  # as every command: which errors of other arrays are told
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
    out, err = process.communicate(timeout=180)
    assert (out, err) == ("6 1\n", "")


def test_a_write_that_a_failed_save_leaves_suspended_prints_nothing_at_the_end(tmp_path):
    """It is seldom left so late: here something that outlives the modules holds it, as a thread of Orbax may."""
    (tmp_path / "orbax").mkdir()
    for folder in ("", "orbax/"):
        (tmp_path / f"{folder}late{len(folder)}.py").write_text(
            "import types\n@types.coroutine\ndef pause():\n    yield\n"
            "async def write(error):\n    try:\n        await pause()\n    finally:\n        raise error\n"
        )
    code = """
        import asyncio, atexit, builtins, weakref
        sys.path[:0] = [sys.argv[1], sys.argv[1] + "/orbax"]
        import late0, late6
        from cjepa_jax.runtime.checkpoint import end_writes
        others = late0.write(RuntimeError("another program's"))
        builtins.held = [late6.write(RuntimeError("TaskGroup is shutting down")), late6.write(asyncio.CancelledError())]
        builtins.held += [weakref.proxy(set())]
        for each in (others, *builtins.held[:2]):
            each.send(None)
        builtins.held += [others]
        if len(sys.argv) > 2:
            atexit.register(end_writes)
    """
    for arguments, wanted in (([], 3), (["end"], 1)):
        out, err = script(code, tmp_path, *arguments).communicate(timeout=180)
        assert out == "" and err.count("Exception ignored in: <coroutine") == wanted, err
        assert ("shutting down" in err) == (wanted == 3) and "another program's" in err


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
        out, err = script(body, tmp_path, what, devices=devices).communicate(timeout=180)
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
        committed = [path for path in tmp_path.iterdir() if path.name.isdigit()]
        assert committed and all(run_manifest.verify(path, int(path.name)) == [] for path in committed)
    assert last >= 7  # each start resumes where the last one got


def test_size():
    assert size_in_bytes({"a": jnp.zeros((3, 4)), "b": jnp.zeros(5, jnp.bfloat16)}) == 58
