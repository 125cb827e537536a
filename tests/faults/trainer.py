"""The training command, with a fault in it: FAULT=point:n kills it when it comes to that point for the n-th time.

FAULT=before_rename:2 python -m tests.faults.trainer --config=configs/clips.py --workdir=...

Most points are what Python tells its audit hooks before it opens, renames or deletes a file, so the package knows
nothing of them. `FAULT=trace` prints these events instead.
"""

import os
import re
import signal
import sys
from collections.abc import Sequence

from cjepa_jax.runtime import preemption

TMP = r"/checkpoints/\d+\.orbax-checkpoint-tmp"
POINTS = {  # audit event, and a pattern of what it is about: "path mode" or "from to"
    "before_save": ("os.mkdir", TMP + " "),
    "mid_write": ("open", TMP + r"/\S+ (w|None)"),
    "before_rename": ("os.rename", TMP + " "),
    "after_rename": ("os.rename", TMP + " "),
    "garbage": ("shutil.rmtree", r"/checkpoints/\d+ "),
    "checksums": ("open", r"/checkpoints/\S*sha256\.json\.\S*tmp (w|None)"),
    "run_manifest": ("os.rename", r"/run_manifest\.json "),
    "metrics_rewritten": ("os.rename", r"/metrics\.jsonl "),
    "result": ("os.rename", r"/result\.json "),
}
HALF_A_LINE = "metrics_line"  # a line of metrics.jsonl that is cut short


def die() -> None:
    """What `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(fault: str) -> None:
    """Installs the fault "point:n"."""
    if fault == "trace":
        names = {event for event, _ in POINTS.values()} | {"os.remove", "os.rmdir"}
        sys.addaudithook(lambda event, args: event in names and os.write(2, f"{event} {args}\n".encode()) and None)
        return
    point, _, wanted = fault.partition(":")
    left = int(wanted)
    if point == HALF_A_LINE:
        _cut_short(left)
        return
    name, pattern = POINTS[point]
    pattern, passed = re.compile(pattern), False

    def hook(event: str, args: tuple) -> None:
        nonlocal left, passed
        if passed and event != "os.kill":  # the rename is done in any case
            die()
        if event == name and pattern.search(f"{' '.join(map(_text, args[:2]))} "):
            left -= 1
            if left == 0 and point == "after_rename":
                passed = True
            elif left == 0:
                die()

    sys.addaudithook(hook)


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)


def _cut_short(left: int) -> None:
    from cjepa_jax.runtime.workdir import Workdir

    whole = Workdir.append_metrics

    def append(self, metrics):
        nonlocal left
        left -= 1
        whole(self, metrics)
        if left == 0:
            size = os.path.getsize(self.path / "metrics.jsonl")
            os.truncate(self.path / "metrics.jsonl", size - 20)
            die()

    Workdir.append_metrics = append


def main(argv: Sequence[str], fault: str) -> int:
    """The training command with these arguments. Returns its exit code."""
    from cjepa_jax import cli

    if fault:
        arm(fault)
    sys.argv = ["cjepa_jax/train.py", *argv]
    return cli.run("cjepa_jax.train")


def forked(argv: Sequence[str], output: str, fault: str) -> None:
    """The same in a process that was forked, with its output in a file: to be the target of a `Process`."""
    preemption.leave_at_once()  # as the command does before its imports
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    raise SystemExit(main(argv, fault))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ.get("FAULT", "")))
