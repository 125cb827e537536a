"""The input pipeline. Batch s is a pure function of (seed, s), for any number of threads, workers or processes."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data import batching, checks, transforms
from cjepa_jax.errors import CjepaError, ConfigError, DataError, StorageError
from cjepa_jax.host import clock, memory, paths
from cjepa_jax.masks import check, objects
from cjepa_jax.runtime import preemption

# Second words of seeds, so that no two purposes share a stream. Sources that simulate use 0 and 1 for their splits.
DRAW, SHUFFLE = 2, 3
SIMULATED = ("rerender", "rerender_other")  # intervened scenes for which the source is asked
CONTROLS = ("rerender_other", "second_view")  # their intervened scene does not match the removal given to the predictor
PICTURED = ("zero_pixels", *SIMULATED, "second_view")  # those that are a video
SUBSTITUTES = 8  # scenes that are tried in all: an unreadable one and those after it
PATIENCE = 600.0  # seconds that a data worker may take for one scene
SEGMENT = "/psm_"  # prefix of the names of Python's shared memory
MORE, WITHOUT = "--shm-size=8g", "do without workers: --config.data.workers=0"
STUCK = 71  # exit code of a worker that has taken longer than its patience


@dataclasses.dataclass(frozen=True)
class SceneMap:
    """Turns "scene i, drawn for the e-th time" into the arrays of types.Batch. Picklable and without state.

    Attributes:
      source: as in data/base.py.
      mask: (rng, object_patches, object_valid, grid=...) -> (masked, removed) or (masked, removed, dropped), from
        masks/. Dropped tokens are neither context nor predicted. A second mask may follow (masks.check.Mask).
      size: height and width in pixels to which every scene is resized.
      max_objects: K. If a scene has more objects, those that touch the most tokens are kept.
      intervened: "zero_pixels", "drop_tokens", "rerender" or "none". Two controls have the wrong counterpart:
        "rerender_other", the scene simulated without as many other objects (or all others, if they are fewer), and
        "second_view", the scene itself.
      frames: T.
      max_removed: number of objects that a model can tell apart. A mask that removes more is refused. 0: any number.
      crop: True for a random crop and flip, False for the centred square.
      with_masks: also yields the visible masks, bool [K, T, H, W], for pictures.
      with_objects: also yields `objects`, int32 [K], the source's number of each row's object (-1 for padding). If the
        source has them, also yields the objects' `states` float32 [T, K, S] and the scene's `class`, int64 [].
    """

    source: Any
    mask: Callable
    patch: int
    tubelet: int
    size: int
    max_objects: int
    intervened: str
    seed: int
    frames: int = 1
    max_removed: int = 0
    crop: bool = False
    with_masks: bool = False
    with_objects: bool = False

    @property
    def grid(self) -> tuple[int, int, int]:
        """(times, rows, cols) of every scene."""
        times = self.frames // (1 if self.frames == 1 else self.tubelet)
        return times, self.size // self.patch, self.size // self.patch

    @property
    def tokens(self) -> int:
        """N."""
        return math.prod(self.grid)

    @property
    def cost(self) -> tuple[int, dict[str, int]]:
        """Bytes of one prepared scene, and the settings that decide it."""
        videos = 2 if self.intervened in PICTURED else 1
        keys = {"data.size": self.size, "data.frames": self.frames, "data.max_objects": self.max_objects}
        channels, pixels = self.values
        values = channels * videos * self.frames * self.size**2
        embedding = math.prod(getattr(self.source, "embedding_shape", (0,)))
        keys |= {"embedding (S E)": embedding} if embedding else {}
        return np.dtype(pixels).itemsize * values + self.max_objects * self.tokens + 4 * embedding, keys

    def __call__(self, scene: int, epoch: int) -> dict[str, np.ndarray]:
        raw, index, replaced = self._read(scene)
        name = f"scene {index} of {type(self.source).__name__}"
        raw = self.complete(raw, name)
        checks.scene(raw, self.frames, self.source.label_names, name, *self.values)
        rng = self.generator(index, epoch)
        window = self.window(rng, raw["video"])
        video, masks = window.frames(raw["video"], self.size), window.masks(raw["masks"], self.size)

        every_object = objects.patches(masks, self.patch, self.frames // self.grid[0])
        kept = batching.keep_largest(every_object, self.max_objects)
        object_patches = batching.pad_objects(every_object[kept], self.max_objects)
        object_valid = object_patches.any(1)  # an object that touches no token is treated as absent
        drawn = self.mask(rng, object_patches, object_valid, grid=self.grid)
        masked, removed, *dropped = drawn[:3]
        if self.max_removed and removed.sum() > self.max_removed:
            raise ConfigError(
                f"mask.type: removed {removed.sum()} objects of scene {index}, objective.predictor.max_objects = "
                f"{self.max_removed}"
            )
        chosen = np.zeros(len(masks), bool)
        chosen[kept] = removed[: len(kept)]
        out = {
            "scene": np.int32(index),
            "epoch": np.int32(epoch),
            "video": video,
            "object_patches": object_patches,
            "object_valid": object_valid,
            "removed": removed,
            "context": ~np.any([masked, *dropped], axis=0),
            "valid": np.True_,
            "replaced": np.bool_(replaced),
            "labels": np.asarray(raw["labels"], np.float32),
        }
        if dropped:
            out["hidden"] = masked
        if self.with_masks:
            out["masks"] = batching.pad_objects(masks[kept], self.max_objects)
        if self.with_objects:
            if "class" in raw:
                out["class"] = np.asarray(raw["class"], np.int64)
            out["objects"] = np.pad(kept.astype(np.int32), (0, self.max_objects - len(kept)), constant_values=-1)
            if "states" in raw:
                states = np.asarray(raw["states"], np.float32)[:, kept].swapaxes(0, 1)
                out["states"] = batching.pad_objects(states, self.max_objects).swapaxes(0, 1)
        if self.intervened in PICTURED:
            if self.intervened == "rerender_other":
                rest = kept[np.asarray(object_valid & ~removed)[: len(kept)]]
                rng = seeds.generator(self.seed, "other objects that are simulated away", index, epoch)
                chosen = np.isin(np.arange(len(masks)), rng.permutation(rest)[: int(removed.sum())])
            out["intervened"], out["intervened_valid"] = self._intervene(
                index, window, video, masks=masks, masked=masked, chosen=chosen
            )
        return out | check.second(drawn) | self.more(raw, kept)

    def generator(self, index: int, epoch: int) -> np.random.Generator:
        """Of one scene and epoch alone."""
        return np.random.default_rng([self.seed, DRAW, index, epoch])

    def complete(self, raw: Any, name: str) -> Any:
        """The source's scene, with what this kind of scene may leave out."""
        return raw

    @property
    def values(self) -> tuple[int, str]:
        """Channels and type of a video."""
        return checks.channels_of(self.source)

    def window(self, rng: np.random.Generator, video: np.ndarray) -> Any:
        """What is cut out of the frames: with `crop` a random rectangle, else the centred square."""
        height, width = video.shape[1:3]
        return transforms.draw_crop(rng, height, width) if self.crop else transforms.centre_square(height, width)

    def more(self, raw: dict, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays that only some sources have: embeddings, and which of the objects `kept` touch each other."""
        found = {"embedding": np.asarray(raw["embedding"], np.float32)} if "embedding" in raw else {}
        if "graph" in raw:
            graph = raw["graph"][np.ix_(kept, kept)]
            found["graph"] = np.pad(graph, (0, self.max_objects - len(kept)))
        return found

    def _intervene(self, index, window, video, masks, masked, chosen) -> tuple[np.ndarray, np.bool_]:
        """The scene under do(remove chosen), and whether it is valid. A fallback draw removes no object."""
        if self.intervened == "second_view":
            return video, np.bool_(chosen.any())
        if self.intervened in SIMULATED:
            if not chosen.any():
                return video, np.False_
            without = self.source.intervene(index, chosen)
            name = f"scene {index} of {type(self.source).__name__} without objects"
            checks.video(without, self.frames, name, *self.values)
            return window.frames(without, self.size), np.True_
        blank = masked.reshape(self.grid)
        for axis, repeat in enumerate((self.frames // self.grid[0], self.patch, self.patch)):
            blank = np.repeat(blank, repeat, axis)
        if chosen.any():
            blank = blank & masks[chosen].any(0)
        return np.where(blank[..., None], video.dtype.type(0), video), np.True_

    def _read(self, scene: int) -> tuple[dict, int, bool]:
        """The scene, or the next readable one. Raises the first DataError if all SUBSTITUTES scenes are unreadable."""
        error = None
        for index in ((scene + i) % len(self.source) for i in range(min(SUBSTITUTES, len(self.source)))):
            try:
                return self.source[index], index, index != scene
            except DataError as problem:
                error = error or problem
                logging.warning("scene %d replaced by the next: %s", index, problem)
            except CjepaError:
                raise
            except (Exception, SystemExit) as problem:  # a user's source can raise anything: reported
                raise reported(self.source, index, problem) from problem
        raise error


def reported(source: Any, index: int, problem: BaseException) -> DataError:
    """The DataError for what a user's source raised at scene `index`."""
    return DataError(f"scene {index}: {type(problem).__name__}: {problem} in {type(source).__name__}")


def scene_at(position: int, count: int, seed: int) -> tuple[int, int]:
    """(scene, epoch) at `position` of the endless global order. Each epoch is a new permutation of all scenes."""
    epoch, place = divmod(position, count)
    shuffle_seed = int(np.random.SeedSequence([seed, SHUFFLE, epoch]).generate_state(1)[0])
    return grain.experimental.index_shuffle(place, max_index=count - 1, seed=shuffle_seed, rounds=4), epoch


@dataclasses.dataclass(frozen=True)
class Loader:
    """Batches of a source. `iterate(start)` yields batch `start`, `start + 1`, ... as dicts of NumPy arrays.

    Attributes:
      scenes: a SceneMap.
      batch: scenes of the global batch. Process p of n supplies rows [p B/n, (p+1) B/n) of it.
      shards: data shards that this process feeds.
      shapes: allowed shapes of a shard's rows, from batching.shapes. Each batch has the first shape that holds it.
        Processes whose batches have different shapes agree on one by `shape_of` and `at_shape`.
      threads, workers, prefetch: affect speed only. No batch depends on them.
      patience: seconds after which a worker gives up on a scene. Time of a suspension does not count. (Without workers
        the run's watchdog does this.)
    """

    scenes: SceneMap
    batch: int
    seed: int
    shards: int
    shapes: Sequence[batching.Shape]
    threads: int = 2
    workers: int = 0
    prefetch: int = 2
    patience: float = PATIENCE
    process: int = 0
    processes: int = 1

    def __post_init__(self):
        each, keys = self.scenes.cost
        text = ", ".join(f"{key} = {value}" for key, value in ({"train.batch": self.batch} | keys).items())
        memory.require(each * (self.batch // self.processes), f"{text}: a batch")

    def iterate(self, start: int, stop: int) -> Iterator[dict]:
        """Yields batches start..stop-1. `close()` ends the workers.

        The order is computed from the position, so a resumed run replays no batches.

        Raises: DataError for a scene that cannot be read, and for a worker that has died. StorageError if there is no
          room in the shared memory through which workers send batches.
        """
        local = self.batch // self.processes
        if getattr(self.scenes, "reads_batches", False):
            dataset = grain.MapDataset.range(start, stop).map(self._whole)
        else:
            dataset = grain.MapDataset.range(start * local, stop * local).map(self._element)
            dataset = dataset.batch(local, batch_fn=self._collate)
        reading = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=max(self.threads, self.prefetch))
        iterator = dataset.to_iter_dataset(reading)
        if self.workers:
            options = grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=self.prefetch)
            start_worker = functools.partial(_start_worker, patience=self.patience, parent=os.getpid())
            iterator = iterator.mp_prefetch(options, worker_init_fn=start_worker)
        iterator, alive = iter(iterator), _Alive(multiprocessing.active_children())
        try:
            with contextlib.ExitStack() as stack:
                if self.workers:
                    stack.enter_context(preemption.signals_blocked())
                    stack.enter_context(memory.heaps_kept())
                first = list(map(alive, itertools.islice(iterator, 1)))  # starts the workers
            yield from first
            del first
            yield from map(alive, iterator)
        except RuntimeError as error:  # Grain's or ours, for a worker that died
            raise _why(error, self.patience) from error
        except OSError as error:
            if not str(error.filename).startswith(SEGMENT):
                raise
            raise _no_room(f"a data worker has no shared memory ({error.strerror})") from error
        finally:
            iterator.close()

    def shape_of(self, arrays: dict) -> int:
        """The index in `shapes` of a batch's row shape."""
        return self.shapes.index(arrays["rows"]["index"].shape[1:])

    def at_shape(self, arrays: dict, index: int) -> dict:
        """The batch with rows of the index-th shape. The largest shape of all processes holds every process's batch.

        Raises: ValueError if the shape does not hold this batch.
        """
        if index == self.shape_of(arrays):
            return arrays
        return batching.with_rows(arrays, self.shards, self.shapes[index])

    def _element(self, local_position: int) -> dict:
        local = self.batch // self.processes
        step, row = divmod(int(local_position), local)
        position = step * self.batch + self.process * local + row
        scene, epoch = scene_at(position, len(self.scenes.source), self.seed)
        _BUSY[threading.get_ident()] = scene, clock.running()
        try:
            return self.scenes(scene, epoch)
        finally:
            del _BUSY[threading.get_ident()]

    def _whole(self, step: int) -> dict:
        """Batch `step`, of scenes that are read together: the same as of scenes that are read one by one."""
        local = self.batch // self.processes
        first, count = int(step) * self.batch + self.process * local, len(self.scenes.source)
        scenes, epochs = np.array([scene_at(first + row, count, self.seed) for row in range(local)]).T
        _BUSY[threading.get_ident()] = int(scenes[0]), clock.running()
        try:
            together: Any = self.scenes
            return batching.laid_out(together.batch(scenes, epochs), self.shards, self.shapes)
        finally:
            del _BUSY[threading.get_ident()]

    def _collate(self, scenes: Sequence[dict]) -> dict:
        return batching.collate(scenes, self.shards, self.shapes)


def held_out(scenes: SceneMap, first: int, count: int) -> list[dict]:
    """Scenes first..first+count-1 in order, drawn for the 0th time. Probes use these fixed sets.

    An unreadable scene is left out, since its substitute would belong to another set.
    """
    chosen = (scenes(index, 0) for index in range(first, min(first + count, len(scenes.source))))
    return [scene for scene in chosen if not scene["replaced"]]


def _why(error: RuntimeError, patience: float) -> CjepaError:
    """The reason why a worker has ended, from Grain's error or ours. Both give its exit code."""
    text = f"a data worker died: {str(error).partition('. ')[0]}"
    if text.endswith(f" {STUCK}"):
        return DataError(f"a data worker took over {patience:g} s for one scene (the warning names it)")
    if text.endswith(f" {-signal.SIGBUS}"):  # it wrote to shared memory that could not be allocated
        return _no_room("a data worker died by SIGBUS, probably for want of shared memory")
    return DataError(text)


def _no_room(what: str) -> StorageError:
    where = paths.file_system(paths.SHARED_MEMORY)
    return StorageError(f"{what}: batches go through {where}. In a container give more (docker: {MORE}), or {WITHOUT}")


class _Alive:
    """Returns batches unchanged while every data worker is alive, and raises RuntimeError when one has died.

    Grain itself notices a dead worker only after it has yielded all batches that the worker left, many steps later.

    Args:
      others: child processes that are not data workers.
    """

    def __init__(self, others: Sequence):
        self._others, self._workers = set(others), None

    def __call__(self, batch: dict) -> dict:
        if self._workers is None:
            self._workers = set(multiprocessing.active_children()) - self._others
        for worker in self._workers:
            if worker.exitcode:
                raise RuntimeError(f"it was terminated unexpectedly with exit code {worker.exitcode}")
        return batch


_BUSY: dict[int, tuple[int, float]] = {}  # thread of this process -> its current scene, and the start time


def _start_worker(worker: int, workers: int, patience: float, parent: int) -> None:
    """Makes a worker exit when its parent has ended or when a scene takes too long.

    A killed trainer cannot stop its workers, so each worker checks this itself. `parent` is the trainer's id. It
    comes from the trainer, because one that is killed while a worker starts is no longer the worker's parent here.
    """
    for number in preemption.STOP:
        signal.signal(number, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(min(1.0, patience))
            scene, since = min(list(_BUSY.values()), key=lambda busy: busy[1], default=(0, math.inf))
            if clock.running() - since > patience:
                logging.warning("scene %d has taken over %g s: its data worker gives up", scene, patience)
                os._exit(STUCK)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
