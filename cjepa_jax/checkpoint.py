"""Checkpoints through Orbax: asynchronous, the newest and the best kept, verified when they are read.

Orbax alone restores most flipped bits silently, casts dtypes without a word and does not name a mismatching array.
So every checkpoint carries a checksum per array, and its tree is compared with the model's before anything is read.
"""

import errno
import logging
import math
import os
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from cjepa_jax.errors import CheckpointError, did_you_mean

log = logging.getLogger(__name__)

# What the system says of files that are gone or whose content is wrong. Every other error (a disk or a server that
# does not answer, too many open files, no permission) may pass, and says nothing about the checkpoint.
DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, None}
OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in the text of TensorStore, which raises ValueError


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they are; created when it does not exist.
      keep: how many of the newest are kept.
      best: a metric's name; the checkpoint with the highest value is kept besides. "": none. Saves whose metrics
        lack it warn, once.
      read_only: nothing in the folder is ever changed, so that a run that trains there is not disturbed: no unfinished
        save is cleaned up, no unreadable step is set aside, and nothing is saved.
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 2, best: str = "", read_only: bool = False):
        self.folder = pathlib.Path(folder).absolute()
        self._best, self._read_only = best, read_only

        def value(metrics: Mapping[str, float] | None) -> float:
            number = (metrics or {}).get(best, -math.inf)
            return number if math.isfinite(number) else -math.inf

        policies = [checkpoint_managers.LatestN(keep)]
        if best:
            by_value = checkpoint_managers.BestN(get_metric_fn=value, n=1, keep_checkpoints_without_metrics=False)
            policies.append(by_value)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=value if best else None,  # without it Orbax does not store the metrics
            cleanup_tmp_directories=True,
        )
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )
        self._pending = False

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Starts to save a pytree of arrays and returns; a step that is saved already is left as it is.

        A failure of this save, or of the one before, may come only from a later call.
        """
        if self._read_only:
            raise RuntimeError(f"{self.folder}: opened for reading only")
        if step in self._manager.all_steps():
            return
        numbers = {key: float(number) for key, number in (metrics or {}).items()}
        if numbers and self._best and self._best not in numbers:
            hint = did_you_mean(self._best, numbers)
            log.warning("checkpoint.best = %r: not among the probe's metrics%s", self._best, hint)
            self._best = ""
        tree = {"state": _nested(state), "checksums": _checksums(jax.tree.leaves(state))}
        self._manager.save(step, args=ocp.args.StandardSave(tree), metrics=numbers, force=True)
        self._pending = True

    def restore(self, abstract_state: Any) -> tuple[int, Any] | None:
        """The newest readable checkpoint as (step, state), or None when there is none at all.

        An unreadable one is passed over with a warning and, once an older one has been read, renamed to `<step>.bad`
        (not when read_only).

        Args:
          abstract_state: the state's tree with `jax.ShapeDtypeStruct` (or array) leaves; their shardings are the
            result's, and a leaf without one goes to the first device.
        Raises:
          CheckpointError: the checkpoint has other arrays than the model (all of them are listed); checkpoints exist
            and none is readable; or the system fails in a way that may pass, which leaves every checkpoint in place.
        """
        failures: dict[int, Exception] = {}
        for step in reversed(self.steps()):
            try:
                state = self._read(step, abstract_state)
            except Exception as error:  # which class damage raises depends on the file; Orbax has a bare Exception too
                failures[step] = error
                passing = error if _may_pass(error) else _refusal(self.folder / str(step))
                if passing:
                    text = f"{self.folder}, step {step}: cannot be read at present, nothing was changed"
                    raise CheckpointError(f"{text} ({_first_line(passing)})") from passing
                continue
            for bad, error in failures.items():
                aside = "" if self._read_only else " and set aside"
                log.warning("checkpoint %d is passed over%s: %s", bad, aside, _first_line(error))
                if not self._read_only:
                    self._set_aside(bad)
            return step, state
        for error in failures.values():
            if isinstance(error, CheckpointError):  # the model's own arrays: no damage, another model
                raise error
        if failures:
            reasons = "; ".join(f"step {step}: {_first_line(error)}" for step, error in failures.items())
            raise CheckpointError(f"{self.folder}: no checkpoint is readable ({reasons})")
        return None

    def check_for_errors(self) -> None:
        """Raises what the last asynchronous save failed with, if it has ended. Cheap: call it at every step."""
        if self._pending and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on disk; raises what it failed with."""
        self._pending = False
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and ends Orbax's threads."""
        self._manager.close()

    def _read(self, step: int, abstract_state: Any) -> Any:
        paths, tree = jax.tree_util.tree_flatten_with_path(abstract_state)
        wanted = {_name(path): _abstract(leaf) for path, leaf in paths}
        metadata = self._manager.item_metadata(step)
        if metadata is None or "state" not in metadata or "checksums" not in metadata:
            raise ValueError("its files are missing or unreadable")
        saved_paths, _ = jax.tree_util.tree_flatten_with_path(metadata["state"])
        problems = _compare({_name(path): leaf for path, leaf in saved_paths}, wanted)
        if problems:
            raise CheckpointError(f"{self.folder}, step {step}: belongs to another model: {'; '.join(problems)}")
        sums = jax.ShapeDtypeStruct(metadata["checksums"].shape, jnp.uint32, sharding=_first_device())
        target = {"state": _nested(jax.tree.unflatten(tree, wanted.values())), "checksums": sums}
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        flat = {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(restored["state"])[0]}
        leaves = [flat[name] for name in wanted]
        altered = np.flatnonzero(np.asarray(_checksums(leaves)) != np.asarray(restored["checksums"]))
        if altered.size:
            raise ValueError(f"checksum mismatch in {', '.join(list(wanted)[i] for i in altered[:3])}")
        return jax.tree.unflatten(tree, leaves)

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            aside = self.folder / f"{step}.bad"
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(self.folder / str(step), aside)
        self._manager.reload()


def size_in_bytes(state: Any) -> int:
    """What a checkpoint of this state takes at most, uncompressed."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


@jax.jit
def _checksums(leaves: list[jax.Array]) -> jax.Array:
    """uint32 [len(leaves)]: per array, the sum of its bits times odd weights by position, modulo 2^32.

    Computed where the array is; whole numbers, hence equal for every sharding. Any single wrong element is found.
    """

    def checksum(leaf: jax.Array) -> jax.Array:
        leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
        bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}").astype(jnp.uint32).ravel()
        return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)

    return jnp.stack([checksum(leaf) for leaf in leaves])


def _compare(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One text per array that is missing, superfluous, or of another shape or dtype."""
    problems = [f"{name} is missing" for name in wanted if name not in saved]
    problems += [f"{name} is not in the model" for name in saved if name not in wanted]
    for name in wanted:
        if name in saved:
            have, want = (f"{np.dtype(a.dtype)}{list(a.shape)}" for a in (saved[name], wanted[name]))
            if have != want:
                problems.append(f"{name} is {have}, the model has {want}")
    return problems


def _nested(state: Any) -> dict[str, Any]:
    """The state as nested dicts with text keys: independent of the classes of its nodes."""
    tree: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        *folders, last = _name(path).split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def _may_pass(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, is the machine's (I/O, memory) rather than the checkpoint's."""
    while error is not None:
        codes = {int(code) for code in OS_ERROR.findall(str(error))}
        if isinstance(error, OSError):
            codes.add(error.errno)
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or codes - DAMAGE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _refusal(folder: pathlib.Path) -> OSError | None:
    """The system's error, if it is one that may pass, when all files below are read: Orbax hides some of them."""

    def refuse(error: OSError) -> None:
        raise error

    try:
        for path, _, names in os.walk(folder, onerror=refuse):
            for name in names:
                with open(os.path.join(path, name), "rb") as file:
                    while file.read(2**24):
                        pass
    except OSError as error:
        return error if _may_pass(error) else None
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:1000] or type(error).__name__


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or _first_device())


def _first_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])
