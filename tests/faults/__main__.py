"""Runs the campaigns that are asked for and adds a row for each to docs/RELIABILITY.md. Exit code 1 after a failure.

python -m tests.faults --kills=200 --corruptions=2000 --scenes=2000 --peers=20 --signals=40 [--keys] [--surroundings]
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what is damaged or jitted here. The runs are separate processes

from tests.faults import record  # noqa: E402


def parser():
    flags = argparse.ArgumentParser("tests.faults", description=__doc__.splitlines()[0])
    for name, text in (
        ("kills", "kill -9 of a trainer, at random moments and at named points"),
        ("corruptions", "checkpoints damaged in one place"),
        ("scenes", "strange scenes, from the pipeline to the gradient"),
        ("peers", "deaths of one process of two"),
        ("signals", "stop signals"),
    ):
        flags.add_argument(f"--{name}", type=int, default=0, metavar="N", help=text)
    flags.add_argument("--keys", action="store_true", help="every config key mistyped, and every value")
    flags.add_argument("--surroundings", action="store_true", help="paths, locales, time zones, homes")
    flags.add_argument("--hours", type=float, default=float("inf"), help="time after which no new fault is tried")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    flags.add_argument("--limit", type=float, default=30.0, help="seconds that saving and ending may take")
    flags.add_argument("--folder", help="where the runs are; those that failed stay there. Default: a new one in /tmp")
    return flags


def main():
    asked = parser().parse_args()
    folder = asked.folder or tempfile.mkdtemp(prefix="faults-")
    os.makedirs(folder, exist_ok=True)
    failed = 0
    for campaign in campaigns(asked, folder, time.monotonic() + 3600 * asked.hours):
        outcome = campaign()
        record.append(outcome, asked.seed)
        print(outcome.row(asked.seed), end="", flush=True)
        failed += len(outcome.failures)
    print(f"{failed} failures; runs that failed are in {folder}")
    return int(failed > 0)


def campaigns(asked, folder, until):
    """What is asked for, as functions, the cheap ones first."""
    from tests.faults import corruptions, fuzz, keys, kills, peers, stops, surroundings

    seed, jobs = asked.seed, asked.jobs
    if asked.keys:
        yield lambda: keys.campaign(seed, until=until)
    if asked.scenes:
        yield lambda: fuzz.campaign(asked.scenes, seed, until)
    if asked.corruptions:
        yield lambda: corruptions.campaign(asked.corruptions, seed, jobs, folder, until)
    if asked.surroundings:
        yield lambda: surroundings.campaign(folder)
    if asked.kills:
        yield lambda: kills.campaign(asked.kills, seed, jobs, folder, until)
    if asked.signals:
        yield lambda: stops.campaign(asked.signals, seed, jobs, folder, until, asked.limit)
    if asked.peers:
        yield lambda: peers.campaign(asked.peers, seed, folder, until)


if __name__ == "__main__":
    raise SystemExit(main())
