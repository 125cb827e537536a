"""Acyclic graphs of slots. golden/slots/dagma.npz holds linear models of six variables and what dagma 1.1.1 finds."""

import itertools
import pathlib

import jax
import numpy as np
import pytest

from cjepa_jax.objectives import dagma

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/slots/dagma.npz"
weights = jax.jit(dagma.weights)
graph = jax.jit(dagma.static_graph)


@pytest.mark.parametrize("number", range(3))
def test_the_weights_are_those_of_the_public_solver(number):
    stored = np.load(GOLDEN)
    found = np.asarray(weights(stored[f"covariance{number}"].astype(np.float32)))
    np.testing.assert_allclose(found, stored[f"weights{number}"], atol=0.01)
    assert ((np.abs(found) > 0.3) == (stored[f"true{number}"] != 0)).all()


def chain(seed=0):
    """Slots [2,8,5,12] that change: slot 1 by slot 0, slot 2 by slot 1, the others by themselves. Each has its mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 8, 5, 12))
    x[:, :, 1] = 0.9 * x[:, :, 0] + 0.5 * x[:, :, 1]
    x[:, :, 2] = 0.9 * x[:, :, 1] + 0.5 * x[:, :, 2]
    return (x + 10 * rng.normal(size=(2, 1, 1, 12))).astype(np.float32)


def test_slots_that_change_together_are_joined_and_no_others_and_there_is_no_cycle():
    found = np.asarray(graph(chain(), np.ones((2, 5), bool)))
    joined = np.maximum(found, found.swapaxes(1, 2)) > 0.3
    for one in joined:
        assert {tuple(pair) for pair in np.argwhere(np.triu(one))} == {(0, 1), (1, 2)}
    assert (found[:, range(5), range(5)] == 0).all()
    for one in found > 0.05:
        assert any(np.triu(one[np.ix_(order, order)]).sum() == 0 for order in itertools.permutations(range(5)))


def test_absent_slots_have_no_edge_and_the_order_of_slots_does_not_matter():
    x, present = chain(), np.array([[True, True, True, True, False], [True, False, True, True, True]])
    found = np.asarray(graph(x, present))
    assert (found[~present] == 0).all() and (found.swapaxes(1, 2)[~present] == 0).all()
    order = [3, 1, 4, 0, 2]
    turned = np.asarray(graph(x[:, :, order], present[:, order]))
    np.testing.assert_allclose(turned, found[:, order][:, :, order], atol=0.01)


def test_the_scale_of_a_slot_does_not_matter_and_still_slots_have_no_edge():
    x = chain()
    scaled = x * np.array([1, 100, 0.01, 1, 1], np.float32)[:, None]
    np.testing.assert_allclose(graph(scaled, np.ones((2, 5), bool)), graph(x, np.ones((2, 5), bool)), atol=0.02)
    x[:, :, 3] = x[:, :1, 3]
    found = np.asarray(graph(x, np.ones((2, 5), bool)))
    assert np.isfinite(found).all() and (found[:, 3] < 1e-3).all() and (found[:, :, 3] < 1e-3).all()


def test_the_weight_of_j_for_i_is_at_row_i(monkeypatch):
    known = np.array([[0, 0.5, 0], [0, 0, -2], [0, 0, 0]], np.float32)  # of slot 0 for slot 1, and of 1 for 2
    monkeypatch.setattr(dagma, "weights", lambda covariance: known + 0 * covariance)
    found = np.asarray(dagma.static_graph(chain()[:, :, :3], np.ones((2, 3), bool)))
    np.testing.assert_allclose(found[0], [[0, 0, 0], [0.5, 0, 0], [0, 2, 0]])


def test_scaled_columns_do_not_always_show_the_direction():
    """Slot 2 is the sum of the others, which are independent. All are joined, but not by the edges that made them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 8, 3, 200)).astype(np.float32)
    x[:, :, 2] = x[:, :, 0] + x[:, :, 1] + 0.5 * x[:, :, 2]
    found = np.asarray(graph(x, np.ones((1, 3), bool)))[0]
    joined = np.maximum(found, found.T)
    assert joined[0, 2] > 0.3 and joined[1, 2] > 0.3 and found[2, 0] < 0.1
