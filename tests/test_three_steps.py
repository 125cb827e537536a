"""Three whole training steps against tests/three_steps_torch.py, written from the method's description alone.

The state starts in the middle of a schedule, with a target that is not the encoder. Each step has separate scenes.
"""

import functools

import jax
import numpy as np
import pytest

from cjepa_jax import losses, optim, schedules, train_step
from cjepa_jax.configuration import build
from cjepa_jax.data import batching
from cjepa_jax.types import Batch, Rows, TrainState
from configs import vitl
from tests import three_steps as given

FAST = ("plain", *given.TOGETHER)
LOSSES = {setting.prediction_loss for setting in given.SETTINGS.values()}
assert {"smooth_l1", "elementwise", "l1", "mse"} <= LOSSES <= losses.LOSSES.keys()
TOLERANCE = 1e-5  # of each number's scale: an entry's root mean square, or the number itself


def configured(setting):
    """vitl.py with the sizes of the three steps and this setting. The rest stays as in the method's description."""
    c = vitl.get_config().copy_and_resolve_references().unlock()
    size = f"{given.WIDTH}x{given.DEPTH}x{given.HEADS}x{given.HIDDEN}/{given.PATCH}"
    c.objective.encoder.update(variant=size, tubelet=given.TUBELET, gelu=setting.gelu, remat=setting.remat)
    c.objective.predictor.update(
        depth=setting.depth, width=given.NARROW, heads=given.NARROW_HEADS, attention=setting.attention,
        max_objects=given.MAX_REMOVED, gelu=setting.gelu, remat=setting.remat,
    )  # fmt: skip
    same = ("encoder_input", "causal_tokens", "prediction_loss", "beta", "target_norm", "causal_weight",
            "sigreg_weight", "ema", "ema_kind")  # fmt: skip
    c.objective.update({name: getattr(setting, name) for name in same})
    c.optim.update(given.ADAM | {"clip": setting.clip})
    c.data.update(pack=setting.pack, row_lengths=(0.6, 1.0))
    return c


def batch_of(setting, step, c):
    arrays = given.scenes(setting, step)
    shards = setting.shards * setting.accumulate
    rows = batching.shapes(c.data, given.TOKENS, given.SCENES // shards)
    scenes = [{name: array[b] for name, array in arrays.items()} for b in range(given.SCENES)]
    arrays = batching.collate(scenes, shards, rows[-1:])  # one shape, compiled once
    return Batch(**(arrays | {"rows": Rows(**arrays["rows"])}))


def states(setting):
    """(metrics, state) after each of the three steps."""
    c = configured(setting)
    objective = build.build(c.objective, steps=given.TOTAL, dtype="float32")
    optimizer = optim.make(c.optim)
    rate = functools.partial(schedules.learning_rate, peak=given.PEAK, warmup=given.WARMUP, total=given.TOTAL)
    params, target = ({name: leaf.astype(np.float32) for name, leaf in given.parameters(setting, which).items()}
                      for which in ("params", "target"))  # fmt: skip
    params, target, zero = given.nested(params), given.nested(target)["encoder"], np.zeros((), np.int32)
    fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(optimizer.init, params))
    state = TrainState(zero + given.FIRST, params, target, {}, fresh, zero)
    step = jax.jit(train_step.make(objective, optimizer, rate, 0, setting.accumulate))
    for number in range(given.FIRST, given.FIRST + given.STEPS):
        state, metrics = step(state, batch_of(setting, number, c))
        yield metrics, state


def moments(opt_state):
    (adam,) = (part for part in jax.tree.leaves(opt_state, is_leaf=lambda x: hasattr(x, "nu")) if hasattr(part, "nu"))
    return {"mu": adam.mu, "nu": adam.nu}


def check(name):
    setting, golden = given.SETTINGS[name], given.golden()[name]
    for number, ((metrics, state), expected) in enumerate(zip(states(setting), golden, strict=True)):
        assert int(state.step) == given.FIRST + number + 1 and int(state.skipped) == 0
        for key, value in expected["metrics"].items():
            np.testing.assert_allclose(metrics[key], value, rtol=TOLERANCE, err_msg=f"step {number}: {key}")
        parts = {"params": state.params, "target": state.target} | moments(state.opt_state)
        for part, tree in parts.items():
            leaves = dict(sorted(given.flat(jax.device_get(tree)).items()))
            everything = np.concatenate([x.ravel() for x in leaves.values()])
            least = 0.01 * np.sqrt(np.square(everything).mean())  # some gradients are 0 but for rounding
            found = given.projected(leaves)
            for (leaf, value), one, other in zip(leaves.items(), found, expected[part], strict=True):
                scale = max(least, np.sqrt(np.square(value).mean()))
                assert abs(one - other) <= TOLERANCE * scale, f"step {number}: {part}/{leaf}: {one}, not {other}"


@pytest.mark.parametrize("name", FAST)
def test_three_steps_are_the_documents(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in given.SETTINGS if name not in FAST])
def test_three_steps_are_the_documents_in_each_setting_alone(name):
    check(name)


@pytest.mark.slow
@pytest.mark.needs("torch")
def test_the_numbers_are_those_of_the_derivation():
    from tests import three_steps_torch as derivation

    for name, setting in given.SETTINGS.items():
        found, stored = derivation.run(setting), given.golden()[name]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9, err_msg=name), found, stored)  # noqa: B023
