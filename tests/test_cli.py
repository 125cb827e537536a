"""The command line, by real processes: one line and an exit code for everything that can be wrong, before JAX."""

import os
import pathlib
import platform
import random
import resource
import signal
import subprocess
import sys

import pytest
from absl import flags

from cjepa_jax import cli
from cjepa_jax.configuration.check import flatten
from cjepa_jax.errors import did_you_mean
from cjepa_jax.host import memory
from configs import clips
from tests import running

ROOT = pathlib.Path(__file__).parents[1]
ENTRY = '''"""A small entry module."""
import sys

if __name__ == "__main__":
    from absl import flags

    from cjepa_jax import cli

    code = cli.run("entry", lambda: flags.DEFINE_string("what", "show", "what main does"))
    assert code != 2 or "jax" not in sys.modules
    raise SystemExit(code)

if __name__ == "__mp_main__":
    print("imported again by a child")

import multiprocessing

from absl import flags

from cjepa_jax import errors


def main(config, workdir):
    what = flags.FLAGS.what
    if what == "show":
        print(workdir, config.train.batch, config.log.level, dict(config.data.options), config.mask.area)
    elif what == "data":
        raise errors.DataError("scene 7: unreadable")
    elif what == "disk":
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("wrapped") from error
    elif what == "orbax":
        raise ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device [os_error_code='28']\\nmore")
    elif what == "bug":
        raise ZeroDivisionError("a mistake")
    elif what == "interrupt":
        raise KeyboardInterrupt
    elif what == "child":
        process = multiprocessing.get_context("spawn").Process(target=print, args=("from the child",))
        process.start()
        process.join()
        print(process.exitcode)
    return 7 if what == "seven" else None
'''


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entry")
    (folder / "entry.py").write_text(ENTRY)

    def run(*arguments, cwd=ROOT, begin="early"):
        command = [sys.executable, "-m", "entry", *arguments]
        if begin == "python":
            path = os.pathsep.join([str(folder), str(ROOT)])
            environment = {**os.environ, "PYTHONPATH": path}
            return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
        process = running.start(command, begin=begin, cwd=cwd, path=folder)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


def config_file(folder, body, name="mine.py"):
    file = folder / name
    file.write_text(body)
    return f"--config={file}"


TINY = "--config=configs/tiny.py"


def test_runs_with_overrides(entry):
    done = entry(
        TINY,
        "--config.train.batch=8",
        "--config.data.options={'a': 1}",
        "--config.mask.area=(0.1, 0.3)",
        "--log=warning",
    )
    assert (done.returncode, done.stdout) == (0, "runs/tiny 8 warning {'a': 1} (0.1, 0.3)\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {"objects", "radius", "lights", "height"}),
        (["--config.data.source=cjepa_jax.data.worlds:Shadows"], {"objects", "radius", "lights", "height"}),
        (["--config.data.source=cjepa_jax.data.worlds:Balls"], set()),
        (
            ["--config.data.source=cjepa_jax.data.worlds:Balls", "--config.data.options={'objects': (2, 3)}"],
            {"objects"},
        ),
    ],
)
def test_options_go_with_the_source_that_they_are_for(words, options, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--config=tiny", f"--workdir={tmp_path}", *words])
    config, _ = cli.parse(sys.argv)
    assert set(config.data.options) == options and config.is_locked


def test_workdir_and_exit_code(entry):
    assert entry(TINY, "--workdir=/tmp/w").stdout.startswith("/tmp/w 32 info")
    assert entry(TINY, "--what=seven").returncode == 7


BAD = [
    ([], "--config is missing"),
    (["--config"], "--config is missing"),
    (["--config=configs/tinny.py"], "no such file; did you mean 'configs/tiny.py'"),
    (["--config=configs"], "no such file"),
    (["--config=configs/tiny.py:x"], "configs take no argument"),
    ([TINY, "--flagfile=configs"], "--flagfile: "),
    ([TINY, "--wrokdir=x"], "Unknown command line flag 'wrokdir'. Did you mean: workdir"),
    ([TINY, "extra"], "unexpected argument 'extra'"),
    ([TINY, "--log=loud"], "--log=loud: value should be one of <debug|info|warning>"),
    ([TINY, "--config.train.bacth=3"], "--config.train.bacth: unknown key; did you mean 'train.batch'"),
    ([TINY, "--config.trian.batch=3"], "did you mean 'train.batch'"),
    ([TINY, "--config.ema=3"], "did you mean 'objective.ema'"),
    ([TINY, "--config.=3"], "unknown key"),
    ([TINY, "--config.train.batch.x=3"], "unknown key"),
    ([TINY, "--config.train.batch=abc"], "--config.train.batch=abc: invalid literal for int()"),
    ([TINY, "--config.train.batch"], "Missing value for flag --config.train.batch"),
    ([TINY, "--config.mask.area=(1,"], "--config.mask.area=(1,"),
    ([TINY, "--config.train=4"], "--config.train=4"),
    ([TINY, "--config.data.options.a=4"], "write --config.data.options=\"{'a': 4}\""),
    ([TINY, "--config.data.options.exif=apply"], "write --config.data.options=\"{'exif': 'apply'}\""),
    ([TINY, "--config.data.options.noise=1e-3"], "write --config.data.options=\"{'noise': 0.001}\""),
    ([TINY, "--config.data.options.of=None"], "write --config.data.options=\"{'of': None}\""),
    ([TINY, "--config.data.options.of=1.2.3"], "write --config.data.options=\"{'of': '1.2.3'}\""),
    ([TINY, "--config.data.options.exif"], "write --config.data.options=\"{'exif': value}\""),
    (
        [TINY, "--config.mask.type=hide:draw", "--config.mask.ring=1"],
        "--config.mask=\"{'type': 'hide:draw', 'ring': 1}\"",
    ),
    ([TINY, "--config.mask.ring=1"], "--config.mask.ring: unknown key"),
    (["--config.train.batch=3", TINY], "before a value for --config"),
    ([TINY, "--config.data.size=64"], "data.size = 64: must be a multiple of the patch size 6"),
    ([TINY, "--config.mask.max_objects=0"], "mask.max_objects = 0"),
    ([TINY, "--config.data.intervened=rerendr"], "did you mean 'rerender'"),
]


def assert_refused(done, text):
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and text in lines[0], done.stderr


@pytest.mark.parametrize("arguments,text", BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_command_lines_are_one_line_and_code_2(entry, arguments, text):
    begin = "python" if arguments == BAD[0][0] else "early"  # one with the imports in the time
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert_refused(entry(*arguments, begin=begin), text)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5  # seconds of computing


CHILD = "from configs import vitl\ndef get_config():\n    config = vitl.get_config()\n    {}\n    return config\n"
FILES = [
    ("def get_config(:\n", "syntax error in line 1"),
    ("x = 1\n", "no attribute 'get_config'"),
    ("def get_config():\n    pass\n", "must return a ConfigDict, not NoneType"),
    (CHILD.format("config.train.bacth = 3"), 'Did you mean "batch"'),
    (CHILD.format("config.train.batch = 'x'"), "cannot be casted to type <class 'int'>"),
    (CHILD.format("1 / 0"), "division by zero"),
    ("import nothing_of_that_name\n", "nothing_of_that_name"),
    ("from ml_collections import ConfigDict\nget_config = ConfigDict\n", "the section log is missing"),
]


@pytest.mark.parametrize("body,text", FILES, ids=[text for _, text in FILES])
def test_bad_config_files_are_one_line_and_code_2(entry, tmp_path, body, text):
    assert_refused(entry(config_file(tmp_path, body)), text)


def test_a_config_outside_the_checkout_imports_its_siblings_from_any_folder(entry, tmp_path):
    file = config_file(tmp_path, CHILD.format("config.train.batch = 12"))
    assert entry(file, cwd=tmp_path).stdout.startswith("runs/mine 12 info")
    assert entry(f"--config={ROOT}/configs/tiny.py", cwd=tmp_path).stdout.startswith("runs/tiny 32 info")


@pytest.mark.parametrize("what,code,text", [
    ("data", 3, "error: scene 7: unreadable\n"),
    ("disk", 6, "error: cannot write: [Errno 28] No space left on device\n"),
    ("orbax", 6, "error: cannot write: RESOURCE_EXHAUSTED: write failed: No space left on device"),
    ("interrupt", 130, "error: interrupted\n"),
])  # fmt: skip
def test_errors_of_the_run_are_one_line_with_their_code(entry, what, code, text):
    done = entry(TINY, f"--what={what}")
    assert done.returncode == code
    assert done.stderr.startswith(text) and done.stderr.count("\n") == 1


def test_traceback_only_when_asked_or_for_a_mistake(entry):
    assert "Traceback" in entry(TINY, "--what=data", "--log=debug").stderr
    bug = entry(TINY, "--what=bug")
    assert bug.returncode == 1 and "ZeroDivisionError: a mistake" in bug.stderr


def test_spawned_processes_do_not_import_the_entry_module(entry):
    done = entry(TINY, "--what=child")
    assert done.stdout == "from the child\n0\n", done.stderr


def test_help(entry):
    done = entry("--help")
    assert done.returncode == 0
    assert "A small entry module." in done.stdout and "--workdir" in done.stdout and "--what" in done.stdout


def test_the_hint_is_right_after_one_edit_of_any_key():
    keys = [key for key, _ in flatten(clips.get_config())]
    rng, right, total = random.Random(0), 0, 0
    for key in keys:
        head, _, leaf = key.rpartition(".")
        i = rng.randrange(max(len(leaf) - 1, 1))
        edits = [leaf[:i] + leaf[i + 1 :], leaf[:i] + leaf[i] + leaf[i:], leaf.upper()]
        edits.append(leaf[:i] + leaf[i + 1 : i + 2] + leaf[i] + leaf[i + 2 :])
        for edit in edits:
            if edit not in (leaf, ""):
                typo = f"{head}.{edit}" if head else edit
                total += 1
                right += did_you_mean(typo, keys) == f"; did you mean {key!r}?"
    assert right >= 0.98 * total, (right, total)


def test_storage_errors_are_found_through_the_chain_and_others_are_not():
    try:
        try:
            raise OSError(30, "Read-only file system")
        except OSError as inner:
            raise ValueError("outer") from inner
    except ValueError as outer:
        assert cli.storage_error(outer).exit_code == 6
    assert cli.storage_error(ValueError("shapes differ")) is None
    assert cli.storage_error(OSError(2, "No such file")) is None


def test_a_command_whose_parent_of_ours_has_ended_ends_too(entry, monkeypatch):
    monkeypatch.setenv("CJEPA_JAX_PARENT", "1")  # not this process: it has been handed on to somebody else
    assert entry(TINY, "--what=fine").returncode == -signal.SIGTERM


@pytest.mark.parametrize("environment,files,expected", [
    ({"JAX_PLATFORMS": "cpu"}, ["nvidia0"], True),
    ({"JAX_PLATFORMS": "cpu,cuda"}, ["nvidia0"], True),
    ({"JAX_PLATFORMS": "cuda,cpu"}, ["nvidia0"], False),
    ({"JAX_PLATFORMS": "tpu"}, [], False),
    ({"JAX_PLATFORMS": ""}, ["null", "nvidiactl"], True),
    ({}, [], True),
    ({}, ["nvidia0"], False),
    ({}, ["accel0"], False),
    ({}, ["vfio/0"], False),
    ({}, ["vfio/vfio"], True),
    ({}, ["kfd"], False),
    ({"TPU_WORKER_ID": "0"}, [], False),
    ({"TPU_SKIP_MDS_QUERY": "1"}, [], True),
])  # fmt: skip
def test_the_cpu_is_expected_where_no_accelerator_is(tmp_path, environment, files, expected):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert cli.runs_on_cpu(environment, str(tmp_path)) is expected


@pytest.mark.parametrize("name", ["checkpoint", "out"])
def test_it_parses_again_in_the_same_process(name, monkeypatch, tmp_path):
    for seed in (3, 4):
        words = ["train", "--config=tiny", f"--{name}=here", f"--config.seed={seed}", f"--workdir={tmp_path}"]
        monkeypatch.setattr(sys, "argv", words)
        config, workdir = cli.parse(words, lambda: flags.DEFINE_string(name, None, ""))
        assert (config.seed, workdir, flags.FLAGS[name].value) == (seed, str(tmp_path), "here")
    assert [known for known in ("checkpoint", "out") if known in flags.FLAGS] == [name]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc here")
def test_a_heap_that_is_kept_between_steps_can_be_given_back():
    """In a process with these settings: 512 MiB in blocks, freed below a block that stays."""
    script = """
import pathlib, numpy as np
from cjepa_jax.host import memory
resident = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
before = resident()
blocks = [np.ones(64 << 20, np.uint8) for _ in range(8)]
stays = np.ones(64 << 20, np.uint8)
del blocks
kept = resident() - before
memory.release()
print(kept, resident() - before, stays.min())
"""
    environment = os.environ | {"GLIBC_TUNABLES": memory.ALLOCATOR}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    kept, left, least = map(int, done.stdout.split())
    assert kept >= 512 and left <= 160 and least == 1
