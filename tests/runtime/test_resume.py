"""Stopped, killed, or out of space: the same command resumes, and ends with the same bits as if nothing had been."""

import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import time

import pytest

from cjepa_jax.errors import PREEMPTED
from cjepa_jax.runtime.goodput import KINDS
from tests import running

STEPS = running.SMALL["train.steps"]
HARMLESS = {"log__every": 1}
TIMING = re.compile("scenes_per_s|data_wait|eta_s|step_time_|compilations|goodput|peak_memory_")


def command(workdir, **values):
    return running.command(workdir, **(HARMLESS | values))


def assert_same_run(workdir, reference):
    assert running.digest(workdir) == running.digest(reference)
    logged, probes = running.metrics(workdir)
    assert [line["step"] for line in logged] == list(range(1, STEPS + 1))
    assert [line["step"] for line in probes] == [12, 24]
    for line, wanted in zip(logged + probes, [x for lines in running.metrics(reference) for x in lines], strict=True):
        assert {k: v for k, v in line.items() if not TIMING.match(k)} == {
            k: v for k, v in wanted.items() if not TIMING.match(k)
        }
    assert json.loads((workdir / "result.json").read_text())["step"] == STEPS
    assert not list((workdir / "checkpoints").glob("*.bad"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    running.run(command(workdir))
    return workdir


def kill_at(argv, step, delay, **options):
    """Runs until it has logged `step`, waits, kills it, and sees that its children end too."""
    process = running.start(argv, **options)
    if step:
        running.read_until(process, f"step {step}/")
    time.sleep(delay)
    left = running.children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    assert running.gone(left)
    return len(left)


def last_saved(workdir):
    return max((int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def killed_again_and_again(workdir, seed, kills, optimised=False, **values):
    """Kills at random moments, with a data worker every other time, then lets it finish without."""
    rng, reached = random.Random(seed), last_saved(workdir)
    for kill in range(kills):
        if reached == STEPS:
            break
        target, workers = rng.randint(reached + 1, STEPS), kill % 2
        helpers = kill_at(
            command(workdir, data__workers=workers, **values), target, rng.uniform(0, 0.1), optimised=optimised
        )
        assert target == STEPS or helpers >= workers
        before, reached = reached, last_saved(workdir)
        assert reached >= before, "progress was lost"
    running.run(command(workdir, **values), optimised=optimised)


def test_killed_at_random_times_it_ends_with_the_same_bits(uninterrupted, tmp_path):
    killed_again_and_again(tmp_path, 0, 3)
    assert_same_run(tmp_path, uninterrupted)


@pytest.fixture(scope="module")
def uninterrupted_as_shipped(tmp_path_factory):
    """The same with compiled code as users have it."""
    workdir = tmp_path_factory.mktemp("shipped")
    running.run(command(workdir), optimised=True)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_killed_many_times_it_ends_with_the_same_bits(uninterrupted_as_shipped, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(2):
        kill_at(command(tmp_path), 0, rng.uniform(0.3, 4), optimised=True)  # while it starts
    killed_again_and_again(tmp_path, seed, 5, optimised=True, checkpoint__every=rng.randint(2, 9))
    assert_same_run(tmp_path, uninterrupted_as_shipped)


STOPS = [
    {signal.SIGTERM: 5, signal.SIGINT: 15},
    pytest.param({signal.SIGUSR1: 1, signal.SIGUSR2: 8, signal.SIGTERM: 12}, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_signals_save_and_stop_and_the_run_goes_on(uninterrupted, tmp_path, stops):
    for number, step in stops.items():
        # A worker, and the signal for the whole process group, as a terminal and SLURM send it.
        argv = command(tmp_path, checkpoint__every=1000, data__workers=1)
        process = running.start(argv, start_new_session=True)
        running.read_until(process, f"step {step}/")
        sent = time.monotonic()
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == PREEMPTED and time.monotonic() - sent < 30, err
        assert err == f"{number.name}: saving, then stopping. Again: at once\n"
        last = out.splitlines()[-1]
        assert last.startswith(f"stopped by {number.name} ")
        stopped = running.stopped_at(last)
        assert step <= stopped < STEPS
        assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    running.run(command(tmp_path))
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_signal_while_it_starts_stops_it_cleanly_and_a_second_one_at_once(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)  # as killed after its last checkpoint
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "24")
    process = running.start(command(workdir))
    running.read_until(process, "+---")  # the table of parameters comes before anything is restored
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == PREEMPTED and err.startswith("SIGTERM: ")
    assert "stopped by SIGTERM before the first step" in out and "step 19/" not in out

    process = running.start(command(workdir))
    running.read_until(process, "+---")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)  # another one, lest the system make one of two. At once, before it has left
    sent = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - sent < 2
    running.run(command(workdir))
    assert_same_run(workdir, uninterrupted)


ENDLESS = {"data__source": "tests.broken_source:Faulty", "data__options": {"endless": (33,)}, "data__max_replaced": 1.0}
LONG = {"probe__every": 6, "probe__train": 1500, "probe__test": 1500, "data__eval_count": 3000}


@pytest.mark.slow
@pytest.mark.parametrize("values, step", [(ENDLESS, 1), (LONG, 6)], ids=["data", "probe"])
def test_a_signal_is_heard_while_data_do_not_come_and_while_a_probe_runs(tmp_path, values, step):
    values = {"train__steps": 400, "checkpoint__every": 1000, "probe__every": 0} | values
    process = running.start(command(tmp_path, **values))
    running.read_until(process, f"step {step}/")
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == PREEMPTED and time.monotonic() - sent < 30, err
    stopped = running.stopped_at(out.splitlines()[-1])
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()


def test_where_the_time_went_adds_up(uninterrupted):
    kept = json.loads((uninterrupted / "goodput.json").read_text())
    seconds = {kind: kept[kind] for kind in KINDS}
    result = json.loads((uninterrupted / "result.json").read_text())
    assert kept["reached"] == STEPS and all(value >= 0 for value in seconds.values())
    # After the loop's last booking there are only the report and result.json, which this run hardly has.
    assert 0.8 * result["seconds"] < sum(seconds.values()) <= result["seconds"]
    assert 0 < result["goodput"] < 1 and seconds["replay"] == 0 < min(seconds["compile"], seconds["checkpoint"])


def test_killed_after_its_last_checkpoint_it_still_ends(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    (workdir / "result.json").unlink()
    out, _ = running.run(command(workdir))
    assert "resumed at 24" in out and "step 24/" not in out
    assert_same_run(workdir, uninterrupted)
    # And killed between its result and its report:
    running.run(command(workdir, log__report=True))
    assert (workdir / "report.html").exists()


def test_a_second_trainer_in_the_folder_is_refused(tmp_path):
    process = running.start(command(tmp_path, train__steps=100_000))
    running.read_until(process, "+---")
    line = running.error(command(tmp_path, train__steps=100_000), 2)
    assert f"workdir = {tmp_path}: in use by another run (host " in line and f"process {process.pid})" in line
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_spares_the_last_good_checkpoint(uninterrupted, tmp_path):
    process = running.start(command(tmp_path))
    running.read_until(process, "step 7/")
    # From here on no file may grow beyond 40 kB: there is room for metrics, but not for checkpoints.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (40_000, 40_000))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6, err
    assert err.startswith("error: cannot write: ") and err.count("\n") == 1, err
    running.run(command(tmp_path))
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a file system")
def test_a_file_system_without_space_is_refused_before_training(tmp_path):
    small = pathlib.Path(tmp_path, "small")
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=2m tmpfs {small}"):
        pytest.skip("mounting is not allowed here")
    try:
        assert " MiB needed" in running.error(command(small / "run"), 6)
    finally:
        os.system(f"umount {small}")
