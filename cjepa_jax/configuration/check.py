"""Checks and comparisons of a config: impossible values are refused in one line, before JAX starts.

The rules are a table. A rule whose key a config does not have is skipped, so a variant may have a different `mask` or
`objective` section. Its class then checks the section.
"""

import fnmatch
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cjepa_jax.configuration.loss_names import LOSSES
from cjepa_jax.configuration.renamed import current
from cjepa_jax.configuration.sizes import SIZES, parse
from cjepa_jax.errors import ConfigError, did_you_mean
from cjepa_jax.host.paths import shown

MAY_CHANGE = (
    "log.*",
    "evals.*",
    "train.nonfinite_budget",
    "train.accumulate",
    "train.watchdog",
    "train.heartbeat",
    "train.collapse",
    "sharding.*",
    "data.row_lengths",
    "data.pack",
    "data.workers",
    "data.threads",
    "data.prefetch",
    "data.max_replaced",
    "checkpoint.*",
    "probe.every",
    "monitors.*",
)
"""Keys that a resumed run may change, because they do not change the results. Accumulation, sharding and the layout of
rows change the order of sums, and the draws of an objective that draws per slice, as Joint does for its slots."""

CHANNELS = 3  # of a model whose config does not say

SINCE: dict[str, dict[str, Any]] = {  # newer options of sections: the behaviour of runs without them
    "mask": {"tied": False, "corner": False, "batch": 1, "both": False},
    "optim": {"cooldown": 0.0, "layer_decay": 1.0},
    "objective": {"fusion": "none", "texture": 1.0},
    "objective.encoder": {"channels": CHANNELS, "scale": 255.0},
    "objective.videosaur": {"decoder": "mixer", "placed": False},
}

RESERVED_MONITORS = ("probe", "collapse", "fallbacks")  # names of this package's own
CHOICES = {
    "train.collapse": ("warn", "stop"),
    "sharding.mode": ("jit", "pmap"),
    "dtype": ("auto", "float32", "bfloat16"),
    "data.intervened": ("zero_pixels", "drop_tokens", "rerender", "rerender_other", "second_view", "none"),
    "objective.prediction_loss": tuple(LOSSES),
    "objective.target_norm": ("none", "layer_norm"),
    "objective.causal_tokens": ("remaining", "context"),
    "objective.sigreg_kind": ("kl", "epps_pulley"),
    "objective.ema_kind": ("cosine", "linear"),
    "objective.encoder_input": ("context", "zeroed"),
    "objective.encoder.gelu": ("exact", "tanh"),
    "objective.encoder.remat": ("none", "dots", "full"),
    "objective.encoder.positions": ("sincos", "table", "rope", "rope_tile"),
    "objective.predictor.positions": ("sincos", "table", "rope", "rope_tile"),
    "objective.predictor.attention": ("joint", "cross"),
    "objective.predictor.gelu": ("exact", "tanh"),
    "objective.predictor.remat": ("none", "dots", "full"),
    "log.level": ("debug", "info", "warning"),
}
OR_PATH = ("objective.prediction_loss",)  # keys of CHOICES that may also be "module:function"


MOST_CHANNELS = 512  # that OpenCV resizes
MOST_TOKENS = 2**20  # of a scene, 32 times those of the largest published models


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(map(_is_number, value))


def _is_grid(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) in (0, 3) and all(_is_int(v) and v >= 1 for v in value)


def _is_variant(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(parse(value))
    except ConfigError:
        return False


def _is_row_lengths(value: Any) -> bool:
    numbers = isinstance(value, tuple | list) and 1 <= len(value) <= 4 and all(map(_is_number, value))
    return numbers and value[0] > 0 and value[-1] == 1 and all(a < b for a, b in zip(value, value[1:], strict=False))


def _is_rules(value: Any) -> bool:
    if not isinstance(value, tuple | list):
        return False
    for rule in value:
        if not (isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)):
            return False
        try:
            re.compile(rule[0])
        except re.error:
            return False
        if not isinstance(rule[1], tuple | list) or not all(a in (None, "data", "fsdp", "tensor") for a in rule[1]):
            return False
    return True


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.]+:\w+", value) is not None


RULES: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (
        lambda v: _is_int(v) and v >= 1,
        "must be a whole number, at least 1",
        "train.batch train.accumulate sharding.fsdp sharding.tensor"
        " data.size data.frames data.eval_count data.max_objects data.threads data.prefetch mask.max_objects"
        " objective.encoder.tubelet objective.predictor.depth objective.predictor.width objective.predictor.heads"
        " objective.predictor.max_objects"
        " checkpoint.every checkpoint.keep evals.random_inits evals.batch probe.train probe.test probe.batch log.every",
    ),
    (
        lambda v: _is_int(v) and v >= 0,
        "must be a whole number, 0 or more",
        "train.steps train.nonfinite_budget sharding.data data.pack"
        " data.count data.workers mask.anchor probe.every objective.encoder.depth"
        " evals.fit evals.test",
    ),
    (lambda v: _is_int(v) and 0 <= v < 2**31, f"must be a whole number from 0 to {2**31 - 1}", "seed evals.seed"),
    # Larger values cannot work: threads and processes run out, and numbers of scenes and steps have 32 bits.
    (lambda v: v <= 1024, "must be at most 1024", "data.threads data.workers data.prefetch evals.random_inits"),
    (
        lambda v: v < 2**31,
        f"must be at most {2**31 - 1}",
        "train.batch train.steps train.accumulate data.size data.frames data.count data.eval_count data.max_objects"
        " data.pack mask.max_objects mask.anchor sharding.data sharding.fsdp sharding.tensor"
        " objective.encoder.tubelet objective.encoder.depth objective.predictor.depth objective.predictor.width"
        " objective.predictor.heads objective.predictor.max_objects checkpoint.every checkpoint.keep"
        " evals.batch evals.fit evals.test probe.every probe.train probe.test probe.batch log.every",
    ),
    (
        lambda v: _is_number(v) and v > 0,
        "must be above 0",
        "train.epochs train.heartbeat objective.beta optim.base optim.eps"
        " objective.encoder.epsilon objective.predictor.epsilon objective.encoder.scale",
    ),
    (
        lambda v: _is_number(v) and v >= 0,
        "must be 0 or more",
        "train.watchdog"
        " objective.causal_weight objective.sigreg_weight optim.peak optim.warmup_epochs optim.weight_decay optim.clip",
    ),
    (lambda v: _is_number(v) and 0 <= v < 1, "must be in [0, 1)", "optim.warmup_share optim.b1 optim.b2"),
    (lambda v: _is_number(v) and 0 < v <= 1, "must be in (0, 1]", "optim.layer_decay"),
    (lambda v: _is_number(v) and 0 <= v <= 1, "must be in [0, 1]", "data.max_replaced optim.cooldown"),
    (
        lambda v: _is_pair(v) and 0 <= v[0] <= v[1] <= 1,
        "must be two numbers, the lower bound first, in [0, 1]",
        "mask.area objective.ema",
    ),
    (_is_row_lengths, "must be 1 to 4 increasing shares of the grid, the last one 1.0", "data.row_lengths"),
    (
        _is_rules,
        "must be pairs of a regular expression and axis names, such as (('mlp/up/kernel$', (None, 'fsdp')),)",
        "sharding.rules",
    ),
    (lambda v: isinstance(v, bool), "must be True or False", "data.crop log.tensorboard log.wandb log.report"),
    (
        lambda v: isinstance(v, str),
        "must be text",
        "init_from data.path data.eval_split checkpoint.best evals.fit_split evals.test_split",
    ),
    (_is_path, "must be 'module:Name'", "data.source mask.type objective.type"),
    (
        _is_variant,
        f"must be a size ({', '.join(SIZES)}, WIDTHxDEPTHxHEADSxHIDDEN) and a patch in pixels, such as 'L/16'",
        "objective.encoder.variant",
    ),
    (
        _is_grid,
        "must be () or three whole numbers from 1: times, rows, cols",
        "objective.encoder.position_grid objective.predictor.position_grid",
    ),
    (
        lambda v: isinstance(v, tuple | list) and all(isinstance(name, str) and name for name in v),
        "must be names of the model's parts, such as ('encoder',)",
        "optim.freeze",
    ),
    (_is_numbers, "must be numbers, one per channel", "objective.encoder.mean"),
    (lambda v: _is_numbers(v) and min(v) > 0, "must be numbers above 0, one per channel", "objective.encoder.std"),
    (
        lambda v: _is_int(v) and 1 <= v <= MOST_CHANNELS,
        f"must be a whole number from 1 to {MOST_CHANNELS}",
        "objective.encoder.channels",
    ),
)


def check(config: Mapping[str, Any]) -> None:
    """Raises ConfigError, one line, for the first value that has the wrong type or cannot work."""
    values = dict(flatten(config))
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key} = {value}: must be finite")
    for accepts, limit, keys in RULES:
        for key in keys.split():
            if key in values and not accepts(values[key]):
                raise ConfigError(f"{key} = {values[key]!r}: {limit}")
    for key, allowed in CHOICES.items():
        if key in values and values[key] not in allowed and not (key in OR_PATH and _is_path(values[key])):
            hint = did_you_mean(str(values[key]), allowed)
            other = " or 'module:function'" if key in OR_PATH else ""
            raise ConfigError(f"{key} = {values[key]!r}: must be one of {', '.join(allowed)}{other}{hint}")
    for problem in (*_disagreements(values), *_monitors(config.get("monitors"))):
        raise ConfigError(problem)


def _disagreements(values: Mapping[str, Any]) -> Iterator[str]:
    """Values that are valid alone but not together."""

    def have(*keys: str) -> bool:
        return all(key in values for key in keys)

    size, variant = "data.size", "objective.encoder.variant"
    if have(size, variant):
        patch = int(values[variant].partition("/")[2])
        if values[size] % patch:
            reason = f"{variant} = {values[variant]!r}"
            yield f"{size} = {values[size]}: must be a multiple of the patch size {patch} ({reason})"
    frames, tubelet, anchor = "data.frames", "objective.encoder.tubelet", "mask.anchor"
    if have(frames, tubelet):
        if values[frames] > 1 and values[frames] % values[tubelet]:
            yield f"{frames} = {values[frames]}: must be 1 or a multiple of {tubelet} = {values[tubelet]}"
        times = max(1, values[frames] // values[tubelet])
        if have(size, variant) and values[size] == patch and times == 1:
            yield f"{size} = {values[size]}: the scene is a single token. Masking needs at least 2"
        if have(size, variant) and times * (values[size] // patch) ** 2 > MOST_TOKENS:
            tokens = times * (values[size] // patch) ** 2
            yield f"{size} = {values[size]}: the scene has {tokens} tokens, at most {MOST_TOKENS} are possible"
        if have(anchor) and values[anchor] >= times:
            why = f"{frames} = {values[frames]}, {tubelet} = {values[tubelet]}"
            yield f"{anchor} = {values[anchor]}: must be below the clip's number of tubelets, {times} ({why})"
    channels = values.get("objective.encoder.channels", CHANNELS)
    for name in ("objective.encoder.mean", "objective.encoder.std"):
        if have(variant) and len(values.get(name, (0,) * 3)) != channels:
            given = f"{name} = {values[name]!r}: " if have(name) else f"{name} is missing: "
            yield f"{given}must be {channels} numbers, one per channel (objective.encoder.channels = {channels})"
    intervened, weight = "data.intervened", "objective.causal_weight"
    if have(intervened, weight) and values[intervened] == "none" and values[weight]:
        yield f"{weight} = {values[weight]}: must be 0 with {intervened} = 'none', which has no scene to compare with"
    graph = "objective.graph"
    if have(intervened, graph) and values[graph] == "intervened" and values[intervened] != "rerender":
        yield f"{intervened} = {values[intervened]!r}: must be 'rerender' with {graph} = 'intervened'"
    width, heads = "objective.predictor.width", "objective.predictor.heads"
    if have(width, heads) and values[width] % values[heads]:
        yield f"{width} = {values[width]}: must be a multiple of {heads} = {values[heads]}"
    rotary = str(values.get("objective.predictor.positions")).startswith("rope")
    if have(width, heads) and rotary and values[width] // values[heads] < 6:
        yield f"{width} = {values[width]}: rotary positions need 6 per head ({heads} = {values[heads]})"
    for part in ("objective.encoder", "objective.predictor"):
        positions, stored = f"{part}.positions", f"{part}.position_grid"
        if have(positions, stored) and values[positions] == "table" and not values[stored]:
            yield f"{stored} = (): must be the table's times, rows and cols with {positions} = 'table'"
    embedded, removed = "objective.predictor.max_objects", "mask.max_objects"
    if have(embedded, removed) and values[embedded] < values[removed]:
        yield f"{embedded} = {values[embedded]}: must not be below {removed} = {values[removed]}"
    held_out, train, test = "data.eval_count", "probe.train", "probe.test"
    probed = values.get("probe.every", 1) != 0
    if probed and have(held_out, train, test) and values[train] + values[test] > values[held_out]:
        yield f"{train} + {test} = {values[train] + values[test]}: must not exceed {held_out} = {values[held_out]}"


def _monitors(section: Any) -> Iterator[str]:
    """What is wrong with the section `monitors`; an older config has none."""
    if section is not None and not hasattr(section, "items"):
        yield f"monitors = {section!r}: must be sections by name"
        return
    for name, monitor in (section or {}).items():
        where = f"monitors.{name}"
        if not re.fullmatch(r"[A-Za-z]\w{0,63}", name, re.ASCII) or name in RESERVED_MONITORS:
            yield f"{where}: must be named by letters and digits, and not {', '.join(RESERVED_MONITORS)}"
        elif not hasattr(monitor, "items") or not _is_path(monitor.get("type")):
            yield f"{where}: must be a section with type = 'module:Name'"
        elif not _is_int(every := monitor.get("every", 0)) or not 0 <= every < 2**31:
            yield f"{where}.every = {every!r}: must be a whole number, 0 (at each log line) or more"


def flatten(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs ("a.b", value) for every value, in order. The items of tuples and lists stay together."""
    for key, value in section.items():
        name = f"{prefix}{key}"
        if hasattr(value, "items"):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain dicts, lists, numbers, text and None, as in `config.json`, with present names."""

    def plain(value: Any) -> Any:
        if hasattr(value, "items"):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return current(value) if isinstance(value, str) else value

    return plain(config)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], ignore: tuple[str, ...] = MAY_CHANGE) -> list[str]:
    """A line "key: saved -> now" for every key that differs, except those that match a pattern of `ignore`."""
    before, after = dict(flatten(resolve(saved))), dict(flatten(resolve(now)))
    return [
        f"{key}: {shown(str(before.get(key, '(absent)')))} -> {shown(str(after.get(key, '(absent)')))}"
        for key in sorted(before.keys() | after.keys())
        if (key in before) != (key in after) or before[key] != after[key]
        if not any(fnmatch.fnmatch(key, pattern) for pattern in ignore)
    ]


def _section(config: Mapping[str, Any], name: str) -> Any:
    """The section of this dotted name. None if there is none."""
    found: Any = config
    for key in name.split("."):
        found = found.get(key) if hasattr(found, "items") else None
    return found


def with_since(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved config with the options of SINCE that `now` has, in sections of the same type."""
    for name, options in SINCE.items():
        *above, last = name.split(".")
        has, had = _section(now, name), _section(saved, name)
        if not has or not had or has.get("type") != had.get("type"):
            continue
        new = {last: {**{key: value for key, value in options.items() if key in has}, **had}}
        if above:
            new = {above[0]: {**saved[above[0]], **new}}
        saved = {**saved, **new}
    return saved


def completed(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved config with newer keys added, set to the behaviour of its run, for comparison with `now`.

    Newer options of masks and optimiser are SINCE. Runs without `objective.causal_tokens` averaged over "context".
    Without an anchor or without the causal term, "remaining" gives the same bits. These runs take the value of `now`.
    """
    objective, mask, wanted = saved.get("objective"), saved.get("mask"), now.get("objective")
    if not (isinstance(objective, Mapping) and isinstance(mask, Mapping) and isinstance(wanted, Mapping)):
        return saved
    saved = with_since(saved, now)
    objective = saved["objective"]
    if "causal_tokens" in objective or "causal_weight" not in objective or "causal_tokens" not in wanted:
        return saved
    known = str(mask.get("type")).startswith("cjepa_jax.masks.")
    same = not objective["causal_weight"] or (known and not mask.get("anchor") and not objective.get("anchor"))
    tokens = wanted["causal_tokens"] if same else "context"
    return {**saved, "objective": {**objective, "causal_tokens": tokens}}


def override(config: Any, values: Mapping[str, Any]) -> Any:
    """The ConfigDict itself with other values, by dotted keys. Mask, options, monitors, protocols may get new keys.

    Raises ConfigError for any other unknown key, and for values that `check` refuses.
    """
    known = dict(flatten(config))
    with config.unlocked():
        for key, value in values.items():
            if key not in known and not key.startswith(("data.options.", "evals.protocols.", "mask.", "monitors.")):
                raise ConfigError(f"{key}: there is no such key{did_you_mean(key, known)}")
            *sections, name = key.split(".")
            place = config
            for section in sections:
                if section not in place:
                    place[section] = type(config)()
                place = place[section]
            place[name] = value
    check(config)
    return config
