"""What a campaign found, and where that is written down."""

import collections
import dataclasses
import datetime
import os
import platform
import subprocess
import time

import jax

from tests import running

PAGE = running.ROOT / "docs/RELIABILITY.md"


@dataclasses.dataclass
class Outcome:
    """One campaign: `tried` faults, how each of them ended, and what should not have been, with its case's seed."""

    what: str
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    failures: list[str] = dataclasses.field(default_factory=list)
    began: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def tried(self) -> int:
        return sum(self.counts.values())

    def add(self, kind: str, failure: str = "") -> None:
        """Counts one fault; `failure` is empty where everything was as promised."""
        self.counts[kind] += 1
        self.fail(failure)

    def fail(self, failure: str) -> None:
        """Keeps the text of a failure, if there is one, and prints it at once."""
        if failure:
            self.failures.append(failure)
            print(f"FAILED {self.what}: {failure}", flush=True)

    def row(self, seed: int) -> str:
        """The outcome as a line of the page's table."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.counts.items()))
        failed = "0" if not self.failures else f"{len(self.failures)}: " + "; ".join(self.failures)[:300]
        minutes = f"{(time.monotonic() - self.began) / 60:.1f}"
        today = datetime.date.today().isoformat()
        cells = (today, _commit(), _machine(), seed, self.what, self.tried, kinds, failed, minutes)
        return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |\n"


def append(outcome: Outcome, seed: int) -> None:
    """Adds a row to the page, whose last part is the table of campaigns."""
    text = PAGE.read_text()
    PAGE.write_text(text + ("" if text.endswith("\n") else "\n") + outcome.row(seed))


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=running.ROOT, capture_output=True, text=True).stdout.strip()

    changed = "+" if git("status", "--porcelain", "--untracked-files=no", "--", "cjepa_jax", "configs") else ""
    return git("rev-parse", "--short", "HEAD") + changed


def _machine() -> str:
    return f"{os.cpu_count()} x {platform.machine()}, Python {platform.python_version()}, jax {jax.__version__}"
