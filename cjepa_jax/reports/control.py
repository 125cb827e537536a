"""The control table as text and as a page, and films of the episodes."""

import base64
import json
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from cjepa_jax.data.drawing import sheet
from cjepa_jax.errors import printable
from cjepa_jax.evals.control import Row
from cjepa_jax.host import door
from cjepa_jax.reports import html
from cjepa_jax.runtime.workdir import write_atomically

SIDE = 128  # least pixels of an episode in a film
GAP = 6
HEAD = ["policy", "kind", "task", "episodes", "success once", "success at the end", "seconds"]
NOTE = (
    "Success once: the goal was reached in any frame (the rule of the published planning benchmarks). Success at the "
    "end: in the last frame. In brackets: Wilson's 95 % interval over episodes. It does not cover how much "
    "training runs differ."
)


def cells(row: Row) -> list[str]:
    """A row as text."""
    shares = ["{:.2f} [{:.2f}, {:.2f}]".format(*row.share(which)) for which in ("once", "end")]
    return [printable(row.name), row.kind, row.task, str(row.episodes), *shares, f"{row.seconds:.1f}"]


def as_text(rows: Iterable[Row]) -> str:
    """The table in columns."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def film(episodes: list[list[np.ndarray]]) -> bytes:
    """A GIF of episodes side by side, each a list of frames uint8 [H,W,3]. Shorter ones rest at their last frame."""
    scale = max(1, SIDE // len(episodes[0][0]))
    large = [[np.kron(image, np.ones((scale, scale, 1), np.uint8)) for image in frames] for frames in episodes]
    pages = []
    for t in range(max(map(len, large))):
        images = [Image.fromarray(frames[min(t, len(frames) - 1)]) for frames in large]
        pages.append(sheet.across(images, GAP))
    return sheet.gif(pages)


def write(folder: Path, about: dict[str, str], rows: list[Row], films: dict[str, bytes]) -> Path:
    """Writes results.json, films/NAME.gif and report.html. Returns the report's path."""
    door.folder(folder, "films")
    known = [row._asdict() | {which: dict(zip(("share", "low", "high"), row.share(which), strict=True))
                              for which in ("once", "end")} for row in rows]  # fmt: skip
    write_atomically(folder / "results.json", json.dumps({"about": about, "rows": known}, indent=1) + "\n")
    shots = []
    for title, data in films.items():
        name = "".join(letter if letter.isalnum() else "_" for letter in title)
        with door.replacing(door.below(folder, "films", f"{name}.gif")) as file:
            file.write(data)
        image = f"<img alt='' src='data:image/gif;base64,{base64.b64encode(data).decode()}'>"
        shots.append(f"<h3>{escape(title)}</h3><div class=shot>{image}</div>")
    facts = html.table([], [[escape(key), f"<code>{escape(value)}</code>"] for key, value in about.items()], "facts")
    table = html.table(HEAD, [[escape(cell) for cell in cells(row)] for row in rows])
    body = f"<h1>Control</h1><section>{facts}</section>" + html.section("Success", NOTE, table)
    body += html.section("Films", "The goal shows through. An episode rests when its goal is reached.", "".join(shots))
    write_atomically(folder / "report.html", html.document("Control", body, "img { max-width: 100% }"))
    return folder / "report.html"
