"""What a training step costs on this accelerator, and where the time goes: a report to read and to send back.

python -m cjepa_jax.bench --report [--minutes=10] [--out=runs/bench] [--variant=L/16] [--size=224]
python -m cjepa_jax.bench --report --sections=device,step        only some of the sections

Each section prints its lines at once. A section that fails is recorded and does not stop the others. When the time is
up, what was measured is kept. The folder then has bench.jsonl, a line per measurement, and report.html. JAX, Flax,
Optax and NumPy are enough. PyTorch is compared where it is installed. Batches are made up, so no data are needed.
"""

import importlib.util
import os
import pathlib
import threading
from collections.abc import Callable

from cjepa_jax.bench.accelerator_report import Report
from cjepa_jax.errors import ConfigError
from cjepa_jax.runtime import ending

BOUND = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # so that JAX leaves memory of a GPU for PyTorch
SPARE = 15.0  # seconds, with fewer of which no section begins


def run(report: Report, sections: dict[str, Callable[[Report], None]]) -> None:
    """Runs sections until the time is up, and ends the process then, even within one."""

    def up() -> None:
        report.say("the time is up", section=next(reversed(report.sections)))
        print(report.write(), flush=True)
        os._exit(0)

    timer = threading.Timer(report.left(), up)
    timer.daemon = True
    timer.start()
    for name, section in sections.items():
        report.begin(name)
        if report.left() < SPARE:
            report.say("left out", why="no time")
            continue
        try:
            section(report)
        except Exception as error:  # an error of a kernel or compiler that nobody has tried is a result
            report.say("failed", error=f"{type(error).__name__}: {str(error)[:300]}")
        report.write()
    timer.cancel()


def main(argv: list[str]) -> int:
    """Returns 0, also if sections failed: their errors are in the report. After one line 2, for a wrong command."""
    return ending.guard(lambda: _run(argv))


def _run(argv: list[str]) -> None:
    parser = ending.Parser(prog="python -m cjepa_jax.bench --report", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="when to stop at the latest (default: 10)")
    out = pathlib.Path("runs/bench")
    parser.add_argument("--out", type=ending.path_argument, default=out, help="the report's folder")
    parser.add_argument("--variant", default="", help="the encoder (default: L/16, and Ti/16 on a CPU)")
    parser.add_argument("--size", type=int, default=0, help="pixels of an image's side (default: 224, 64 on a CPU)")
    parser.add_argument("--batch", type=int, default=0, help="the smallest batch (default: 64, 8 on a CPU)")
    parser.add_argument("--sections", default="", help="only these, with commas between")
    args = parser.parse_args(argv)
    if not 0 < args.minutes < 1e6:
        parser.error(f"--minutes={args.minutes:g}: must be a number above 0")
    if importlib.util.find_spec("torch") and "torch" in (args.sections or "torch"):
        os.environ.setdefault(BOUND, "0.6")
    from cjepa_jax.bench import accelerator_sections as bench

    chosen = [name for name in args.sections.split(",") if name] or list(bench.SECTIONS)
    if unknown := [name for name in chosen if name not in bench.SECTIONS]:
        parser.error(f"--sections: there is no section {unknown[0]!r}. There are {', '.join(bench.SECTIONS)}")
    try:
        subject = bench.Subject.default(args.variant, args.size, args.batch)
    except RuntimeError as error:
        raise ConfigError(f"JAX_PLATFORMS: {str(error).splitlines()[0]}") from error  # JAX finds no such device
    report = Report(args.out, 60 * args.minutes)
    run(report, {name: getattr(subject, name) for name in bench.SECTIONS if name in chosen})
    print(report.write())
