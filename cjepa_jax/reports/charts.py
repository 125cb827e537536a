"""Curves for the report: small multiples as inline SVG whose ink follows the page's light or dark theme."""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cjepa_jax.errors import printable

# One colour per role, on every chart of the page, readable on white and on near-black.
COLOURS = {
    "trained": "#2f7fe0",
    "random": "#8a8f98",
    "pixels": "#c58b1b",
    "loss": "#7a5bd0",
    "other": "#2a9d8f",
    "bad": "#d6455d",
}
DASHES = {"random": (0, (4, 2)), "pixels": (0, (1, 1.4))}
INK, FAINT = "#010203", "#040506"  # placeholders that `_themed` replaces by the page's CSS variables
LARGEST = 1e100
BINS = 300  # points per curve. Longer ones are averaged, with the range of each bin as a band


@dataclass(frozen=True)
class Line:
    """One curve: its role (a key of COLOURS), steps [n] and values [n]. Values that are not `drawable` are left out."""

    role: str
    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Panel:
    """One small chart. `log`: a logarithmic axis when all values are positive and span more than 1.5 decades."""

    title: str
    lines: list[Line]
    log: bool = False
    zero: bool = False  # the axis includes 0
    marks: list[int] = field(default_factory=list)  # steps to mark at the bottom


@dataclass(frozen=True)
class Dots:
    """One small chart of single values. rows: (label, role, value, half of its interval or NaN), top to bottom."""

    title: str
    rows: list[tuple[str, str, float, float]]


def panels(charts: list[Panel], columns: int = 4) -> str:
    """Charts side by side, `columns` in a row, as one SVG element. Panels without a finite value are left out."""
    charts = [chart for chart in charts if any(drawable(line.values).any() for line in chart.lines)]
    return _svg(charts, columns, 2.05, draw) if charts else ""


def dots(charts: list[Dots], columns: int = 3) -> str:
    """As `panels`, of single values with their intervals."""
    charts = [chart for chart in charts if any(drawable(row[2]) for row in chart.rows)]
    most = max((len(chart.rows) for chart in charts), default=0)
    return _svg(charts, columns, 0.6 + 0.19 * most, draw_dots) if charts else ""


def _svg(charts, columns: int, height: float, draw_one) -> str:
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    wide = 10.6 if columns > 2 else 5.3 * columns
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cjepa", "font.size": 8.5}):
        figure = Figure(figsize=(wide, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, chart in zip(axes, charts, strict=False):
            draw_one(axis, chart)
        for axis in axes[len(charts) :]:
            axis.set_axis_off()
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _themed(text.getvalue(), ", ".join(chart.title for chart in charts))


def draw(axis, chart: Panel) -> None:
    """Draw one panel on matplotlib axes."""
    shown = np.concatenate([line.values[drawable(line.values)] for line in chart.lines])
    for line in chart.lines:
        steps, low, mean, high = binned(line.steps, line.values)
        colour = COLOURS[line.role]
        if len(line.steps) > BINS:
            axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        few = len(steps) == 1 or (len(steps) <= 40 and line.role not in DASHES)  # a line of one point shows nothing
        axis.plot(
            steps,
            mean,
            color=colour,
            linewidth=1.5,
            linestyle=DASHES.get(line.role, "-"),
            marker="o" if few else "",
            markersize=2.6,
        )
    if chart.log and shown.min() > 0 and shown.max() / shown.min() > 30:
        axis.set_yscale("log")
        wide = shown.max() / shown.min() > 1e3
        axis.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 3), numticks=6))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.yaxis.set_minor_locator(NullLocator())
    elif chart.zero:
        axis.set_ylim(min(0, axis.get_ylim()[0]), max(0, axis.get_ylim()[1]))
    if chart.marks:
        axis.plot(
            chart.marks, [0.03] * len(chart.marks), "|", color=COLOURS["bad"], transform=axis.get_xaxis_transform()
        )
    whole = all((np.asarray(line.steps) % 1 == 0).all() for line in chart.lines)
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=whole, min_n_ticks=1))
    _finish(axis, chart.title)
    axis.margins(x=0.02)


def draw_dots(axis, chart: Dots) -> None:
    """Draw one chart of single values on matplotlib axes."""
    places = range(len(chart.rows), 0, -1)
    for place, (_, role, value, half) in zip(places, chart.rows, strict=True):
        colour = COLOURS[role]
        if not drawable(value):
            continue
        if drawable(half):
            axis.plot([value - half, value + half], [place, place], color=colour, linewidth=1.4)
        axis.plot([value], [place], "o", color=colour, markersize=4.6 if role == "trained" else 3.6)
    axis.set_yticks(list(places), [printable(label) for label, *_ in chart.rows], parse_math=False)
    axis.set_ylim(0.4, len(chart.rows) + 0.6)
    axis.grid(axis="x", color=FAINT, linewidth=0.6)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    _finish(axis, chart.title)
    axis.margins(x=0.06)


def _finish(axis, title: str) -> None:
    axis.set_title(printable(title), loc="left", color=INK, fontsize=9, fontweight="bold", parse_math=False)
    axis.tick_params(which="both", colors=INK, length=0, labelsize=7.5)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    for side, spine in axis.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)


def drawable(values: np.ndarray | float) -> np.ndarray:
    """Which values have a place on an axis: finite ones of less than LARGEST, beyond which ranges overflow."""
    return np.abs(values) < LARGEST  # False for NaN


def binned(steps: Iterable[float], values: Iterable[float]) -> tuple[np.ndarray, ...]:
    """(steps, lowest, mean, highest) of at most BINS bins over the finite values."""
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    steps, values = steps[drawable(values)], values[drawable(values)]
    groups = np.array_split(np.arange(len(values)), min(BINS, max(1, len(values))))
    found = [(steps[g].mean(), values[g].min(), values[g].mean(), values[g].max()) for g in groups if len(g)]
    return tuple(np.array(found).reshape(-1, 4).T)


def short(value: float) -> str:
    """A number for a narrow space: 1200 -> "1.2k", 0.0123 -> "0.012"."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def _themed(svg: str, label: str) -> str:
    """Cut the XML header, make the drawing fluid and let its ink and font follow the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(printable(label))}" class="chart"', 1)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    return svg.replace(INK, "var(--ink)").replace(FAINT, "var(--line)")
