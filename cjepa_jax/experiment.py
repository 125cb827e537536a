"""From a config to the parts of a run."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from cjepa_jax import optim, schedules, sharding, train_step
from cjepa_jax.configuration import build
from cjepa_jax.configuration.check import flatten
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.data import assemble as data
from cjepa_jax.data import batching, kinds, pipeline
from cjepa_jax.data.base import Source
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import memory, switches
from cjepa_jax.objectives import base, check
from cjepa_jax.objectives.base import Masking, Objective
from cjepa_jax.types import ROWS, Batch, batch_of


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The objects built from a config.

    Attributes:
      steps: length of the run.
      source, held_out: the training scenes and the held-out ones. scenes, held_out_scenes: SceneMaps over them.
      loader: the batches of this process.
      init: example batch -> TrainState on the mesh, from the seed. Jitted.
      step: (state, batch) -> (state, metrics). Compiled, the state's memory is reused. The state has the same layout
        in every sharding.mode, so a run may change the mode when it is resumed.
    """

    mesh: Mesh
    steps: int
    objective: Objective
    source: Source
    held_out: Source
    scenes: pipeline.SceneMap
    held_out_scenes: pipeline.SceneMap
    loader: pipeline.Loader
    init: Callable
    step: Callable

    def example(self):
        """Batch 0 on the devices, for its shapes, read without starting data workers. Its rows have the last (largest)
        shape, so processes agree without communication."""
        batches = dataclasses.replace(self.loader, workers=0).iterate(0, 1)
        return sharding.put_batch(self.mesh, self.loader.at_shape(next(batches), len(self.loader.shapes) - 1))


def assemble(config: Any) -> Experiment:
    """Builds what the config names. Raises ConfigError or DataError, one line each, for what does not fit."""
    switches.check(jax.default_backend())
    accumulate, layout = config.train.accumulate, config.sharding
    mesh = sharding.make_mesh(layout, config.train.batch, accumulate)
    _check_layout(config, mesh)
    source, held_out = (data.make_source(config, split) for split in ("train", config.data.eval_split))
    epoch = len(source) / config.train.batch
    steps = config.train.steps or max(1, round(config.train.epochs * epoch))
    objective = make_objective(config, steps)
    for one in (source, held_out):
        kinds.require(one, base.kinds(objective), f"objective.type = {config.objective.type!r}")
    of_model = objective.patch, objective.tubelet, objective.max_removed, isinstance(objective, Masking)
    scenes = data.make_scenes(config, source, *of_model)
    loader = pipeline.Loader(
        scenes,
        config.train.batch,
        config.seed,
        shards=sharding.local_shards(mesh) * accumulate,
        shapes=batching.shapes(config.data, scenes.tokens, config.train.batch // (sharding.shards(mesh) * accumulate)),
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
        cooldown=optim.cooldown_steps(config.optim, steps),
    )
    optimizer = optim.make(config.optim)
    # Inlined: the state's shapes, and the program that makes it where it lives, come from one trace.
    init = jax.jit(functools.partial(train_step.init_state, objective, optimizer, config.seed), inline=True)
    example = shapes(scenes, config.train.batch, loader.shapes[-1], sharding.shards(mesh) * accumulate)
    check.masks(objective, config.objective.type, example, config.mask.type)
    if not all(map(build.is_ours, _code(config.objective))):
        check.results(objective, config.objective.type, example)
    state = jax.eval_shape(init, sharding.abstract_batch(mesh, example))
    _require_memory(state, mesh)
    home = sharding.state_sharding(mesh, state, layout.rules)
    make_step = functools.partial(
        train_step.make, objective, optimizer, rate, seed=config.seed, microbatches=accumulate
    )
    return Experiment(
        mesh=mesh,
        steps=steps,
        objective=objective,
        source=source,
        held_out=held_out,
        scenes=scenes,
        held_out_scenes=dataclasses.replace(data.make_scenes(config, held_out, *of_model), crop=False),
        loader=loader,
        init=jax.jit(init, out_shardings=home),
        step=compile_step(make_step, mesh, home, layout.mode),
    )


def _code(section: Any) -> list[str]:
    """The code that an objective's section names: "module:Name" each."""
    return [value for _, value in flatten(section) if isinstance(value, str) and ":" in value]


def _require_memory(state: Any, mesh: Mesh) -> None:
    """Raises ConfigError if the devices together have less memory than the state takes."""
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    each = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    have = mesh.size * each if each else jax.process_count() * memory.total()
    memory.require(needed, "objective: parameters and optimiser's state", have)


def compile_step(make_step: Callable, mesh: Mesh, home: Any, mode: str = "jit") -> Callable:
    """(state, batch) -> (state, metrics) on the mesh, the state's memory reused, metrics of the whole batch everywhere.

    Args:
      make_step: train_step.make, but for its `axis`.
      home: where each leaf of the state lives (sharding.state_sharding), before and after.
      mode: "jit" or "pmap".
    """
    return (_mapped if mode == "pmap" else _jitted)(make_step, mesh, home)


def _jitted(make_step: Callable, mesh: Mesh, home: Any) -> Callable:
    """The step as one program over the mesh, which XLA divides by where its arguments are."""
    return jax.jit(
        sharding.on_mesh(mesh, make_step()),
        in_shardings=(home, sharding.by_scene(mesh)),
        out_shardings=(home, sharding.everywhere(mesh)),
        donate_argnums=0,
    )


def _mapped(make_step: Callable, mesh: Mesh, home: Any) -> Callable:
    """The step as one program per device, which talks to the others itself."""
    one = make_step(axis="data")

    def with_all_scenes(state, batch):
        state, metrics = one(state, batch)
        return state, jax.tree.map(lambda x: jax.lax.all_gather(x, "data", tiled=True) if jnp.ndim(x) else x, metrics)

    devices, here = tuple(mesh.devices.ravel()), mesh.local_mesh.size
    step = jax.pmap(with_all_scenes, "data", in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=0)
    split = jax.jit(lambda batch: jax.tree.map(lambda x: x.reshape(here, -1, *x.shape[1:]), batch))
    whole, by_scene = PartitionSpec(), PartitionSpec(sharding.SCENES)

    def run(state, batch):
        if jax.process_count() > 1:  # pmap takes and gives what a process has, not the global array
            state = multihost_utils.global_array_to_host_local_array(state, mesh, whole)
            batch = multihost_utils.global_array_to_host_local_array(batch, mesh, by_scene)
        out = step(state, split(batch))
        if jax.process_count() > 1:
            out = multihost_utils.host_local_array_to_global_array(out, mesh, whole)
        state, metrics = out
        return jax.device_put(state, home), metrics

    # For timing.compilations: pmap does not tell, but its program and `split` are compiled for the same shapes.
    run._cache_size = getattr(split, "_cache_size", int)
    return run


def shapes(scenes: pipeline.SceneMap, count: int, rows: tuple[int, int] = (1, 1), shards: int = 1) -> Batch:
    """A batch of `count` scenes with context rows [shards, R, L], as ShapeDtypeStructs. One scene is read."""
    arrays = batching.collate([scenes(0, 0)])
    arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), arrays)
    laid_out = jax.ShapeDtypeStruct((shards, *rows), jnp.int32)
    return batch_of(arrays | {name: {"index": laid_out, "segment": laid_out} for name in ROWS if name in arrays})


def _check_layout(config: Any, mesh: Mesh) -> None:
    """Raises ConfigError for a layout that the model or the mode does not allow."""
    layout, tensor = config.sharding, mesh.shape["tensor"]
    if layout.mode == "pmap":
        for key in ("fsdp", "tensor"):
            if mesh.shape[key] > 1:
                text = f"sharding.{key} = {mesh.shape[key]}: must be 1 with sharding.mode = 'pmap'"
                raise ConfigError(f"{text}, which keeps every parameter on every device")
        if layout.rules:
            raise ConfigError("sharding.rules: must be empty with sharding.mode = 'pmap'")
    for key, value in flatten(config.objective, "objective."):
        heads = parse(value).heads if key.endswith(".variant") else value
        if key.endswith((".heads", ".variant")) and isinstance(heads, int) and heads % tensor:
            text = f"sharding.tensor = {tensor}: must divide the attention heads"
            raise ConfigError(f"{text}, {heads} with {key} = {value!r}")


def make_objective(config: Any, steps: int) -> Objective:
    """The objective of config.objective for a run of `steps` steps. Raises ConfigError for one that is incomplete."""
    objective = build.build(config.objective, "objective", steps=steps, dtype=compute_dtype(config))
    check.members(objective, config.objective.type)
    return objective


def compute_dtype(config: Any) -> str:
    """config.dtype, with "auto" decided by where JAX runs."""
    if config.dtype != "auto":
        return config.dtype
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
