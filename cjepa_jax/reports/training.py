"""The report of a run: one self-contained report.html from the files of its folder. No JAX, no scripts, no network.

python -m cjepa_jax.report --workdir=DIR        (re)build it, also during the run
"""

import itertools
import json
import math
import os
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cjepa_jax import __version__
from cjepa_jax.configuration.check import flatten
from cjepa_jax.reports import glossary, pictures
from cjepa_jax.reports.charts import Line, Panel, panels
from cjepa_jax.reports.html import document, key, number, score, section, table
from cjepa_jax.reports.run import MOST_METRICS, Run, numeric, read
from cjepa_jax.runtime import ending, fallbacks
from cjepa_jax.runtime.workdir import write_atomically
from cjepa_jax.runtime.writers import format_seconds

HIGHLIGHTS = {  # title -> config values worth a glance, each with its own label where the key alone says too little
    "data": {"data.source": "", "data.path": "", "data.size": "", "data.frames": "", "data.intervened": ""},
    "model": {
        "objective.encoder.variant": "encoder",
        "objective.predictor.depth": "predictor depth",
        "objective.predictor.width": "predictor width",
        "dtype": "",
    },
    "masks": {"mask.type": "", "mask.max_objects": "at most", "mask.area": "", "mask.anchor": ""},
    "training": {
        "train.batch": "",
        "train.steps": "",
        "train.epochs": "",
        "optim.peak": "explicit peak rate",
        "seed": "",
    },
}


LONGEST = 200  # characters of a value that are shown
ENOUGH = 100  # scenes of a test that can tell something
OPTIONS = {"causal_weight": "causal weight λ", "sigreg_weight": "SIGReg weight μ"}  # labels of options
TERMS = {"causal": "causal consistency", "sigreg": "SIGReg"}  # titles of terms


def header(run: Run) -> str:
    """Name, state, provenance and config highlights."""
    steps, total = run.last("step") or (run.rows[-1]["step"] if run.rows else 0), numeric(run.setting("train.steps"))
    state = "finished" if run.result else "not finished (no result.json)"
    facts = [["state", f"{state}, step {steps:,.0f}" + (f" of {total:,.0f}" if total else "")]]
    recorded = {"version": __version__ + " (of this report)"} | run.result
    named = {"command": "command", "seconds": "time", "resumed_at": "resumed at step", "devices": "devices"}
    for name, title in (named | {"version": "version"}).items():
        value = recorded.get(name, "not recorded")
        if value in (0, "not recorded") and name not in ("command", "devices"):
            continue
        if name == "seconds" and (seconds := numeric(value)) is not None:
            value = f"{format_seconds(seconds)} ({seconds:,.0f} s)"
        facts.append([title, f"<code>{escape(value if isinstance(value, str) else json.dumps(value))}</code>"])
    for title, names in HIGHLIGHTS.items():
        if title == "training":
            facts.append(["objective", objective(run)])
        if title == "masks" and not run.hides():
            continue  # the objective ignores them
        known = {label or name.rsplit(".", 1)[-1]: run.setting(name) for name, label in names.items()}
        if known.get("steps"):
            del known["epochs"]  # not used
        if cells := values(known):
            facts.append([title, cells])
    facts += [["note", f"<span class=bad>{escape(note)}</span>"] for note in run.notes]
    return f"<h1>{escape(run.workdir.resolve().name)}</h1>{tiles(run)}<section>{table([], facts, 'facts')}</section>"


def values(known: dict[str, Any]) -> str:
    """Labelled config values as HTML. Those that are not there are left out."""
    cells = [f"{escape(label)} <b>{escape(show(value))}</b>" for label, value in known.items()]
    return " · ".join(cell for cell, value in zip(cells, known.values(), strict=True) if value not in (None, ""))


def show(value: Any) -> str:
    """A config value in few characters: a path of this package by its last names, a list in brackets."""
    text = str(value)
    if isinstance(value, str) and value.startswith("cjepa_jax."):
        text = value.rpartition(".")[2]
        text = text.rpartition(":")[2] if value.rpartition(":")[2][:1].isupper() else text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def objective(run: Run) -> str:
    """The config's section objective: its type and every option of it, without the encoder and the predictor."""
    section = run.setting("objective")
    options = dict(flatten(section)) if isinstance(section, dict) else {}
    own = {name: value for name, value in options.items() if not name.startswith(("encoder.", "predictor.", "type"))}
    known = {"type": options.get("type")} | {OPTIONS.get(name, name): value for name, value in own.items()}
    return values(dict(list(known.items())[:MOST_METRICS])) or "not recorded"


def tiles(run: Run) -> str:
    """The run at a glance."""
    found = []
    for name in run.contrasts()[:1]:
        value, init = run.last(f"{name}/do_contrast"), run.last(f"{name}/do_contrast_random")
        found.append(("do-contrast R²", score(value), f"random init {score(init)}"))
    for group in run.groups()[:1]:
        r2, init = run.last(f"probe/{group}_r2"), run.last(f"probe/{group}_r2_random")
        found.append((f"{group} R²", score(r2), f"random init {score(init)}"))
    for name, title in (("rankme", "effective rank"), ("response", "response")):
        value = run.last(f"probe/{name}")
        if value is not None:
            found.append((title, score(value), f"random init {score(run.last(f'probe/{name}_random'))}"))
    loss, (speed, compiled) = run.last("loss"), run.steady("scenes_per_s")
    if loss is not None:
        found.append(("loss, last logged", number(loss), "not a measure of progress"))
    if len(speed):
        found.append(
            ("scenes per second", f"{median(speed):.3g}", "median" + (", with compilation" if compiled < 0 else ""))
        )
    cells = (
        f"<div class=tile><small>{escape(t)}</small><b>{v}</b><small>{escape(s)}</small></div>" for t, v, s in found
    )
    return f"<div class=tiles>{''.join(cells)}</div>"


def verdict(value: float | None, others: dict[str, float | None], coloured: bool) -> str:
    """The comparison of a value with each measured reference, in words. Too few scenes have no colours."""
    words = []
    for name, other in others.items():
        if value is not None and other is not None and np.isfinite(value - other):
            change = value - other
            sign = "same as" if abs(change) < 0.005 * max(1, abs(other)) else "above" if change > 0 else "below"
            kind = {"above": "good", "below": "bad"}.get(sign, "") if coloured else ""
            words.append(f"<span class='{kind}'>{sign} {name} ({change:+.3g})</span>")
    return ", ".join(words) or "–"


def headline(run: Run) -> str:
    """The result table: trained, random init and the pixel floor, with what is better and what is worse."""
    rows, better, worse = [], [], []
    for name in run.contrasts():
        value, init = run.last(f"{name}/do_contrast"), run.last(f"{name}/do_contrast_random")
        half = run.last(f"{name}/do_contrast_interval")
        cell = score(value) + (f" ± {number(half)}" if half is not None else "")
        ceiling = run.last(f"{name}/do_contrast_ceiling")
        text = f"{verdict(value, {'random': init}, True)}. The true change has {number(ceiling)}"
        rows.append(["do-contrast R²", cell, score(init), "–", text])
        if value is not None and init is not None:
            (better if value - (half or 0) > init else worse).append("do-contrast")
    few = numeric(run.setting("probe.test")) or math.inf
    enough = not few < ENOUGH
    for group in run.groups():
        value, init, floor = (run.last(f"probe/{group}_r2{kind}") for kind in ("", "_random", "_pixels"))
        rows.append(
            [
                f"{escape(group)} R²",
                *map(number, (value, init, floor)),
                verdict(value, {"random": init, "pixels": floor}, enough),
            ]
        )
        if value is not None and init is not None:
            (better if value > init else worse).append(group)
    for name, title in (
        ("rankme", "effective rank (RankMe)"),
        ("feature_std", "feature std"),
        ("response", "response"),
    ):
        value, init = run.last(f"probe/{name}"), run.last(f"probe/{name}_random")
        if value is not None:
            rows.append([title, score(value), score(init), "–", verdict(value, {"random": init}, enough)])
            if init is not None:
                (better if value > init else worse).append(title)
    if not rows:
        return section(
            "Result", "", "<p>No probe was recorded, so nothing can be said about what the features hold.</p>"
        )
    steps = [row["step"] for row in run.rows if any(name.startswith("probe/") for name in row)]
    text = f"Above random init: {', '.join(better) or 'nothing'}. Not above it: {', '.join(worse) or 'nothing'}. "
    text += "This is one run: it has no spread, and differences of a few hundredths are within what a seed changes. "
    text += "" if enough else f"Only {few:.0f} scenes are tested: far too few for these numbers to mean anything. "
    text += f"Last probe at step {steps[-1]:,.0f}." if steps else ""
    head = ["", "trained", "random init", "pixel PCA", "trained is"]
    return section("Result", "Frozen features of held-out scenes.", f"<p>{escape(text)}</p>{table(head, rows)}")


def removals(run: Run) -> str:
    """The do-contrast of the monitor `Removals` (docs/EVALUATION.md, "Effects"), and pictures of monitors. Nothing if
    the run has neither."""
    shown = {} if run.scenes is None else run.scenes.shown
    body = "".join(pictures.figure(title, picture) for title, picture in shown.items())
    charts = []
    for name in run.contrasts():
        found = [("random", "do_contrast_random"), ("other", "do_contrast_ceiling"), ("trained", "do_contrast")]
        charts.append(curve(run, *[(r, f"{name}/{n}") for r, n in found], title="do-contrast R²", zero=True))
        found = [("random", "explained_random"), ("other", "explained_wrong_object"), ("trained", "explained")]
        charts.append(curve(run, *[(r, f"{name}/{n}") for r, n in found], title="explained change", zero=True))
    if not body and not charts:
        return ""
    note = "Two objects, k and o, can be removed from each held-out scene. The do-contrast scores the predicted "
    note += "difference of the two removals at tokens that neither touches: 0 for any answer that does not depend on "
    note += "the removed object, 1 for the truth. The green line is the true change by the same decoder (left), and "
    note += "the answer for o scored as the answer for k (right)."
    legend = key(("trained", "trained"), ("random", "random init"), ("other", "true change; wrong object"))
    return section("What changes without which object?", note, body + (charts and legend + panels(charts) or ""))


def curve(run: Run, *named: tuple[str, str], title: str, **options) -> Panel:
    """A panel of logged metrics, given as (role, metric)."""
    return Panel(title, [Line(role, *run.series(name)) for role, name in named], **options)


def losses(run: Run) -> str:
    """The loss and every term of it that was logged, each with its floor if it has one."""
    steps, skipped = run.series("skipped")
    marks = [int(step) for step in steps[skipped > 0]]
    charts = [curve(run, ("loss", "loss"), title="total", log=True, marks=marks)]
    for name, role in zip(run.terms(), itertools.cycle(("trained", "other", "loss"))):
        floor = run.series(f"loss/{name}_floor")[1]
        if floor.any():  # an objective without a floor logs none, or 0
            lines, title = [("random", f"loss/{name}_floor")], f"{TERMS.get(name, name)} and its floor (dashed)"
        else:
            lines, title = [], TERMS.get(name, name)
        charts.append(curve(run, *lines, (role, f"loss/{name}"), title=title, log=not lines))
    weights = {name: run.setting(f"objective.{name}_weight") for name in run.terms()}
    known = ", ".join(f"{name} {weight}" for name, weight in weights.items() if weight is not None)
    note = f"Terms before their weights ({known}). " if known else ""
    note += "Long runs show the mean and range of each bin. "
    note += f"Red ticks: logged windows with skipped updates ({len(marks)})." if marks else "No update was skipped."
    return section("Loss", escape(note), panels(charts))


def others(run: Run) -> str:
    """Every other metric, as an objective or a monitor logs it. Nothing if there is none."""
    chart = panels([curve(run, ("trained", name), title=name) for name in run.others()])
    note = "As the objective and the monitors log them. The glossary says what they are."
    return section("Other logged metrics", note, chart) if chart else ""


def probes(run: Run) -> str:
    """Probe R² of every group over steps."""
    kinds = (("pixels", "_r2_pixels"), ("random", "_r2_random"), ("trained", "_r2"))
    charts = [
        curve(run, *[(role, f"probe/{group}{end}") for role, end in kinds], title=group, zero=True)
        for group in run.groups()
    ]
    note = "R² of a ridge regression on frozen features of held-out scenes. Blue above grey: training added something."
    legend = key(("trained", "trained"), ("random", "random init"), ("pixels", "pixel PCA"))
    chart = panels(charts)
    return section("Probes over training", note, chart and legend + chart)


def health(run: Run) -> str:
    """Collapse monitors and the optimiser."""
    pair = [("random", "probe/{}_random"), ("trained", "probe/{}")]
    charts = [
        curve(run, *[(r, n.format("rankme")) for r, n in pair], ("other", "rankme"), title="effective rank", zero=True),
        curve(
            run,
            *[(r, n.format("feature_std")) for r, n in pair],
            ("other", "feature_std"),
            title="feature std",
            zero=True,
        ),
        curve(run, *[(r, n.format("response")) for r, n in pair], title="response to a true removal", zero=True),
        curve(run, ("loss", "ema_momentum"), title="EMA momentum τ"),
        curve(run, ("loss", "learning_rate"), title="learning rate", zero=True),
        curve(run, ("loss", "grad_norm"), title="gradient norm", log=True),
        curve(run, ("loss", "update_norm"), title="update norm", log=True),
        curve(run, ("loss", "context_fraction"), title="context fraction"),
    ]
    note = "Effective rank or feature std falling towards the axis is collapse. Rank grows with the number of scenes: "
    note += "compare blue with grey, which see the same ones, and green only with itself."
    legend = key(("trained", "trained, held-out"), ("random", "random init, held-out"), ("other", "training batches"))
    chart = panels(charts)
    return section("Collapse monitors and optimiser", note, chart and legend + chart)


def scenes(run: Run) -> str:
    """The picture sections, each if its arrays exist."""
    found = run.scenes
    if found is None:
        why = "There is no readable report.npz, so there are no pictures."
        said = run.result.get("pictures")
        if isinstance(said, str):  # the objective shows nothing, or none were wanted
            why = f"There are no pictures: {said[:LONGEST]}."
        elif not run.result and not (run.workdir / "report.npz").exists():
            why = "The pictures are made at the end of the run."
        return section("Pictures", "", f"<p>{escape(why)}</p>")
    what = "the first frame of each tubelet, left to right" if found.video.shape[1] > 1 else "one image each"
    note = f"Pink outline: removed objects. Blue tint: patches that the context encoder did not see. {what}."
    parts = [section("Scenes and what was hidden", note, pictures.sheet(found))]
    note = "The first three principal components of the patch features of all shown scenes, as red, green and blue: "
    note += "patches of one colour have similar features. Objects that stand out are what one hopes for. Colours "
    note += "that only follow the place, the same in every scene, are the positional code."
    body = "" if found.pca is None else pictures.features(found)
    parts.append(section("Patch features", note, body))
    if found.painted is not None:
        note = "The patches that were hidden, as the decoder paints them from the visible ones. A normalised patch is "
        note += "shown with its true mean and contrast. What cannot be known from the rest comes out blurred."
        parts.append(section("Painted scenes", note, pictures.paintings(found)))
    if found.predicted_change is None or found.true_change is None:
        return "".join(parts)
    note = "How much the residual head expects each visible patch to change when the outlined objects go (norm of its "
    note += "output), and how much it did (norm of s_full - s_int). Both share one colour scale per scene."
    parts.append(section("Predicted and true change", note, pictures.changes(found)))
    return "".join(parts)


def throughput(run: Run) -> str:
    """Speed and counted events."""
    rows, compiled = [], 0
    for name, title in (
        ("scenes_per_s", "scenes per second"),
        ("step_time_ms", "step time, ms"),
        ("data_wait", "data wait, share"),
    ):
        found, left = run.steady(name)
        found = found[np.isfinite(found)]
        if len(found):
            compiled = left
            low, high = np.percentile(found, (10, 90))
            rows.append([title, number(float(np.median(found))), f"10 to 90 %: {number(low)} to {number(high)}"])
    for name in ("compilations", "skipped_total", "replaced_scenes", "fallback_scenes"):
        value = run.last(name)
        if value is not None:
            rows.append([name.replace("_", " "), f"{value:.4g}", "last logged"])
    warning = fallbacks.worst(run.rows, run.config or {})
    note = "Every logged window compiled a step, so the times include compilation."
    if compiled >= 0:
        note = f"Over the logged windows, without the {compiled} in which a step was compiled."
    note += f" Warning: {warning}." if warning else ""
    return section("Throughput and counts", note, rows and table(["", "median or value", ""], rows))


def page(run: Run) -> str:
    """The whole document."""
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in glossary.entries(run).items())
    config = escape(json.dumps(run.config, indent=1)) if run.config else "config.json was not found"
    parts = [header(run), headline(run), removals(run), losses(run), probes(run), health(run), others(run)]
    parts += [scenes(run), throughput(run)]
    parts.append(section("Glossary", "Every quantity on this page.", f"<dl>{terms}</dl>"))
    parts.append(f"<section><details><summary>Resolved config</summary><pre>{config}</pre></details></section>")
    side = f":root{{--side:{run.scenes.side() if run.scenes else 0}px}}"
    return document(f"{run.workdir.resolve().name}: report", "".join(parts), side)


def write(workdir: str | os.PathLike) -> Path:
    """Write workdir/report.html from config.json, metrics.jsonl, result.json and report.npz. Returns its path.

    The file appears whole or not at all. Raises DataError without the folder or its metrics.jsonl, OSError when it
    cannot be written.
    """
    target = Path(workdir) / "report.html"
    write_atomically(target, page(read(Path(workdir))))
    return target


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = ending.Parser(prog="python -m cjepa_jax.report", description="Rebuild a run's report.html.")
    parser.add_argument("--workdir", required=True, type=ending.path_argument, help="the run's folder")
    return ending.guard(lambda: print(write(parser.parse_args(argv).workdir)))


if __name__ == "__main__":
    raise SystemExit(main())
