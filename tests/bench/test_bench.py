"""The benchmark command prints every figure. What the figures are is the machine's business."""

import re

from tests import running


def test_every_figure_is_printed(tmp_path):
    out, err = running.run([*running.command(None, module="cjepa_jax.bench", data__workers=1), "--steps=5"])
    report = {line[:24].strip(): line[24:].strip() for line in out.splitlines()}
    number = r"[\d.]+"
    for name, text in {
        "device": r"1 x cpu",
        "first step": rf"{number} s, its program made, or loaded if it was kept",
        "step": rf"{number} ms median, {number} ms min, {number} ms p95, n [3-5] of 5: 8 rows of (8|16) tokens, .*",
        "transfer to device": rf"{number} ms median, before each step",
        "scenes/s": rf"{number} over all layouts, transfer included",
        "waiting for data": rf"{number} % of the time",
        "data alone": rf"{number} scenes/s, {number} times what the step eats",
        "padding in context rows": rf"{number} % of their tokens",
        "compiled shapes": rf"[12], made or loaded in {number} s, their first steps included",
        "useful FLOPs per step": rf"{number} G .*",
        "FLOPs per step": rf"{number} G .*",
        "useful FLOP/s": rf"{number} G",
        "matmul peak here": rf"{number} G FLOP/s \(float32, 2048\^3, best of 10, x 1\)",
        "share of that peak": rf"{number} % .*",
        "page faults": rf"{number} minor, {number} major a step, median",
        "peak memory": rf"{number} GiB of this process",
    }.items():
        assert re.fullmatch(text, report[name]), (name, report[name])
    assert err == ""
    low, median = (float(re.search(rf"({number}) ms {name}", report["step"])[1]) for name in ("min", "median"))
    assert 0 < low <= median
    useful, padded = (float(report[name].split()[0]) for name in ("useful FLOPs per step", "FLOPs per step"))
    assert 0 < useful <= padded


def test_bad_flags_are_refused():
    assert "--steps" in running.error([*running.command(None, module="cjepa_jax.bench"), "--steps=2"], 2)
    assert "torch" in running.error([*running.command(None, module="cjepa_jax.bench"), "--against=tensorflow"], 2)
