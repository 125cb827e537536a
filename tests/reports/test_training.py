"""The report of a run that was made up from real scenes, and of runs that lack parts of one."""

import functools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from cjepa_jax.configuration.check import resolve
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import DataError
from cjepa_jax.reports import charts, pictures, summary, training
from cjepa_jax.reports.run import numeric
from configs import clips

N = 6


def arrays(*args: int) -> dict:
    """What the trainer writes to report.npz: real scenes and removals, made-up features. The caller's own copy."""
    return {name: array.copy() for name, array in _drawn(*args).items()}


@functools.cache
def _drawn(count: int = N, size: int = 64, frames: int = 4, patch: int = 8) -> dict:
    world = Balls(split="eval", size=size, frames=frames, count=count)
    grid = (max(1, frames // 2), size // patch, size // patch)
    found = {name: [] for name in ("video", "intervened", "masks", "removed", "masked", "true_change")}
    for i in range(count):
        scene = world[i]
        masks = np.zeros((8, *scene["masks"].shape[1:]), bool)
        masks[: len(scene["masks"])] = scene["masks"]
        removed = np.zeros(8, bool)
        removed[: 1 + i % 2] = True
        cells = masks[removed].any(0).reshape(grid[0], -1, grid[1], patch, grid[2], patch).any((1, 3, 5))
        intervened = world.intervene(i, removed[: len(scene["masks"])])
        change = np.abs(scene["video"].astype(float) - intervened).mean(-1)
        change = change.reshape(grid[0], -1, grid[1], patch, grid[2], patch).mean((1, 3, 5))
        near = sum(np.roll(cells.astype(float), shift, axis) for shift in (-1, 1) for axis in (1, 2))
        values = (scene["video"], intervened, masks, removed, cells.ravel(), (change / 9 + near).ravel() + 0.2)
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    found = {name: np.stack(value) for name, value in found.items()}
    rng = np.random.default_rng(0)
    means = found["video"].reshape(count, grid[0], -1, grid[1], patch, grid[2], patch, 3).mean((2, 4, 6)) / 255
    found["pca"] = np.clip(means.reshape(count, -1, 3) * [1.4, 0.8, 1.1], 0, 1).astype(np.float32)
    found["pca_random"] = rng.random(found["pca"].shape, np.float32)
    noise = rng.normal(0, 0.15, found["true_change"].shape)
    found["predicted_change"] = np.abs(0.8 * found["true_change"] + noise).astype(np.float32)
    found["fallback"] = np.arange(count) == count - 1
    return found | {"grid": np.array(grid)}


def metrics(steps: int = 1000) -> list[dict]:
    """Logged lines in the shape of a real run's: one every 10 steps, a probe every 250."""
    rng, rows = np.random.default_rng(0), []
    for step in range(10, steps + 1, 10):
        share = step / steps
        terms = {"prediction": 5 + 7 * np.exp(-step / 60), "causal": 0.1 + share, "sigreg": 2.6 - share / 2}
        row = {f"loss/{name}": float(value * rng.normal(1, 0.03)) for name, value in terms.items()}
        row |= {"step": step, "loss": sum(row.values()), "loss/sigreg_floor": 1.13, "skipped": int(step == 400)}
        row |= {
            "learning_rate": 1e-3 * min(1, share / 0.06) * np.cos(share * np.pi / 2) ** 2,
            "grad_norm": rng.lognormal(),
        }
        row |= {"ema_momentum": 1 - 0.004 * np.cos(share * np.pi / 2) ** 2, "update_norm": rng.lognormal() / 30}
        row |= {"feature_std": 0.5 + share / 9, "rankme": 15 + 6 * share, "context_fraction": rng.normal(0.8, 0.01)}
        row |= {
            "scenes_per_s": rng.normal(160, 8),
            "step_time_ms": rng.normal(200, 10),
            "data_wait": rng.uniform(0, 0.05),
        }
        rows.append(
            row | {"compilations": 4, "replaced_scenes": 0, "skipped_total": int(step >= 400), "fallback_scenes": 2}
        )
        if step % 250 == 0:
            probe = {"rankme": (14 + 9 * share, 22), "feature_std": (0.6, 0.45), "response": (0.12 * share, 0.014)}
            line = {"step": step}
            for name, (value, init) in probe.items():
                line |= {f"probe/{name}": value, f"probe/{name}_random": init}
            for group, init, floor in (
                ("count", 0.6, 0.28),
                ("position", 0.2, 0.77),
                ("velocity", 0.03, -0.01),
                ("size", 0.3, 0.35),
            ):
                gain = -0.1 if group == "velocity" else 0.15
                line |= {f"probe/{group}_r2": init + gain * share, f"probe/{group}_r2_random": init}
                line[f"probe/{group}_r2_pixels"] = floor
            rows.append(line)
    return rows


def probes(rows: list[dict]) -> list[dict]:
    """Without the windows of training, and so without most of the page's charts."""
    return [row for row in rows if "loss" not in row]


def make_run(root, rows=None, data=None, result=True):
    """A run folder on disk."""
    root.mkdir(exist_ok=True)
    (root / "config.json").write_text(json.dumps(resolve(clips.get_config())))
    (root / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (metrics() if rows is None else rows))
    )
    np.savez(root / "report.npz", **(arrays() if data is None else data))
    if result:
        command = "python -m cjepa_jax.train --config=configs/tiny.py"
        known = {"command": command, "devices": "1 x CPU", "version": "0.1.0", "seconds": 312.5, "step": 1000}
        (root / "result.json").write_text(json.dumps(known))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def text(run):
    return training.write(run).read_text()


class Checker(HTMLParser):
    """Collects tags that do not close, and addresses that leave the page."""

    VOID = {"meta", "img", "br", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.outside = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action") and not value.startswith(("data:", "#")):
                self.outside.append(value)
        assert tag not in ("script", "link", "iframe")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_numbers_that_are_none_are_left_out():
    """Text, a list, a number too large for a float."""
    found = [numeric(value) for value in (3, 0.5, "nan", "x", [1], None, 10**400)]
    assert found[:2] == [3.0, 0.5] and np.isnan(found[2]) and found[3:] == [None] * 4


def test_its_head_says_how_long_it_took_and_where_it_resumed(text, tmp_path):
    assert "<code>5:12 (312 s)</code>" in text and "resumed at step" not in text
    other = make_run(tmp_path / "tiny", rows=[])
    known = json.loads((other / "result.json").read_text())
    (other / "result.json").write_text(json.dumps(known | {"resumed_at": 250}))
    assert re.search(r"resumed at step</\w+>\s*<td[^>]*><code>250</code>", training.write(other).read_text())


def test_page_is_whole_and_self_contained(run, text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and checker.outside == []
    assert "url(http" not in text and "@import" not in text
    assert (run / "report.html").stat().st_size < 3e6
    assert [file.name for file in run.iterdir() if file.suffix == ".tmp"] == []


def test_every_picture_says_what_it_shows(text):
    found = re.findall(r"<img [^>]*?alt=\"(.*?)\"", text)
    assert len(found) == text.count("<img") and len(set(found)) == len(found)
    assert {
        "Scene 0, frame 0: removed objects outlined, hidden patches tinted",
        "Scene 1, frame 2: true change",
    } <= set(found)


def test_page_says_what_the_numbers_say(text):
    assert "Above random init: count, position, size, effective rank (RankMe), feature std, response." in text
    assert "Not above it: velocity." in text
    assert "below pixels (-0.42)" in text  # position 0.35 against its floor 0.77
    assert "logged windows with skipped updates (1)" in text
    assert "python -m cjepa_jax.train --config=configs/tiny.py" in text
    for name in ("count", "prediction", "EMA momentum", "scenes per second", "sigreg_weight", "no object removed"):
        assert name in text
    assert "Nothing was recorded" not in text


def test_a_probe_of_a_few_scenes_is_called_one(tmp_path):
    root = make_run(tmp_path / "run", rows=probes(metrics(300)), data=arrays(2))
    config = json.loads((root / "config.json").read_text())
    assert "far too few" not in training.write(root).read_text()
    config["probe"]["test"] = 4
    (root / "config.json").write_text(json.dumps(config))
    assert "Only 4 scenes are tested: far too few" in training.write(root).read_text()


def test_fallback_scene_without_a_change_is_not_compared(tmp_path):
    data = arrays(2)
    data["true_change"][1] = 0  # rendered again: nothing was removed
    page = training.write(make_run(tmp_path / "run", rows=[], data=data)).read_text()
    assert page.count("Correlation") == 1


def test_same_input_same_page(run, text):
    assert training.write(run).read_text() == text


def test_unfinished_run_with_half_a_line(tmp_path):
    root = make_run(tmp_path / "killed", rows=probes(metrics()), data=arrays(2), result=False)
    file = root / "metrics.jsonl"
    file.write_text(file.read_text()[:-40])
    page = training.write(root).read_text()
    assert "not finished" in page and "an unreadable line was left out" in page


@pytest.mark.parametrize("lost", ["probes", "metrics", "report.npz", "config.json", "result.json", "nan", "strings"])
def test_missing_parts_are_said(tmp_path, lost):
    rows = metrics(300)
    if lost == "probes":
        rows = [row for row in rows if "loss" in row]
    if lost == "metrics":
        rows = []
    if "." in lost:  # a file
        rows = probes(rows)
    if lost in ("nan", "strings"):
        rows = [dict.fromkeys(row, float("nan") if lost == "nan" else "x") | {"step": row["step"]} for row in rows]
    root = make_run(tmp_path / "run", rows=rows, data=arrays(2))
    (root / lost).unlink(missing_ok=True)
    page = training.write(root).read_text()
    Checker().feed(page)
    expected = {
        "probes": "No probe was recorded",
        "metrics": "No probe was recorded",
        "report.npz": "no readable report.npz",
        "config.json": "config.json is missing",
        "result.json": "not finished",
        "nan": "Nothing was recorded",
        "strings": "Nothing was recorded",
    }
    assert expected[lost] in page


@pytest.mark.parametrize("name", [name for name in arrays(1) if name not in ("video", "masked", "grid")])
def test_every_other_array_is_optional(tmp_path, name):
    data = arrays(2)
    del data[name]
    page = training.write(make_run(tmp_path / "run", rows=[], data=data)).read_text()
    assert "not a readable report.npz" not in page and "<img" in page


@pytest.mark.parametrize("name", ["video", "masked", "grid"])
def test_arrays_that_are_needed(tmp_path, name):
    data = arrays(2)
    del data[name]
    assert "not a readable report.npz" in training.write(make_run(tmp_path / "run", rows=[], data=data)).read_text()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-300], lambda data: b"", lambda data: data[:200] + b"x" * 99 + data[300:]]
)
def test_damaged_arrays_are_named(tmp_path, damage):
    root = make_run(tmp_path / "run", rows=[])
    data = (root / "report.npz").read_bytes()
    (root / "report.npz").write_bytes(damage(data))
    assert "not a readable report.npz" in training.write(root).read_text()


def test_shapes_that_do_not_fit_are_named(tmp_path):
    data = arrays(2)
    data["pca"] = data["pca"][:, :-1]
    page = training.write(make_run(tmp_path / "run", rows=[], data=data)).read_text()
    assert "pca has shape (2, 127, 3), must be (2, 128, 3)" in page


def test_arrays_that_would_fill_the_memory_or_never_end_are_refused(tmp_path):
    """Few bytes in the file: sides that are enlarged by their ratio, and objects to outline one by one."""
    good = arrays()
    for odd in (
        {"video": np.zeros((1, 1, 10**6, 1, 3), np.uint8), "masked": np.zeros((1, 1), bool), "grid": np.ones(3, int)},
        {"masks": np.zeros((N, 2000, *good["video"].shape[1:4]), bool), "removed": np.ones((N, 2000), bool)},
        {"masked": np.zeros((N, 10**6), bool), "grid": np.array([1, 1, 10**6])},
    ):
        known = good | odd if len(odd) < 3 else odd
        np.savez_compressed(tmp_path / "report.npz", **known)
        with pytest.raises(DataError, match="report.npz: (video has shape|has masks of)"):
            pictures.Scenes.load(tmp_path / "report.npz")


@pytest.mark.parametrize("size, frames, patch", [(96, 1, 16), (224, 16, 16)])
def test_images_and_long_clips_stay_small(tmp_path, size, frames, patch):
    page = training.write(make_run(tmp_path / "run", rows=metrics(500), data=arrays(3, size, frames, patch)))
    assert page.stat().st_size < 3e6


def test_rich_pictures_at_full_size_stay_under_the_limit(tmp_path):
    """16 clips with as much detail as photographs have."""
    rng, data = np.random.default_rng(0), arrays(2, 224, 16, 16)
    data = {name: value if name == "grid" else np.repeat(value, 8, 0) for name, value in data.items()}
    detail = rng.integers(0, 256, data["video"][:, :, ::4, ::4].shape, np.uint8)
    data["video"] = data["video"] // 2 + detail.repeat(4, 2).repeat(4, 3) // 2
    data["intervened"] = data["video"][::-1]
    assert training.write(make_run(tmp_path / "run", data=data)).stat().st_size < 3e6


def test_text_from_outside_is_escaped(tmp_path):
    root = make_run(tmp_path / "run", rows=[{"step": 1, "probe/<script>_r2": 0.5}])
    (root / "result.json").write_text(json.dumps({"command": "<script>alert(1)</script>"}))
    weights = {"causal_weight": "<script>", "sigreg_weight": ["<script>"]}
    (root / "config.json").write_text(json.dumps({"objective": weights}))
    text = training.write(root).read_text()
    assert "&lt;script&gt;" in text and "<script" not in text


@pytest.mark.parametrize("value", [10**400, 1e308, -1e308, "nan", "\ud800", None, [], {}], ids=repr)
def test_values_that_no_run_writes_are_shown_or_left_out(tmp_path, value):
    rows = [{"step": 10**9, "loss": -1e308 if value == 1e308 else 1.0, "probe/\ud800$_r2": 0.5}]
    rows += [{"step": 2, "loss": value, "fallback_scenes": value, "skipped": value}]
    root = make_run(tmp_path / "run", rows, data={})
    config = json.loads((root / "config.json").read_text()) | {"probe": {"test": value}, "train": {"batch": value}}
    (root / "config.json").write_text(json.dumps(config))
    (root / "result.json").write_text(json.dumps({"seconds": value, "step": value, "probe/x_r2": value}))
    assert "</html>" in training.write(root).read_text()
    assert summary.probes({"probe/x": value, "probe/y\x1b_r2": 0.5, "probe/y\x1b_r2_random": value}).isprintable()


def test_command_line(tmp_path, capsys):
    assert training.main([f"--workdir={make_run(tmp_path / 'run', rows=metrics(50))}"]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")
    for bad in (tmp_path / "nowhere", tmp_path):
        assert training.main([f"--workdir={bad}"]) == 3
        error = capsys.readouterr().err
        assert error.startswith("error: ") and str(bad) in error and error.count("\n") == 1
    with pytest.raises(DataError):
        training.write(tmp_path)


def test_needs_no_jax():
    code = "import sys, cjepa_jax.report; print([m for m in ('jax', 'flax', 'absl') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_bins_keep_ends_and_range():
    steps = np.arange(10_000)
    values = np.where(steps == 5000, 99.0, 1.0)
    values[7] = np.nan
    where, low, mean, high = charts.binned(steps, values)
    assert len(where) == charts.BINS and high.max() == 99 and low.min() == 1 and mean.max() < 99
    assert [len(part) for part in charts.binned([], [])] == [0, 0, 0, 0]


def test_charts_leave_out_what_has_no_value():
    empty = charts.Panel("a", [charts.Line("trained", np.array([1.0]), np.array([np.nan]))])
    assert charts.panels([empty]) == ""
    full = charts.Panel("b", [charts.Line("trained", np.arange(3.0), np.array([1.0, np.inf, 3.0]))])
    svg = charts.panels([empty, full])
    assert svg.startswith("<svg") and re.search(r">\s*b\s*<", svg) and not re.search(r">\s*a\s*<", svg)
    assert "var(--ink)" in svg and charts.INK not in svg


def test_heat_is_grey_where_nothing_is_scored():
    colours = pictures.heat(np.array([0.0, 1.0, np.nan]), 1.0)
    assert (colours[2] == 128).all() and colours[0].sum() < colours[1].sum()


def test_agreement():
    ramp = np.arange(9.0)
    assert pictures.agreement(ramp, 2 * ramp) == "1.00" and pictures.agreement(ramp, -ramp) == "-1.00"
    assert "not defined" in pictures.agreement(ramp, ramp * 0)
