"""Checkpoints through Orbax: asynchronous, the newest and the best kept, verified when they are read.

Orbax alone restores most flipped bits silently, casts dtypes silently and does not name a mismatching array. So every
checkpoint carries the SHA-256 of each of its files. A checksum of each array covers checkpoints without them, and
errors in memory. The checkpoint's tree is compared with the model's before anything is read.
"""

import asyncio
import atexit
import contextlib
import errno
import gc
import json
import logging
import math
import os
import pathlib
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from cjepa_jax.errors import CheckpointError, did_you_mean
from cjepa_jax.host import door
from cjepa_jax.runtime import run_manifest, trees
from cjepa_jax.runtime.checksums import checksums, everywhere, first_device

log = logging.getLogger(__name__)

# Errors of missing files or wrong content. Every other error (a disk or a server that does not answer, too many open
# files, no permission) may be temporary, and does not concern the checkpoint.
DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP, None}
MOST_METRICS = 2**20  # bytes of a step's metrics
WRITER = re.compile(r"[/\\](orbax|tensorstore)[/\\]")  # in the path of code that writes
OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in the text of TensorStore, which raises ValueError


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they are; created when it does not exist.
      keep: number of newest checkpoints that are kept.
      best: a metric's name. The checkpoint with its highest value is also kept. "": none. Saves whose metrics lack it
        warn, once.
      read_only: the folder is never changed, so that a run that trains there is not disturbed. No unfinished save is
        cleaned up, no unreadable step is set aside, and nothing is saved.
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 2, best: str = "", read_only: bool = False):
        self.folder = pathlib.Path(folder).absolute()
        self._best, self._read_only = best, read_only

        def value(metrics: Mapping[str, float] | None) -> float:
            number = (metrics or {}).get(best)
            return number if isinstance(number, float) and math.isfinite(number) else -math.inf

        policies = [checkpoint_managers.LatestN(keep)]
        if best:
            by_value = checkpoint_managers.BestN(get_metric_fn=value, n=1, keep_checkpoints_without_metrics=False)
            policies.append(by_value)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=value if best else None,  # without it Orbax does not store the metrics
            cleanup_tmp_directories=True,
            # Called in Orbax's thread by the first process when all files exist, right before they are committed. So a
            # committed checkpoint has its checksums after any kill, and no step waits for them.
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
            logging.getLogger("absl").addFilter(_of_interest)
        self._look_around()
        # Orbax creates missing folders. A path through the run's folder descriptor, independent of its name, prevents
        # writes into a folder that is not this run's. Several processes must have the same path.
        alone = jax.process_count() == 1 and not read_only
        self._place = door.through(self.folder) if alone else self.folder
        try:
            self._manager = ocp.CheckpointManager(
                self._place, options=options, item_handlers=ocp.StandardCheckpointHandler()
            )
        except RecursionError as error:  # of JSON that is nested too deeply
            raise CheckpointError(f"{self.folder}: a step's _CHECKPOINT_METADATA is damaged") from error
        self._pending, self._saving = False, -1

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Starts to save a pytree of arrays and returns. A step that is already saved is not changed.

        A failure of this save, or of the one before, may only be raised by a later call. Raises: door.Lost if the run's
        folder is no longer at its path.
        """
        if self._read_only:
            raise RuntimeError(f"{self.folder}: opened for reading only")
        door.require_own(self.folder)
        if step in self._manager.all_steps():
            return
        numbers = {key: float(number) for key, number in (metrics or {}).items()}
        if numbers and self._best and self._best not in numbers:
            hint = did_you_mean(self._best, numbers)
            log.warning("checkpoint.best = %r: not among the probe's metrics%s", self._best, hint)
            self._best = ""
        self.wait()
        self._saving = step
        leaves = jax.tree.leaves(state)
        tree = {"state": trees.nested(state), "checksums": jax.device_put(checksums(leaves), everywhere(leaves))}
        with _writing():
            self._manager.save(step, args=ocp.args.StandardSave(tree), metrics=numbers, force=True)
        self._pending = True

    def restore(self, abstract_state: Any) -> tuple[int, Any] | None:
        """The newest readable checkpoint as (step, state), or None if there is none.

        An unreadable one is skipped with a warning and, once an older one has been read, renamed to `<step>.bad` (not
        when read_only).

        Args:
          abstract_state: the state's tree with `jax.ShapeDtypeStruct` (or array) leaves; their shardings are the
            result's. A leaf without one goes to the first device.
        Raises:
          CheckpointError: the checkpoint has other arrays than the model (all of them are listed), or checkpoints exist
            and none is readable, or the system fails temporarily, which leaves every checkpoint in place.
        """
        failures: dict[int, Exception] = {}
        for step in reversed(self.steps()):
            try:
                state = self._attempt(step, abstract_state)
            except Unreachable:
                raise
            except Exception as error:  # the class depends on the damaged file (Orbax raises a bare Exception too)
                failures[step] = error
                continue
            for bad, error in failures.items():
                aside = "" if self._read_only else " and set aside"
                log.warning("checkpoint %d is passed over%s: %s", bad, aside, _first_line(error))
                if not self._read_only:
                    self._set_aside(bad)
            return step, state
        for error in failures.values():
            if isinstance(error, CheckpointError):  # the model's arrays differ: not damage, but another model
                raise error
        if failures:
            reasons = "; ".join(f"step {step}: {_first_line(error)}" for step, error in failures.items())
            raise CheckpointError(f"{self.folder}: no checkpoint is readable ({reasons})")
        return None

    def read(self, step: int, abstract_state: Any) -> Any:
        """The state of exactly this step's checkpoint. Nothing in the folder is changed.

        Args: as `restore`'s.
        Raises: CheckpointError, naming the step, if it is damaged or of another model, and if the system fails
          temporarily.
        """
        try:
            return self._attempt(step, abstract_state)
        except CheckpointError:
            raise
        except Exception as error:  # as above
            raise CheckpointError(f"{self.folder}, step {step}: is damaged: {_first_line(error)}") from error

    def check_for_errors(self) -> None:
        """Raises the error of the last asynchronous save, if it has ended. It is cheap, so call it at every step."""
        if self._pending and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises its error."""
        self._pending = False
        with _writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and ends Orbax's threads."""
        self._manager.close()

    def _seal(self) -> None:
        final = self._place / str(self._saving)
        if self._place == self.folder:
            door.require_own(self.folder)
        for folder in [final] if final.exists() else self._place.glob(f"{final.name}.orbax-checkpoint-tmp*"):
            if not (folder / "default" / "manifest.ocdbt").exists():  # Orbax commits silently if it finds nothing
                raise CheckpointError(f"{folder}: Orbax has written no manifest.ocdbt, so its arrays would be lost")
            run_manifest.seal(folder, self._saving)

    def _attempt(self, step: int, abstract_state: Any) -> Any:
        self._together(step, lambda: self._verify(step))
        target = self._together(step, lambda: self._examine(step, abstract_state))
        return self._together(step, lambda: self._read(step, target, abstract_state))

    def _together(self, step: int, work: Callable[[], Any]) -> Any:
        """The result of `work`, if no process fails at it. Otherwise raises on all processes, so that they agree."""
        result = error = passing = None
        try:
            result = work()
        except Exception as problem:
            error = problem
            passing = problem if _may_pass(problem) else _refusal(self.folder / str(step))
        verdict = _highest(2 if passing else 1 if error else 0)
        if verdict == 2:
            why = _first_line(passing) if passing else "by another process"
            text = f"{self.folder}, step {step}: cannot be read at present, nothing was changed ({why})"
            raise Unreachable(text) from passing
        if verdict == 1:
            raise error or ValueError("another process cannot read it")
        return result

    def _verify(self, step: int) -> None:
        wrong = run_manifest.verify(self.folder / str(step), step, jax.process_index(), jax.process_count())
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ValueError(f"its files are not what was written: {', '.join(wrong[:3])}{more}")

    def _examine(self, step: int, abstract_state: Any) -> Any:
        """The arguments for Orbax's restore, if the arrays match the model."""
        metadata = self._manager.item_metadata(step)
        if metadata is None or "state" not in metadata or "checksums" not in metadata:
            raise ValueError("its files are missing or unreadable")
        paths, tree = jax.tree_util.tree_flatten_with_path(abstract_state)
        wanted = {trees.name_of(path): _abstract(leaf) for path, leaf in paths}
        saved = {trees.name_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(metadata["state"])[0]}
        problems = trees.differences(saved, wanted)
        if problems:
            raise CheckpointError(f"{self.folder}, step {step}: belongs to another model: {'; '.join(problems)}")
        sums = metadata["checksums"]
        if sums.shape not in ((len(saved),), (2, len(saved))):
            raise ValueError(f"its checksums have the shape {sums.shape}, for {len(saved)} arrays")
        trees.require_small_chunks({**saved, "checksums": sums})
        home = everywhere(list(wanted.values()))
        sums = jax.ShapeDtypeStruct(sums.shape, jnp.uint32, sharding=home)
        return {"state": trees.nested(jax.tree.unflatten(tree, wanted.values())), "checksums": sums}

    def _read(self, step: int, target: Any, abstract_state: Any) -> Any:
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        flat = {trees.name_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(restored["state"])[0]}
        paths, tree = jax.tree_util.tree_flatten_with_path(abstract_state)
        names = [trees.name_of(path) for path, _ in paths]
        leaves = [flat[name] for name in names]
        saved = np.atleast_2d(np.asarray(restored["checksums"]))  # earlier versions have the first row only
        altered = np.flatnonzero((np.asarray(checksums(leaves))[: len(saved)] != saved).any(0))
        if altered.size:
            raise ValueError(f"checksum mismatch in {', '.join(names[i] for i in altered[:3])}")
        return jax.tree.unflatten(tree, leaves)

    def _look_around(self) -> None:
        """Checks before Orbax, which opens any file. Raises CheckpointError."""
        problem = None
        if jax.process_index() == 0:
            problem = self._find_odd() or self._hide_damaged_metrics()
        if _highest(problem is not None):
            raise problem or Unreachable(f"{self.folder}: the first process cannot read what is in it")

    def _find_odd(self) -> CheckpointError | None:
        """Finds links, pipes and devices, which Orbax would follow or wait for, and folders that only Orbax takes for
        steps, not `door.step_of`."""
        try:
            if self.folder.is_symlink():
                text = "is a symbolic link, which is not followed: link the run's folder as a whole"
                return CheckpointError(f"{self.folder}: {text}")
            door.require_plain(self.folder)
            names = os.listdir(self.folder) if self.folder.exists() else []
        except door.Refused as error:
            return CheckpointError(str(error))
        except OSError as error:
            return Unreachable(f"{self.folder}: cannot be read at present, nothing was changed ({error})")
        for name in names:
            if name.split("_")[-1].isdigit() and door.step_of(name) is None and (self.folder / name).is_dir():
                limit = f"a whole number up to {door.LARGEST_STEP}, without zeros before it"
                return CheckpointError(f"{self.folder / name[:100]}: is not a step's folder: a step is {limit}")
        return None

    def _hide_damaged_metrics(self) -> CheckpointError | None:
        """Orbax reads every step's metrics before anything is verified, and raises JSON's errors. A step with hidden
        metrics counts as one with missing files, which is skipped like any damaged one."""
        for step in door.steps(self.folder):
            file = self.folder / str(step) / "metrics" / "metrics"
            try:
                if isinstance(json.loads(door.read(file, MOST_METRICS)), dict):
                    continue
            except (FileNotFoundError, NotADirectoryError):  # none, or the run that trains here has just deleted it
                continue
            except (OSError, ValueError, RecursionError) as error:  # not JSON, or not UTF-8
                if _may_pass(error):
                    return Unreachable(f"{file}: cannot be read at present, nothing was changed ({error})")
            if self._read_only:
                return CheckpointError(f"{file}: damaged. Without the folder {file.parts[-3]} the other steps serve")
            file.parent.rename(file.parent.with_name("metrics.bad"))
        return None

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            door.require_own(self.folder)
            taken = (self.folder / f"{step}.bad{again}" for again in ("", *map(str, range(2, 10**6))))
            os.rename(self.folder / str(step), next(aside for aside in taken if not os.path.lexists(aside)))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"checkpoint {step} is set aside")
        self._manager.reload()


class Unreachable(CheckpointError):
    """The system cannot read a checkpoint now. The checkpoint may be intact."""


def size_in_bytes(state: Any) -> int:
    """Upper bound of the size of this state's checkpoint, uncompressed."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _may_pass(error: BaseException | None) -> bool:
    """Whether the error, or its cause, comes from the machine (I/O, memory) and not from the checkpoint."""
    while error is not None:
        codes = {int(code) for code in OS_ERROR.findall(str(error))}
        if isinstance(error, OSError):
            codes.add(error.errno)
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or codes - DAMAGE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _refusal(folder: pathlib.Path) -> OSError | None:
    """The system's temporary error when all files below are read, if there is one. Orbax hides some of them."""
    try:
        os.listdir(folder)  # a folder that cannot be read has no files below
        run_manifest.sums(folder)
    except OSError as error:
        return error if _may_pass(error) else None
    return None


def _highest(number: int) -> int:
    """The highest of all processes' numbers."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def _of_interest(record: logging.LogRecord) -> bool:
    """Hides Orbax's warning that a folder is only read, if that was requested."""
    return "directory is read only" not in str(record.msg)


def _first_line(error: Exception) -> str:
    return (door.named(str(error)).strip().splitlines() or [""])[0][:1000] or type(error).__name__


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or first_device())


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """What raises inside may leave writes suspended."""
    with contextlib.ExitStack() as failed:
        failed.callback(atexit.register, end_writes)
        yield
        failed.pop_all()


def end_writes() -> None:
    """Ends what Orbax leaves suspended when a save fails. At Python's very end each write would print a traceback."""
    for each in gc.get_objects():
        if type(each) is types.CoroutineType and WRITER.search(each.cr_code.co_filename):
            with contextlib.suppress(Exception, asyncio.CancelledError):  # what its end raises, or that it runs
                each.close()
