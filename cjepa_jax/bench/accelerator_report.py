"""What `bench --report` keeps: lines, and a page with what matters at its head and a table per section."""

import json
import os
import pathlib
import threading
import time
from collections.abc import Mapping
from html import escape
from typing import Any

from cjepa_jax.reports import html

NOTES = {
    "device": "What this device reaches in large products and copies. Later shares are of these.",
    "attention": "Which kernel is chosen, how far it is from plain products in float32 at the highest precision, and "
    "its time beside that of plain products in bfloat16.",
    "step": "One training step at growing batches, on one device. MFU: useful FLOP/s, without padding, as a share of "
    "the square product in bfloat16 above. 'ms' waits for each step, 'in a row' for all. Memory is XLA's count.",
    "svd": "SIGReg: the algorithms' times, also of the triangle of a QR decomposition, and their errors where singular "
    "values fall by five decades. The eigenvalues of the Gram matrix, for comparison, lose their small ones.",
    "profile": "Where the time of three steps goes, by kernel. Kinds are guessed from names. On a TPU a loop counts "
    "again what is inside it.",
    "parts": "Forward, backward and targets alone.",
    "optimizer": "AdamW and the EMA alone, which are bound by memory.",
    "transfer": "A batch from the host to the device.",
    "variants": "One change each against the smallest batch of the steps.",
    "torch": "The same algorithm in PyTorch, batches on the device, steps in a row. Its heads multiply in float32.",
}


class Report:
    """The lines of a report, in memory and in `folder`. A line belongs to the section that is running.

    Attributes: sections: name -> its lines, each a dict with a "name". left: a function for the seconds that are left.
    """

    def __init__(self, folder: pathlib.Path, seconds: float):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._began, self._seconds = folder, time.monotonic(), seconds
        self.sections: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        (folder / "bench.jsonl").write_text("")

    def left(self) -> float:
        return self._seconds - (time.monotonic() - self._began)

    def begin(self, section: str) -> None:
        self.sections[section] = []

    def say(self, name: str, **values: Any) -> None:
        """Prints and keeps a line."""
        with self._lock:
            section = next(reversed(self.sections))
            line = {"name": name, **values}
            self.sections[section].append(line)
            shown = ", ".join(f"{key} {_shown(value)}" for key, value in values.items())
            print(f"[{self._seconds - self.left():4.0f} s] {section}: {name}: {shown}", flush=True)
            with open(self.folder / "bench.jsonl", "a") as file:
                file.write(json.dumps({"section": section, **line}, default=str) + "\n")

    def write(self) -> pathlib.Path:
        """report.html with a table per section."""
        path = self.folder / "report.html"
        with self._lock:
            part = path.with_suffix(".part")
            part.write_text(page(self.sections))
            os.replace(part, path)
        return path


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def page(sections: Mapping[str, list[dict[str, Any]]]) -> str:
    """The page of these lines, by section."""
    body = f"<h1>What a training step costs here</h1>{_head(sections)}"
    for name, lines in sections.items():
        body += html.section(escape(name), escape(NOTES.get(name, "")), table(lines))
    return html.document("cjepa_jax: bench --report", body)


def _head(sections: Mapping[str, list[dict[str, Any]]]) -> str:
    """One table: the device, the best step, and PyTorch's."""
    rows = [["device", _cell(line.get("kind"))] for line in sections.get("device", []) if line["name"] == "device"]
    steps = [line for line in sections.get("step", []) if "images_s" in line]
    if steps:
        best = max(steps, key=lambda line: line["images_s"])
        text = f"{_cell(best['images_s'])} images/s at batch {best['batch']}, MFU {_cell(best.get('mfu'))}"
        rows.append([f"step of {escape(str(best.get('encoder', '')))}", text])
    for line in sections.get("torch", []):
        if "images_s" in line:
            rows.append(
                [
                    escape(line["name"]),
                    f"{_cell(line['images_s'])} images/s at batch {line['batch']}, on {line.get('on')}",
                ]
            )
    failed = [name for name, lines in sections.items() if any(line["name"] == "failed" for line in lines)]
    rows.append(["sections that failed", escape(", ".join(failed)) or "none"])
    return html.table([], rows)


def table(lines: list[dict[str, Any]]) -> str:
    """A table for each kind of line: those with the same values' names."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(tuple(line), []).append(line)
    out = ""
    for names, group in groups.items():
        head = [*names[1:], "name"]
        out += html.table([escape(name) for name in head], [[_cell(line[name]) for name in head] for line in group])
    return out


def _cell(value: Any) -> str:
    return html.number(value) if isinstance(value, float) else escape(str(value))
