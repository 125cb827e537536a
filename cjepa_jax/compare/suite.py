"""What a suite compares, its cells, and each cell's config.

A suite file (configs/suites) has a function `get_suite()` that returns a dict:

    about     a sentence: what is compared, on which hardware
    flops     operations (matrix products) of each training run, the same for every method. They determine the steps
    seeds     of the runs, at least 3 for an interval
    shared    overrides of every config, dotted keys
    worlds    name -> {label, overrides}
    methods   name -> {label, config: as for --config a name such as "baselines/ijepa", or a module, overrides}.
              steps=n instead of the budget makes it one smoke cell, labelled so. steps=0 scores the network at
              initialisation. steps_of=NAME trains for as many steps as that method's budget gives it, at
              its own cost, and is not tuned. tuned_as=NAME takes that method's tuned value
    tuning    {key, values, share, seed, world}: for each method the key's value with the highest mean of the online
              probe's R2 on validation scenes of one world, after `share` of the budget, on a seed that is not reported.
              It is used in all worlds. {}: none. metric=NAME: the value with the highest NAME in the run's result
              instead, for methods that log it
    evals     the section evals of every config. {folder} in a text is replaced by the comparison's folder
    columns   title -> (protocol, metric), or (protocol, metric, row) for another row than the model's
    contrasts pairs of methods whose differences are printed, paired by seed
"""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ml_collections import ConfigDict

from cjepa_jax.configuration import build, locate
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import ConfigError, did_you_mean
from cjepa_jax.host import door
from cjepa_jax.reports.results import is_number, is_well_formed
from cjepa_jax.runtime.workdir import read_object

OF_A_METHOD = ("label", "config", "overrides", "steps", "steps_of", "tuned_as")
FIELDS = ("about", "flops", "seeds", "shared", "worlds", "methods", "tuning", "evals", "columns", "contrasts")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run with its evaluation. value: of the key that is being tuned, None after tuning."""

    world: str
    method: str
    seed: int
    value: float | None = None

    @property
    def name(self) -> str:
        """Its name, which is also that of its folder."""
        return f"{self.world}-{self.method}-" + (f"seed{self.seed}" if self.value is None else f"tune{self.value:g}")


@dataclasses.dataclass(frozen=True)
class Suite:
    """The dict of a suite file, checked. `name` is the file's."""

    name: str
    about: str
    flops: float
    seeds: tuple[int, ...]
    shared: Mapping[str, Any]
    worlds: Mapping[str, Mapping]
    methods: Mapping[str, Mapping]
    tuning: Mapping[str, Any]
    evals: Mapping[str, Any]
    columns: Mapping[str, tuple[str, ...]]
    contrasts: tuple[tuple[str, str], ...]

    def cells(self) -> list[Cell]:
        """Every cell of the table, with the first seed of all first, so that a stopped comparison covers all
        methods."""
        return [
            Cell(world, method, seed)
            for index, seed in enumerate(self.seeds)
            for world in self.worlds
            for method in self.methods
            if not self.smoke(method) or (index == 0 and world == next(iter(self.worlds)))
        ]

    def tuned(self) -> list[Cell]:
        """The runs that tune the key, for methods with a budget."""
        if not self.tuning:
            return []
        return [
            Cell(self.tuning["world"], method, self.tuning["seed"], value)
            for method in self.methods
            if not {"steps", "steps_of", "tuned_as"} & self.methods[method].keys()
            for value in self.tuning["values"]
        ]

    def smoke(self, method: str) -> bool:
        """Whether the method only has a smoke cell."""
        return self.methods[method].get("steps", 0) > 0

    def untrained(self, method: str) -> bool:
        """Whether the method is the network at initialisation."""
        return self.methods[method].get("steps") == 0

    def tuned_as(self, method: str) -> str:
        """The method whose tuned value this one uses: itself, except for members of a pair."""
        return self.methods[method].get("tuned_as", method)

    def read(self, file: pathlib.Path, cell: Cell) -> dict[str, Any] | None:
        """The record of a cell in a file, or None if there is none.

        Raises: ConfigError if it belongs to another suite, other settings or another budget.
        """
        if not file.exists():
            return None
        record = read_object(file)
        if wrong := _damage(record) or _strange(record, cell):
            raise ConfigError(f"{file}: is not a record of a cell ({wrong}). Delete it")
        now = json.loads(json.dumps(self.overrides(cell, record["steps"], next(iter(record["tuned"].values()), None))))
        then = record.get("overrides", {})
        changed = [key for key in sorted(now.keys() | then.keys()) if now.get(key) != then.get(key)]
        if cell.value is not None:  # tuning does not look at the evaluation
            changed = [key for key in changed if not key.startswith("evals.")]
        changed += ["suite"] if record["suite"] != self.name else []
        if not {"steps", "steps_of"} & self.methods[cell.method].keys():
            wanted = self.flops * (1.0 if cell.value is None else self.tuning["share"])
            changed += ["flops"] if abs(record["flops"] - wanted) > record["flops"] / max(record["steps"], 1) else []
        if changed:
            raise ConfigError(
                f"{file}: was made by other settings ({', '.join(changed)}). Another --workdir starts afresh"
            )
        return record

    def overrides(self, cell: Cell, steps: int, value: float | None) -> dict[str, Any]:
        """The cell's overrides of its method's config, by dotted keys."""
        found = {**self.shared, **self.worlds[cell.world]["overrides"]}
        found |= {f"evals.{key}": item for key, item in config_lib.flatten(self.evals)}
        found |= self.methods[cell.method].get("overrides", {})
        found |= {"seed": cell.seed, "train.steps": steps}
        if value is not None:
            found[self.tuning["key"]] = value
        return found

    def config(self, cell: Cell, steps: int = 1, value: float | None = None) -> ConfigDict:
        """The cell's config. Raises ConfigError for a key that its method's config does not have."""
        name = self.methods[cell.method]["config"]
        try:
            config = importlib.import_module(locate.module_of(name)).get_config()
        except (ImportError, AttributeError) as error:
            hint = f" ({error})" if "." in name else did_you_mean(name, locate.names())
            raise ConfigError(f"{name}: is not a config{hint}") from error
        return config_lib.override(config, self.overrides(cell, steps, value))


def config_file(name: str, overrides: Mapping[str, Any]) -> str:
    """The text of a config file equal to a cell's config, which can be run like any other."""
    module = locate.module_of(name)
    lines = "".join(f"    {key!r}: {value!r},\n" for key, value in overrides.items())
    return (
        f'"""A cell of python -m cjepa_jax.compare: {module} with other values."""\n\n'
        f"from cjepa_jax.configuration.check import override\nfrom {module} import get_config as parent\n\n"
        f"OVERRIDES = {{\n{lines}}}\n\n\ndef get_config():\n    return override(parent(), OVERRIDES)\n"
    )


def evals_file(overrides: Mapping[str, Any]) -> str:
    """The text of a config file with the protocols of a cell's overrides, for any run."""
    evals: dict[str, Any] = {}
    for key, value in overrides.items():
        if key.startswith("evals."):
            *sections, name = key.removeprefix("evals.").split(".")
            place = evals
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
    return (
        '"""The protocols of a cell of python -m cjepa_jax.compare."""\n\nfrom ml_collections import ConfigDict\n\n'
        f'EVALS = {evals!r}\n\n\ndef get_config():\n    return ConfigDict({{"evals": EVALS}}).lock()\n'
    )


def load(path: str) -> Suite:
    """Reads and checks a suite file, by path or name. Raises ConfigError, one line, if it is invalid."""
    file = locate.find(path, "suite", "suites")
    locate.make_importable(file)
    spec = importlib.util.spec_from_file_location("suite", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = module.get_suite()
        _check(found)
        suite = Suite(file.stem, **found | {"seeds": tuple(found["seeds"])})
        for cell in [*suite.cells(), *suite.tuned()]:
            suite.config(cell, value=cell.value)
    except (Exception, SystemExit) as error:  # a suite file is a program, and its errors are reported in one line
        text = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"--suite={path}: {text}") from error
    return suite


RECORD = {  # what a cell's record has, and what its evaluation's scores have
    "suite": str,
    "cell": dict,
    "overrides": dict,
    "steps": int,
    "flops": int | float,
    "tuned": dict,
}
MOST_FLOPS = 1e30  # of a training
CELL = {"world": str, "method": str, "seed": int, "value": int | float | None}
SCORE = {"metric": str, "row": str, "kind": str, "value": int | float | None, "interval": int | float | None}


def _damage(record: Mapping[str, Any]) -> str:
    """The reason why a JSON object is not a cell's record, "" if it is one."""

    def wrong(where: str, found: Any, fields: Mapping[str, Any]) -> str:
        if not isinstance(found, dict):
            return f"{where or 'it'} is not an object"
        bad = (name for name, kind in fields.items() if name not in found or not _is_of(found[name], kind))
        return next((f"{where}{'.' if where else ''}{name} is {str(found.get(name))[:40]!r}" for name in bad), "")

    texts = [wrong("", record, RECORD), wrong("cell", record.get("cell"), CELL)]
    if not any(texts):
        texts += [wrong("tuned", record["tuned"], dict.fromkeys(record["tuned"], int | float))]
        texts += [wrong("", record, {"result": dict})] if record["cell"]["value"] is not None else []
    if "protocols" in record:
        texts += [wrong("", record, {"parameters": dict, "protocols": dict})]
        protocols = record["protocols"].values() if isinstance(record["protocols"], dict) else ()
        for protocol in protocols:
            texts += [wrong("protocols", protocol, {"scores": list})]
            scores = protocol["scores"] if not texts[-1] else []
            texts += [wrong("protocols.scores", score, SCORE) for score in scores]
    return next(filter(None, texts), "")


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of this kind, and one that can be computed with if the kind is a number's."""
    return isinstance(value, kind) and (float not in get_args(kind) or value is None or is_number(value))


def _strange(record: Mapping[str, Any], cell: Cell) -> str:
    """Content of a record that no comparison writes, "" if there is none. Tables and plots show a record's content."""
    if record["cell"] != dataclasses.asdict(cell):
        return f"it is of {str(record['cell'])[:80]}"
    for key, most in (("steps", door.LARGEST_STEP), ("flops", MOST_FLOPS)):
        if not 0 <= record[key] <= most:
            return f"{key} is {str(record[key])[:40]}"
    if not all(map(is_well_formed, record.get("protocols", {}).values())):
        return "protocols has other fields than results have"
    sizes = record.get("parameters", {})
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        return "parameters has other values than whole numbers"
    texts = [record[key] for key in ("trained by", "evaluated by") if key in record]
    return "" if all(isinstance(text, str) and len(text) < 100 for text in texts) else "commits are not short texts"


def _check(found: Mapping[str, Any]) -> None:
    """Raises ConfigError, or the error of a value of the wrong type."""
    _fields("", found, FIELDS, FIELDS)
    for world in found["worlds"].values():
        _fields("worlds: ", world, ("label", "overrides"), ("label", "overrides"))
    for method in found["methods"].values():
        _fields("methods: ", method, OF_A_METHOD, ("label", "config"))
        if method.get("steps", 0) < 0 or method.get("tuned_as", "") not in ("", *found["methods"]):
            raise ConfigError(f"methods: {method['label']}: steps must be 0 or more, and tuned_as a method")
        other = found["methods"].get(method.get("steps_of"), {})
        if "steps_of" in method and ("steps" in method or not other or {"steps", "steps_of"} & other.keys()):
            text = f"steps_of = {method['steps_of']!r}: must be a method with the budget's steps, and alone"
            raise ConfigError(f"methods: {method['label']}: {text}")
    if not found["flops"] > 0 or not found["seeds"] or len(set(found["seeds"])) < len(found["seeds"]):
        raise ConfigError("flops must be above 0, and seeds at least one and all different")
    if tuning := found["tuning"]:
        known = ("key", "values", "share", "seed", "world")
        _fields("tuning: ", tuning, (*known, "metric"), known)
        if tuning["seed"] in found["seeds"] or not 0 < tuning["share"] <= 1:
            raise ConfigError("tuning.seed must not be one of seeds, and tuning.share in (0, 1]")
        if tuning["world"] not in found["worlds"] or len(set(tuning["values"])) < len(tuning["values"]):
            raise ConfigError("tuning.world must be one of worlds, and tuning.values all different")
    for name in [*found["worlds"], *found["methods"]]:
        if not name.replace("_", "").isalnum():
            raise ConfigError(f"{name!r}: names must consist of letters, digits and _")
    for one, other in found["contrasts"]:
        for name in (one, other):
            if name not in found["methods"]:
                raise ConfigError(f"contrasts: there is no method {name!r}{did_you_mean(name, found['methods'])}")
    protocols = found["evals"].get("protocols", {})
    for name, section in protocols.items():
        build.build(section, f"evals.protocols.{name}")
    for title, (protocol, *_) in found["columns"].items():
        if protocol not in protocols:
            raise ConfigError(f"columns: {title}: there is no protocol {protocol!r}{did_you_mean(protocol, protocols)}")


def _fields(where: str, found: Mapping[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
    for key in found:
        if key not in known:
            raise ConfigError(f"{where}unknown field {key}{did_you_mean(key, known)}")
    if missing := [key for key in needed if key not in found]:
        raise ConfigError(f"{where}{', '.join(missing)} missing")
