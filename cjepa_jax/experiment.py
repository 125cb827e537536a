"""From a config to the parts of a run."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from cjepa_jax import build, optim, schedules, sharding, train_step
from cjepa_jax.data import assemble as data
from cjepa_jax.data import batching, pipeline
from cjepa_jax.data.base import Source
from cjepa_jax.objectives.base import Objective


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config stands for.

    Attributes:
      steps: length of the run.
      source, unseen: the training scenes and the held-out ones; scenes, unseen_scenes: SceneMaps over them.
      loader: the batches of this process.
      init: example batch -> TrainState on the mesh, from the seed; jitted.
      step: (state, batch) -> (state, metrics); jitted, the state's memory is reused.
    """

    mesh: Mesh
    steps: int
    objective: Objective
    source: Source
    unseen: Source
    scenes: pipeline.SceneMap
    unseen_scenes: pipeline.SceneMap
    loader: pipeline.Loader
    init: Callable
    step: Callable

    def example(self):
        """Batch 0 on the devices, for its shapes; read without starting data workers."""
        batches = dataclasses.replace(self.loader, workers=0).iterate(0, 1)
        return sharding.put_batch(self.mesh, next(batches))


def assemble(config: Any) -> Experiment:
    """Builds what the config names. Raises ConfigError or DataError, one line each, for what does not fit."""
    mesh = sharding.make_mesh(config.train.batch)
    source, unseen = (data.make_source(config, split) for split in ("train", config.data.eval_split))
    epoch = len(source) / config.train.batch
    steps = config.train.steps or max(1, round(config.train.epochs * epoch))
    objective = make_objective(config, steps)
    of_model = objective.patch, objective.tubelet, objective.max_removed
    scenes = data.make_scenes(config, source, *of_model)
    loader = pipeline.Loader(
        scenes,
        config.train.batch,
        config.seed,
        shards=sharding.local_shards(mesh),
        lengths=batching.row_lengths(config.data.row_lengths, scenes.tokens),
        threads=config.data.threads,
        workers=config.data.workers,
        prefetch=config.data.prefetch,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    rate = functools.partial(
        schedules.learning_rate,
        peak=optim.peak_rate(config.optim, config.train.batch),
        warmup=optim.warmup_steps(config.optim, steps, epoch),
        total=steps,
    )
    optimizer = optim.make(config.optim)
    init = functools.partial(train_step.init_state, objective, optimizer, config.seed)
    step = train_step.make(objective, optimizer, rate, config.seed)
    home = sharding.state_sharding(mesh)
    return Experiment(
        mesh,
        steps,
        objective,
        source,
        unseen,
        scenes,
        dataclasses.replace(data.make_scenes(config, unseen, *of_model), crop=False),
        loader,
        jax.jit(init, out_shardings=home),
        jax.jit(step, out_shardings=(home, None), donate_argnums=0),
    )


def make_objective(config: Any, steps: int) -> Objective:
    """The objective of config.objective for a run of so many steps."""
    return build.build(config.objective, steps=steps, dtype=compute_dtype(config))


def compute_dtype(config: Any) -> str:
    """config.dtype, with "auto" decided by where JAX runs."""
    if config.dtype != "auto":
        return config.dtype
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
