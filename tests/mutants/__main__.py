"""Runs the mutants: how many does a test notice?

    python -m tests.mutants                        all, one after the other
    python -m tests.mutants --only=losses --jobs=2
    python -m tests.mutants --list                 the table
    python -m tests.mutants --table                what is known so far, as docs/MUTANTS.md has it

The working tree is never touched: each mutant is written into a copy of it, and the tests named beside it run there, in
a separate process, until the first fails. First, all of these tests must pass without a change. Verdicts are kept in a
file outside the repository, so that a stopped run resumes. A verdict counts as long as the mutated file and
the files of its tests are unchanged.
"""

import argparse
import getpass
import json
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile

from tests.mutants import workers
from tests.mutants.mutant import ROOT, Mutant
from tests.mutants.table import MUTANTS

LIMIT = 180  # seconds of CPU
BASELINE = 3600  # of all tests without a mutation


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT):  # the tests that run end with it
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    options = arguments()
    chosen = [m for m in MUTANTS if options.only in f"{m.file} {m.old} {m.new} {m.tests}"]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.file}: {mutant.old!r} -> {mutant.new!r}")
        return 0
    known = read(options.results)
    if options.table:
        print(markdown(chosen, known))
        return 0
    left = [mutant for mutant in chosen if mutant.key() not in known]
    print(f"{len(chosen)} mutants, {len(left)} without a verdict; verdicts in {options.results}", flush=True)
    workers.warm(options.results.with_suffix(".compiled"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        folder = pathlib.Path(folder)
        if left and not options.unchecked:
            failed = baseline(left, folder)
            if failed:
                print("these tests fail without any mutation:", *failed, sep="\n  ", file=sys.stderr)
                return 1
        for number, (mutant, verdict) in enumerate(workers.run_all(left, folder, options.jobs, options.limit), 1):
            if verdict.result != "broken":  # it has none, and is tried again
                known[mutant.key()] = vars(verdict)
            with options.results.open("a") as file:
                file.write(json.dumps({"key": mutant.key()} | vars(verdict)) + "\n")
            print(f"{number}/{len(left)} {verdict}  {mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
    print(summary(chosen, known))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    default = pathlib.Path(tempfile.gettempdir(), f"cjepa_jax-mutants-{getpass.getuser()}.jsonl")
    parser.add_argument("--only", default="", help="those in whose file, lines or tests this text occurs")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds of CPU time of a mutant")
    parser.add_argument("--results", type=pathlib.Path, default=default, help="where verdicts are kept")
    parser.add_argument("--unchecked", action="store_true", help="do not first run the tests as they are")
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    parser.add_argument("--table", action="store_true", help="print the verdicts as Markdown and stop")
    options = parser.parse_args()
    if options.jobs < 1 or options.limit < 1:
        parser.error("--jobs and --limit must be at least 1")
    if ROOT in options.results.resolve().parents:
        parser.error(f"--results = {options.results}: must lie outside {ROOT}")
    return options


def read(results: pathlib.Path) -> dict[str, dict]:
    """Verdicts by the mutants' keys. The last line may be torn, and broken ones are tried again."""
    found = {}
    for line in results.read_text().splitlines() if results.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["result"] != "broken":
            found[row["key"]] = row
    return found


def baseline(mutants: list[Mutant], folder: pathlib.Path) -> list[str]:
    """Which of the tests fail without a change."""
    tests = sorted({test for mutant in mutants for test in mutant.tests.split()})
    child = workers.Child(workers.Tree(folder / "baseline"), tests, BASELINE, first=False)
    pid_verdict = None
    while pid_verdict is None:
        pid_verdict = child.poll()
        workers.time.sleep(0.2)
    print(f"{len(tests)} tests as they are: {pid_verdict}", flush=True)
    if pid_verdict.result == "survived":
        return []
    return child.failed() or [pid_verdict.by, (folder / "baseline.log").read_text()[-2000:]]


def counted(mutants: list[Mutant], known: dict[str, dict]) -> dict[str, list[Mutant]]:
    groups = {"killed": [], "timeout": [], "survived": [], "": []}
    for mutant in mutants:
        groups[known.get(mutant.key(), {"result": ""})["result"]].append(mutant)
    return groups


def summary(mutants: list[Mutant], known: dict[str, dict]) -> str:
    groups = counted(mutants, known)
    noticed, tried = len(groups["killed"]) + len(groups["timeout"]), len(mutants) - len(groups[""])
    lines = [
        f"{noticed} of {tried} killed ({100 * noticed / max(tried, 1):.1f} %), {len(groups['timeout'])} by a time limit"
    ]
    for mutant in groups["survived"]:
        lines.append(f"survived: {mutant.file}: {mutant.old!r} -> {mutant.new!r}: {mutant.survives or '(unexplained)'}")
    return "\n".join(lines)


def markdown(mutants: list[Mutant], known: dict[str, dict]) -> str:
    """Counts by file, and every survivor with its reason."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    lines = [f"Commit {commit.strip()}, {platform.machine()}, Python {platform.python_version()}.", ""]
    lines += ["| file | mutants | killed | by a time limit | survived |", "|---|---|---|---|---|"]
    for file in [*dict.fromkeys(m.file for m in mutants), ""]:
        own = [m for m in mutants if not file or m.file == file]
        groups = counted(own, known)
        numbers = " | ".join(str(len(groups[name])) for name in ("killed", "timeout", "survived"))
        lines.append(f"| {f'`{file}`' if file else '**all**'} | {len(own)} | {numbers} |")
    survivors = counted(mutants, known)["survived"]
    lines += ["", "Survivors:" if survivors else "No survivor.", ""]
    lines += [f"* `{m.file}`: `{m.old}` becomes `{m.new}`. {m.survives or '(unexplained)'}" for m in survivors]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
