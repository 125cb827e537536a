"""Checks a run's folder and says what to do. It changes nothing and can be used while the run is training.

    python -m cjepa_jax.doctor runs/tiny                      exit code 0: healthy
    python -m cjepa_jax.doctor runs/tiny --diff runs/other    what is different: config, packages, data, last metrics

Exit codes: 4 if a checkpoint is damaged. 2 if it is not a run's folder, or its config or result is damaged. 1 if its
metrics or its manifest are damaged, or a file cannot be read now. docs/RUNS.md describes the folder.
"""

import dataclasses
import itertools
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cjepa_jax import cli
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import MOST_LETTERS, CheckpointError, CjepaError, ConfigError, printable
from cjepa_jax.host import door
from cjepa_jax.host.paths import shown
from cjepa_jax.runtime import fallbacks, foreign, run_manifest
from cjepa_jax.runtime.workdir import Workdir, read_object

BESIDE = ("step_time_ms", "scenes_per_s", "data_wait", "eta_s", "compilations")  # about speed, not about results
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report. `code` is 0 if nothing is wrong."""

    what: str
    text: str
    code: int = 0


def main(argv: list[str]) -> int:
    """Prints the report. Returns the exit code."""
    parser = cli.Parser(prog="python -m cjepa_jax.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=cli.path_argument, help="the run's folder")
    parser.add_argument(
        "--diff", type=cli.path_argument, metavar="OTHER", help="another run's folder to compare it with"
    )
    arguments = parser.parse_args(argv)
    run = Workdir(arguments.run, setting="")
    _require_run(run)
    if arguments.diff:
        other = Workdir(arguments.diff, setting="")
        _require_run(other)
        print("\n".join(map(_line, compare(run, other))))
        return 0
    found = examine(run)
    for finding in found:
        print(f"{'WRONG' if finding.code else 'ok':6} {_line(finding.what):16} {_line(finding.text)}")
    code = max(finding.code for finding in found)
    print(f"\n{_line(advice(run, found, code))}")
    return code


def examine(run: Workdir) -> list[Finding]:
    """All findings in a run's folder."""
    holder = run.holder()
    lock = Finding("lock", f"taken: {holder} trains here" if holder else "free: nobody trains here")
    parts = {"config": _config, "manifest": _manifest, "metrics": _metrics, "result": _result}
    looked = [_readable(what, lambda part=part: part(run)) for what, part in parts.items()]
    return [lock, *looked, *_checkpoints(run, bool(holder))]


def advice(run: Workdir, found: list[Finding], code: int) -> str:
    """What the user should do."""
    damaged = [finding.what for finding in found if finding.code == CheckpointError.exit_code]
    whole = [finding.what for finding in found if finding.what.startswith("step ") and not finding.code]
    if damaged and whole:
        return (
            f"{', '.join(damaged)} damaged: start the same command again. It resumes from {whole[-1]} and sets aside "
            "the damaged newer ones. Check the disk too, because files do not change by themselves."
        )
    if damaged:
        return (
            f"{', '.join(damaged)} damaged, and no checkpoint is whole: the run cannot resume. Copy back a backup, or "
            "start afresh with another --workdir."
        )
    if code:
        wrong = "; ".join(f"{finding.what}: {finding.text}" for finding in found if finding.code)
        return f"No checkpoint is damaged, but there are other faults ({wrong})."
    if run.holder():
        return "Healthy, and running."
    if run.finished:
        return "Healthy and finished: there is nothing to do."
    return f"Healthy. The same command resumes from {whole[-1]}." if whole else "Healthy. Nothing is saved yet."


def compare(run: Workdir, other: Workdir) -> Iterator[str]:
    """Lines that say what differs between two runs."""
    yield f"{run.path} -> {other.path}"
    about = [_about(folder) for folder in (run, other)]
    configs = [_bounded(folder) for folder in (run, other)]
    yield from _section("config", config_lib.differences(*configs, ignore=()))
    for name in ("git", "packages", "python", "devices", "environment", "data"):
        pair = [{name: details.get(name)} for details in about]
        yield from _section(name, config_lib.differences(*pair, ignore=()))
    last: list[dict[str, Any]] = [{}, {}]
    for folder, values in zip((run, other), last, strict=True):
        for line in folder.read_metrics():
            values |= line
    names = [name for name in last[0] if name in last[1] and name not in BESIDE]
    lines = [f"{name}: {_short(last[0][name])} -> {_short(last[1][name])}" for name in names]
    yield from _section("last metrics", lines)


def _require_run(run: Workdir) -> None:
    if not run.path.is_dir():
        raise ConfigError(f"{run.path}: there is no such folder")
    if not (run.path / "config.json").exists():
        beside = sorted(str(found.parent) for found in run.path.glob("*/config.json"))
        hint = f". Its folders {', '.join(beside[:3])} are" if beside else ""
        raise ConfigError(f"{run.path}: not a run's folder, there is no config.json{hint}")


def _readable(what: str, look: Callable[[], Finding]) -> Finding:
    """The finding of `look`. A disk or a server that does not answer is a finding too."""
    try:
        return look()
    except door.Refused as error:
        return Finding(what, str(error), error.exit_code)
    except OSError as error:
        return Finding(what, f"cannot be read now ({error.strerror}), which says nothing about it", 1)


def _config(run: Workdir) -> Finding:
    try:
        found = _bounded(run)
    except ConfigError as error:
        return Finding("config", str(error), error.exit_code)
    others = foreign.outside(found)
    text = f". Code of other packages, which is used with --trust only: {', '.join(others)}" if others else ""
    return Finding("config", f"{sum(1 for _ in config_lib.flatten(found))} keys{text}")


def _manifest(run: Workdir) -> Finding:
    try:
        content = run_manifest.read(run.path)
    except ValueError as error:
        return Finding("manifest", f"{run_manifest.RUN} is damaged ({error}). The next start sets it aside", 1)
    if content is None or not content["starts"]:
        return Finding("manifest", "none: the run is of an earlier version, or it never started training")
    last = content["starts"][-1]
    began = f"start number {len(content['starts'])} was at step {last.get('step')}, {last.get('began')}"
    if "reason" in last:
        return Finding("manifest", f"{began}. Ended at step {last.get('ended_step')}: {last['reason']}")
    return Finding("manifest", f"{began}; {'running' if run.holder() else 'killed: it has not recorded an end'}")


def _metrics(run: Workdir) -> Finding:
    """A kill can leave an incomplete last line. It is removed when the run resumes."""
    saved = max(door.steps(run.checkpoints), default=0)  # read first, because a step is logged before it is saved
    lines, broken, cut = run.look_at_metrics()
    steps = [line["step"] for line in lines if "loss" in line]
    twice = [step for step, count in Counter(steps).items() if count > 1]
    every = _largest_interval(run)
    pairs = zip([0, *steps], [*steps, saved + 1], strict=True)
    missing = [range(a - a % every + every, b, every) for a, b in pairs]
    wrong = [f"{broken} lines are unreadable"] * bool(broken) + ["steps go backwards"] * (steps != sorted(steps))
    wrong += [f"twice: steps {_few(twice)}"] * bool(twice)
    if count := sum(map(len, missing)):  # as ranges, because the name of a folder can claim any number of steps
        wrong.append(f"missing: steps {_few(itertools.chain(*missing), count)}")
    if wrong:
        return Finding("metrics", "; ".join(wrong), 1)
    half = ". Half a line at the end, from a kill" if cut else ""
    try:
        warning = fallbacks.worst(lines, _bounded(run))
    except (OSError, CjepaError):  # reported by the finding "config"
        warning = ""
    half += f"; {warning}" * bool(warning)
    return Finding("metrics", (f"steps {steps[0]} to {steps[-1]}, none missing" if steps else "none yet") + half)


def _result(run: Workdir) -> Finding:
    try:
        finished = run.finished
    except ConfigError as error:
        return Finding("result", f"{error}. Without it the same command writes it again", error.exit_code)
    if not finished:
        return Finding("result", "not finished")
    report = "with" if (run.path / "report.html").exists() else "without"
    return Finding("result", f"finished at step {finished.get('step')}, {report} a report")


def _checkpoints(run: Workdir, running: bool) -> Iterator[Finding]:
    names = sorted(path.name for path in run.checkpoints.glob("*"))
    for step in door.steps(run.checkpoints):
        folder = run.checkpoints / str(step)
        found = _readable(f"step {step}", lambda folder=folder, step=step: _checkpoint(folder, step))
        if found.code and running:  # the run may be deleting this step, file by file
            time.sleep(1)
            found = _readable(f"step {step}", lambda folder=folder, step=step: _checkpoint(folder, step))
        if folder.exists() or not running:  # otherwise a newer checkpoint has just replaced it
            yield found
    for name in names:
        if ".bad" in name:
            yield Finding(name, "was damaged and set aside. It is not used and can be deleted")
        elif ".orbax-checkpoint-tmp" in name:
            state = "is being saved" if running else "was not saved completely. The next start removes it"
            yield Finding(name, state)


def _checkpoint(folder: pathlib.Path, step: int) -> Finding:
    wrong = run_manifest.verify(folder, step)
    if wrong:
        return Finding(f"step {step}", f"damaged: {_few(wrong)}", CheckpointError.exit_code)
    if wrong is None:
        if any(path.is_file() for path in folder.glob("default/**/*")):
            return Finding(f"step {step}", f"no {run_manifest.SUMS}: its arrays are verified when they are read")
        return Finding(f"step {step}", "damaged: it is empty", CheckpointError.exit_code)
    files = [file for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 2**20
    return Finding(f"step {step}", f"whole: {len(files)} files, {size:.1f} MiB, checksums match")


def _largest_interval(run: Workdir) -> int:
    """The largest log.every of all starts. A step that is missing at this interval is missing for each of them."""
    values: list[Any] = []
    for read in (lambda: _bounded(run), lambda: run_manifest.read(run.path)):
        try:
            content = read() or {}
        except (ConfigError, OSError, ValueError):
            continue
        starts = content.get("starts")
        starts = starts if isinstance(starts, list) else []
        configs = [start.get("config") for start in starts if isinstance(start, dict)]
        values += [_every(config) for config in (content, *configs)]
    return max((value for value in values if isinstance(value, int) and value > 0), default=2**62)


def _every(config: Any) -> Any:
    """log.every of a possible config, or None."""
    section = config.get("log") if isinstance(config, dict) else None
    return section.get("every") if isinstance(section, dict) else None


def _bounded(run: Workdir) -> dict[str, Any]:
    """A run's config.json. Nothing that it names is imported. Raises ConfigError."""
    file = run.path / "config.json"
    found = read_object(file)
    try:
        foreign.bounded(found)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return found


def _about(run: Workdir) -> dict[str, Any]:
    try:
        content = run_manifest.read(run.path)
    except ValueError as error:
        raise CjepaError(f"{run.path / run_manifest.RUN}: is damaged ({error})") from error
    return run_manifest.latest(content) if content else {}


def _section(name: str, lines: list[str]) -> Iterator[str]:
    yield f"{name}: {'' if lines else 'the same'}".rstrip()
    yield from (f"  {line}" for line in lines)


def _few(items: Iterable[Any], count: int | None = None) -> str:
    """The first items and the number of further ones. `count` is the number of all items; None: the list's length."""
    count = len(items) if count is None else count
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return ", ".join(map(str, itertools.islice(items, SHOWN))) + more


def _line(text: str) -> str:
    """A line of the report, in which a file may be quoted."""
    return shown(printable(text), MOST_LETTERS)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
