"""Exit codes and hints."""

import pytest

from cjepa_jax import errors


@pytest.mark.parametrize(
    "name,code",
    [("CjepaError", 1), ("ConfigError", 2), ("DataError", 3), ("CheckpointError", 4), ("NumericsError", 5)]
    + [("StorageError", 6)],
)
def test_exit_codes_are_what_the_docs_say(name, code):
    assert getattr(errors, name).exit_code == code
    assert issubclass(getattr(errors, name), errors.CjepaError)


@pytest.mark.parametrize("typo", ["bacth", "batc", "batchh", "Batch", "b4tch"])
def test_hint_finds_one_edit(typo):
    assert errors.did_you_mean(typo, ["steps", "epochs", "batch", "width"]) == "; did you mean 'batch'?"


def test_no_choices_no_hint():
    assert errors.did_you_mean("a", []) == ""


@pytest.mark.parametrize(
    "name, choices", [("own", ["rng", "grid"]), ("missing", ["as_int"]), ("sway", ["spwd", "many"])]
)
def test_nothing_alike_no_hint(name, choices):
    assert errors.did_you_mean(name, choices) == ""
