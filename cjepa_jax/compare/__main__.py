"""Compares methods on worlds at equal compute: trains and evaluates every cell of a suite, then writes the table.

    python -m cjepa_jax.compare --suite=micro --workdir=runs/micro [--jobs=2]
    python -m cjepa_jax.compare --suite=... --workdir=... --list                the cells and what is done
    python -m cjepa_jax.compare --suite=... --workdir=... --phase=table         the table of the finished cells

Run it again to resume: finished cells are kept, half-trained ones resume. As SLURM arrays, one cell a task:

    sbatch --array=0-$((TUNE - 1)) --wrap "COMMAND --phase=tune --index=\\$SLURM_ARRAY_TASK_ID"
    sbatch --array=0-$((CELLS - 1)) -d afterany:JOB --wrap "COMMAND --phase=cells --index=\\$SLURM_ARRAY_TASK_ID"
    COMMAND --phase=table

TUNE and CELLS are what --list prints. The records of finished cells, the table (Markdown, JSON) and its plot are in the
folder. --records=DIR reads records from another folder, such as docs/results/micro.
"""

import argparse
import dataclasses
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from cjepa_jax import cli
from cjepa_jax.errors import PREEMPTED, CjepaError, ConfigError, did_you_mean
from cjepa_jax.runtime import foreign
from cjepa_jax.runtime.preemption import Signals
from cjepa_jax.runtime.writers import format_seconds

PHASES = ("all", "tune", "cells", "table")


def main(argv: list[str]) -> int:
    """Returns 0 if all requested cells are done, 1 if a cell failed, 75 if a signal stopped one.

    Raises ConfigError, one line.
    """
    args = _parser().parse_args(argv)
    cli.set_up_logging("info")
    import jax  # only after the command line has been checked

    jax.config.update("jax_platforms", "cpu")  # only counts operations (the cells' commands use the accelerator)
    from cjepa_jax.compare import suite as suites
    from cjepa_jax.compare import table
    from cjepa_jax.compare.cell import Lab, cores

    suite = suites.load(args.suite)
    lab = Lab(suite, args.workdir.absolute(), trust=foreign.trusted(args.trust))
    phases = {"tune": suite.tuned(), "cells": suite.cells()}
    if args.methods:
        chosen = args.methods.split(",")
        for name in chosen:
            if name not in suite.methods:
                raise ConfigError(f"--methods: there is no method {name!r}{did_you_mean(name, suite.methods)}")
        phases = {phase: [cell for cell in cells if cell.method in chosen] for phase, cells in phases.items()}
    if args.list:
        for phase, cells in phases.items():
            print(f"{phase}: {len(cells)}")
            for index, cell in enumerate(cells):
                print(f"  {index:3} {'done' if lab.finished(cell) else '-':4} {cell.name}")
        return 0
    if args.index is not None and (args.phase not in phases or not 0 <= args.index < len(phases[args.phase])):
        raise ConfigError(f"--index={args.index}: needs --phase=tune or cells, and must be one that --list shows")
    most = len(cores()) if cli.runs_on_cpu() else 1
    if not 1 <= args.jobs <= most:
        raise ConfigError(f"--jobs={args.jobs}: must be 1 to {most}: cells share cores, but no accelerator")
    lab.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with Signals() as received:
        lab = dataclasses.replace(lab, stopping=lambda: received.received is not None)
        for phase, cells in phases.items():
            if args.phase in (phase, "all"):
                chosen = cells if args.index is None else cells[args.index : args.index + 1]
                ended = run(lab, chosen, args.jobs)
                if PREEMPTED in ended:
                    print("stopped by a signal. The same command resumes")
                    return PREEMPTED
                failed += sum(map(bool, ended))
    if args.index is None and args.phase in ("all", "table"):
        print(table.write(suite, args.records if args.records else lab.folder / "records", lab.folder))
    return 1 if failed else 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m cjepa_jax.compare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suite", required=True, help="a suite of configs/suites by its name, or a file")
    parser.add_argument("--workdir", type=cli.path_argument, required=True, help="the comparison's folder")
    parser.add_argument("--phase", choices=PHASES, default="all")
    parser.add_argument("--jobs", type=int, default=1, help="cells side by side, each on its share of the cores")
    parser.add_argument("--index", type=int, help="only this cell of the phase, for an array of jobs")
    parser.add_argument("--methods", help="only these methods' cells, by name, with commas between")
    parser.add_argument(
        "--records", type=cli.path_argument, help="a folder of records, instead of the comparison's own"
    )
    parser.add_argument("--trust", default="", metavar="PACKAGES", help=cli.TRUST)
    parser.add_argument("--list", action="store_true", help="print the cells of both phases, and stop")
    return parser


def run(lab, cells, jobs: int) -> list[int]:
    """Runs the cells in order, `jobs` at a time. Returns an exit code for each that was not done before: 0, 1 for one
    that failed, 75 for one that a signal stopped. After a 75 no further cell is started."""
    from cjepa_jax.compare.cell import cores

    free = [cores()[job::jobs] for job in range(jobs)]
    lock, done, stopped = threading.Lock(), [0], threading.Event()

    def one(cell) -> int:
        if stopped.is_set() or lab.stopping():
            return PREEMPTED
        with lock:
            mine = free.pop()
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, mine)  # of this thread, and of the commands that it starts
        started, text, code = time.perf_counter(), "failed", 1
        try:
            lab.run(cell)
            text, code = "done", 0
        except CjepaError as error:
            text = f"failed: {error}"
            if error.exit_code == PREEMPTED:
                stopped.set()
                text, code = f"stopped: {error}", PREEMPTED
        except Exception as error:
            text = f"failed: {type(error).__name__}: {error}"
            raise
        finally:
            with lock:
                free.append(mine)
                done[0] += 1
                print(
                    f"[{done[0]}/{len(cells)}] {cell.name} {text} ({format_seconds(time.perf_counter() - started)})",
                    flush=True,
                )
        return code

    todo = [cell for cell in cells if not lab.finished(cell)]
    done[0] = len(cells) - len(todo)
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, todo))


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
