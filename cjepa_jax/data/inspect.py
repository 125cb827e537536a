"""Reads every scene of a config's source and says what is wrong with which file, and what to set.

python -m cjepa_jax.data.inspect --config=configs/folder.py --out=inspected [--config.data.path=DIR ...]

Training on your own data begins with this command. It writes into the folder --out:

problems.csv    split, scene, file and error of every scene that cannot be read
summary.json    counts of each split: objects, eligible objects, fallbacks, sizes, ranges, labels, repeated scenes
sheet.png       typical scenes and odd ones, with what is odd about each
report.html     all of this on one page, with what to set in the config
scenes-SPLIT.jsonl    a row for each scene

A command that was stopped resumes when it is run again. Unreadable scenes are then read again, so that repaired files
count. The exit code is 3 if training would stop because of unreadable scenes (data.max_replaced), else 0.
"""


def _flags():
    import os

    from absl import flags

    flags.DEFINE_string("out", None, "the folder to write into, made if need be")
    flags.DEFINE_list("splits", "train,eval", "the splits to read, with commas between")
    flags.DEFINE_integer("workers", os.cpu_count(), "processes. Default: one per core", lower_bound=1, upper_bound=1024)


if __name__ == "__main__":
    from cjepa_jax import cli

    raise SystemExit(cli.run("cjepa_jax.data.inspect", _flags))

import base64
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

from cjepa_jax import __version__
from cjepa_jax.configuration import build, check
from cjepa_jax.data import assemble, kinds, pipeline
from cjepa_jax.data.drawing import marks, sheet
from cjepa_jax.data.inspection import published, summary
from cjepa_jax.data.inspection import rows as rows_of
from cjepa_jax.data.worlds.base import World
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import door, paths
from cjepa_jax.masks import naming
from cjepa_jax.reports import html
from cjepa_jax.runtime.workdir import Workdir, write_atomically

SPEED_ONLY = ("workers", "threads", "prefetch", "max_replaced", "row_lengths", "pack")  # change no scene
TYPICAL, ODD = 6, 12  # scenes on the sheet
SIDE = 192  # pixels, width of a picture on the sheet
LISTED = 200  # problems on the page. The table has all


def main(config, _) -> int:
    """Writes what the flags ask for. No run folder is made."""
    given = flags.FLAGS
    return inspect(config, given.out, given.splits, given.workers, quiet=config.log.level == "warning")


def inspect(config, out: str | None, splits: Sequence[str], workers: int, quiet: bool = True) -> int:
    """Reads all scenes and writes the files into `out`. Returns the exit code.

    Raises ConfigError for a config or a folder that does not work, DataError for a source that cannot be built.
    """
    if not out:
        raise ConfigError("--out is missing: name a folder for the report")
    if not splits or len(set(splits)) < len(splits):
        raise ConfigError(f"--splits={','.join(splits)}: name each split once")
    root = paths.given(out, "--out")
    maps = {split: scene_map(config, split) for split in splits}
    named = naming.names_objects(config.mask, next(iter(maps.values())).grid)
    area = tuple(config.mask.area) if named and "area" in config.mask else None
    found: dict[str, list[rows_of.Row]] = {}
    with Workdir(root, setting="--out="):
        for split, scenes in maps.items():
            total = len(scenes.source)
            kept, mark = root / f"scenes-{split}.jsonl", mark_of(config, split, total)
            read = rows_of.every(scenes, total, kept, mark, workers)
            bar = tqdm(read, total=total, unit="scene", desc=split, disable=quiet)
            found[split] = sorted(bar, key=lambda row: row["scene"])
        facts = {s: summary.summarise(found[s], maps[s].source.label_names, area) for s in maps}
        for each in facts.values():
            if not named:
                each.pop("fallback", None)
        twice = summary.shared(found)
        other = published.compare({split: scenes.source for split, scenes in maps.items()})
        advice = summary.advise(facts, len(twice), config, named, other)
        advice += getattr(next(iter(maps.values())).source, "caveats", ())
        write_atomically(root / "problems.csv", table(found))
        content = {"splits": facts, "in two splits": twice[:LISTED], "what to set": advice}
        write_atomically(root / "summary.json", json.dumps(content, indent=1))
        picture = sheet.png(drawn(maps, found))
        with door.replacing(root / "sheet.png") as file:
            file.write(picture)
        write_atomically(root / "report.html", page(config, facts, found, twice, advice=advice, picture=picture))
    for line in [*lines_of(facts), *(f"to set: {line}" for line in advice), f"{root / 'report.html'}"]:
        print(line)
    limit = config.data.max_replaced
    return 3 if any(each["unreadable"] > limit * each["scenes"] for each in facts.values()) else 0


def scene_map(config, split: str) -> pipeline.SceneMap:
    """The config's map from scenes to arrays, with all scenes of a split, without crops and interventions."""
    config = config.copy_and_resolve_references()
    config.data.intervened = "none"
    if split != "train" and not simulated(config):
        config.data.eval_count = 0  # all: a small split is something to set, not an error
    source = assemble.make_source(config, split)
    kinds.require(source, kinds.FILMED, "data.inspect")
    return assemble.make_scenes(config, source, *assemble.patch_and_tubelet(config))


def simulated(config) -> bool:
    """Whether the config's source is a world, which makes as many scenes as are asked for."""
    made = build.locate(config.data.source, "data.source")
    return isinstance(made, type) and issubclass(made, World)


def mark_of(config, split: str, total: int) -> str:
    """Identifies what is inspected: the source, everything that changes a scene, and the mask."""
    data = {key: value for key, value in check.resolve(config.data.to_dict()).items() if key not in SPEED_ONLY}
    what = [__version__, split, total, config.seed, data, config.mask.to_dict(), *assemble.patch_and_tubelet(config)]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:24]


def table(found: dict[str, list[rows_of.Row]]) -> str:
    """The CSV of unreadable scenes."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["split", "scene", "file", "error"])
    for split, rows in found.items():
        for row in rows:
            if "error" in row:
                writer.writerow([split, row["scene"], summary.file_of(row["error"]), row["error"]])
    return out.getvalue()


def lines_of(facts: dict[str, dict[str, Any]]) -> list[str]:
    """The most important counts of each split, one line each."""
    lines = []
    for split, each in facts.items():
        text = f"{split}: {each['scenes']} scenes, {each['unreadable']} unreadable"
        if "short side" in each:
            objects, sizes = each["objects per scene"], each["sizes"]
            text += f", {objects['least']:g} to {objects['most']:g} objects (mean {objects['mean']:.1f})"
            text += f", mostly {sizes[0][0]} pixels, {each['repeated']} repeated"
        if "scenes with an eligible object" in each:
            text += f", {100 * each['scenes with an eligible object']:.0f} % with an eligible object"
        if "fallback" in each:
            text += f", {100 * each['fallback']:.0f} % fall back to blocks"
        lines.append(text)
        lines += [f"  {kind['scenes']} x {kind['kind']}. First: {kind['first']}" for kind in each["problems"][:5]]
    return lines


def drawn(maps: dict[str, pipeline.SceneMap], found: dict[str, list[rows_of.Row]]) -> Image.Image:
    """The sheet: typical and odd scenes of the first split, whole frames in the middle of each, objects outlined."""
    split, scenes = next(iter(maps.items()))
    rows = found[split]
    typical = [(index, "") for index in summary.typical(rows, TYPICAL)]
    odd = summary.odd(rows, ODD)
    by_scene = {row["scene"]: row for row in rows}
    name = type(scenes.source).__name__
    parts = []
    for title, chosen in (("typical", typical), ("odd", odd)):
        blocks = [
            block(scenes.complete(scenes.source[index], f"scene {index} of {name}"), by_scene[index], why)
            for index, why in chosen
        ]
        wide = max((each.width for each in blocks), default=0)
        across = max(1, sheet.WIDTH // (wide + sheet.GAP))
        blocks = [sheet.padded(each, wide) for each in blocks]
        lines = [sheet.across(blocks[i : i + across], sheet.GAP) for i in range(0, len(blocks), across)]
        parts += [sheet.line((f"{name}, {split} split: {len(chosen)} {title} scenes",)), *lines]
    body = sheet.down(parts, sheet.GUTTER)
    whole = Image.new("RGB", (body.width + 2 * sheet.MARGIN, body.height + 2 * sheet.MARGIN), sheet.PAPER)
    whole.paste(body, (sheet.MARGIN, sheet.MARGIN))
    return whole


def block(raw: dict[str, np.ndarray], row: rows_of.Row, why: str) -> Image.Image:
    """A scene's middle frame and what it is."""
    middle = len(raw["video"]) // 2
    picture = np.ascontiguousarray(marks.enlarge(marks.rgb(raw["video"][middle]), SIDE))
    for k, mask in enumerate(raw["masks"][:, middle]):
        marks.outline(picture, mask, marks.DARK, 4)
        marks.outline(picture, mask, marks.colour(k), 2)
    width, height = row["size"]
    title = sheet.line((f"{row['scene']}",), f"  {row['objects']} objects, {width} x {height}", size=13)
    return sheet.down([title, Image.fromarray(picture), *([sheet.line(why, size=12)] if why else [])], 2)


def page(config, facts, found, twice, advice: Sequence[str], picture: bytes) -> str:
    """report.html: self-contained, without scripts."""
    name = f"{config.data.source.rpartition(':')[2]} {config.data.path}".strip()
    body = [f"<h1>{escape(name)}</h1>"]
    body.append(html.section("What to set", "", "".join(f"<p>{escape(line)}</p>" for line in advice)))
    names = list(dict.fromkeys(key for each in facts.values() for key in each if key not in ("problems", "warnings")))
    # The last column is empty, because a table's last column is text and the others are numbers.
    cells = [[escape(key), *(shown(facts[split].get(key)) for split in facts), ""] for key in names]
    note = "Shares are between 0 and 1. Of several values: their range, the middle 90 % in brackets, and the mean."
    body.append(html.section("Counts", note, html.table(["", *map(escape, facts), ""], cells)))
    kinds = [
        [escape(split), str(kind["scenes"]), escape(kind["kind"]), escape(kind["first"])]
        for split, each in facts.items()
        for kind in each["problems"]
    ]
    note = "Errors that differ only in names and numbers are counted together."
    wrong = html.table(["split", "scenes", "what", "first"], kinds) if kinds else "<p>Nothing is wrong.</p>"
    body.append(html.section("What is wrong", note, wrong))
    bad = [(split, row) for split, rows in found.items() for row in rows if "error" in row]
    listed = [[escape(split), str(row["scene"]), escape(row["error"])] for split, row in bad[:LISTED]]
    if bad:
        note = (
            f"The first {LISTED} of {len(bad)}. problems.csv has all." if len(bad) > LISTED else "As in problems.csv."
        )
        body.append(html.section("Unreadable scenes", note, html.table(["split", "scene", "error"], listed)))
    pairs = [[str(cell) for cell in pair] for pair in twice[:LISTED]]
    if pairs:
        note = f"{len(twice)} scenes have the same pixels as one of another split."
        body.append(html.section("In two splits", note, html.table(["split", "scene", "split", "scene"], pairs)))
    warned = sorted({line for each in facts.values() for line in each["warnings"]})
    if warned:
        body.append(html.section("Warnings of the reader", "", "".join(f"<p>{escape(line)}</p>" for line in warned)))
    data = base64.b64encode(picture).decode()
    image = f"<img alt='Typical scenes, then odd ones' style='max-width:100%' src='data:image/png;base64,{data}'>"
    note = "Typical scenes are nearest to the median in all counts, odd ones farthest in one."
    body.append(html.section("Typical and odd scenes", note, image))
    return html.document(f"{name}: inspection", "".join(body))


def shown(value: Any) -> str:
    """A value of the summary as HTML for a cell."""
    if isinstance(value, float):
        return html.number(value)
    if isinstance(value, dict) and "least" in value:  # summary.spread
        least, low, high, most, mean = (html.number(value[key]) for key in ("least", "5 %", "95 %", "most", "mean"))
        return least if least == most else f"{least} – {most} ({low} – {high}), {mean}"
    if isinstance(value, dict):
        return "<br>".join(f"{escape(str(key))}: {shown(each)}" for key, each in value.items()) or "–"
    if isinstance(value, list | tuple):
        parts = (": ".join(map(str, each)) if isinstance(each, list | tuple) else str(each) for each in value)
        return escape(", ".join(parts))
    return "–" if value is None else escape(str(value))
