"""However the devices are used, the same loss and gradient: those of one device that takes the batch whole."""

import functools
import json
import socket
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from cjepa_jax import experiment, sharding, train_step
from cjepa_jax.runtime.checkpoint import Checkpoints
from cjepa_jax.runtime.timing import compilations
from tests import running, scenes
from tests.objectives import test_jepa

BATCH = 8
KEEP = optax.trace(decay=0.0)  # an optimiser whose state is the gradient
slow = pytest.mark.slow


def step_on(devices=1, mode="jit", accumulate=1, depth=1, **layout):
    """(the compiled step, the state before it, its batch) on this number of devices."""
    mesh = sharding.make_mesh(layout, BATCH, accumulate, jax.devices()[:devices])
    own = BATCH // jax.process_count()
    first = own * jax.process_index()
    arrays = scenes.batch(range(first, first + own), shards=sharding.local_shards(mesh) * accumulate)
    batch = sharding.put_batch(mesh, arrays)
    objective = test_jepa.make({"depth": depth}, {"depth": depth, "heads": 3, "width": 24})
    make = functools.partial(train_step.make, objective, KEEP, lambda step: 0.1, 0, accumulate)
    state = initial(objective)
    home = sharding.state_sharding(mesh, state)
    return experiment.compile_step(make, mesh, home, mode), jax.device_put(state, home), batch


def initial(objective):
    """The state before the first step, on the host."""
    batch = test_jepa.as_batch(scenes.batch(range(2)))
    return jax.device_get(jax.jit(functools.partial(train_step.init_state, objective, KEEP, 0))(batch))


@functools.cache
def after(*arguments, **options):
    """(metrics, gradient by name, state) of one step."""
    step, state, batch = step_on(*arguments, **options)
    state, metrics = step(state, batch)
    return jax.device_get(metrics), test_jepa.flat(state.opt_state.trace), jax.device_get(state)


def assert_same(found):
    metrics, gradient, state = found
    expected, gradients, states = after(1)
    assert gradients.keys() == gradient.keys() and expected.keys() == metrics.keys()
    for name in ("loss", "grad_norm", "loss/sigreg", "loss/prediction", "loss/causal", "rankme"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, err_msg=name)
    for name, value in gradients.items():
        assert 0 < np.linalg.norm(value) and np.linalg.norm(gradient[name] - value) <= 1e-5 * np.linalg.norm(value), (
            name
        )
    np.testing.assert_allclose(metrics["per_scene"], expected["per_scene"], rtol=1e-5)
    for name, value in test_jepa.flat(states.target).items():
        np.testing.assert_allclose(test_jepa.flat(state.target)[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


CASES = [
    pytest.param(dict(devices=8), marks=()),
    pytest.param(dict(devices=2), marks=slow),
    pytest.param(dict(devices=4), marks=slow),
    pytest.param(dict(devices=2, fsdp=2), marks=slow),
    pytest.param(dict(devices=8, fsdp=8), marks=slow),
    pytest.param(dict(devices=4, fsdp=2), marks=slow),
    pytest.param(dict(devices=3, tensor=3), marks=slow),
    pytest.param(dict(devices=6, fsdp=2, tensor=3), marks=slow),
    pytest.param(dict(devices=1, mode="pmap"), marks=slow),
    pytest.param(dict(devices=2, mode="pmap"), marks=slow),
    pytest.param(dict(devices=8, mode="pmap"), marks=slow),
    pytest.param(dict(devices=1, accumulate=4), marks=slow),
    pytest.param(dict(devices=4, accumulate=2), marks=slow),
    pytest.param(dict(devices=4, accumulate=2, mode="pmap"), marks=slow),
    pytest.param(dict(devices=4, fsdp=2, accumulate=2), marks=slow),
]


@pytest.mark.parametrize("how", CASES, ids=lambda how: "-".join(f"{key}={value}" for key, value in how.items()))
def test_the_same_loss_and_gradient(how):
    assert_same(after(**how))


@slow
def test_the_initial_state_has_the_same_bits_wherever_it_lives():
    _, state, batch = step_on(8, fsdp=4)
    init = functools.partial(train_step.init_state, test_jepa.make({"depth": 1}, {"heads": 3, "width": 24}), KEEP, 0)
    home = jax.tree.map(lambda leaf: leaf.sharding, state)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(init, out_shardings=home)(batch), state)


@slow
@pytest.mark.parametrize("how", [dict(devices=4, fsdp=2), dict(devices=2, mode="pmap")], ids=str)
def test_a_step_is_compiled_once(how):
    """Its state comes back where it was."""
    step, state, batch = step_on(**how)
    assert compilations(step) == 0
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    for _ in range(3):
        state, _ = step(state, batch)
    assert compilations(step) == 1
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == before


@slow
def test_restored_on_other_devices_it_goes_on_alike(tmp_path):
    """The state's bits, then the next loss. Also from one mode to the other."""
    step, state, batch = step_on(8, fsdp=4)
    state, _ = step(state, batch)
    saved = jax.device_get(state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    checkpoints.wait()
    expected = float(step(state, batch)[1]["loss"])
    for how in (dict(devices=1), dict(devices=2, mode="pmap")):
        step, fresh, batch = step_on(**how)
        _, state = checkpoints.restore(fresh)
        assert [leaf.sharding for leaf in jax.tree.leaves(state)] == [leaf.sharding for leaf in jax.tree.leaves(fresh)]
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), saved)
        np.testing.assert_allclose(float(step(state, batch)[1]["loss"]), expected, rtol=1e-6)
    checkpoints.close()


@slow
@pytest.mark.parametrize("how", [dict(), dict(fsdp=4), dict(mode="pmap")], ids=str)
def test_two_processes_give_what_one_does(how, tmp_path):
    """Two devices each, over jax.distributed. Each process feeds its half of the batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.two_processes", port, json.dumps(how), str(tmp_path)]
    processes = [subprocess.Popen([*command, number], cwd=running.ROOT) for number in "01"]
    try:
        assert [process.wait(timeout=900) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    expected, gradient, _ = after(1)
    for number in "01":
        found = np.load(tmp_path / f"{number}.npz")
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
        assert set(found) == {"loss", *gradient}
        for name, value in gradient.items():
            assert np.linalg.norm(found[name] - value) <= 1e-5 * np.linalg.norm(value), name
