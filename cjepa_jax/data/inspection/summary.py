"""What the rows of a split say together, which scenes are typical or odd, and what to set in the config."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cjepa_jax.data.inspection.rows import Row

PERCENTILES = (5, 25, 50, 75, 95)
DARK, FLAT = 64, 2.0  # brightest value and deviation of the pixels below which a scene is called dark, or flat
OFF = 0.5  # most that a channel's mean may differ from 0 after normalisation, without advice
MANY_FALLBACKS = 0.1  # share of scenes without an eligible object above which something is advised
PROBE_NEEDS = 4  # held-out scenes, as cjepa_jax.evals.probe
LIMITS = (0.005, 0.6)  # between which mask.area is advised
FEATURES = ("width", "height", "objects", "covered", "mean", "std", "motion")


def summarise(rows: Sequence[Row], label_names: Sequence[str], area: tuple[float, float] | None) -> dict[str, Any]:
    """Counts of a split. area: the config's limits of an eligible object's share of the tokens, None without limits."""
    good = [row for row in rows if "error" not in row]
    bad = [row for row in rows if "error" in row]
    facts: dict[str, Any] = {"scenes": len(rows), "unreadable": len(bad), "problems": kinds(bad)}
    facts["warnings"] = [line for row in rows for line in row.get("warnings", [])][:20]
    if not good:
        return facts
    shares = np.array([share for row in good for share in row["areas"]])
    visible = [len(row["areas"]) for row in good]
    sizes = collections.Counter(f"{width} x {height}" for width, height in (row["size"] for row in good))
    repeats = collections.Counter(row["digest"] for row in good)
    facts |= {
        "objects per scene": spread(visible),
        "without objects": share(count == 0 for count in visible),
        "fallback": share(row["fallback"] for row in good),
        "area of an object": spread(shares),
        "sizes": sizes.most_common(8),
        "kinds of size": len(sizes),
        "short side": spread([min(row["size"]) for row in good]),
        "pixels": [min(row["low"] for row in good), max(row["high"] for row in good)],
        "mean of the pixels": spread([row["mean"] for row in good]),
        "dark": share(row["high"] < DARK for row in good if "channels" not in row),
        "flat": share(row["std"] < FLAT for row in good if "channels" not in row),
        "still": share(row["motion"] == 0 for row in good),
        "repeated": sum(count - 1 for count in repeats.values()),
        "seconds": spread([row["seconds"] for row in good]),
        "labels": {name: spread([row["labels"][i] for row in good]) for i, name in enumerate(label_names)},
        "classes": dict(sorted(collections.Counter(row["class"] for row in good if "class" in row).items())),
    }
    if "channels" in good[0]:
        mean, std = np.moveaxis(np.array([row["channels"] for row in good]), -1, 0)  # [scenes, C] each
        whole = np.sqrt(np.square(std).mean(0) + mean.var(0))
        facts |= {"mean of each channel": mean.mean(0).tolist(), "deviation of each channel": whole.tolist()}
    if area is not None:
        low, high = area[0] - 1e-9, area[1] + 1e-9
        inside = [sum(low <= each <= high for each in row["areas"]) for row in good]
        facts["eligible objects"] = sum(inside) / max(1, len(shares))
        facts["scenes with an eligible object"] = share(count > 0 for count in inside)
    return facts


def spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Least, percentiles, most and mean of some values. Empty for none."""
    if not len(values):
        return {}
    numbers = np.asarray(values, float)
    middle = {f"{p} %": float(np.percentile(numbers, p)) for p in PERCENTILES}
    return {"least": float(numbers.min()), **middle, "most": float(numbers.max()), "mean": float(numbers.mean())}


def share(flags: Iterable[Any]) -> float:
    """The share of true values."""
    flags = list(flags)
    return sum(map(bool, flags)) / max(1, len(flags))


def kinds(bad: Sequence[Row]) -> list[dict[str, Any]]:
    """Errors that differ only in names and numbers, most frequent first: text, count, first message."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for row in bad:
        groups[kind_of(row["error"])].append(row["error"])
    order = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [{"kind": kind, "scenes": len(texts), "first": texts[0]} for kind, texts in order]


def kind_of(text: str) -> str:
    """An error's text without its file and its numbers."""
    file = file_of(text)
    return re.sub(r"\d+(\.\d+)?", "N", text.removeprefix(file).lstrip(": "))[:160]


def file_of(text: str) -> str:
    """The file that an error's text begins with. "" if it begins with none."""
    name = text.split(": ", 1)[0]
    return name if "/" in name and ": " in text else ""


def shared(splits: Mapping[str, Sequence[Row]]) -> list[tuple[str, int, str, int]]:
    """(split, scene, other split, scene) of scenes with the same pixels in two splits."""
    seen: dict[str, tuple[str, int]] = {}
    found = []
    for split, rows in splits.items():
        for row in rows:
            if "digest" in row:
                first = seen.setdefault(row["digest"], (split, row["scene"]))
                if first[0] != split:
                    found.append((*first, split, row["scene"]))
    return found


def odd(rows: Sequence[Row], most: int) -> list[tuple[int, str]]:
    """Scenes that differ most from the median, the oddest first, each with what is odd about it.

    The distance is the largest of the features', in median absolute deviations.
    """
    good, values = _features(rows)
    if len(good) < 3:
        return []
    away, middle = _distances(values)
    order = np.argsort(-away.max(1), kind="stable")[:most]
    texts = []
    for place in order[away[order].max(1) > 3]:
        worst = int(away[place].argmax())
        texts.append((good[place]["scene"], f"{FEATURES[worst]} {values[place, worst]:g}, median {middle[worst]:g}"))
    return texts


def typical(rows: Sequence[Row], most: int) -> list[int]:
    """The scenes nearest to the median in all features."""
    good, values = _features(rows)
    if not good:
        return []
    away = _distances(values)[0].mean(1)
    return [good[place]["scene"] for place in np.argsort(away, kind="stable")[:most]]


def _features(rows: Sequence[Row]) -> tuple[list[Row], np.ndarray]:
    good = sorted((row for row in rows if "error" not in row), key=lambda row: row["scene"])
    table = [[*r["size"], len(r["areas"]), sum(r["areas"]), r["mean"], r["std"], r["motion"]] for r in good]
    return good, np.array(table, float).reshape(-1, len(FEATURES))


def _distances(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = np.median(values, 0)
    scale = 1.4826 * np.median(np.abs(values - middle), 0)
    spare = np.maximum(values.std(0), 1e-9)  # where over half of the values are equal
    return np.abs(values - middle) / np.where(scale > 0, scale, spare), middle


def advise(
    facts: dict[str, dict[str, Any]], twice: int, config: Any, names_objects: bool, others: Sequence[str] = ()
) -> list[str]:
    """What to set, as lines. facts: of each split. twice: scenes in two splits. others: lines to begin with."""
    train, data = next(iter(facts.values())), config.data
    lines = list(others)
    for split, found in facts.items():
        if found["unreadable"] > data.max_replaced * found["scenes"]:
            lines.append(
                f"{found['unreadable']} of {found['scenes']} scenes of {split} cannot be read: repair or remove the "
                f"files in problems.csv. Training stops above data.max_replaced = {data.max_replaced:g}"
            )
    if twice:
        lines.append(f"{twice} scenes are in two splits (summary.json): remove them from one, or scores are too good")
    count = facts["eval"]["scenes"] - facts["eval"]["unreadable"] if "eval" in facts else 0
    if 0 < count < PROBE_NEEDS:
        lines.append(
            f"{count} held-out scene{'s' * (count > 1)}, the probe needs {PROBE_NEEDS}: hold out more scenes "
            f"(docs/DATA.md), or train without the probe: --config.data.eval_count={count} --config.probe.every=0"
        )
    elif 0 < count < data.eval_count:
        half = count // 2
        lines.append(
            f"{count} held-out scenes, data.eval_count is {data.eval_count}: --config.data.eval_count={count} "
            f"--config.probe.train={half} --config.probe.test={count - half}"
        )
    if "short side" not in train:  # no scene can be read
        return lines
    short = train["short side"]["50 %"]
    if short < data.size:
        lines.append(
            f"half of the scenes have a short side of at most {short:g} pixels and are enlarged to data.size = "
            f"{data.size}: a smaller --config.data.size is cheaper and shows the same"
        )
    if "mean of each channel" in train:
        lines += _about_channels(train, config.objective.get("encoder", {}))
    if names_objects:
        lines += _about_objects(train, data, config.mask)
    for name, values in train["labels"].items():
        if values["least"] == values["most"]:
            lines.append(f"label {name} is {values['most']:g} in every scene: the probe says nothing about it")
    for what, meaning in (("dark", f"no pixel above {DARK}"), ("flat", "hardly any contrast")):
        if train[what] > 0.01:
            lines.append(f"{100 * train[what]:.0f} % of the scenes are {what} ({meaning}): see sheet.png")
    return lines or ["nothing: the config fits these data"]


def _about_channels(train: dict[str, Any], encoder: Any) -> list[str]:
    """What to set for values that the encoder does not normalise to about zero mean and unit variance."""
    mean, std = (np.array(train[f"{name} of each channel"]) for name in ("mean", "deviation"))
    scale, given = encoder.get("scale", 255.0), [np.array(encoder.get(key, ())) for key in ("mean", "std")]
    if any(len(values) != len(mean) for values in given):
        return []
    shift, spread = (mean / scale - given[0]) / given[1], std / scale / given[1]
    if (np.abs(shift) <= OFF).all() and (np.abs(np.log2(np.maximum(spread, 1e-9))) <= 1).all():
        return []
    scale = 1.0 if scale == 255 and isinstance(train["pixels"][0], float) else scale  # mean and std in their units
    texts = (", ".join(f"{value / scale:.4g}" for value in values) for values in (mean, np.maximum(std, 1e-6)))
    settings = [f"scale={scale:g}", *(f'{key}="({text},)"' for key, text in zip(("mean", "std"), texts, strict=True))]
    text = " ".join(f"--config.objective.encoder.{setting}" for setting in settings)
    return [f"the encoder normalises values to means up to {np.abs(shift).max():.3g}, not to about 0: {text}"]


def _about_objects(train: dict[str, Any], data: Any, mask: Any) -> list[str]:
    """What to set for a mask that hides objects."""
    if train["without objects"] == 1:
        return [
            "no scene has an object, and the mask hides objects, so every scene falls back to blocks: make masks "
            "(python -m cjepa_jax.data.segment), or train without objects, as configs/data/videos.py and "
            "configs/baselines/ijepa.py do"
        ]
    lines = []
    most = train["objects per scene"]["95 %"]
    if most > data.max_objects:
        lines.append(
            f"5 % of the scenes have over {most:.0f} objects, data.max_objects is {data.max_objects}, and the smallest "
            f"are left out: --config.data.max_objects={int(np.ceil(most))}"
        )
    if train["fallback"] > MANY_FALLBACKS:
        text = f"{100 * train['fallback']:.0f} % of the scenes have no object to hide and fall back to blocks"
        areas = train["area of an object"]
        if "area" in mask and areas:
            low = max(LIMITS[0], min(mask.area[0], round(areas["25 %"], 3)))
            high = min(LIMITS[1], max(mask.area[1], round(areas["95 %"], 2)))
            if (low, high) != tuple(mask.area):
                text += f". Objects cover {areas['5 %']:.3f} to {areas['95 %']:.3f} of the tokens (5 to 95 %)"
                text += f', mask.area is {tuple(mask.area)}: --config.mask.area="({low:g}, {high:g})"'
        lines.append(text)
    return lines
