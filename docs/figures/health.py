"""Draw docs/pictures/health.png, the figure of docs/HEALTH.md: monitors of one healthy run and of three broken ones.

    python docs/figures/health.py RUNS [FILE]

RUNS is the folder of the four runs, whose commands are in docs/HEALTH.md. Only their metrics.jsonl is read.
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

OUT = Path(__file__).parents[1] / "pictures/health.png"
RUNS = {"healthy": "#1b8a4b", "collapse": "#b8541b", "hot": "#a02c7d", "cold": "#4a63a8"}
PANELS = {
    "loss": "loss",
    "rankme": "rankme",
    "explained/prediction": "explained/prediction",
    "probe/count_r2": "probe/count_r2",
}


def series(folder: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric in a run's metrics.jsonl."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    points = [(row["step"], row[name]) for row in rows if name in row and isinstance(row[name], int | float)]
    return [step for step, _ in points], [value for _, value in points]


def draw(runs: Path, out: Path) -> None:
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for run, colour in RUNS.items():
            axes.plot(*series(runs / run, name), color=colour, linewidth=1.3, label=run)
            if name.startswith("probe/"):
                axes.plot(*series(runs / run, f"{name}_random"), color=colour, linewidth=0.8, linestyle="--")
        if name == "loss":
            axes.set_yscale("log")
            figure.legend(
                *axes.get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside upper center", ncols=4
            )
        if name == "explained/prediction":
            axes.set_ylim(-1, 1)
        if name.startswith("probe/"):
            axes.set_ylim(-0.2, 1)
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("step", fontsize=7)
        axes.tick_params(labelsize=6)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else OUT)
