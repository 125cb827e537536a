"""Scores a trained model by the protocols of config.evals, next to random initialisations, floors and ceilings.

    python -m cjepa_jax.evaluate --config=configs/evals/worlds.py --checkpoint=runs/tiny [--workdir=DIR]

--checkpoint names a run's folder, or its checkpoints' folder. Objective, data and mask are the run's own. The config
file gives the protocols, and `data` if it names a benchmark that the run was not trained on. The command line overrides
both: --config.data.source=cjepa_jax.data.worlds:Blocks scores the run on another world. A config file with a section
`objective`, such as configs/tiny.py, is used as a whole, and the run must be of that model.

--checkpoint also names an export, or public weights of I-JEPA, V-JEPA or V-JEPA 2, to whose encoder objective.encoder
is set. "random" scores the network at initialisation from config.seed. Public weights and "random" have no config:
--training names the one whose objective, data and mask they get (default: tiny). Random initialisations reported next
to a result are of the same network, from scratch. Public weights whose predictor is not objective.predictor's are
scored without one, so protocols that need predictions refuse them. A published state dict of the masked slot predictor
is scored with a --training of slots, such as configs/slots/clevrer.py (docs/SLOTS.md).

--workdir gets results.json and report.html. Its default is RUN/evaluation, or runs/CONFIG-NAME for a checkpoint that
does not belong to a run. Results that were finished there with the same parameters and settings are not computed again.
Results of other protocols under these settings are kept.
"""


def _flags():
    from absl import flags

    from cjepa_jax import cli

    text = 'a run\'s folder, an export, public weights, or "random" for the network at initialisation'
    flags.DEFINE_string("checkpoint", None, text)
    text = "a training config: objective, data and mask of a checkpoint that has none (default: tiny)"
    flags.DEFINE_string("training", "", text)
    cli.define_reading()


if __name__ == "__main__":
    from cjepa_jax import cli
    from cjepa_jax.loading import eval_config

    raise SystemExit(cli.run("cjepa_jax.evaluate", _flags, eval_config.complete))

import dataclasses
import functools
import json
import math
import pathlib
import shlex
import sys
import time

import jax
from absl import flags

from cjepa_jax import __version__, cli, experiment
from cjepa_jax.configuration import build, seeds
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.data import assemble, kinds
from cjepa_jax.errors import ConfigError, DataError, one_line
from cjepa_jax.evals.base import Bench, Result
from cjepa_jax.evals.parts import Parts
from cjepa_jax.host import door, memory, paths
from cjepa_jax.loading import slot_weights
from cjepa_jax.loading.model import Restored
from cjepa_jax.objectives.base import Masking
from cjepa_jax.reports import evaluation as page
from cjepa_jax.reports import results
from cjepa_jax.runtime.workdir import Workdir, write_atomically
from cjepa_jax.runtime.writers import format_seconds
from cjepa_jax.weights import hub

ALIASES = {"eval": "validation"}  # what published data call the split on which settings are chosen


def main(config, workdir: str) -> int:
    """Runs every protocol that has no result yet. Raises ConfigError, DataError or CheckpointError, one line each."""
    checkpoint = flags.FLAGS.checkpoint
    if checkpoint != "random" and not hub.is_address(checkpoint):
        checkpoint = str(paths.given(checkpoint, "--checkpoint"))
    if not len(config.evals.protocols):
        raise ConfigError("evals.protocols is empty: configs/evals has sets of protocols")
    protocols = {
        name: build.build(section, f"evals.protocols.{name}") for name, section in config.evals.protocols.items()
    }
    model = slot_weights.of(config, checkpoint, cli.trust())
    model = model or Restored.of(config, checkpoint, cli.trust(), cli.reading())
    for note in model.notes:
        print(one_line(note))
    if flags.FLAGS.workdir is None:
        workdir = door.below(model.run, "evaluation") if model.run else f"{workdir}-{pathlib.Path(checkpoint).name}"
    with Workdir(workdir) as folder:
        return evaluate(config, model, protocols, folder.path)


def evaluate(config, model: Restored, protocols: dict, folder: pathlib.Path) -> int:
    """Protocol by protocol, each result written as it comes."""
    file = folder / results.NAME
    setting, sections = _setting(config, model)
    saved = results.read(folder, setting)
    todo = [name for name in protocols if saved["made"].get(name, {}).get("section") != sections[name]]
    if len(todo) < len(protocols):
        print(f"finished before, taken from {file}: {', '.join(name for name in protocols if name not in todo)}")
    fixed = {key: value for key, value in config_lib.flatten(setting) if key not in results.SPEED}
    bench = dataclasses.replace(make_bench(config, model), parts=Parts(folder, fixed)) if todo else None
    here = {
        "command": shlex.join(["python", "-m", "cjepa_jax.evaluate", *sys.argv[1:]]),
        "devices": f"1 x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "version": f"{__version__}, jax {jax.__version__}",
    }
    if bench:
        require_kinds(bench, {name: protocols[name] for name in todo})
    for name in todo:
        memory.release()
        started = time.perf_counter()
        result = protocols[name].run(bench)
        seconds = time.perf_counter() - started
        saved["about"] = setting | here
        saved["protocols"][name] = _plain(result) | {"seconds": seconds}
        page.save_pictures(folder, name, result)
        mark = results.digest(folder, name, setting, sections[name], saved["protocols"][name])
        saved["made"][name] = here | {"section": sections[name], "sha256": mark}
        write_atomically(file, json.dumps(saved, indent=1, allow_nan=False) + "\n")
        print(f"{name} ({format_seconds(seconds)})\n{page.as_text(result)}", flush=True)
    print(f"results: {file}\nreport: {page.write(folder)}")
    return 0


def make_bench(config, model: Restored) -> Bench:
    """What protocols work on. Raises ConfigError or DataError."""
    evals = config.evals
    if ALIASES.get(evals.fit_split, evals.fit_split) == ALIASES.get(evals.test_split, evals.test_split):
        raise ConfigError(f"evals.test_split = {evals.test_split!r}: must not be evals.fit_split = {evals.fit_split!r}")
    trained = model.run or "weights" in model.about
    if trained and not config.data.path and model.about["seed"] == evals.seed:
        raise ConfigError(f"evals.seed = {evals.seed}: must not be the run's seed, which generated its training scenes")
    config = config.copy_and_resolve_references().unlock()
    config.seed = evals.seed  # scenes that no training run has drawn
    config.data.crop, config.data.intervened = False, "none"

    def make(split: str, count: int):
        config.data.count = config.data.eval_count = count
        return assemble.make_source(config, split)

    def source(split: str, count: int):
        try:
            return make(split, count)
        except (ConfigError, DataError):
            asked = {(evals.fit_split, evals.fit): "evals.fit", (evals.test_split, evals.test): "evals.test"}
            if (split, count) in asked:
                _check_count(make, split, count, asked[split, count])
            raise

    def prepare(source):
        kinds.require(source, kinds.ENCODED, "evaluate")
        hides = isinstance(model.objective, Masking)
        scenes = assemble.make_scenes(config, source, model.objective.patch, model.objective.tubelet, hides=hides)
        return dataclasses.replace(scenes, with_objects=True)

    return Bench(
        model=model.trained(evals.batch),
        randoms=tuple(model.random(index, evals.batch) for index in range(evals.random_inits)),
        source=functools.lru_cache(source),
        prepare=prepare,
        fit_split=evals.fit_split,
        fit=evals.fit,
        test_split=evals.test_split,
        test=evals.test,
        batch=evals.batch,
        seed=evals.seed,
        rate=model.rate,
        anchor=int(model.about["mask"].get("anchor", getattr(model.objective, "anchor", 0))),
        lengths=_lengths(model),
    )


def _lengths(model: Restored) -> dict[str, int]:
    """evals.base.Bench.lengths. An untrained network has not seen frames."""
    found = {name: getattr(model.objective, name, None) for name in ("history", "future")}
    found["skip"] = model.about["data"]["options"].get("skip", 1) if model.run else None
    return {name: value for name, value in found.items() if value is not None}


def require_kinds(bench: Bench, protocols: dict) -> None:
    """Raises ConfigError for the first protocol that does not take the kind of the test scenes (evals.base)."""
    source = bench.source(bench.test_split, bench.test)
    for name, protocol in protocols.items():
        kinds.require(source, getattr(protocol, "kinds", kinds.FILMED), f"evals.protocols.{name}")


def _check_count(make, split: str, count: int, key: str) -> None:
    """Raises an error that names the key if it is the number of scenes for which the source was refused."""
    try:
        source = make(split, 0 if count else 1)
    except (ConfigError, DataError):
        return
    if not count:
        raise ConfigError(f"{key} = 0: must be at least 1, {type(source).__name__} has no end")
    if len(source) < count:
        raise DataError(f"{key} = {count}: the split {split!r} has {len(source)} scenes")


def _setting(config, model: Restored) -> tuple[dict, dict]:
    """Everything that all results depend on, and the protocols' own sections, as plain JSON values."""
    sections = {key: config[key] for key in ("data", "evals", "mask", "objective")}
    setting = {"draws": seeds.FORMAT, "checkpoint": model.about, "dtype": experiment.compute_dtype(config), **sections}
    setting = json.loads(json.dumps(config_lib.resolve(setting)))
    return setting, setting["evals"].pop("protocols")


def _plain(result: Result) -> dict:
    """As JSON, which has no NaN: null."""
    scores = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in score._asdict().items()}
        for score in result.scores
    ]
    return {"scores": scores, "notes": list(result.notes)}
