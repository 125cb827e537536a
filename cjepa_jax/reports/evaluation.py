"""The results of an evaluation as text and as a page: tables of scores with their floors and ceilings, and pictures."""

import json
import re
from html import escape
from pathlib import Path

import numpy as np

from cjepa_jax.data.formats import files
from cjepa_jax.errors import DataError, printable
from cjepa_jax.evals.base import KINDS, RANDOM, TRAINED, Result, Score
from cjepa_jax.host import door
from cjepa_jax.reports import charts, html, pictures
from cjepa_jax.reports.results import is_well_formed
from cjepa_jax.runtime.workdir import write_atomically
from cjepa_jax.weights import npz

LESS = re.compile(r"(^|[/_ -])(mse|mae|error|loss|distance)\b")  # metrics for which lower is better
ROLES = ("other", "loss", "bad", "pixels")  # colours of curves that are neither trained nor random
SHOWN = 24  # metrics drawn as dots (the table has all)
NAMED = 4  # metrics that a cell of the result table names
VERDICTS = ("better than every floor", "not told apart from a floor", "worse than a floor")
STYLE = """
.wide { overflow-x: auto }
.verdicts td, .verdicts th { text-align: left; vertical-align: top; width: 30% }
.verdicts td:first-child, .verdicts th:first-child { width: 10% }
.verdicts small { display: block; overflow-wrap: anywhere }
.wide td, .wide th { white-space: nowrap; padding: 5px 7px }
.wide td:last-child { white-space: normal; min-width: 190px; font-size: 13px }
th small { display: block; font-weight: 400 }
.wide, .curve { margin-bottom: 14px }
.curve { display: inline-block; width: 520px; max-width: 100%; margin-top: 14px }
ul { margin: 14px 0 0; padding-left: 20px }
"""


def as_text(result: Result) -> str:
    """A line per metric: each row's value, with half of its 95 % interval if it has one."""
    lines = []
    for metric, scores in by_metric(result).items():
        cells = [f"{score.row} {number(score, places(scores))}" for score in scores]
        lines.append(f"  {metric:32} {'   '.join(cells)}")
    return "\n".join(map(printable, [*lines, *(f"  note: {note}" for note in result.notes)]))


def number(score: Score, digits: int = 3) -> str:
    """ "0.713 ± 0.021"."""
    value = round(score.value, digits) + 0.0  # no "-0.000"
    return f"{value:.{digits}f}" + (f" ± {score.interval:.{digits}f}" if np.isfinite(score.interval) else "")


def places(scores: list[Score]) -> int:
    """Digits after the point: 3, 1 for large values, more for small errors and for what 3 would show as 0."""
    largest = max((abs(score.value) for score in scores if np.isfinite(score.value)), default=0)
    if 0 < largest < (0.01 if LESS.search(scores[0].metric) else 0.001):
        return min(2 - int(np.floor(np.log10(largest))), 7)
    return 1 if largest >= 10 else 3


def save_pictures(folder: Path, name: str, result: Result) -> None:
    """Keeps a protocol's images and curves in the folder, for `write`: pictures/NAME.npz, and what each array is."""
    known = [(["image", title], image) for title, image in result.images.items()]
    for title, lines in result.curves.items():
        known += [(["curve", title, label], np.asarray(xy, float)) for label, xy in lines.items()]
    file = door.below(folder, "pictures", f"{name}.npz")
    file.unlink(missing_ok=True)
    if known:
        door.folder(folder, "pictures")
        arrays = {str(i): array for i, (_, array) in enumerate(known)}
        with door.replacing(file) as new:
            np.savez_compressed(new, index=np.array(json.dumps([what for what, _ in known])), **arrays)


def write(folder: Path) -> Path:
    """Writes report.html from results.json and the stored pictures. Returns its path. Raises DataError without them."""
    file = folder / "results.json"
    try:
        saved = door.read_json(file)
        about, protocols = saved["about"], saved["protocols"]
        made = list(saved.get("made", {}).values()) or [about]
        if not all(map(is_well_formed, protocols.values())):
            raise ValueError("a protocol's result has other fields")
        results = {name: _result(folder, name, found) for name, found in protocols.items()}
        title = f"Evaluation of {Path(about['checkpoint']['checkpoint']).name}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder}: not the results of an evaluation ({error})") from error
    body = [
        f"<h1>{escape(title)}</h1><section>{html.table([], facts(about, made), 'facts')}</section>",
        summary(results),
    ]
    body += [protocol(name, result, protocols[name].get("seconds")) for name, result in results.items()]
    write_atomically(folder / "report.html", html.document(title, "".join(body), STYLE))
    return folder / "report.html"


def facts(about: dict, made: list[dict]) -> list[list[str]]:
    """What was evaluated, on which data, by which commands (the protocols may have been run separately)."""
    checkpoint, evals = about["checkpoint"], about["evals"]
    by = {key: dict.fromkeys(each[key] for each in made if key in each) for key in ("command", "devices", "version")}
    known = {
        "checkpoint": checkpoint["checkpoint"],
        "step": f"{checkpoint['step']:,}",
        "training seed": checkpoint["seed"],
        "data": f"{about['data']['source'].rpartition(':')[2]}, {about['data']['size']} pixels, "
        f"{about['data']['frames']} frames",
        "other data than the training's": "; ".join(checkpoint.get("transfer", ())) or None,
        "heads": f"fitted on {evals['fit'] or 'all'} scenes of {evals['fit_split']!r}, scored on "
        f"{evals['test'] or 'all'} of {evals['test_split']!r}, seed {evals['seed']}",
        **{key: "; ".join(values) or None for key, values in by.items()},
    }
    return [[name, f"<code>{escape(str(value))}</code>"] for name, value in known.items() if value is not None]


def summary(results: dict[str, Result]) -> str:
    """A table: how many metrics of each protocol are better than every floor, and how many are not."""
    lines = []
    for name, result in results.items():
        found: dict[str, list[str]] = {kind: [] for kind in VERDICTS}
        for metric, scores in by_metric(result).items():
            compared = floors(scores)
            if compared is not None:
                better, near = compared
                far = [floor for floor in better if floor not in near]
                rows = ", ".join(floor.row for floor in far or near)
                found[VERDICTS[2 if far else 1 if near else 0]].append(metric + (f" ({rows})" if rows else ""))
        lines.append([escape(name), *map(_counted, found.values())])
    note = "The same network at random initialisation is a floor of every number. This is one run: nothing here says "
    note += "how much another training seed would change."
    return html.section("Result", note, html.table(["", *VERDICTS], lines, "verdicts") if lines else "")


def _counted(metrics: list[str]) -> str:
    """A cell: the number of metrics, and the names of the first of them."""
    more = [f"{len(metrics) - NAMED} more"] if len(metrics) > NAMED else []
    named = f"<small>{escape(', '.join(metrics[:NAMED] + more))}</small>" if metrics else ""
    return f"<b>{len(metrics)}</b>{named}"


def protocol(name: str, result: Result, seconds: float | None) -> str:
    """A protocol's section: table, dots, pictures, curves, notes."""
    metrics = by_metric(result)
    rows = order(result.scores)
    shown = [
        charts.Dots(metric, [(s.row, role(s), s.value, s.interval) for row in rows for s in scores if s.row == row])
        for metric, scores in list(metrics.items())[:SHOWN]
    ]
    body = "".join(scores_table(group) for group in tables(metrics))
    body += charts.dots(shown)
    body += "".join(pictures.figure(title, image) for title, image in result.images.items())
    body += "".join(curves(title, lines) for title, lines in result.curves.items())
    if result.notes:
        body += f"<ul class=note>{''.join(f'<li>{escape(note)}</li>' for note in result.notes)}</ul>"
    return html.section(escape(name), interval_note(result, seconds), body)


def tables(metrics: dict[str, list[Score]]) -> list[dict[str, list[Score]]]:
    """Groups of consecutive metrics that have the same rows, or some of them."""
    groups, known = [], set()
    for metric, scores in metrics.items():
        rows = {score.row for score in scores}
        if not groups or not (rows <= known or known <= rows):
            groups.append({})
            known = set()
        groups[-1][metric] = scores
        known |= rows
    return groups


def scores_table(metrics: dict[str, list[Score]]) -> str:
    """A line per metric, a column per row that they have: results, floors, ceilings, and a verdict."""
    every = [score for scores in metrics.values() for score in scores]
    kinds = {score.row: score.kind for score in every}
    rows = order(every)
    head = ["", *(f"{escape(row)}<small>{kinds[row] if row != TRAINED else '&nbsp;'}</small>" for row in rows)]
    lines = []
    for metric, scores in metrics.items():
        cells = {score.row: number(score, places(scores)) for score in scores}
        lines.append([escape(metric), *(cells.get(row, "") for row in rows), verdict(scores)])
    return f"<div class=wide>{html.table([*head, 'trained is'], lines)}</div>"


def order(scores: list[Score]) -> list[str]:
    """The rows that scores have: trained, other results, floors, ceilings."""
    kinds = {score.row: score.kind for score in scores}
    return sorted(kinds, key=lambda row: (KINDS.index(kinds[row]), row != TRAINED))


def interval_note(result: Result, seconds: float | None) -> str:
    """The variation that the intervals cover."""
    counts = sorted({score.count for score in result.scores if score.count})
    text = f"Test items: {', '.join(f'{count:,}' for count in counts)}. " if counts else ""
    text += "± is half of the 95 % interval over items. For random init it is over its initialisations."
    return text + (f" {seconds:.0f} s." if seconds is not None else "")


def by_metric(result: Result) -> dict[str, list[Score]]:
    """The scores of each metric, in the order in which they came."""
    metrics = dict.fromkeys(score.metric for score in result.scores)
    return {metric: [score for score in result.scores if score.metric == metric] for metric in metrics}


def floors(scores: list[Score]) -> tuple[list[Score], list[Score]] | None:
    """The floors that are better than one metric's trained row, and those within the intervals of it. None if there is
    nothing to compare."""
    trained = next((s for s in scores if s.row == TRAINED and np.isfinite(s.value)), None)
    known = [s for s in scores if s.kind == "floor" and np.isfinite(s.value)]
    if trained is None or not known:
        return None
    sign = -1 if LESS.search(trained.metric) else 1
    better = [floor for floor in known if sign * (trained.value - floor.value) < 0]
    near = [
        floor
        for floor in known
        if abs(floor.value - trained.value) <= np.hypot(*np.nan_to_num([floor.interval, trained.interval]))
    ]
    return better, near


def verdict(scores: list[Score]) -> str:
    """The comparison of the trained row with the floors, in words."""
    compared = floors(scores)
    if compared is None:
        return "–"
    better, near = compared
    if better:
        side = "above" if LESS.search(scores[0].metric) else "below"
        text = f"{side} {escape(', '.join(floor.row for floor in better))}"
        return f"<span class=bad>{text}{'' if set(better) - set(near) else ', within the intervals'}</span>"
    if near:
        return f"<span>within the intervals of {escape(', '.join(floor.row for floor in near))}</span>"
    return "<span class=good>better than every floor</span>"


def role(score: Score) -> str:
    """The colour of a score."""
    if score.row in (TRAINED, RANDOM):
        return "trained" if score.row == TRAINED else "random"
    return {"floor": "pixels", "ceiling": "other", "result": "loss"}[score.kind]


def curves(title: str, lines: dict) -> str:
    """A titled chart with its legend."""
    others = iter(ROLES * (1 + len(lines) // len(ROLES)))
    roles = {
        label: "trained" if label == TRAINED else "random" if label.startswith(RANDOM) else next(others)
        for label in lines
    }
    drawn = [charts.Line(roles[label], *np.asarray(xy, float)) for label, xy in lines.items()]
    chart = charts.panels([charts.Panel(title, drawn)], columns=1)
    return chart and f"<div class=curve>{html.key(*((roles[label], escape(label)) for label in lines))}{chart}</div>"


def _result(folder: Path, name: str, saved: dict) -> Result:
    """A protocol's stored result."""
    images, lines = {}, {}
    file = files.inside(folder / "pictures", f"{name}.npz")
    if file.is_file():
        arrays = npz.read(file)
        for i, (kind, title, *label) in enumerate(door.parsed(str(arrays["index"]))):
            array = arrays[str(i)]
            picture = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size
            picture = picture and max(array.shape) <= pictures.WEBP_SIDE
            curve = len(label) == 1 and array.ndim == 2 and len(array) == 2 and array.dtype.kind == "f"
            texts = all(isinstance(text, str) for text in (title, *label))
            if not texts or not (picture if kind == "image" else curve):
                raise ValueError(f"{file.name}: array {i} is not a picture or curve")
            if kind == "image":
                images[title] = array
            else:
                lines.setdefault(title, {})[label[0]] = tuple(array)
    return Result([_score(score) for score in saved["scores"]], images, lines, saved["notes"])


def _score(saved: dict) -> Score:
    """NaN is stored as null."""
    return Score(**{key: float("nan") if value is None else value for key, value in saved.items()})
