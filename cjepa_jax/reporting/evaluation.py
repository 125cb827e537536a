"""The results of an evaluation as text and as a page: tables of scores with their floors and ceilings, and pictures."""

from pathlib import Path

import numpy as np

from cjepa_jax.evals.base import Result, Score


def as_text(result: Result) -> str:
    """A line per metric: each row's value, with half of its 95 % interval where it has one."""
    lines = []
    for metric in dict.fromkeys(score.metric for score in result.scores):
        cells = [f"{score.row} {number(score)}" for score in result.scores if score.metric == metric]
        lines.append(f"  {metric:32} {'   '.join(cells)}")
    return "\n".join([*lines, *(f"  note: {note}" for note in result.notes)])


def number(score: Score) -> str:
    """ "0.713 ± 0.021"."""
    return f"{score.value:.3f}" + (f" ± {score.interval:.3f}" if np.isfinite(score.interval) else "")


def save_pictures(folder: Path, name: str, result: Result) -> None:
    """Keeps a protocol's images and curves in the folder, for `write`."""
    arrays = {f"image/{title}": image for title, image in result.images.items()}
    for title, lines in result.curves.items():
        for label, (x, y) in lines.items():
            arrays[f"curve/{title}/{label}"] = np.stack([np.asarray(x, float), np.asarray(y, float)])
    if arrays:
        (folder / "pictures").mkdir(exist_ok=True)
        np.savez_compressed(folder / "pictures" / f"{name}.npz", **arrays)


def write(folder: Path) -> Path:
    """Writes report.html from results.json and the kept pictures; returns its path."""
    raise NotImplementedError
