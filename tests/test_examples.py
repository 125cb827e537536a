"""The examples run as the docs show them, the tutorials in their shortest form."""

import subprocess
import sys

import cv2
import pytest

from tests import run_folders, running

WHAT_IF = [sys.executable, "examples/what_if.py"]


WRITTEN = {  # by each tutorial, in its folder
    "new_mask": ("masks.png", "my_mask.py", "model/result.json"),
    "own_images": ("inspected/report.html", "scenes.png", "similar.png", "model/result.json"),
    "public_weights": ("stand_in.safetensors", "frozen/init_from.json", "tuned/result.json"),
    "slurm": (),
    "what_if": ("what_if.png", "what_if.txt"),
}
FAST = ("slurm",)  # no training, no JAX


def test_every_tutorial_is_run_here():
    files = (running.ROOT / "examples").glob("*.py")
    assert {file.stem for file in files if file.read_text().startswith("# %% [markdown]")} == set(WRITTEN)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in WRITTEN])
def test_a_tutorial_runs_in_its_shortest_form(name, tmp_path):
    where = f"--workdir={tmp_path / 'job'}" if name == "slurm" else f"--out={tmp_path}"
    running.run([sys.executable, f"examples/{name}.py", "--smoke", where])
    assert all((tmp_path / file).stat().st_size for file in WRITTEN[name])


def start(*args):
    return subprocess.run([*WHAT_IF, *args], cwd=running.ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("values", [{}, {"data__frames": 1, "objective__causal_weight": 0, "data__intervened": "none"}])
def test_what_if_draws_its_answer_and_prints_its_numbers(tmp_path, values):
    run = run_folders.write(tmp_path / "run", run_folders.config(**values), steps=(1,))
    done = start(f"--model={run}", "--scene=1", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(tmp_path / "out/what_if.png"))
    assert picture.shape[1] > 1000 and picture.std() > 20
    numbers = (tmp_path / "out/what_if.txt").read_text()
    assert numbers in done.stdout and "cosine with the true tokens" in numbers
    assert ("no better than saying that nothing changes" in numbers) == (
        not values
    )  # made-up parameters foresee nothing


@pytest.mark.slow
def test_what_if_refuses_in_one_line(tmp_path):
    run = run_folders.write(tmp_path / "run", steps=(1,))
    for args, text in (
        ([f"--model={tmp_path / 'nowhere'}"], "there is no such file or folder"),
        ([f"--model={run}", "--remove=50"], "the scene has the objects 0 to"),
    ):
        done = start(*args, f"--out={tmp_path / 'out'}")
        assert done.returncode and text in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()
