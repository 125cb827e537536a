"""Several processes read slices of one order and agree on one shape of rows. A data worker's end is told in a line."""

import dataclasses
import errno
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cjepa_jax.data import batching, pipeline
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import DataError, StorageError
from cjepa_jax.host import memory
from tests import running
from tests.broken_source import Faulty
from tests.scenes import SIZE, scene_map

PLAIN = [(4, 12), (4, 16)]  # a row for each scene of a shard
PACKED = [(3, 16), (4, 16)]


def loader(process=0, processes=1, shapes=PLAIN, batch=16, **options):
    """Shards of four scenes, for any number of processes."""
    shards = batch // processes // 4
    chosen = dict(shards=shards, shapes=shapes, threads=1, prefetch=1, process=process, processes=processes)
    return pipeline.Loader(options.pop("scenes", scene_map()), batch, 0, **chosen | options)


def check_equal(parts, whole):
    """The arrays of `parts`, one after the other, are those of `whole`, bit by bit."""
    for name, value in whole.items():
        if isinstance(value, dict):
            check_equal([part[name] for part in parts], value)
        else:
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, value, err_msg=name)
            assert joined.dtype == value.dtype


@pytest.mark.parametrize(
    "processes, shapes",
    [
        pytest.param(2, PLAIN, id="2, plain"),
        pytest.param(4, PACKED, id="4, packed"),
        pytest.param(4, PLAIN, id="4, plain", marks=pytest.mark.slow),
    ],
)
def test_processes_that_agree_on_the_largest_shape_supply_slices_of_one_batch(processes, shapes):
    loaders = [loader(process, processes, shapes) for process in range(processes)]
    unlike = 0
    for whole, *parts in zip(loader(shapes=shapes).iterate(0, 4), *(one.iterate(0, 4) for one in loaders), strict=True):
        chosen = [one.shape_of(part) for one, part in zip(loaders, parts, strict=True)]
        unlike += len(set(chosen)) > 1
        parts = [one.at_shape(part, max(chosen)) for one, part in zip(loaders, parts, strict=True)]
        assert {one.shape_of(part) for one, part in zip(loaders, parts, strict=True)} == {max(chosen)}
        check_equal(parts, whole)
    assert unlike, "no two processes ever differed: nothing was tested"


def test_a_batch_is_laid_out_anew_only_where_the_shape_differs():
    one = loader(shapes=PLAIN)
    batch = next(one.iterate(0, 1))
    assert one.at_shape(batch, one.shape_of(batch)) is batch
    assert one.shape_of(one.at_shape(batch, 1)) == 1
    batch["context"] = np.ones_like(batch["context"])
    with pytest.raises(ValueError, match="do not hold"):
        one.at_shape(batching.with_rows(batch, 4, PLAIN[1]), 0)


@pytest.mark.parametrize("stays", [(2, 1, 4), pytest.param((4, 4, 1), marks=pytest.mark.slow)])
def test_every_scene_once_per_epoch_though_the_number_of_processes_changes(stays):
    """Three steps with this number of processes, then others resume: three epochs of 48 scenes in all, whole ones."""
    count, drawn, step = 48, [], 0
    while step < 9:
        processes = stays[step // 3]
        for process in range(processes):
            part = loader(process, processes, scenes=scene_map(count=count))
            drawn += [
                (int(s), int(e))
                for b in part.iterate(step, step + 3)
                for s, e in zip(b["scene"], b["epoch"], strict=True)
            ]
        step += 3
    assert sorted(drawn) == [(scene, epoch) for scene in range(count) for epoch in range(3)]


@pytest.mark.parametrize("options", [{"threads": 5}, pytest.param({"workers": 2}, marks=pytest.mark.slow)])
def test_packed_batches_do_not_depend_on_threads_and_workers(options):
    for one, two in zip(
        loader(shapes=PACKED).iterate(0, 4), loader(shapes=PACKED, **options).iterate(0, 4), strict=True
    ):
        check_equal([two], one)


# ---------------------------------------------------------------------- workers that end


def faulty(**options):
    source = Faulty(size=SIZE, frames=1, count=16, **options)
    return dataclasses.replace(scene_map(), source=source)


def read(scenes, **options):
    return [batch for batch in loader(scenes=scenes, workers=1, **options).iterate(0, 2)]


@pytest.mark.slow
def test_a_scene_that_never_ends_is_given_up_by_its_worker():
    began = time.monotonic()
    with pytest.raises(DataError, match=r"a data worker took over 1 s for one scene \(the warning names it\)"):
        read(faulty(endless=tuple(range(16))), patience=1.0)
    assert time.monotonic() - began < 40  # a busy machine takes most of it to start the worker


@pytest.mark.slow
def test_a_source_that_ends_its_process_is_told_apart_from_the_end_of_the_data():
    """sys.exit() would end a worker as if it were done, and the trainer would wait for ever."""
    with pytest.raises(DataError, match=r"scene \d+: SystemExit: 0 in Faulty"):
        read(faulty(leaving=tuple(range(16))))
    with pytest.raises(DataError, match=r"scene \d+: SystemExit: 0 in Faulty"):
        next(loader(scenes=faulty(leaving=tuple(range(16)))).iterate(0, 1))


class Told(Balls):
    """Scenes whose first label says whether the process that reads them has the allocator's settings."""

    def __getitem__(self, i):
        scene = super().__getitem__(i)
        scene["labels"][0] = memory.ALLOCATOR in os.environ.get(memory.TUNABLES, "")
        return scene


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "glibc.malloc.check=0"])
def test_workers_keep_their_heaps_and_this_process_its_settings(monkeypatch, given):
    monkeypatch.delenv(memory.TUNABLES, raising=False)
    if given:
        monkeypatch.setenv(memory.TUNABLES, given)
    scenes = dataclasses.replace(scene_map(), source=Told(size=SIZE, frames=1, count=16))
    for batch in read(scenes):
        assert (batch["labels"][:, 0] == 1).all()
    assert os.environ.get(memory.TUNABLES) == given


@pytest.mark.slow
def test_a_worker_that_dies_is_found_out_though_it_left_batches_behind():
    batches = loader(workers=2, prefetch=6).iterate(0, 100)
    others = set(running.children(os.getpid()))
    next(batches)
    time.sleep(3)  # both are six batches ahead
    workers = [pid for pid in set(running.children(os.getpid())) - others if "spawn_main" in running.title(pid)]
    os.kill(workers[0], signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(DataError, match="a data worker died: it was terminated unexpectedly with exit code -9"):
        next(batches)
    assert running.gone(workers)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"Worker process was terminated unexpectedly with exit code {-signal.SIGBUS}. Search the logs"),
        RuntimeError(f"it was terminated unexpectedly with exit code {-signal.SIGBUS}"),
        OSError(errno.ENOSPC, "No space left on device", "/psm_1234abcd"),
    ],
)
def test_shared_memory_without_room_is_named_with_what_to_do(monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(pipeline._Alive, "__call__", fail)
    with pytest.raises(StorageError) as caught:
        next(loader(workers=0).iterate(0, 1))
    assert re.fullmatch(
        r"a data worker (died by SIGBUS, probably for want of|has no) shared memory.*: batches go through the file "
        r"system /dev/shm \(tmpfs, .*iB of .*iB free\). In a container give more \(docker: --shm-size=8g\), or do "
        r"without workers: --config.data.workers=0",
        str(caught.value),
    )


def test_other_errors_of_files_are_not_taken_for_it(monkeypatch):
    def fail(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/psm_1")

    monkeypatch.setattr(pipeline._Alive, "__call__", fail)
    with pytest.raises(PermissionError):
        next(loader(workers=0).iterate(0, 1))


NAMESPACE = ["unshare", "--map-root-user", "--mount"]  # in which a mount is seen by nobody else


def can_mount():
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.slow
def test_a_shared_memory_that_is_really_too_small(tmp_path):
    if not shutil.which("unshare") or not can_mount():
        pytest.skip("this machine does not let mount")
    argv = running.command(tmp_path, data__workers=1, train__batch=64, data__size=64)
    inner = f"mount -t tmpfs -o size=256k tmpfs /dev/shm && exec {shlex.join(argv)}"
    line = running.error([*NAMESPACE, "bash", "-c", inner], code=6)
    assert "died by SIGBUS" in line and re.search(r"/dev/shm \(tmpfs, .* of 0.2 MiB free\)", line), line


def shared(size):
    """Shared memory of exactly this number of bytes: this test's own, for no other one makes arrays of this size."""
    found = []
    for file in pathlib.Path("/dev/shm").glob("psm_*"):
        try:
            found += [file] * (file.stat().st_size == size)
        except FileNotFoundError:
            pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "trainer"])
def test_a_kill_leaves_no_process_and_no_shared_memory(tmp_path, victim):
    batch = 13 if victim == "worker" else 14
    argv = running.command(
        tmp_path, data__workers=1, train__steps=5000, train__batch=batch, log__every=1, data__prefetch=4
    )
    process, size = running.start(argv), batch * 2 * 32 * 32 * 3
    running.read_until(process, "step 3/")
    children = running.children(process.pid)
    assert shared(size)
    worker = next(pid for pid in children if "spawn_main" in running.title(pid))
    os.kill(worker if victim == "worker" else process.pid, signal.SIGKILL)
    killed = time.monotonic()
    _, err = process.communicate(timeout=60)
    if victim == "worker":
        assert process.returncode == 3 and time.monotonic() - killed < 10
        assert re.fullmatch(r"error: a data worker died: .* exit code -9\n", err), err
    assert running.gone(children)
    assert not shared(size)


def test_a_worker_whose_trainer_was_killed_while_it_started_ends():
    """The pipes of such a worker would stay open, and whoever reads them would wait for ever."""
    code = "import sys, time; from cjepa_jax.data import pipeline\n"
    code += "pipeline._start_worker(0, 1, 60.0, parent=int(sys.argv[1])); time.sleep(60)"
    trainer = subprocess.Popen([sys.executable, "-c", "pass"])
    trainer.wait()
    assert subprocess.run([sys.executable, "-c", code, str(trainer.pid)], timeout=30).returncode == 0
