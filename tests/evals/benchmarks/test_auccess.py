"""AUCCESS against the reference values."""

import json
import pathlib

import numpy as np
import pytest

from cjepa_jax.evals.benchmarks import auccess

GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / "golden/formulas.json").read_text())["auccess"]


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_auccess_matches_the_reference(case):
    assert auccess.auccess(case["solved_at"]) == pytest.approx(case["value"], abs=1e-12)


def test_unsolved_tasks_count_and_earlier_is_better():
    assert auccess.auccess([0, 1]) == pytest.approx(0.5)
    assert auccess.auccess([0]) == auccess.auccess([101]) == 0
    scores = [auccess.auccess([k]) for k in range(1, 101)]
    assert (np.diff(scores) < 0).all()
    assert auccess.auccess([3], attempts=2) == 0 and auccess.auccess([2], attempts=2) == pytest.approx(
        np.log(3 / 2) / np.log(3)
    )


@pytest.mark.parametrize("wrong", [[], [-1], 3])
def test_what_is_no_list_of_attempts_is_refused(wrong):
    with pytest.raises(ValueError, match="solved_at"):
        auccess.auccess(wrong)


@pytest.mark.parametrize(
    "statuses, first", [([], 0), ([0, 0], 0), ([-1, -1], 0), ([1], 1), ([0, -1, 0, 1, 1], 2), ([-1, 3], 2)]
)
def test_invalid_actions_are_no_attempts(statuses, first):
    assert auccess.solved_at(statuses) == first
