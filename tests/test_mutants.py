"""The table of tests/mutants: every mutation changes one place of the code, and its tests exist. None is run."""

import ast
import functools
import types

import pytest

from tests.mutants import workers
from tests.mutants.__main__ import markdown, read, summary
from tests.mutants.mutant import ROOT, Mutant
from tests.mutants.table import MUTANTS
from tests.mutants.workers import _verdict

FILES = sorted({mutant.file for mutant in MUTANTS})


@functools.cache
def text(name):
    return (ROOT / name).read_text()


@pytest.mark.parametrize("file", FILES)
def test_every_mutation_applies_to_one_place_and_is_python(file):
    for mutant in MUTANTS:
        if mutant.file == file:
            mutated = mutant.apply(text(file))  # raises for none and for several
            assert mutated != text(file)
            ast.parse(mutated)


def test_every_test_of_a_mutant_exists():
    for mutant in MUTANTS:
        for test in mutant.tests.split():
            file, _, name = test.partition("::")
            assert (ROOT / file).is_file(), f"{mutant.old!r}: {test}"
            assert not name or f"def {name.partition('[')[0]}(" in text(file), f"{mutant.old!r}: {test}"


def test_there_are_many_and_no_two_are_the_same():
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS) >= 150


def test_a_text_that_is_not_there_once_is_named():
    for old, count in (("x", 0), ("a", 2)):
        with pytest.raises(ValueError, match=f"file.py: '{old}' is found {count} times, not once"):
            Mutant("file.py", old, "b", "").apply("a a")


def test_verdicts_are_kept_and_counted(tmp_path):
    one, two, three = MUTANTS[:3]
    results = tmp_path / "results.jsonl"
    rows = ((one, "killed"), (two, "survived"), (two, "killed"), (three, "broken"))
    results.write_text("".join(f'{{"key": "{m.key()}", "result": "{result}"}}\n' for m, result in rows) + '{"key": "t')
    known = read(results)
    assert set(known) == {one.key(), two.key()} and read(tmp_path / "none") == {}
    assert summary([one, two, three], known).startswith("2 of 2 killed (100.0 %)")
    known[two.key()] = {"result": "survived"}
    assert "1 of 2 killed (50.0 %)" in summary([one, two, three], known) and "(unexplained)" in summary([two], known)
    assert f"`{two.old}`" in markdown([one, two, three], known)


@pytest.mark.parametrize("code, failed, result", [(0, [], "survived"), (1, ["t"], "killed"), (2, ["m"], "killed"),
                                                  (1, [], "broken"), (4, [], "broken"), (5, [], "broken")])  # fmt: skip
def test_only_a_failed_test_kills(code, failed, result):
    """4: no such test; 5: nothing was collected."""
    assert _verdict(code, failed, 1.0).result == result


def test_tests_that_are_all_skipped_say_nothing(tmp_path):
    """As those of a package that is not installed: their mutant has not survived."""
    plugin = workers._Failures(tmp_path / "report.json")
    for when, outcome in (("setup", "passed"), ("setup", "skipped"), ("teardown", "passed")):
        plugin.pytest_runtest_logreport(types.SimpleNamespace(when=when, failed=False, passed=outcome == "passed"))
    assert not plugin.passed
    plugin.pytest_runtest_logreport(types.SimpleNamespace(when="call", failed=False, passed=True))
    assert plugin.passed and "is not installed" in _verdict(workers.NONE, [], 1.0).by
