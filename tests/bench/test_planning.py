"""`bench --planning`: both sides search alike, and what it prints."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.bench import planning

SMALL = {
    **{"width": 8, "depth": 2, "heads": 2, "samples": 12, "elites": 4, "iterations": 3, "horizon": 5, "actions": 3},
    **{"environments": 3, "rounds": 3},
}


@pytest.mark.needs("torch")
def test_pytorch_finds_the_same_plan_from_the_same_noise_in_both_batch_modes():
    from cjepa_jax.bench import torch_planning

    task = planning.Task(SMALL)
    noise = np.random.default_rng(0).standard_normal((3, 12, 5, 3)).astype(np.float32)
    ours = task.solver(0, planning.FixedNoise(**task.search, given=jnp.asarray(noise)))(0)
    _, theirs = torch_planning.serve(SMALL, task.params, task.places)
    assert ours.shape == (3, 5, 3) and np.abs(ours).max() > 0.1
    for batch in (0, 1, 2):
        np.testing.assert_allclose(theirs("plan", batch, noise), ours, atol=1e-4)


@pytest.mark.slow
@pytest.mark.needs("torch")
def test_it_measures_both_sides_in_both_batch_modes():
    report = planning.compare(SMALL, "torch")
    number = r"[\d.,]+"
    for mode in ("in one batch", "one by one"):
        for name in (mode, f"{mode}, torch"):
            assert re.fullmatch(rf"{number} ms, {number} solves/s, {number} steps of the model/s", report[name])
        assert re.match(rf"{number} times the speed of torch \(median of pairs", report[f"{mode}, ratio"])
    assert "at most, from the same noise" in report["plans differ by"]


@pytest.mark.parametrize(("argument", "message"), [
    ("--elites=1", "--elites=1: must be within 2 and 1048576"),
    ("--elites=500", "--elites is 500: must be at most --samples = 128"),
    ("--samples=1048576", "--samples=1048576: 2684354560 latents' numbers at a time, at most 268435456"),
    ("--against=numpy", "argument --against: invalid choice: 'numpy'"),
])  # fmt: skip
def test_a_wrong_command_line_is_one_line(capsys, argument, message):
    try:
        code = planning.main([argument])
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1
