"""Variants of one's own as CONTRIBUTING tells them: each block becomes its file, outside the clone."""

import inspect
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.masks import check
from cjepa_jax.objectives.base import Masking
from tests import running

BLOCKS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", (running.ROOT / "CONTRIBUTING.md").read_text(), re.S))
OWN = ("hide_one", "hiding_one", "test_hide_one", "agree", "agreeing", "test_agree", "my_losses", "with_cosine")
OWN += ("test_my_losses", "nearest", "nearest_eval", "test_nearest", "weights", "watching", "test_weights")
OWN += ("arrays", "reading_arrays", "test_arrays")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder with the files, on the import path as the folder of a config is."""
    folder = tmp_path_factory.mktemp("own")
    for name in OWN:
        (folder / f"{name}.py").write_text(BLOCKS[name])
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("module", [name for name in OWN if name.startswith("test_")])
def test_the_tests_of_the_recipes_pass(module, tmp_path):
    tests = [value for name, value in vars(__import__(module)).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test(*(tmp_path for _ in inspect.signature(test).parameters))


def test_the_mask_of_the_config_draws_what_the_pipeline_wants():
    mask = check.bind(__import__("hiding_one").get_config().mask)
    rng = np.random.default_rng(0)
    for objects in (0, 1, 3):
        patches = np.arange(16) < np.arange(4)[:, None] * 5
        valid = np.arange(4) < objects
        for _ in range(20):
            masked, removed = mask(rng, patches & valid[:, None], valid & patches.any(1), grid=(1, 4, 4))
            assert removed.sum() == (objects > 1) and masked.any()


def test_the_objective_has_pictures():
    section = __import__("agreeing").get_config().objective
    objective = build.build(section, "objective", steps=1, dtype="float32")
    assert isinstance(objective, Masking) and objective.spread == 0.01


def test_the_loss_is_1_minus_cos_without_a_gradient_into_the_target():
    loss = losses.named("my_losses:cosine")
    prediction, target = jnp.array([[[1.0, 0.0]], [[0.0, 0.0]]]), jnp.array([[[1.0, 1.0]], [[0.0, 2.0]]])
    mask = jnp.ones((2, 1), bool)

    def total(prediction, target):
        return loss(prediction, target, mask, 1.0, per_example=True).sum()

    np.testing.assert_allclose(total(prediction, target), 1 - np.sqrt(0.5) + 1, rtol=1e-6)
    own, other = jax.grad(total, (0, 1))(prediction, target)
    assert np.isfinite(own).all() and np.abs(own[0]).max() > 0.1 and not np.any(other)


def test_the_evaluations_config_builds_its_protocol():
    section = __import__("nearest_eval").get_config().evals.protocols.nearest
    assert build.build(section, "evals.protocols.nearest").label == "count"
