"""What a user gets wrong, through the real training command: one line and an exit code, and nothing is written."""

import resource
import subprocess
import sys

import pytest

from tests import running

EARLY = [  # refused before JAX starts
    ({"data.size": 60}, "data.size = 60: must be a multiple of the patch size 8"),
    ({"mask.area": (0.4, 0.05)}, "mask.area = (0.4, 0.05): must be two numbers, the lower bound first"),
    ({"mask.max_objects": 0}, "mask.max_objects = 0: must be a whole number, at least 1"),
    ({"objective.encoder.variant": "L16"}, "objective.encoder.variant = 'L16': must be a size"),
    (
        {"objective.predictor.heads": 5},
        "objective.predictor.width = 16: must be a multiple of objective.predictor.heads",
    ),
    ({"data.frames": 3}, "data.frames = 3: must be 1 or a multiple of"),
    ({"data.row_lengths": (0.5, 0.7)}, "data.row_lengths = (0.5, 0.7): must be 1 to 4 increasing shares"),
    ({"data.intervened": "rerendr"}, "did you mean 'rerender'?"),
    ({"data.bathc": 4}, "--config.data.bathc: unknown key; did you mean"),
    ({"train.batch": "many"}, "--config.train.batch=many: invalid literal"),
    ({"train.batch": -1}, "train.batch = -1: must be a whole number, at least 1"),
    ({"optim.peak": "nan"}, "optim.peak = nan: must be finite"),
    ({"probe.train": 4000}, "probe.train + probe.test = 4016: must not exceed data.eval_count = 32"),
]
FOLDER = {"data.source": "cjepa_jax.data.sources.folder:Folder", "data.frames": 1}
LATE = [  # what only building the parts can tell
    ({"objective.encoder.variant": "X/8"}, 2, "'X/8'"),
    ({"data.source": "cjepa_jax.data.worlds:Bals"}, 2, "the module has no 'Bals'; did you mean 'Balls'?"),
    ({"data.source": "cjepa_jax.data.wordls:Balls"}, 2, "wordls'; did you mean"),
    ({"objective.type": "cjepa_jax.objectives.jepa:Jeppa"}, 2, "the module has no 'Jeppa'; did you mean 'Jepa'?"),
    ({"data.options": "{'gravty': True}"}, 2, "gravty: cjepa_jax.data.worlds:Balls has no such parameter; did you"),
    (FOLDER | {"data.path": "/nowhere", "data.intervened": "zero_pixels"}, 3, "/nowhere"),
    (FOLDER | {"data.path": "examples/folder", "data.intervened": "rerender"}, 2, "rerender"),
    ({"data.count": 0}, 2, "data.count is 0"),
]  # fmt: skip


def name(case):
    return " ".join(f"{key}={value}" for key, value in case.items()) if isinstance(case, dict) else ""


def assert_refused(workdir, values, code, text, **options):
    overrides = {key.replace(".", "__"): value for key, value in values.items()}
    line = running.error(running.command(workdir, **overrides), code, **options)
    assert text in line, line


@pytest.mark.parametrize("values,text", EARLY, ids=name)
def test_impossible_values_are_refused_before_jax_starts(tmp_path, values, text):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = "python" if values == EARLY[0][0] else "early"  # one with the imports in the time
    assert_refused(tmp_path / "run", values, 2, text, begin=begin)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5  # seconds of computing
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("values,code,text", LATE, ids=name)
def test_parts_that_cannot_be_built_are_refused_in_one_line(tmp_path, values, code, text):
    assert_refused(tmp_path, values, code, text)


@pytest.mark.parametrize("workdir", ["/dev/null", "/proc/nowhere"])
def test_a_workdir_that_cannot_be(workdir):
    assert_refused(workdir, {}, 2, f"workdir = {workdir}: cannot be used as a run folder")


def test_a_batch_that_does_not_divide_among_the_devices(tmp_path):
    argv = running.command(tmp_path, train__batch=6)
    assert "train.batch = 6: must be a multiple of the number of devices, 4" in running.error(argv, 2, devices=4)


def test_a_refused_command_did_not_import_jax(tmp_path):
    code = f"""
import sys
from cjepa_jax import cli
sys.argv = {running.command(tmp_path, data__size=60)[2:]!r}
assert cli.run("cjepa_jax.train") == 2 and "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=running.ROOT, check=True, capture_output=True)


def test_a_refused_run_does_not_claim_its_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 1}')  # of another run, refused like this one will be
    assert_refused(tmp_path, {"data.options": "{'walls': 3}"}, 2, "walls")
