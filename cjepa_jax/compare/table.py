"""From the records of finished cells to the table: Markdown, JSON and a plot."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cjepa_jax.compare.suite import Suite
from cjepa_jax.errors import DataError
from cjepa_jax.evals.base import RANDOM, TRAINED, student
from cjepa_jax.reports.charts import COLOURS
from cjepa_jax.reports.run import numeric
from cjepa_jax.runtime.workdir import write_atomically

BELOW = " ↓"
WIDE = 5  # panels of the plot side by side
COMMITS = ("trained by", "evaluated by")


def write(suite: Suite, records: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Writes table.md, table.json and table.svg of the existing records. Returns the path of the first.

    Raises: DataError if there is no record of a cell of the suite.
    """
    found = read(suite, records)
    summary = summarise(suite, found)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "table.json", json.dumps(summary, indent=1) + "\n")
    plot(suite, summary).savefig(folder / "table.svg", metadata={"Date": None})
    write_atomically(folder / "table.md", markdown(suite, summary))
    return folder / "table.md"


def read(suite: Suite, folder: pathlib.Path) -> dict[str, dict]:
    """The records of the suite's cells by name, including those of tuning.

    Raises: DataError if there is none. ConfigError for one of other settings.
    """
    cells = [*suite.cells(), *suite.tuned()]
    known = {cell.name: suite.read(folder / f"{cell.name}.json", cell) for cell in cells}
    found = {name: record for name, record in known.items() if record}
    if not any("protocols" in record for record in found.values()):
        raise DataError(f"{folder}: no record of a finished cell of the suite {suite.name!r}")
    return found


def summarise(suite: Suite, records: Mapping[str, dict]) -> dict[str, Any]:
    """world -> methods, baselines (floors and ceilings) and contrasts, each by column. Also the cost of each
    method."""
    summary: dict[str, Any] = {"suite": suite.name, "about": suite.about, "worlds": {}, "costs": {}}
    cells = [record for record in records.values() if "protocols" in record]
    for world in suite.worlds:
        here = [record for record in cells if record["cell"]["world"] == world]
        by_method = {m: [r for r in here if r["cell"]["method"] == m] for m in suite.methods}
        values = {
            method: {title: _by_seed(group, *column) for title, column in suite.columns.items()}
            for method, group in by_method.items()
            if group
        }
        summary["worlds"][world] = {
            "methods": {m: {c: spread(list(v.values())) for c, v in row.items() if v} for m, row in values.items()},
            "baselines": baselines(suite, here),
            "contrasts": contrasts(suite, values),
        }
    for record in cells:
        summary["costs"].setdefault(record["cell"]["method"], _cost(record))
    summary["tuned"] = {record["cell"]["method"]: record["tuned"] for record in cells if record["tuned"]}
    tried = [record for record in records.values() if record["cell"]["value"] is not None]
    metric = suite.tuning.get("metric", "")
    summary["grid"] = {
        method: {f"{r['cell']['value']:g}": validation_score(r, metric) for r in tried if r["cell"]["method"] == method}
        for method in dict.fromkeys(record["cell"]["method"] for record in tried)
    }
    summary["commits"] = sorted({record[key] for record in cells for key in COMMITS if key in record})
    return summary


def validation_score(record: Mapping[str, Any], metric: str = "") -> float:
    """The metric of a run's result, on validation scenes. Without it, the mean of the online probe's R2 over label
    groups. -inf for a run without one."""
    if metric in record["result"]:
        value = numeric(record["result"][metric])
        return value if value is not None and np.isfinite(value) else float("-inf")
    names = [name for name in record["result"] if name.startswith("probe/") and name.endswith("_r2")]
    values = [numeric(record["result"][name]) for name in names]
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known and len(known) == len(values) else float("-inf")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, half of the 95 % interval (Student's t over runs; NaN as None for one run), and the values themselves."""
    half = student(len(values)) * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "interval": None if half is None else float(half), "values": list(values)}


def baselines(suite: Suite, records: Sequence[dict]) -> dict[str, dict[str, Any]]:
    """row -> column -> value of the floors and ceilings that depend only on the scenes, which are equal in all
    records."""
    rows: dict[str, dict[str, Any]] = {}
    for title, (protocol, metric, *_) in suite.columns.items():
        scores = [s for r in records for s in r["protocols"].get(protocol, {}).get("scores", [])]
        scores = [score for score in scores if score["value"] is not None]
        for score in (s for s in scores if s["metric"] == metric and s["row"] not in (TRAINED, RANDOM)):
            same = [s["value"] for s in scores if (s["metric"], s["row"]) == (metric, score["row"])]
            several = len({r["cell"]["method"] for r in records}) > 1  # otherwise dependence on the model is unknown
            if score["kind"] != "result" and several and np.ptp(same) <= 1e-6 * np.abs(same).max():
                row = rows.setdefault(score["row"], {"kind": score["kind"]})
                row[title] = {"mean": score["value"], "interval": _finite(score["interval"])}
    return rows


def contrasts(suite: Suite, values: Mapping[str, Mapping[str, dict[int, float]]]) -> list[dict[str, Any]]:
    """The suite's pairs of methods, by column: the mean difference over their common seeds, with its interval."""
    found = []
    for one, other in suite.contrasts:
        if one in values and other in values:
            row: dict[str, Any] = {"pair": [one, other]}
            for title in suite.columns:
                a, b = values[one][title], values[other][title]
                common = sorted(a.keys() & b.keys())
                if common:
                    row[title] = spread([a[seed] - b[seed] for seed in common])
            found.append(row)
    return found


def markdown(suite: Suite, summary: Mapping[str, Any]) -> str:
    """The tables as text."""
    titles = list(suite.columns)
    head = "| {} | " + " | ".join(titles) + " |\n|---|" + "---|" * len(titles) + "\n"
    parts = []
    for world, found in summary["worlds"].items():
        if not found["methods"]:
            continue
        parts.append(f"### {suite.worlds[world]['label']}\n")
        lines = head.format("method (runs)")
        floor = next((row for name, row in found["methods"].items() if suite.untrained(name)), {})
        for method, row in found["methods"].items():
            runs = max((len(cell["values"]) for cell in row.values()), default=0)
            label = _label(suite, method)
            lines += _line(f"{label} ({runs})", row, titles, floor)
        parts.append(lines)
        lines = head.format("baseline")
        for name, row in sorted(found["baselines"].items(), key=lambda item: item[1]["kind"] != "floor"):
            lines += _line(f"{name} ({row['kind']})", row, titles)
        parts.append(lines)
        if found["contrasts"]:
            lines = head.format("difference, paired by seed")
            for row in found["contrasts"]:
                one, other = (suite.methods[name]["label"] for name in row["pair"])
                lines += _line(f"{one} − {other}", row, titles, sign=True)
            parts.append(lines)
    lines = "| method | parameters | GFLOP a step | steps | TFLOP | tuned (validation score of each value) |\n"
    lines += "|---|---|---|---|---|---|\n"
    for method, cost in summary["costs"].items():
        each = f"{cost['flops'] / cost['steps'] / 1e9:.1f}" if cost["steps"] else "–"
        sizes = ", ".join(f"{name} {size:,}" for name, size in cost["parameters"].items())
        spent = f"{cost['steps']} | {cost['flops'] / 1e12:.2f}"
        lines += f"| {_label(suite, method)} | {sizes} | {each} | {spent} | {_tuned(suite, summary, method)} |\n"
    note = (
        f"{BELOW.strip()}: below the mean of the network at initialisation. ±: 95 % interval over runs (Student's t)."
    )
    return "\n".join([note, "", *parts, "### Cost\n", lines])


def plot(suite: Suite, summary: Mapping[str, Any]) -> Figure:
    """A panel for each world and column: methods with their runs and intervals, the random initialisation as a line."""
    worlds = [world for world, found in summary["worlds"].items() if found["methods"]]
    columns, deep = list(suite.columns), -(-len(suite.columns) // WIDE)
    wide = min(WIDE, len(columns))
    figure = Figure(figsize=(2.4 * wide + 1.8, 2.4 * deep * len(worlds) + 0.4), layout="constrained")
    axes = figure.subplots(deep * len(worlds), wide, squeeze=False).reshape(len(worlds), deep * wide)
    for row, world in zip(axes, worlds, strict=True):
        methods = summary["worlds"][world]["methods"]
        for place, (axis, title) in enumerate(zip(row, columns, strict=False)):
            _panel(suite, axis, methods, title)
            axis.set_title(f"{suite.worlds[world]['label']}: {title}", fontsize=9)
            names = [_label(suite, m) if place % wide == 0 else "" for m in reversed(methods)]
            axis.set_yticks(range(len(methods)), names, fontsize=8)
        for axis in row[len(columns) :]:
            axis.set_axis_off()
    return figure


def _panel(suite: Suite, axis: Any, methods: Mapping[str, dict], title: str) -> None:
    for place, (method, cells) in enumerate(reversed(methods.items())):
        cell = cells.get(title)
        if cell is None:
            continue
        colour = COLOURS["random"] if suite.untrained(method) else COLOURS["trained"]
        axis.plot(cell["values"], [place] * len(cell["values"]), "o", color=colour, markersize=3, alpha=0.5)
        axis.errorbar(cell["mean"], place, xerr=cell["interval"], fmt="D", color=colour, markersize=4, capsize=3)
        if suite.untrained(method):
            axis.axvline(cell["mean"], color=colour, linewidth=1, linestyle="--")
    axis.set_ylim(-0.6, len(methods) - 0.4)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)


def _label(suite: Suite, method: str) -> str:
    return suite.methods[method]["label"] + (", smoke" if suite.smoke(method) else "")


def _tuned(suite: Suite, summary: Mapping[str, Any], method: str) -> str:
    chosen = ", ".join(f"{key} {value:g}" for key, value in summary["tuned"].get(method, {}).items())
    grid = ", ".join(f"{value}: {score:.3f}" for value, score in summary["grid"].get(method, {}).items())
    other = suite.tuned_as(method)
    return f"{chosen or '–'}" + (f", as {other}" if other != method else f" ({grid})" if grid else "")


def _by_seed(records: Sequence[dict], protocol: str, metric: str, row: str = TRAINED) -> dict[int, float]:
    found = {}
    for record in records:
        for score in record["protocols"].get(protocol, {}).get("scores", []):
            if (score["row"], score["metric"]) == (row, metric) and score["value"] is not None:
                found[record["cell"]["seed"]] = score["value"]
    return found


def _cost(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("parameters", "steps", "flops")}


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _line(label: str, row: Mapping, titles: Sequence[str], floor: Mapping | None = None, sign: bool = False) -> str:
    most = max((len(cell["values"]) for cell in row.values() if isinstance(cell, dict) and "values" in cell), default=0)
    cells = [_cell(row.get(title), (floor or {}).get(title), sign, most) for title in titles]
    return f"| {label} | " + " | ".join(cells) + " |\n"


def _cell(cell: Mapping[str, Any] | None, floor: Mapping[str, Any] | None, sign: bool, most: int) -> str:
    if cell is None:
        return "–"
    fewer = f" ({len(cell['values'])})" if "values" in cell and len(cell["values"]) < most else ""
    text = f"{cell['mean']:+.3f}" if sign else f"{cell['mean']:.3f}"
    text += f" ± {cell['interval']:.3f}" if cell["interval"] is not None else ""
    return text + fewer + (BELOW if floor is not None and cell["mean"] < floor["mean"] else "")
