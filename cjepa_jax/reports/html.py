"""Pieces of HTML that the pages share. Cells, titles and bodies are HTML, so callers escape plain text."""

from html import escape

import numpy as np

from cjepa_jax.reports.charts import COLOURS, DASHES
from cjepa_jax.reports.text import STYLE

NOTHING = 1e-5  # sizes below are those of rounding errors in float32, and are shown as 0


def number(value: float | None) -> str:
    """A value for a table. A dash if it was not measured."""
    if value is None or not np.isfinite(value):
        return "–" if value is None else str(value)
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2g}"
        if 0 < size < 0.001
        else f"{value:.3f}"
    )


def score(value: float | None) -> str:
    """As `number`, with 0.000 for what is below NOTHING."""
    return number(0.0 if value is not None and abs(value) < NOTHING else value)


def table(head: list[str], rows: list[list[str]], kind: str = "") -> str:
    """An HTML table whose last column is text. Cells are HTML."""

    def line(cells: list[str], tag: str) -> str:
        last = len(cells) - 1
        return "".join(f"<{tag}{' class=text' if i == last else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))

    lines = ([line(head, "th")] if head else []) + [line(row, "td") for row in rows]
    return f"<table class='{kind}'>{''.join(f'<tr>{cells}</tr>' for cells in lines)}</table>"


def section(title: str, note: str, body: str) -> str:
    """A titled block. An empty body is replaced by a note that nothing was recorded."""
    body = body or "<p>Nothing was recorded for this section.</p>"
    return f"<section><h2>{title}</h2><p class=note>{note}</p>{body}</section>"


def key(*roles: tuple[str, str]) -> str:
    """A legend: (role, text) pairs."""
    dash = {role: "dotted" if role == "pixels" else "dashed" for role in DASHES}
    style = {role: f"border-color:{COLOURS[role]};border-top-style:{dash.get(role, 'solid')}" for role, _ in roles}
    marks = [f"<i style='{style[role]}'></i>{text}" for role, text in roles]
    return f"<div class=key>{''.join(marks)}</div>"


def document(title: str, body: str, style: str = "") -> str:
    """The whole page, self-contained: no scripts, no network. `title` is plain text."""
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
    head += f"<style>{STYLE}{style}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body><main>{body}</main></body></html>"
