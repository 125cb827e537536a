"""The benchmark of sources prints every figure. What the figures are is the machine's business."""

import os
import re
import time

import numpy as np

from cjepa_jax.data import bench
from configs import folder
from tests import running

BALLS = "configs/worlds/balls.py"


NUMBER = r"[\d.]+"
FIGURES = (
    rf"{NUMBER} clips/s \({NUMBER} ms median of \d+ runs of 8\), {NUMBER} per second of its own work, {NUMBER} % .*"
)


def check(report, measured, packs):
    packed = [f"data.pack = {k}" for k in range(1, packs + 1)]
    expected = ["source", *measured, "context tokens", "rows as configured", *packed, "fewest FLOPs"]
    assert list(report)[-len(expected) :] == expected
    for name in measured:
        assert re.fullmatch(FIGURES, report[name]), report[name]
    assert re.fullmatch(rf"{NUMBER} of the grid \(deviation {NUMBER}, .* in \d+ scenes", report["context tokens"])
    for name in packed:
        assert re.fullmatch(rf"{NUMBER} % padding, {NUMBER} of the FLOPs of rows of N: --config\..*", report[name])


def test_the_command_prints_every_figure():
    out, err = running.run([*running.command(None, BALLS, "cjepa_jax.data.bench"), "--seconds=0.01", "--shards=2"])
    report = {line[:24].strip(): line[24:].strip() for line in out.splitlines()}
    check(report, ["scene", "with a counterfactual", "scene map, rerender"], packs=4)
    assert err == "" and list(report)[:2] == ["machine", "packages"]
    assert "Python 3." in report["machine"] and f"{os.cpu_count()} cores" in report["machine"]
    assert "Balls, train split, 64 scenes, 32 x 32 x 2 frames" in report["source"]


def test_a_source_without_counterfactuals_is_measured_too():
    config = folder.get_config()
    config.data.path = str(running.ROOT / config.data.path)
    report = dict(bench.report(config, "eval", 0.01, shards=config.train.batch))
    check(report, ["scene", "scene map, zero_pixels"], packs=1)


def test_the_rate_is_that_of_the_work():
    calls = []

    def sleep(i):
        calls.append(i)
        time.sleep(0.002)

    text = bench.measure(sleep, 5, 0.01)
    rate, own = (float(re.search(rf"([\d.]+) {unit}", text)[1]) for unit in ("clips/s", "per second of its own work"))
    assert 10 < rate <= 500 and own > 2 * rate  # it sleeps 2 ms a call
    assert calls[2:7] == [0, 1, 2, 3, 4] and calls[7] == 0 and len(calls) == 2 + 3 * bench.RUN


def test_the_removed_object_changes_from_scene_to_scene():
    assert [np.flatnonzero(bench.one_of(3, i)).tolist() for i in range(4)] == [[0], [1], [2], [0]]
    assert bench.one_of(0, 5).shape == (0,)


def test_the_processors_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Abacus 3000\nflags : x\n")
    assert bench.processor(str(tmp_path / "cpuinfo")) == "Abacus 3000"
    assert bench.processor(str(tmp_path / "missing"))
