"""The shapes written in the signatures are checked here, and cost nothing to those who run the code."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from cjepa_jax import losses
from cjepa_jax.masks import objects
from cjepa_jax.models.attention import attention
from cjepa_jax.models.encoder import Encoder


def test_wrong_shapes_and_types_are_caught_in_tests():
    x, mask = np.zeros((2, 3, 4), np.float32), np.ones((2, 3), bool)
    losses.smooth_l1(x, x, mask)
    for wrong in ((x, x[:1], mask), (x, x, mask[:, :2]), (x, x, mask.astype(np.float32)), (x[0], x[0], mask)):
        with pytest.raises(TypeCheckError):
            losses.smooth_l1(*wrong)
    with pytest.raises(TypeCheckError):
        objects.draw(np.random.default_rng(0), np.ones((2, 9), bool), np.ones(3, bool))
    with pytest.raises(TypeCheckError):
        attention(x[None], x[None], x[None, :, :2])
    with pytest.raises(TypeCheckError):
        Encoder("Mu/8").init(jax.random.key(0), x)


def test_without_the_tests_nothing_is_checked_and_masks_need_no_jax():
    code = (
        "import sys, numpy as np; from cjepa_jax.masks import objects; from cjepa_jax import positions;"
        "assert 'jax' not in sys.modules and 'beartype' not in sys.modules;"
        "objects.draw(np.random.default_rng(0), np.ones((2, 9), int), np.ones(2, bool))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
