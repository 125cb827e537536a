"""The step of vitl is translated for TPU and GPU on a machine that has neither. Two blocks, bfloat16, full width."""

import collections
import functools
import re

import jax
import pytest
from jax import export

from cjepa_jax import experiment, optim, train_step
from cjepa_jax.configs import vitl
from cjepa_jax.models import attention

PRODUCT = r"stablehlo\.dot_general [^\n]*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>"


@functools.cache
def subject():
    """The objective of vitl with fewer blocks, its optimiser, and the shapes of a batch of 8."""
    config = vitl.get_config()
    config.objective.encoder.depth = 2
    config.objective.predictor.depth = 2
    config.train.batch = 8
    config.dtype = "bfloat16"
    config.data.count = config.data.eval_count = 16
    objective, optimizer = experiment.make_objective(config, 1000), optim.make(config.optim)
    scenes = experiment.data.make_scenes(
        config, experiment.data.make_source(config, "train"), objective.patch, objective.tubelet,
        objective.max_removed, False,
    )  # fmt: skip
    return objective, optimizer, experiment.shapes(scenes, 8, (8, scenes.tokens))


def lowered(monkeypatch, platform, backend, kernel):
    """The text of the step's program for a platform, with the choices that are made on it."""
    objective, optimizer, batch = subject()
    state = jax.eval_shape(functools.partial(train_step.init_state, objective, optimizer, 0), batch)
    step = train_step.make(objective, optimizer, lambda _: 1e-4, 0)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with attention.only(kernel):
        return export.export(jax.jit(step, donate_argnums=0), platforms=[platform])(state, batch).mlir_module()


def assert_layers(products):
    """The products of two matrices, which are those of dense layers: types of their results, and sides.

    A TPU's tile has 128 columns, and 16 rows of bfloat16. The tokens of 8 scenes fill whole rows of tiles.
    """
    layers = [[each.split("x") for each in product] for product in products if all(e.count("x") == 2 for e in product)]
    layers = [product for product in layers if product[0][2] == "bf16"]
    results = collections.defaultdict(set)
    for *_, (rows, columns, dtype) in layers:
        results[dtype].add((int(rows), int(columns)))
    tokens = 8 * 196
    # In float32: gradients of kernels, the two heads, whose output is in the loss, and gradients of float32 inputs.
    assert {shape for shape in results["f32"] if shape[0] == tokens} == {(tokens, 1024), (tokens, 384)}
    assert results["bf16"] == {(tokens, width) for width in (1024, 3072, 4096, 384, 1152, 1536)}
    sides = {int(side) for product in layers for each in product for side in each[:2]}
    assert len(layers) > 25 and all(side % 128 == 0 for side in sides - {tokens}) and tokens % 16 == 0


@pytest.mark.slow
@pytest.mark.parametrize(("platform", "backend", "kernel"), [("tpu", "tpu", "flash"), ("cuda", "gpu", "einsum")])
def test_the_step_is_translated_with_narrow_products_and_no_wide_types(monkeypatch, platform, backend, kernel):
    text = lowered(monkeypatch, platform, backend, kernel)
    assert not re.findall(r"xf64|xi64>", text)
    products = collections.Counter(re.findall(PRODUCT, text))
    assert sum(products.values()) > 30
    wide = [each for each in products if not all("bf16" in operand for operand in each[:2])]
    sides = {int(side) for each in wide for operand in each for side in operand.split("x")[:-1]}
    assert sides <= {8, 1024}  # SIGReg's decomposition of [8, 1024] features alone
    assert_layers(products)
    assert (text.count("tpu_custom_call") >= 4) == (platform == "tpu")
