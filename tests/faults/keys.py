"""Every key of a config, mistyped: exit code 2, one line, and the right key named."""

import contextlib
import io
import random
import sys
import time

from cjepa_jax import cli
from cjepa_jax.configuration.check import flatten
from configs import clips
from tests.faults.record import Outcome

EDITS = ("drop", "double", "swap", "case", "replace")
VALUES = ("many", "-1", "nan", "1e999", "", "(", "None", "[]")
RIGHT = 0.99  # of the hints at mistyped keys


def campaign(seed, edits=EDITS, values=VALUES, until=float("inf")):
    """Each key with each kind of edit, and each key with values it may refuse, through the command's own parser."""
    outcome, rng, wrong = Outcome("config keys"), random.Random(f"{seed}/keys"), []
    keys = [key for key, _ in flatten(clips.get_config())]
    for key in keys:
        for edit in edits:
            typo = mistype(key, edit, rng)
            if typo in keys or time.monotonic() > until:
                continue
            code, text = parse([f"--config.{typo}=1"])
            bad = code != 2 or not text.startswith("error: ") or text.count("\n") != 1
            outcome.add("right" if repr(key) in text else "wrong", f"{typo}: {code}: {text}" if bad else "")
            wrong += [] if repr(key) in text else [typo]
    hints = outcome.counts["right"], outcome.counts["wrong"]
    if hints[0] < RIGHT * sum(hints):
        outcome.fail(f"{hints[1]} of {sum(hints)} hints name another key: {', '.join(wrong)}")
    for key in keys:
        for value in values:
            if time.monotonic() < until:
                code, text = parse([f"--config.{key}={value}"])
                fine = (code, text) == (0, "") or (code == 2 and text.startswith("error: ") and text.count("\n") == 1)
                outcome.add(f"value {'taken' if code == 0 else 'refused'}", "" if fine else f"{key}={value}: {text}")
    return outcome


def mistype(key, edit, rng):
    """The key with one edit in its last part."""
    head, dot, leaf = key.rpartition(".")
    i = rng.randrange(max(len(leaf) - 1, 1))
    changed = {
        "drop": leaf[:i] + leaf[i + 1 :],
        "double": leaf[: i + 1] + leaf[i:],
        "swap": leaf[:i] + leaf[i + 1 : i + 2] + leaf[i : i + 1] + leaf[i + 2 :],
        "case": leaf[:i] + leaf[i : i + 1].upper() + leaf[i + 1 :],
        "replace": leaf[:i] + rng.choice("aeiostx") + leaf[i + 1 :],
    }[edit]
    return head + dot + changed


def parse(overrides):
    """(exit code, stderr) of a command line, without what comes after it has been understood."""
    argv = ["train", "--config=configs/clips.py", *overrides]
    stderr, argv_before = io.StringIO(), sys.argv
    sys.argv = argv  # where the config's flags look for their overrides
    try:
        with contextlib.redirect_stderr(stderr):
            code = cli.guard(lambda: cli.parse(argv) and 0)
    finally:
        sys.argv = argv_before
    return code, stderr.getvalue()
