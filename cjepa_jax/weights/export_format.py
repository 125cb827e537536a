"""An export of this package, read back: a folder with config.json, model.safetensors and its SHA-256."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cjepa_jax.configuration.check import CHANNELS, MOST_CHANNELS
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.weights import canonical, diff, files, safety, shapes
from cjepa_jax.weights.name_maps import only

FORMAT, VERSION = "cjepa_jax", 1
SUM = f"{files.SINGLE}.sha256"
COMMON = {"gelu": str, "positions": str, "position_grid": tuple, "epsilon": float, "depth": int}
ENCODER = COMMON | {"variant": str, "tubelet": int, "channels": int, "scale": float, "mean": tuple, "std": tuple}
PREDICTOR = COMMON | {"width": int, "heads": int, "attention": str, "max_objects": int}
CHOICES = {
    "gelu": ("exact", "tanh"),
    "positions": ("sincos", "table", "rope", "rope_tile"),
    "attention": ("joint", "cross"),
    "encoder_input": ("context", "zeroed"),
}
LENGTHS = {"position_grid": (0, 3)}
WORDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number in range",
    float: "a number above 0",
    tuple: "numbers in range, as many as the field has",
}
MAYBE_ZERO = ("depth", "mean", "anchor")
INPUT = {"size": int, "frames": int, "anchor": int, "names_objects": bool, "encoder_input": str, "change": bool}
LEFT_OUT = {"anchor": 0, "names_objects": True, "encoder_input": "context"}  # the meaning of a missing input
MOST_NAME, LARGEST = 200, 1e300  # letters of a metric's name, and its values
PARTS = ("encoder", "target", "predictor")


def read(path: Path, config: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """The fields of a Pretrained, for the folder `path` whose config.json is `config` and whose weights' SHA-256 is
    `digest`.

    Raises: CheckpointError for another version, weights that differ from the written ones, or a config.json that does
      not match them.
    """
    where = path / "config.json"
    if config.get("version") != VERSION:
        raise CheckpointError(f"{where}: version = {config.get('version')!r}: this package reads version {VERSION}")
    verify(path, digest)
    tensors = files.tensors(path)
    encoder = _options(config.get("encoder"), ENCODER, f"{where}: encoder")
    predictor = config.get("predictor") and _options(config["predictor"], PREDICTOR, f"{where}: predictor")
    found = {name: only(tensors, f"{name}.") for name in PARTS}
    stray = [name for name in tensors if not name.startswith(tuple(f"{part}." for part in PARTS))]
    if stray:
        raise CheckpointError(f"{path}: {stray[0]!r}: belongs to none of {', '.join(PARTS)}")
    params = {}
    for name in ("encoder", "target"):
        if found[name] or name == "encoder":
            wanted = _encoder_shapes(encoder, found[name].shapes, str(where))
            diff.compare(found[name].shapes, wanted, f"{path}: {name}")
            params[name] = canonical.from_canonical(found[name], encoder.get("channels", CHANNELS))
    if predictor:
        wanted = _predictor_shapes(predictor, encoder, str(where))
        diff.compare(found["predictor"].shapes, wanted, f"{path}: predictor")
        params["predictor"] = canonical.from_canonical(found["predictor"])
    texts = {name: config.get(name) for name in ("source", "digest", "licence")}
    tables: dict[str, Any] = {name: config.get(name) for name in ("input", "about")}
    for name, value in (texts | tables).items():
        if not isinstance(value, str if name in texts else dict):
            kind = "text" if name in texts else "a table"
            raise CheckpointError(f"{where}: {name} = {str(value)[:60]!r}: must be {kind}")
    shown = [*texts.values(), *_listed(tables["about"].get("notes", []))]
    if not all(isinstance(text, str) and text.isprintable() for text in shown):
        raise CheckpointError(f"{where}: source, digest, licence and about.notes: must be text of one line each")
    training, metrics = (tables["about"].get(name) or {} for name in ("training", "metrics"))
    if not isinstance(training, dict) or not isinstance(metrics, dict):
        raise CheckpointError(f"{where}: about.training and about.metrics: must be tables")
    if wrong := [name for name, value in metrics.items() if not is_score(name, value)]:
        raise CheckpointError(f"{where}: about.metrics: {safety.short(wrong[0])}: must be a number with a short name")
    seen = tables["input"]
    tables["input"] = seen | {name: value for name, value in LEFT_OUT.items() if name not in seen}
    needed = {"size": seen.get("size"), "frames": seen.get("frames")}
    _options(needed | {name: seen[name] for name in INPUT if name in seen}, INPUT, f"{where}: input")
    return {"layout": FORMAT, **texts, **tables, "encoder": encoder, "predictor": predictor or None, "params": params}


def is_score(name: str, value: Any) -> bool:
    """Whether this is a metric that is kept with weights: a short name on one line, and a finite number."""
    named = 0 < len(name) <= MOST_NAME and name.isprintable()
    return named and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def verify(path: Path, digest: str) -> None:
    """Raises CheckpointError unless the sum next to a folder's model.safetensors is `digest`, its SHA-256."""
    with safety.regular(files.member(path, SUM)) as file:
        written = file.read(64).decode("ascii", "replace")
    if written != digest:
        raise CheckpointError(f"{path / files.SINGLE}: is not the file that was written: its SHA-256 is another")


def _options(found: Any, kinds: Mapping[str, type], where: str) -> dict[str, Any]:
    """Keyword arguments from a JSON file, each checked for its type."""
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: must be a table")
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    channels = options.get("channels", CHANNELS)
    if type(channels) is not int or not 1 <= channels <= MOST_CHANNELS:
        raise CheckpointError(f"{where}.channels = {str(channels)[:60]!r}: must be from 1 to {MOST_CHANNELS}")
    for name, value in options.items():
        if name not in kinds:
            raise CheckpointError(f"{where}.{name[:60]}: is none of {', '.join(kinds)}")
        if not _fits(name, value, kinds[name], channels):
            text = f"one of {', '.join(CHOICES[name])}" if name in CHOICES else WORDS[kinds[name]]
            raise CheckpointError(f"{where}.{name} = {str(value)[:60]!r}: must be {text}")
    return options


def _fits(name: str, value: Any, kind: type, channels: int) -> bool:
    if kind is str:
        return isinstance(value, str) and value in CHOICES.get(name, (value,))
    if kind is bool:
        return isinstance(value, bool)
    numbers = value if isinstance(value, tuple) else (value,)
    whole = kind is int or name == "position_grid"
    lengths = LENGTHS.get(name, (channels,) if kind is tuple else (1,))
    if isinstance(value, tuple) != (kind is tuple) or len(numbers) not in lengths:
        return False
    if not all(type(number) is int or (type(number) is float and not whole) for number in numbers):
        return False
    return all(0 <= number < 2**31 and (number or name in MAYBE_ZERO) for number in numbers)


def _encoder_shapes(options: dict, found: Mapping, where: str) -> dict[str, tuple[int, ...]]:
    try:
        size = parse(options.get("variant", ""))
    except ConfigError as error:
        raise CheckpointError(f"{where}: {str(error).removeprefix('objective.')}") from error
    channels = options.get("channels", CHANNELS)
    for key in ("mean", "std"):
        if key not in options and channels != CHANNELS:
            raise CheckpointError(f"{where}: encoder.{key} is missing, and there are {channels} channels")
    patch, tubelet = (size.width, channels, size.patch, size.patch), options.get("tubelet", 2)
    clips = (*patch[:2], tubelet, *patch[2:])
    name = f"{canonical.PATCHES}.weight"
    wanted = shapes.stack(size.width, _depth(options, size.depth, where), size.hidden)
    wanted |= {name: clips if found.get(name) == clips else patch, f"{canonical.PATCHES}.bias": (size.width,)}
    return wanted | _table(options, size.width, f"{where}: encoder")


def _predictor_shapes(options: dict, encoder: dict, where: str) -> dict[str, tuple[int, ...]]:
    width, heads, out = options.get("width", 0), options.get("heads", 0), parse(encoder["variant"]).width
    if not width or not heads or width % heads:
        raise CheckpointError(f"{where}: predictor.width = {width}: must be a multiple of predictor.heads = {heads}")
    wanted = shapes.stack(width, _depth(options, 0, where), 4 * width, options.get("attention") == "cross")
    wanted |= {"mask_token": (width,), "object_embedding": (options.get("max_objects", 3), width)}
    for name, shape in {"embed": (width, out), "prediction": (out, width), "residual": (out, width)}.items():
        wanted |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return wanted | _table(options, width, f"{where}: predictor")


def _depth(options: dict, own: int, where: str) -> int:
    depth = options.get("depth") or own
    if not 0 < depth <= 1000:
        raise CheckpointError(f"{where}: depth = {depth}: must be 1..1000")
    return depth


def _table(options: dict, width: int, where: str) -> dict[str, tuple[int, ...]]:
    if options.get("positions") != "table":
        return {}
    grid = options.get("position_grid", ())
    if not grid:
        raise CheckpointError(f"{where}.position_grid = (): must be three numbers, because positions = 'table'")
    return {"pos_embed": (1, math.prod(grid), width)}
