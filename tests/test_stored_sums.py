"""Options that are off change nothing: ten steps of the shipped methods give the stored losses and states.

The stored numbers come from the version before the options were added. The loss is compared on every machine. The bits
of the state, which a checkpoint holds, are compared only with the same compiler on the same kind of processor.

    python -m tests.test_stored_sums     write the numbers again, after a change that is meant to change them
"""

import hashlib
import importlib
import json
import pathlib
import platform

import numpy as np
import pytest

STORED = pathlib.Path(__file__).parent / "golden" / "stored_sums.json"
STEPS, BATCH = 10, 4
SMALL = {
    "train.batch": BATCH,
    "data.size": 32,
    "data.frames": 2,
    "data.count": 64,
    "mask.anchor": 0,
    "objective.encoder.variant": "24x2x2x48/8",
    "objective.predictor.depth": 1,
    "objective.predictor.width": 16,
    "objective.predictor.heads": 2,
    "objective.decoder.depth": 1,
    "objective.projector.hidden": (32,),
    "objective.slices": 32,
    "optim.warmup_share": 0.1,
    "optim.peak": 1e-3,
}
NAMES = ("clips", "vitl", "baselines.mae", "baselines.byol", "baselines.lejepa")
QUICKLY = ("clips", "vitl")


def shrunk(name):
    """A shipped config at the least size. Only keys that it has are changed."""
    from cjepa_jax.configuration.check import flatten

    config = importlib.import_module(f"configs.{name}").get_config().copy_and_resolve_references().unlock()
    own = dict(flatten(config))
    changes = {key: value for key, value in SMALL.items() if key in own}
    if name == "vitl":  # images
        changes |= {"data.frames": 1}
    config.update_from_flattened_dict(changes)
    return config


def run(name):
    """Ten steps on one device: their losses, the state's bits and the state's names, shapes and types."""
    import functools

    import jax

    from cjepa_jax import experiment, optim, schedules, train_step
    from cjepa_jax.data import assemble, batching
    from cjepa_jax.types import Batch, Rows

    config = shrunk(name)
    objective = experiment.make_objective(config, STEPS)
    scenes = assemble.make_scenes(
        config, assemble.make_source(config, "train"), objective.patch, objective.tubelet, objective.max_removed
    )
    shape = batching.shapes(config.data, scenes.tokens, BATCH)[-1]
    batches = []
    for first in (0, BATCH):
        arrays = batching.collate([scenes(first + i, 0) for i in range(BATCH)], 1, [shape])
        batches.append(Batch(**(arrays | {"rows": Rows(**arrays["rows"])})))
    rate = functools.partial(schedules.learning_rate, peak=config.optim.peak, warmup=1, total=STEPS)
    optimizer = optim.make(config.optim)
    state = jax.jit(functools.partial(train_step.init_state, objective, optimizer, config.seed))(batches[0])
    step = jax.jit(train_step.make(objective, optimizer, rate, config.seed))
    losses = []
    for number in range(STEPS):
        state, metrics = step(state, batches[number % 2])
        losses.append(float(metrics["loss"]))
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    bits, names = hashlib.sha256(), hashlib.sha256()
    for path, leaf in leaves:
        array = np.asarray(leaf)
        names.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        bits.update(array.tobytes())
    return {"losses": losses, "names": names.hexdigest()[:16], "bits": bits.hexdigest()[:16]}


def where():
    """The compiler and the processor, on which the last bits depend."""
    import jax

    from tests import QUICK

    cpu = pathlib.Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{jax.__version__} {platform.machine()} {flags} {QUICK}".encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICKLY else [pytest.mark.slow]) for n in NAMES])
def test_ten_steps_give_the_stored_losses_and_state(name):
    stored, found = json.loads(STORED.read_text()), run(name)
    assert found["names"] == stored[name]["names"]
    np.testing.assert_allclose(found["losses"], stored[name]["losses"], rtol=2e-4)
    if where() in stored[name]["bits"]:
        assert found["bits"] == stored[name]["bits"][where()]


def _write():
    from tests import conftest

    conftest._prepare()
    old = json.loads(STORED.read_text()) if STORED.exists() else {}
    new = {}
    for name in NAMES:
        found = run(name)
        kept = old.get(name, {}) if old.get(name, {}).get("losses") == found["losses"] else {}
        new[name] = found | {"bits": kept.get("bits", {}) | {where(): found["bits"]}}
    STORED.write_text(json.dumps(new, indent=1) + "\n")


if __name__ == "__main__":
    _write()
