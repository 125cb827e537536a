"""The step in PyTorch, and the padded one, are the same step: losses like ours over several updates."""

import itertools
import multiprocessing
import os
import re
import types
from multiprocessing.connection import Connection

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import experiment, losses, sharding
from cjepa_jax.bench import paired, peer
from cjepa_jax.bench.padded_step import Padded
from cjepa_jax.errors import ConfigError, PeerError
from cjepa_jax.host import memory
from cjepa_jax.models.layers import Dense
from configs import clips
from tests import running

DOCUMENT = {
    "objective.prediction_loss": "smooth_l1",
    "objective.target_norm": "none",
    "objective.causal_weight": 0.5,
    "data.intervened": "zero_pixels",
    "data.frames": 1,
    "data.size": 64,
}
ANCHOR = {"mask.anchor": 1, "data.frames": 4, "objective.causal_weight": 0.5}
NUMBER = r"[\d.]+"
RATIO = (
    rf"{NUMBER} times its speed \(median of pairs; 80 % in {NUMBER}-{NUMBER}\), {NUMBER} times by processor time; "
    rf"its step {NUMBER} ms median, processor time {NUMBER} s"
)
CASES = {
    "tiny": ANCHOR,
    "all context": ANCHOR | {"objective.causal_tokens": "context"},
    "document": DOCUMENT,
    "drop": {"data.intervened": "drop_tokens"},
}


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    everything = sharding.make_mesh

    def make_mesh(*arguments, **options):
        return everything(*arguments, **options | {"devices": jax.devices()[:1]})

    monkeypatch.setattr(sharding, "make_mesh", make_mesh)


def small(**values):
    config = clips.get_config()
    config.update_from_flattened_dict(running.SMALL | {"optim.warmup_share": 0.01} | values)
    return config


@pytest.mark.needs("torch")
@pytest.mark.parametrize("narrow", [False, True])
def test_heads_of_both_keep_their_float32_sums(narrow):
    import torch

    from cjepa_jax.bench.torch_step import _wide

    rng, layer = np.random.default_rng(0), torch.nn.Linear(8, 6)
    x, kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 8), (8, 6), (6,)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        layer.weight.copy_(torch.tensor(kernel.T)), layer.bias.copy_(torch.tensor(bias))
        theirs = _wide(layer, torch.tensor(x)).numpy()
    ours = Dense(6, jnp.bfloat16 if narrow else jnp.float32, result=jnp.float32)
    params = {"params": {"kernel": kernel, "bias": bias}}
    np.testing.assert_allclose(theirs, jax.jit(ours.apply)(params, x), rtol=1e-5, atol=1e-6)
    assert (np.abs(theirs - (x @ kernel + bias)).max() > 1e-3) == narrow


@pytest.mark.needs("torch")
@pytest.mark.parametrize("name", ("smooth_l1", "elementwise", "l1", "mse"))
def test_every_loss_is_the_same_with_torch(name):
    import torch

    from cjepa_jax.bench.torch_step import LOSSES

    assert name in LOSSES and losses.LOSSES.keys() >= LOSSES.keys()
    rng, mask = np.random.default_rng(0), np.ones((2, 3), bool)
    prediction, target = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    prediction[0, 0] = target[0, 0]  # the gradient at 0 is the same too
    ours = jax.value_and_grad(lambda x: losses.LOSSES[name](x, target, mask, 0.7))(prediction)
    x = torch.tensor(prediction, requires_grad=True)
    theirs = LOSSES[name](x - torch.tensor(target), 0.7).mean()
    theirs.backward()
    np.testing.assert_allclose(theirs.detach(), ours[0], rtol=1e-6)
    np.testing.assert_allclose(x.grad, ours[1], rtol=1e-5, atol=1e-8)


@pytest.mark.slow
@pytest.mark.needs("torch")
@pytest.mark.parametrize("case", CASES)
def test_torch_goes_the_same_way(case):
    from cjepa_jax.bench.torch_step import Twin

    config = small(**CASES[case])
    run = experiment.assemble(config)
    batches = list(itertools.islice(run.loader.iterate(0, 6), 6))
    state = run.init(sharding.put_batch(run.mesh, batches[0]))
    twin = Twin(run.objective, config.optim, state, batches[0])
    plain = {id(parameter) for parameter in twin.adam.param_groups[1]["params"]}
    assert {id(twin.predictor.mask_token), id(twin.predictor.object_embedding)} <= plain  # without decay, as ours
    for arrays in batches:
        state, metrics = run.step(state, sharding.put_batch(run.mesh, arrays))
        assert twin.step(arrays, float(metrics["learning_rate"])) == pytest.approx(float(metrics["loss"]), rel=1e-5)
    kernels = state.params["encoder"]["stack"]["blocks"]["mlp"]["up"]["kernel"]
    np.testing.assert_allclose(twin.encoder.stack.blocks[0].mlp[0].weight.detach().T, kernels[0], atol=1e-4)
    kernels = state.target["stack"]["blocks"]["mlp"]["up"]["kernel"]
    np.testing.assert_allclose(twin.target.stack.blocks[0].mlp[0].weight.T, kernels[0], atol=1e-5)


@pytest.mark.slow
def test_the_padded_step_is_the_same_step_and_they_take_turns():
    report = paired.compare(small(**CASES["tiny"]), ["padded"], rounds=3)
    ours, theirs = re.fullmatch(rf"({NUMBER}) here, ({NUMBER}) padded", report["loss of step 1, padded"]).groups()
    assert float(theirs) == pytest.approx(float(ours), rel=1e-5)
    line = rf"{NUMBER} ms median of 3, float32, \d+ useful GFLOP/s, processor time {NUMBER} s"
    assert re.fullmatch(line, report["step here"])
    assert re.fullmatch(RATIO, report["against padded"])
    assert re.fullmatch(rf"{NUMBER} on \d+ processors", report["load at the start"])
    assert re.search(r", \d+ cores, Python 3[\d.]+, JAX [\d.]+$", report["machine"])


@pytest.mark.parametrize("load", [0.5, 1000.0])
def test_a_ratio_taken_on_a_busy_machine_says_so(monkeypatch, load):
    monkeypatch.setattr(peer.os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert ("NOT VALID" in peer.load()) == (load == 1000)


@pytest.mark.slow
@pytest.mark.needs("torch")
def test_peers_take_their_turns_in_processes_of_their_own():
    report = paired.compare(small(**DOCUMENT), ["torch", "ijepa"], rounds=3)
    ours, theirs = re.fullmatch(rf"({NUMBER}) here, ({NUMBER}) torch", report["loss of step 1, torch"]).groups()
    assert float(theirs) == pytest.approx(float(ours), rel=1e-5)
    assert "loss of step 1, ijepa" not in report  # it is another algorithm
    assert re.match(r"\d+ here, \d+ torch \(OMP_NUM_THREADS=", report["threads"])
    assert re.fullmatch(RATIO, report["against torch"]) and re.fullmatch(RATIO, report["against ijepa"])
    assert re.match(r"context and target tokens by batch: \d+ \+ 4 x \d+, ", report["about ijepa"])
    assert not multiprocessing.active_children()


@pytest.mark.needs("torch")
def test_ijepas_step_is_the_published_one():
    """Its encoder is ours, contexts have 46 to 61 tokens of 196 where a batch is 64 images, and it learns."""
    import torch

    from cjepa_jax.bench import torch_ijepa

    counts = [torch_ijepa.drawn(np.random.default_rng(seed), 64, 14, 14) for seed in range(12)]
    assert all(len(targets) == 4 and len({each.shape for each in targets}) == 1 for _, targets in counts)
    assert 40 < np.median([context.shape[1] for context, _ in counts]) < 67
    for context, targets in counts[:3]:
        for row, *others in zip(context, *targets, strict=True):
            assert not np.isin(row, torch.cat(others)).any()
    config = small(**DOCUMENT | {"objective.encoder.gelu": "exact"})
    run = experiment.assemble(config)
    batches = list(itertools.islice(run.loader.iterate(0, 2), 2))
    state = run.init(sharding.put_batch(run.mesh, batches[0]))
    twin = torch_ijepa.Twin(run.objective, config.optim, state, batches, seed=0)
    with torch.no_grad():
        theirs = twin.target(twin.batches[0][0])
    ours = run.objective.encode(state.target, batches[0]["video"])
    np.testing.assert_allclose(theirs, ours, atol=2e-5)
    found = [twin.step(0, 1e-3) for _ in range(8)]
    assert found[-1] < found[0] and np.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.needs("torch")
def test_what_the_other_process_refuses_is_refused_here():
    with pytest.raises(ConfigError, match="^optim.clip.* --against=torch knows"):
        paired.compare(small(**{"optim.clip": 1.0}), ["torch"], rounds=3)
    assert not multiprocessing.active_children()


class Gone:
    """A process that somebody killed."""

    exitcode = -9

    def join(self):
        pass


@pytest.mark.parametrize("asked", [Connection.recv, lambda end: peer._send(end, bytes(1 << 20))])
def test_a_process_that_died_is_one_line(asked):
    here, there = multiprocessing.Pipe()
    there.close()
    with pytest.raises(PeerError, match="^--against=torch: PyTorch's process was killed by signal 9"):
        with peer._blamed(Gone()):
            asked(here)


@pytest.mark.needs("torch")
def test_nobody_is_missed_by_the_other_process(monkeypatch):
    monkeypatch.setattr("cjepa_jax.bench.torch_step.Twin", lambda *_, **__: None)
    here, there = multiprocessing.Pipe()
    here.close()
    config = small()
    peer._serve(there, paired._twin, (config, 10, None, [{}], "torch"))


@pytest.mark.parametrize("given, inside", [("", ""), ("glibc.malloc.check=1", "glibc.malloc.check=1")])
def test_the_other_process_has_the_users_allocator(monkeypatch, given, inside):
    ours = ":".join(filter(None, (given, memory.ALLOCATOR)))
    monkeypatch.setenv("GLIBC_TUNABLES", ours)
    with peer._usual_allocator():
        assert os.environ["GLIBC_TUNABLES"] == inside
    assert os.environ["GLIBC_TUNABLES"] == ours


@pytest.mark.needs("torch")
@pytest.mark.parametrize("key, value", [
    ("objective.prediction_loss", "cjepa_jax.losses:mse"),
    ("objective.sigreg_kind", "epps_pulley"),
    ("objective.encoder_input", "zeroed"),
    ("objective.prediction_loss", "cjepa_jax.losses:normed_cosine"),
    ("objective.predictor.attention", "cross"),
    ("objective.encoder.positions", "rope"),
    ("objective.predictor.positions", "rope_tile"),
    ("objective.predictor.epsilon", 1e-5),
    ("optim.clip", 1.0),
    ("objective.type", "cjepa_jax.objectives.mae:Mae"),
])  # fmt: skip
def test_what_torch_does_not_do_is_refused(key, value):
    from cjepa_jax.bench.torch_step import Twin

    config = small()
    objective = experiment.make_objective(config, steps=10)
    config.update_from_flattened_dict({key: value} if key != "objective.type" else {})
    if key == "objective.type":
        objective = types.SimpleNamespace()
    elif key.startswith("objective."):
        objective = experiment.make_objective(config, steps=10)
    with pytest.raises(ConfigError, match=f"^{key}.* --against=torch knows"):
        Twin(objective, config.optim, None, {})


def test_what_the_padded_step_does_not_do_is_refused():
    wanted = "^objective.predictor.positions = 'rope': must be 'sincos' with --against=padded"
    with pytest.raises(ConfigError, match=wanted):
        Padded({}, {"positions": "rope"}, steps=1)


def test_packed_rows_are_refused():
    with pytest.raises(ConfigError, match="^data.pack = 1: must be 0 with --against=torch"):
        paired.compare(small(**{"data.pack": 1}), ["torch"], rounds=3)
