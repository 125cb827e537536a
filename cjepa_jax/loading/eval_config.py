"""The config of an evaluation: protocols from --config, everything else from the run that is scored. No JAX.

A value comes from the first of these places that has it:

1. the command line: `--config.evals.test=512`
2. the config file: its section `evals`, and its section `data` if that names another source than the run's
3. the run: its config.json; for an export, the training config that it records
4. the config that --training names, for a checkpoint that has none: published weights, or "random"

Keys of `evals` that the file does not have are those of configs/vitl.py. A file with a section `objective` is a whole
training config. It is used unchanged, and the run must be of the same model.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from cjepa_jax.configuration.renamed import current
from cjepa_jax.errors import CheckpointError, ConfigError, did_you_mean
from cjepa_jax.host import paths
from cjepa_jax.runtime import foreign
from cjepa_jax.runtime.workdir import run_folder
from cjepa_jax.weights import export_format, files, hub, shipped

SCHEMA, DEFAULT = "vitl", "clips"  # shipped configs: keys that an older run lacks, and --training
SECTIONS = ("evals", "data")  # of an evaluation's config
MISSING = '--checkpoint is missing: name the folder of a run, an export, public weights, or "random"'


def complete(config: ConfigDict, given: Callable[[str], str], load: Callable[[str], ConfigDict]) -> ConfigDict:
    """The config of an evaluation, complete and locked, before the command line's overrides.

    Args:
      config: what the config file says.
      given: the text of a flag by its name, "" if it is not given.
      load: a training config by its name or path.
    Raises: ConfigError for a file with other sections or keys; CheckpointError as `foreign.read`.
    """
    checkpoint, training = given("checkpoint"), given("training")
    if not checkpoint:
        raise ConfigError(MISSING)
    if "objective" in config:
        return config
    if strange := [key for key in config if key not in SECTIONS]:
        text = "an evaluation's config has the sections evals and data only"
        raise ConfigError(f"--config: {strange[0]}: {text}. A training config has objective too")
    schema = load(SCHEMA)
    base = of_checkpoint(checkpoint, (*foreign.trusted(given("trust")), *foreign.named(config)))
    if base is not None and training:
        raise ConfigError(f"--training={training}: is for checkpoints without a config. {checkpoint} has one")
    made = _filled(base or load(training or DEFAULT), schema, checkpoint).unlock()
    made.evals = schema.evals.copy_and_resolve_references()
    _put(made, "evals", config.get("evals", {}))
    data = config.get("data", {})
    if data and "source" not in data:
        raise ConfigError("--config: data.source is missing: the section data names a benchmark")
    if data and current(data.source) != made.data.source:
        made.data.path, made.data.options = "", ConfigDict()
        _put(made, "data", data)
    return made.lock()


def of_checkpoint(checkpoint: str, trust: tuple[str, ...]) -> ConfigDict | None:
    """The config with which a checkpoint was trained, guarded; None if it has none. Raises: as `foreign.read`."""
    if checkpoint == "random":
        return None
    address = hub.is_address(checkpoint)
    path = hub.snapshot(checkpoint).folder if address else paths.given(str(shipped.find(checkpoint)), "--checkpoint")
    if not address and (run := run_folder(path)):
        return foreign.read(run / "config.json", trust)
    folder = path.parent if path.name == files.SINGLE else path
    if not (folder / "config.json").is_file():
        return None
    found = files.json(files.member(folder, "config.json"), links=True)
    about = found.get("about")
    training = about.get("training") if isinstance(about, dict) else None
    if found.get("format") != export_format.FORMAT or not training:
        return None
    return foreign.checked(training, f"{folder / 'config.json'}: about.training", trust)


def _filled(config: ConfigDict, schema: ConfigDict, checkpoint: str) -> ConfigDict:
    """A copy with the schema's values for keys that are missing. Code decides the keys of objective and mask."""
    made = config.copy_and_resolve_references().unlock()
    for name, value in schema.items():
        if name not in made:
            made[name] = value
        elif not isinstance(value, ConfigDict):
            continue
        elif not isinstance(made[name], ConfigDict):
            raise CheckpointError(f"{checkpoint}: its config: {name} = {made[name]!r}: must be a section"[:300])
        elif name not in ("objective", "mask"):
            for key in value:
                if key not in made[name]:
                    made[name][key] = value[key]
    return made


def _put(config: ConfigDict, section: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in config[section]:
            raise ConfigError(f"--config: {section}.{key}: unknown key{did_you_mean(key, list(config[section]))}")
        config[section][key] = value
