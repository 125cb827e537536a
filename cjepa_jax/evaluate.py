"""Scores a trained model by the protocols of config.evals, beside random initialisations, floors and ceilings.

    python -m cjepa_jax.evaluate --config=configs/evals/worlds.py --checkpoint=runs/tiny [--workdir=DIR]

--checkpoint names a run's folder, or its checkpoints' folder; "random" scores the network as it is initialised from
config.seed. --workdir, by default RUN/evaluation, gets results.json and report.html; what was finished there with the
same checkpoint and settings is not computed again.
"""


def _flags():
    from absl import flags

    flags.DEFINE_string("checkpoint", None, 'a run\'s folder, or "random" for the network at initialisation')


if __name__ == "__main__":
    from cjepa_jax import cli

    raise SystemExit(cli.run("cjepa_jax.evaluate", _flags))

import dataclasses
import functools
import json
import pathlib
import shlex
import sys
import time

import jax
from absl import flags

from cjepa_jax import __version__, build
from cjepa_jax import config as config_lib
from cjepa_jax.data import assemble
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import Bench, Result
from cjepa_jax.metrics import format_seconds
from cjepa_jax.reporting import evaluation as page
from cjepa_jax.restored import Restored
from cjepa_jax.workdir import Workdir, write_atomically


def main(config, workdir: str) -> int:
    """Runs every protocol that has no result yet. Raises ConfigError, DataError or CheckpointError, one line each."""
    checkpoint = flags.FLAGS.checkpoint
    if not checkpoint:
        raise ConfigError('--checkpoint is missing: name the folder of a run, or "random"')
    if not len(config.evals.protocols):
        raise ConfigError("evals.protocols is empty: configs/evals has sets of protocols")
    protocols = {name: build.build(section) for name, section in config.evals.protocols.items()}
    model = Restored.of(config, checkpoint)
    if flags.FLAGS.workdir is None:
        workdir = model.run / "evaluation" if model.run else f"{workdir}-random"
    with Workdir(workdir) as folder:
        return evaluate(config, model, protocols, folder.path)


def evaluate(config, model: Restored, protocols: dict, folder: pathlib.Path) -> int:
    """Protocol by protocol, each result written as it comes."""
    file = folder / "results.json"
    setting = config_lib.resolve({"checkpoint": model.about, "data": config.data, "evals": config.evals})
    known = _known(file, setting)
    bench = make_bench(config, model)
    done = {}
    for name, protocol in protocols.items():
        if name in known:
            done[name] = known[name]
            continue
        started = time.perf_counter()
        result = protocol.run(bench)
        seconds = time.perf_counter() - started
        done[name] = _plain(result) | {"seconds": seconds}
        page.save_pictures(folder, name, result)
        about = setting | {
            "command": shlex.join(["python", "-m", "cjepa_jax.evaluate", *sys.argv[1:]]),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
            "version": f"{__version__}, jax {jax.__version__}",
        }
        write_atomically(file, json.dumps({"about": about, "protocols": done}, indent=1) + "\n")
        print(f"{name} ({format_seconds(seconds)})\n{page.as_text(result)}", flush=True)
    print(f"results: {file}\nreport: {page.write(folder)}")
    return 0


def make_bench(config, model: Restored) -> Bench:
    """What protocols work on. Raises ConfigError or DataError."""
    evals = config.evals
    config = config.copy_and_resolve_references().unlock()
    config.seed = evals.seed  # scenes that no training run has drawn
    config.data.crop, config.data.intervened = False, "none"

    def source(split: str, count: int):
        config.data.count = config.data.eval_count = count
        return assemble.make_source(config, split)

    def prepare(source):
        scenes = assemble.make_scenes(config, source, model.objective.patch, model.objective.tubelet)
        return dataclasses.replace(scenes, with_objects=True)

    return Bench(
        model.trained(evals.batch),
        tuple(model.random(index, evals.batch) for index in range(evals.random_inits)),
        functools.lru_cache(source),
        prepare,
        evals.fit_split,
        evals.fit,
        evals.test_split,
        evals.test,
        evals.batch,
        evals.seed,
        model.rate,
    )


def _plain(result: Result) -> dict:
    return {"scores": [score._asdict() for score in result.scores], "notes": list(result.notes)}


def _known(file: pathlib.Path, setting: dict) -> dict:
    """The protocols' results that were written before under the same setting."""
    if not file.exists():
        return {}
    saved = json.loads(file.read_text())
    before = {key: saved["about"].get(key) for key in setting}
    same = not config_lib.differences({"a": before}, {"a": _through_json(setting)}, ignore=("a.evals.protocols.*",))
    sections = before["evals"]["protocols"] if same else {}
    now = _through_json(setting)["evals"]["protocols"]
    return {
        name: result for name, result in saved["protocols"].items() if name in now and sections.get(name) == now[name]
    }


def _through_json(value: dict) -> dict:
    return json.loads(json.dumps(value))
