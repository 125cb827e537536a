"""Checkpoints of a real run are damaged in one place, then restored: exact, or refused. Never silently wrong."""

import functools
import os
import pathlib
import random
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import jax
import numpy as np

from cjepa_jax import experiment
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import CheckpointError
from cjepa_jax.runtime.checkpoint import Checkpoints
from configs import clips
from tests import running
from tests.faults import launch
from tests.faults.record import Outcome

STEPS = (2, 3)  # of the two checkpoints that are kept. The damage is done to the newest
VALUES = {"train.steps": 3, "checkpoint.every": 1, "checkpoint.keep": 2, "probe.every": 0}
IN_A_FILE = ("flip", "byte", "zero 512", "truncate", "delete", "swap files")
IN_A_FOLDER = ("empty folder", "extra file", "lost folder", "exchanged checkpoints")
KINDS = IN_A_FILE * 2 + IN_A_FOLDER


def campaign(count, seed, jobs, folder, until=float("inf")):
    """`count` damaged copies of the same two checkpoints, or as many as are tried before `until` (monotonic)."""
    outcome = Outcome("corruptions")
    made = train(folder)
    names = [f"{seed}/{i}" for i in range(count)]
    parts = [names[i : i + 25] for i in range(0, count, 25)]
    if jobs == 1:
        for part in parts:
            if time.monotonic() < until:
                _collect(outcome, [attempt(name, made) for name in part])
        return outcome
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for part in [pool.submit(_attempts, part, made) for part in parts]:
            if time.monotonic() > until:
                part.cancel()
            else:
                _collect(outcome, part.result())
    return outcome


def train(folder):
    """The checkpoints of a run of three steps: their folder."""
    workdir = pathlib.Path(folder, "corrupted")
    if not (workdir / "result.json").exists():
        launch.run(running.command(workdir, **{key.replace(".", "__"): value for key, value in VALUES.items()}))
    return workdir / "checkpoints"


@functools.cache
def like():
    """The state's shapes, as the run's config gives them."""
    values = running.SMALL | VALUES
    run = experiment.assemble(config_lib.override(clips.get_config().copy_and_resolve_references(), values))
    return jax.eval_shape(run.init, run.example())


@functools.cache
def saved(made):
    """{step: the bytes of every array} of the undamaged checkpoints, each read on its own."""
    found = {}
    for step in STEPS:
        alone = made.parent / f"only-{os.getpid()}-{step}"
        shutil.copytree(made / str(step), alone / str(step))
        found[step] = _bytes(_restore(alone)[1])
        shutil.rmtree(alone)
    assert found[STEPS[0]] != found[STEPS[1]]
    return found


def attempt(name, made):
    """(kind of damage: how it ended, failure) of one case, which is all in its name."""
    rng, wanted = random.Random(name), saved(made)
    folder = made.parent / f"damaged-{name.replace('/', '-')}"
    shutil.copytree(made, folder, copy_function=os.link)  # a damaged file is written again, the others are shared
    kind, what = damage(folder, rng)
    case = f"{name}, {kind} {what}"
    try:
        restored = _restore(folder)
    except CheckpointError as error:
        ended, failure = "refused", refusal(kind, str(error))
        failure = failure and f"{case}: {failure}: {error}"
    except Exception as error:  # the very thing that is looked for: it ends a run with a traceback
        ended, failure = "unclear", f"{case}: {type(error).__name__}: {str(error)[:200]}"
    else:
        step = restored[0] if restored else None
        ended = {STEPS[1]: "exact", STEPS[0]: "previous"}.get(step, "wrong")
        failure = "" if step and _bytes(restored[1]) == wanted.get(step) else f"{case}: step {step} silently wrong"
        if not failure and ended == "previous" and not (folder / f"{STEPS[1]}.bad").exists() and kind != "lost folder":
            failure = f"{case}: the damaged checkpoint was not set aside"
    if not failure:
        shutil.rmtree(folder)
    return "wrong" if "silently" in failure else ended, failure


def refusal(kind, text):
    """What is wrong with a refusal: the checkpoint before is whole, unless both have the other's name."""
    if kind != "exchanged checkpoints":
        return "refused, although the checkpoint before is whole"
    return "refused in several lines" if "\n" in text else ""


def damage(folder, rng):
    """Does one kind of damage to the newest checkpoint in `folder`. Returns (kind, which file and where)."""
    kind, newest = rng.choice(KINDS), folder / str(STEPS[1])
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    folders = sorted(path for path in newest.rglob("*") if path.is_dir())
    weights = [1 + path.stat().st_size ** 0.5 for path in files]  # large files more often, small ones often enough
    (path,) = rng.choices(files, weights)
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content)) if content else 0
    if kind in ("flip", "byte", "zero 512", "truncate") and not content:
        kind = "delete"
    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        content[at] = 0 if content[at] else 255
    elif kind == "zero 512":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif kind == "truncate":
        content = content[:at]
    elif kind == "swap files":
        other = rng.choice([file for file in files if file != path])
        _write(path, other.read_bytes(), other, bytes(content))
        return kind, f"{path.relative_to(newest)} and {other.relative_to(newest)}"
    elif kind == "exchanged checkpoints":
        (
            newest.rename(folder / "x"),
            (folder / str(STEPS[0])).rename(newest),
            (folder / "x").rename(folder / str(STEPS[0])),
        )
        return kind, ""
    elif kind in IN_A_FOLDER:
        path = rng.choice([newest, *folders])
        if kind == "extra file":
            (path / f"extra{rng.randrange(9)}").write_bytes(rng.randbytes(rng.randrange(600)))
        else:
            shutil.rmtree(path)
            if kind == "empty folder":
                path.mkdir()
        return kind, str(path.relative_to(folder))
    path.unlink()
    if kind != "delete":
        path.write_bytes(content)
    return kind, f"{path.relative_to(newest)} at {at}"


def _write(one, first, two, second):
    for path, content in ((one, first), (two, second)):
        path.unlink()
        path.write_bytes(content)


def _attempts(names, made):
    jax.config.update("jax_platforms", "cpu")
    return [attempt(name, made) for name in names]


def _collect(outcome, ended):
    for kind, failure in ended:
        outcome.add(kind, failure)


def _restore(folder):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(like())
    finally:
        checkpoints.close()


def _bytes(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
