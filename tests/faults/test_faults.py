"""The campaigns in short. Nightly, they are run with counts: python -m tests.faults --kills=1000 ..."""

import collections
import pathlib
import random

import pytest

from tests import running
from tests.faults import corruptions, fuzz, keys, kills, launch, record, stops, surroundings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the runs of this module are, the undisturbed one among them."""
    return tmp_path_factory.mktemp("faults")


def test_a_key_with_two_letters_swapped_is_named_and_refused():
    outcome = keys.campaign(0, edits=("swap",), values=())
    assert not outcome.failures and outcome.counts["right"] > 60


@pytest.mark.parametrize("kind", sorted(set(corruptions.KINDS)))
def test_every_kind_of_damage_damages(tmp_path, kind, monkeypatch):
    """Otherwise a campaign would count what it has not done."""
    for step in corruptions.STEPS:
        for name in ("a/data", "b/data", "top"):
            file = tmp_path / str(step) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(random.Random(f"{step}{name}").randbytes(900))
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    monkeypatch.setattr(corruptions, "KINDS", (kind,))
    assert corruptions.damage(tmp_path, random.Random(1))[0] == kind
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} != before


def test_only_a_refusal_that_names_field_value_and_limit_is_clear():
    field = "scene 12 of Strange without objects: labels are int64 [3]: must be float32 [1], as label_names"
    assert fuzz.CLEAR.fullmatch(field)
    for vague in ("scene 12 of Strange: oops", "KeyError 3", "scene 0 something broke", field + "\nand 1 more"):
        assert not fuzz.CLEAR.fullmatch(vague)


def test_a_refusal_is_a_failure_unless_both_checkpoints_are_damaged():
    assert corruptions.refusal("flip", "it cannot be read") and not corruptions.refusal(corruptions.KINDS[-1], "one")


def test_a_difference_between_runs_is_found(tmp_path, monkeypatch):
    """Otherwise no campaign could fail."""
    monkeypatch.setattr(running, "digest", lambda workdir, step: (pathlib.Path(workdir) / "digest").read_text())
    for name, loss in (("one", 1.5), ("two", 1.5), ("three", 1.25), ("four", 1.5)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "digest").write_text("other" if name == "four" else "same")
        lines = [f'{{"step": {step}, "loss": {loss}, "eta_s": {random.random()}}}\n' for step in (1, 2)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(lines))
    one, two, three, four = (tmp_path / name for name in ("one", "two", "three", "four"))
    assert launch.differences(two, one) == []
    assert launch.differences(three, one) == ["metrics of step 1: loss", "metrics of step 2: loss"]
    assert launch.differences(four, one) == ["other parameters, target, optimiser state or counters"]
    (two / "metrics.jsonl").write_text(lines[0] + lines[0])
    assert launch.differences(two, one) == ["metrics: steps [1, 1]"]


def test_a_row_says_what_failed(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("| a table |")
    monkeypatch.setattr(record, "PAGE", page)
    outcome = record.Outcome("kills", collections.Counter(step=2))
    outcome.add("moment", "0/7: other | bits")
    record.append(outcome, 5)
    assert "| 5 | kills | 3 | moment 1, step 2 | 1: 0/7: other / bits | 0.0 |\n" in page.read_text()


@pytest.mark.slow
def test_killed_at_every_named_point_it_ends_with_the_same_bits(folder):
    outcome = record.Outcome("kills")
    points = kills.EVERY_POINT
    kills.one_run("points/0", folder, kills.undisturbed(folder), outcome, len(points), points)
    assert not outcome.failures
    assert set(outcome.counts) == set(points)


@pytest.mark.slow
def test_damaged_checkpoints_are_never_silently_wrong(folder):
    outcome = corruptions.campaign(40, 0, 1, folder)
    assert not outcome.failures and outcome.tried == 40 and len(outcome.counts) > 1


@pytest.mark.slow
def test_strange_scenes_are_finite_or_refused_clearly():
    outcome = fuzz.campaign(120, 0)
    assert not outcome.failures and min(outcome.counts["taken"], outcome.counts["refused"]) > 20


@pytest.mark.slow
def test_signals_at_any_moment_save_and_stop(folder):
    outcome = record.Outcome("signals")
    stops.one_run("0/1", folder, kills.undisturbed(folder), outcome, signals=3)
    assert not outcome.failures and outcome.tried == 3


@pytest.mark.slow
def test_no_home_another_locale_and_a_path_that_looks_like_a_command(folder):
    outcome = surroundings.campaign(folder, ["all at once"])
    assert not outcome.failures


@pytest.mark.slow
def test_a_reader_of_the_output_that_goes_away_is_no_traceback(folder):
    outcome = surroundings.campaign(folder, ["output closed by its reader"])
    assert not outcome.failures
