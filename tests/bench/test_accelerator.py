"""The report of `bench --report`: what it keeps when sections fail or time is up, its page, and a small one whole."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from cjepa_jax.bench import accelerator, accelerator_report, accelerator_sections, measuring
from cjepa_jax.models import attention
from tests import QUICK

WITHOUT = """
import sys
for name in ("grain", "clu", "ml_collections", "tensorflow_datasets"):
    sys.modules[name] = None
from cjepa_jax.bench import accelerator
raise SystemExit(accelerator.main(sys.argv[1:]))
"""


def lines(folder):
    return [json.loads(line) for line in (folder / "bench.jsonl").read_text().splitlines()]


def test_a_section_that_fails_does_not_stop_the_others(tmp_path, capsys):
    def broken(report):
        report.say("before", ms=1.0)
        raise RuntimeError("no <kernel>")

    report = accelerator_report.Report(tmp_path, seconds=60)
    accelerator.run(report, {"first": broken, "second": lambda report: report.say("fine", ms=2.5, batch=4)})
    assert lines(tmp_path) == [
        {"section": "first", "name": "before", "ms": 1.0},
        {"section": "first", "name": "failed", "error": "RuntimeError: no <kernel>"},
        {"section": "second", "name": "fine", "ms": 2.5, "batch": 4},
    ]
    page = (tmp_path / "report.html").read_text()
    assert "no &lt;kernel&gt;" in page and "<td>2.500</td><td>4</td>" in page and "<td class=text>first</td>" in page
    assert "second: fine: ms 2.5, batch 4" in capsys.readouterr().out


def test_sections_for_which_no_time_is_left_are_named(tmp_path):
    report = accelerator_report.Report(tmp_path, seconds=accelerator.SPARE / 2)
    accelerator.run(report, {"late": lambda report: report.say("never")})
    assert lines(tmp_path) == [{"section": "late", "name": "left out", "why": "no time"}]


def test_when_the_time_is_up_what_was_measured_is_kept(tmp_path):
    code = f"""
import pathlib, time
from cjepa_jax.bench import accelerator, accelerator_report
accelerator.SPARE = 0
def hangs(report):
    report.say("first", ms=1.0)
    time.sleep(600)
accelerator.run(accelerator_report.Report(pathlib.Path({str(tmp_path)!r}), 1.0), {{"one": hangs, "two": hangs}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line["name"] for line in lines(tmp_path)] == ["first", "the time is up"]
    assert "<h2>one</h2>" in (tmp_path / "report.html").read_text()


def test_lines_of_the_same_values_share_a_table_and_the_best_step_leads():
    step = {"name": "step", "encoder": "L/16", "batch": 64, "images_s": 900.0, "mfu": 0.5}
    sections = {"step": [step, {"name": "out of memory", "batch": 256}, step | {"batch": 128, "images_s": 1000.0}]}
    assert accelerator_report.table(sections["step"]).count("<table") == 2
    assert "1,000 images/s at batch 128, MFU 0.500" in accelerator_report.page(sections)


@pytest.mark.parametrize(("argument", "message"), [
    ("--sections=step,nosuch", "error: --sections: there is no section 'nosuch'. There are device, attention"),
    ("--size=30", "error: --size=30: must be a multiple of the patch 16, and at least 64"),
    ("--minutes=0", "error: --minutes=0: must be a number above 0"),
    ("--variant=nosuch", "nosuch"),
])  # fmt: skip
def test_a_wrong_command_line_is_one_line(tmp_path, capsys, argument, message):
    assert accelerator.main([argument, f"--out={tmp_path}"]) == 2 and not list(tmp_path.iterdir())
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_made_up_batch_has_a_row_for_each_scene_as_a_loader_s():
    batch, _ = accelerator_sections.Subject("32x1x2x64/8", 32, 4, 512)._batch(4)
    assert batch.rows.alone and batch.rows.index.shape == (1, 4, 16)


@pytest.mark.parametrize("rows", ["several scenes", "one scene"])
def test_an_error_at_padding_counts(tmp_path, monkeypatch, rows):
    """Of a kernel that leaves something where no token is."""
    report = accelerator_report.Report(tmp_path, seconds=600)
    report.sections["attention"] = []

    def leaves(*operands):
        return attention.einsum(*operands) + sum(
            jnp.where(operands[3][:, None, :, None] == 0, x, 0) for x in operands[:3]
        )

    monkeypatch.setitem(attention.KERNELS, "chunked", leaves)
    monkeypatch.setattr(attention, "choose", lambda *_, **__: "chunked")
    monkeypatch.setattr(measuring, "median", lambda *_, **__: 0.0)
    q, k, v = (measuring.normal(2, 1, 8, 4, seed=i) for i in range(3))
    segment = jnp.array([3, 8]) if rows == "one scene" else jnp.array([[1] * 8, [2] * 4 + [0] * 4])
    accelerator_sections.Subject("32x1x2x64/8", 32, 4, 512)._attention(report, rows, (q, k, v, segment))
    (line,) = report.sections["attention"]
    assert line["rows"] == rows and line["relative_error"] > 0.5


@pytest.mark.slow
def test_a_small_report_is_whole_without_the_packages_of_data(tmp_path):
    sections = "--sections=device,attention,step,svd,profile,parts,optimizer,transfer"
    arguments = ["--variant=32x1x2x64/8", "--size=32", "--batch=4", f"--out={tmp_path}", sections]
    environment = os.environ | {"XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, timeout=590, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path)
    assert not [line for line in found if line["name"] == "failed"]
    steps = [line for line in found if line["section"] == "step"]
    assert [line["batch"] for line in steps] == [4, 8, 16] and all(line["mfu"] > 0 for line in steps)
    errors = [line["relative_error"] for line in found if line["section"] == "attention"]
    assert len(errors) == 6 and max(errors) < 0.02  # three lengths, each for rows of several scenes and of one
    decomposed = [line for line in found if line["name"] == "algorithm"]
    assert {line["of"] for line in decomposed} == {"default", "qr"}  # those of a CPU
    assert max(line["value_error"] for line in decomposed) < 1e-5
    assert max(line["gradient_error"] for line in decomposed) < 0.05
    shares = [line["share"] for line in found if line["name"] == "kind"]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.needs("torch")
def test_pytorchs_step_begins_with_the_same_loss():
    class Short:
        """A report with time for one step of PyTorch's and one of ours."""

        def __init__(self):
            self.lines = []

        def left(self):
            return 100 if not self.lines else 0

        def say(self, name, **values):
            self.lines.append(values)

    subject, ours, theirs = accelerator_sections.Subject("32x1x2x64/8", 32, 4, 512), Short(), Short()
    subject._measured(ours, "step", 4)
    assert subject.kept is None
    subject.torch(theirs)
    line = theirs.lines[0]
    assert line["first_loss"] == pytest.approx(ours.lines[0]["first_loss"], rel=2e-2)
