"""Reads the config of a run's folder, which may come from somebody else. Nothing that it names is imported or called.

    config = foreign.read("runs/tiny/config.json")
    config = foreign.read("theirs/config.json", trust=("their_package",))

The returned config is checked and locked. Its masks, objective, source and protocols belong to this package, whose
sources are searched for them (`catalogue`), or to a package that the user trusts. Its keys are known and its numbers
bounded.

A config file (--config) is a program that the user chose to run, so it is not read here. A run may also name what the
user's config names (`named`).
"""

import importlib.util
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cjepa_jax.configuration import catalogue, sizes
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.configuration.renamed import renewed
from cjepa_jax.errors import CheckpointError, ConfigError, did_you_mean, printable
from cjepa_jax.runtime.workdir import tuples
from cjepa_jax.weights import files
from cjepa_jax.weights.safety import short

NEEDED = ("objective", "data", "mask", "optim")
KEYS = {  # of each section whose keys are not the arguments of a class; "": the top level
    "": "seed init_from dtype",
    "train": "batch epochs steps accumulate nonfinite_budget watchdog heartbeat collapse",
    "sharding": "mode data fsdp tensor rules",
    "data": "source path size frames count eval_count eval_split options crop max_objects intervened row_lengths pack"
    " workers threads prefetch max_replaced",
    "optim": "base peak warmup_epochs warmup_share cooldown b1 b2 eps weight_decay clip layer_decay freeze",
    "checkpoint": "every keep best",
    "probe": "every train test batch",
    "evals": "seed fit fit_split test test_split random_inits batch protocols",
    "log": "every level tensorboard wandb report",
    "monitors": "",  # by name, with a type each
}
MODELS = "cjepa_jax.models."
PARTS = {  # parts of an objective, and the class whose arguments their sections hold
    "encoder": f"{MODELS}encoder:Encoder",
    "predictor": f"{MODELS}predictor:Predictor",
    "decoder": f"{MODELS}decoder:Decoder",
    "slots": f"{MODELS}slots:Slots",
    "slot_predictor": f"{MODELS}slot_predictor:SlotPredictor",
    "projector": f"{MODELS}heads:Projector",
}
RECORDS = ("cjepa_jax.data.sources.records:Records", "cjepa_jax.data.records:Records")  # now, and in older configs
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
KEY = re.compile(r"[A-Za-z][\w-]{0,63}", re.ASCII)
RESERVED = frozenset(dir(ConfigDict()))  # keys that would hide methods of a config
MOST_DEPTH, MOST_VALUES, MOST_LETTERS = 8, 10_000, 4096  # of nested sections, of all values, of a text
LARGEST = 2**53  # the whole numbers that JSON keeps
LIMITS = {  # of whole numbers, by the last part of a key; other numbers of `objective` and `mask`: OTHERS
    "anchor": 255, "depth": 256, "frames": 4096, "heads": 512, "hidden": 2**17, "iterations": 64, "layers": 64,
    "max_objects": 1024, "out": 2**17, "size": 8192, "slices": 2**16, "tubelet": 64, "width": 2**15, "classes": 2**20,
    "row_lengths": 1, "pack": 2**16, "kinds": 1024, "blocks": 64,
    "ramp": LARGEST, "prototypes": 2**17,
}  # fmt: skip
OTHERS = 4096
MOST_TOKENS = 2**16  # of a table of position codes


class NoConfig(CheckpointError):
    """The file is not a config."""


def read(file: Path, trust: Iterable[str] = ()) -> ConfigDict:
    """A run's config.json, locked.

    Args:
      trust: further packages or modules whose names are accepted, as returned by `trusted`.
    Raises: NoConfig if the file is not a config. CheckpointError, one line that names the field, for a refused name,
      key or value.
    """
    try:
        found = files.json(file)
    except CheckpointError as error:
        raise NoConfig(str(error)) from error
    return checked(found, str(file), trust)


def checked(found: Any, file: str, trust: Iterable[str] = ()) -> ConfigDict:
    """A locked config from a file's JSON. `file` is named in errors. Arguments and errors as for `read`."""
    if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in NEEDED):
        raise NoConfig(f"{file}: not a run's config, which has {', '.join(NEEDED[:-1])} and {NEEDED[-1]}")
    try:
        bounded(found)
        found = renewed(found)
        for where, kind, name in _names(found):
            _require(where, kind, name, tuple(trust))
        for where, key, known in _keys(found):
            if key not in known:
                raise ConfigError(f"{where}{key}: unknown key{did_you_mean(key, known)}")
        config = ConfigDict(tuples(found))
        config_lib.check(config)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return config.lock()


def trusted(given: str | Iterable[str]) -> tuple[str, ...]:
    """The packages or modules of --trust=A,B or trust=("A", "B"). Raises ConfigError for an invalid name."""
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    for name in filter(None, names):
        if (
            not isinstance(name, str)
            or not all(map(MODULE.fullmatch, name.split(":", 1)))
            or name.partition(".")[0] == "cjepa_jax"
        ):
            raise ConfigError(
                f"--trust={str(name)[:100]}: must be one of your own packages or modules, such as my_masks"
            )
    return tuple(filter(None, names))


def is_trusted(name: str, trust: Iterable[str]) -> bool:
    """Whether "module:Name" is below a trusted package, or is itself in `trust` (as returned by `named`)."""
    module = name.partition(":")[0]
    return any(each == name if ":" in each else f"{module}.".startswith(f"{each}.") for each in trust)


def is_there(name: str, trust: Iterable[str]) -> bool:
    """Whether "module:Name" is trusted and its module is installed. Imports its parent packages."""
    if not is_trusted(name, trust):
        return False
    try:
        return importlib.util.find_spec(name.partition(":")[0]) is not None
    except ModuleNotFoundError:
        return False


def named(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names outside this package in the user's config. The process imports them anyway, so a run may name them too."""
    names = (name for _, _, name in _names(config) if isinstance(name, str) and ":" in name)
    return tuple(name for name in names if not name.startswith("cjepa_jax."))


def outside(found: Mapping[str, Any]) -> list[str]:
    """Texts "mask.type = 'theirs:draw'" for the names in a config that are not this package's."""
    return [f"{where} = {short(name)}" for where, kind, name in _names(found) if name and _refusal(kind, name, ())]


def bounded(found: Any) -> None:
    """Raises ConfigError, naming the field, for values beyond the limits: nesting, number and length of values, keys
    that are not plain names, large numbers."""
    left, stack = MOST_VALUES, [("", found)]
    while stack:
        where, value = stack.pop()
        left -= 1
        if left < 0 or where.count(".") + where.count("[") > MOST_DEPTH:
            raise ConfigError(f"{where[:100]}: more than {MOST_VALUES} values, or nested deeper than {MOST_DEPTH}")
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str) or not KEY.fullmatch(key) or key in RESERVED:
                    raise ConfigError(f"{where}{short(key)}: not a valid key of a config")
            stack += [(f"{where}.{key}" if where else key, item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            stack += [(f"{where}[{i}]", item) for i, item in enumerate(value[: left + 1])]
        else:
            _bounded(where, value)


def encoder(found: Mapping[str, Any], where: str, trust: Iterable[str] = ()) -> None:
    """Checks the arguments of an encoder that a file gives, and the networks that they name: these must be of this
    package or of `trust`. Raises CheckpointError, one line."""
    whole = {"objective": {"encoder": dict(found)}}
    try:
        bounded(whole)
        for field, _, name in _names(whole):
            if field.startswith("objective.encoder."):
                _require(field, "model", name, tuple(trust))
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    tokenizer = found.get("tokenizer")
    if tokenizer is not None and not (isinstance(tokenizer, Mapping) and "type" in tokenizer):
        raise CheckpointError(f"{where}: encoder.tokenizer = {short(tokenizer)}: must be a section with a type")
    kind = found.get("type", PARTS["encoder"])
    known = catalogue.keywords("model", kind) if isinstance(kind, str) else None
    if known is None:
        raise CheckpointError(f"{where}: encoder.type = {short(kind)}: must be a network of {MODELS.rstrip('.')}")
    known = known | {"type"} if "type" in found else known
    for key in found:
        if key not in known:
            raise CheckpointError(f"{where}: {short(key)} is not a key of objective.encoder")


def _bounded(where: str, value: Any) -> None:
    if isinstance(value, str):
        if len(value) > MOST_LETTERS:
            raise ConfigError(f"{where}: has {len(value)} letters, at most {MOST_LETTERS} are read")
        if printable(value) != value:
            raise ConfigError(f"{where} = {short(value)}: has control characters")
        if where.endswith(".variant"):
            size = sizes.parse(value)
            for name, number in size._asdict().items():
                _limited(f"{where} = {short(value)}: {name}", number, LIMITS.get(name, OTHERS))
    elif isinstance(value, int) and not isinstance(value, bool):
        section, key = where.partition(".")[0], re.sub(r"\[.*", "", where).rpartition(".")[2]
        limit = LIMITS.get(key, OTHERS) if section in ("objective", "mask") else LARGEST
        limit = LIMITS[key] if section == "data" and where.count(".") == 1 and key in LIMITS else limit
        _limited(f"{where} = {value}" if abs(value) < 2**64 else where, abs(value), limit)


def _limited(where: str, number: int, limit: int) -> None:
    if number > limit:
        raise ConfigError(f"{where}: must be at most {limit}")


class Place(NamedTuple):
    """A source that a config names: the field with its name, the name, the section with its options, and these."""

    field: str
    name: Any
    where: str
    options: Mapping[str, Any]


def sources(found: Mapping[str, Any]) -> Iterator[Place]:
    """The source of a config's data, and the sources that it is made of (`of`, or the `sources` of a mixture)."""
    data = _section(found.get("data"))
    left = [Place("data.source", data.get("source"), "data.options", _section(data.get("options")))]
    while left:
        place = left.pop()
        yield place
        where, options = place.where, place.options
        if "of" in options:
            left.append(Place(f"{where}.of", options["of"], f"{where}.of_options", _section(options.get("of_options"))))
        for name, part in _section(options.get("sources")).items():
            at = f"{where}.sources.{name}"
            left.append(Place(f"{at}.type", _section(part).get("type"), at, _section(part)))


def _section(value: Any) -> Mapping[str, Any]:
    return value if hasattr(value, "items") else {}


def _names(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(field, kind, value) of every field that names code."""

    def section(*keys: str) -> Mapping[str, Any]:
        place: Any = found
        for key in keys:
            place = place.get(key) if hasattr(place, "items") else None
        return place if hasattr(place, "items") else {}

    yield "objective.type", "objective", section("objective").get("type")
    left = [(f"objective.{part}", value) for part, value in section("objective").items()]
    for where, value in left:  # also of sections within sections, such as objective.encoder.tokenizer
        if hasattr(value, "items"):
            left += [(f"{where}.{key}", item) for key, item in value.items()]
            if "type" in value:
                yield f"{where}.type", "model", value["type"]
    if ":" in str(loss := section("objective").get("prediction_loss", "")):
        yield "objective.prediction_loss", "loss", loss
    yield "mask.type", "mask", section("mask").get("type")
    for place in sources(found):
        yield place.field, "source", place.name
        if place.name in RECORDS and place.options.get("world"):
            yield f"{place.where}.world", "world", place.options["world"]
    for name, monitor in section("monitors").items():
        yield f"monitors.{name}.type", "monitor", monitor.get("type") if hasattr(monitor, "items") else None
    for name, protocol in section("evals", "protocols").items():
        yield f"evals.protocols.{name}.type", "protocol", protocol.get("type") if hasattr(protocol, "items") else None


def _require(where: str, kind: str, name: Any, trust: tuple[str, ...]) -> None:
    if reason := _refusal(kind, name, trust):
        raise ConfigError(f"{where} = {short(name)}: {reason}")


def _refusal(kind: str, name: Any, trust: tuple[str, ...]) -> str:
    """Why a name is refused, or ""."""
    module, colon, rest = str(name).partition(":")
    if not isinstance(name, str) or not (colon and MODULE.fullmatch(module) and MODULE.fullmatch(rest)):
        return "must be 'module:Name'"
    if module.partition(".")[0] == "cjepa_jax":
        return "" if catalogue.keywords(kind, name) is not None else f"this package has no such {kind}"
    if is_trusted(name, trust) and "." not in rest:
        return ""
    package = module.partition(".")[0]
    return f"is code of another package: --trust={package} (in Python trust={package!r}) if it is yours"


def _keys(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Iterable[str]]]:
    """(section with its dot, key, known keys) of each key of this package. Keys of foreign code are not checked."""
    known = {name: keys.split() for name, keys in KEYS.items()}
    top = [*known[""], *filter(None, known), "objective", "mask"]
    yield from (("", key, top) for key in found)
    for name, keys in known.items():
        if name not in ("", "monitors") and hasattr(found.get(name), "items"):
            yield from ((f"{name}.", key, keys) for key in found[name])
    sections = (entry for entry in _names(found) if entry[1] not in ("world", "loss", "source"))
    places = {where.rpartition(".")[0]: (kind, name) for where, kind, name in sections}
    places |= {place.where: ("source", place.name) for place in sources(found)}
    if not hasattr(found["data"].get("options", {}), "items"):
        raise ConfigError("data.options: must be a section")
    ours = catalogue.keywords("objective", str(found["objective"].get("type"))) is not None
    for part in found["objective"] if ours else ():
        if part in PARTS and f"objective.{part}" not in places:
            projector = part == "predictor" and "projector" in found["objective"]  # BYOL
            places[f"objective.{part}"] = "model", PARTS["projector" if projector else part]
    for where, (kind, name) in places.items():
        section: Any = found
        for key in where.split("."):
            section = section.get(key) if hasattr(section, "items") else None
        keywords = catalogue.keywords(kind, name) if kind else None
        if hasattr(section, "items") and keywords is not None:
            also = {"monitor": {"type", "every"}, "source": {"type", "weight"}}.get(kind, {"type"})
            yield from ((f"{where}.", key, {*keywords, *also}) for key in section)


def record(file: Path, trust: Iterable[str] = ()) -> dict[str, Any]:
    """A run's init_from.json. Texts that are shown are made printable. Raises CheckpointError if it is damaged, or
    names code of another package than those in `trust`."""
    found = files.json(file)
    for key in ("init_from", "path", "source", "layout", "digest", "licence", "predictor"):
        if key in found and not isinstance(found[key], str):
            raise CheckpointError(f"{file}: {key} = {short(found[key])}: must be text")
        if key in found and key not in ("init_from", "path"):  # these are compared, not shown
            found[key] = printable(found[key])[:MOST_LETTERS]
    if "encoder" in found and not isinstance(found["encoder"], dict):
        raise CheckpointError(f"{file}: encoder: must be an object")
    encoder(found.get("encoder", {}), f"{file}: init_from", trust)
    return found


def few(grid: tuple[int, ...]) -> None:
    """Raises ConfigError for a table of more than MOST_TOKENS positions."""
    if math.prod(grid) > MOST_TOKENS:
        raise ConfigError(f"position_grid = {grid}: has more than {MOST_TOKENS} tokens")
