"""A model in memory as plain functions: of a run, of an export, of published weights, or at random initialisations."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cjepa_jax import experiment, optim, train_step
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.data import assemble, batching
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.evals.base import RANDOM, TRAINED, Hidden, Inside, Model, Seen
from cjepa_jax.loading import init_from, pretrained, released, slot_model
from cjepa_jax.masks.naming import names_objects
from cjepa_jax.models import inside
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.objectives.base import Flow, Masking, Segmenting, World, exports
from cjepa_jax.objectives.dense import Dense
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.runtime import foreign, trees
from cjepa_jax.runtime.workdir import run_folder, tuples
from cjepa_jax.types import Batch, Params, Rows, TrainState, batch_of
from cjepa_jax.weights import hub, shipped
from cjepa_jax.weights.read import Pretrained, Reading, foresees, require_published

NOT_THE_MODEL = ("objective.causal_tokens",)  # only part of the training loss. Older runs lack the key
SMALL = {"depth": 2, "width": 48, "heads": 4}  # of the predictor that is fitted for models without one
INIT = 2**30  # random initialisations are seeded from here on. No run has these seeds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A model in memory: an objective and its parameters, from which the API and evaluations take functions.

    Attributes:
      objective, state: as trained, or as initialised.
      names_objects: whether training told the predictor which objects are hidden.
      predicts, changes: whether the predictor and its residual head are the training's, where the objective has them.
      seed: of what the objective draws for its graphs of influence.
    """

    objective: Any
    state: TrainState
    names_objects: bool
    predicts: bool = True
    changes: bool = True
    seed: int = 0

    @classmethod
    def of_weights(cls, weights: Pretrained, dtype: str, part: str = "encoder") -> "Network":
        """The network of loaded weights, on the devices. Encoder and predictor are run as those of `Jepa`, for any
        objective that exported them (objectives.base.Objective). part: see released.fields."""
        if released.alone(weights):
            return cls(**released.fields(weights, dtype, part))
        kind = Dense if weights.encoder.get("levels") else Jepa
        objective = kind(
            encoder=weights.encoder,
            predictor=weights.predictor or {},
            steps=1,
            dtype=dtype,
            causal_weight=float(foresees(weights)),
            encoder_input=weights.input.get("encoder_input", "context"),
        )
        params = {name: tree for name, tree in weights.params.items() if name != "target"}
        params, target = jax.device_put((params, weights.params.get("target", {})))  # once, not at every call
        names = bool(weights.input.get("names_objects", True))
        return cls(
            objective=objective,
            state=TrainState(step=0, params=params, target=target, extra={}, opt_state=None, skipped=0),
            names_objects=names,
        )

    def functions(self, batch: int, name: str = TRAINED, state: TrainState | None = None) -> Model:
        """Encode, hide and predict, compiled for `batch` scenes. Parameters are those of `state`, if it is given.

        All functions of a network share the compiled programs.
        """
        state = self.state if state is None else state
        objective, params = self.objective, state.params | state.extra
        encode, hide = self._compiled
        asked = getattr(objective, "predicts", False)  # only protocols that ask for predictions look at the target
        target = state.target if jax.tree.leaves(state.target) and asked else None
        segments, flows = isinstance(objective, Segmenting), isinstance(objective, Flow)
        return Model(
            name=name,
            encode=lambda video: in_batches(batch, functools.partial(encode, params), video),
            hide=lambda hidden: Seen(*in_batches(batch, functools.partial(hide, params), *hidden)),
            target=None if target is None else lambda v: in_batches(batch, functools.partial(encode, target), v),
            params=params,
            apply=objective.encode,
            target_norm=getattr(objective, "target_norm", "none"),
            fresh_predictor=functools.partial(_fresh_predictor, objective),
            inside=self.inside(batch, params),
            **(self._world(batch, state) if isinstance(objective, World) and self.predicts else {}),
            influence=self._influence(batch, params) if hasattr(objective, "influence") else None,
            ahead=slot_model.ahead(objective, params, functools.partial(in_batches, batch)),
            flow=self._of_pixels("flow", batch, params) if flows else None,
            segment=self._of_pixels("segments", batch, params) if segments else None,
            segments=objective.segment_count if segments else 0,
        )

    def _of_pixels(self, name: str, batch: int, params: Any) -> Callable[[np.ndarray], np.ndarray]:
        """A function of the objective's from parameters and pixels, as one of pixels."""
        return functools.partial(in_batches, batch, functools.partial(self._compiled_of_pixels[name], params))

    @functools.cached_property
    def _compiled_of_pixels(self) -> dict[str, Callable]:
        functions = ((name, getattr(self.objective, name, None)) for name in ("flow", "segments"))
        return {name: jax.jit(function) for name, function in functions if function}

    def _influence(self, batch: int, params: Any) -> Callable[[Hidden], dict[str, np.ndarray]]:
        """base.Model.influence."""
        names = self.objective.graph_names

        def graphs(hidden: Hidden) -> dict[str, np.ndarray]:
            (found,) = in_batches(batch, functools.partial(self._compiled_influence, params), *hidden[:3])
            return {name: found[:, n] for n, name in enumerate(names)}

        return graphs

    @functools.cached_property
    def _compiled_influence(self):
        def influence(params, video, context, object_patches):
            none = jnp.zeros(object_patches.shape[:2], bool)
            batch = _asked(video, context, object_patches, none, None)
            return (self.objective.influence(params, batch, jax.random.key(self.seed)),)

        return jax.jit(influence)

    def inside(self, batch: int, params: Params) -> Inside | None:
        """The layers of the encoder in `params`, or of the target's. None if it is not all of `objective.encode`."""
        if "encoder" not in exports(self.objective) or getattr(self.objective, "framewise", False):
            return None
        own = params.get("encoder", params)
        if "stack" not in own or "class_token" in own:  # a class token is not one of the grid's tokens
            return None
        states, tokens, resume, attention, *traced = self._compiled_inside

        def at(video: np.ndarray, layer: int) -> np.ndarray:
            return in_batches(batch, functools.partial(tokens, own, layer=np.int32(layer)), video)

        def resumed(x: np.ndarray, layer: int, grid: tuple[int, int, int]) -> np.ndarray:
            return in_batches(batch, functools.partial(resume, own, layer=np.int32(layer), grid=tuple(grid)), x)

        return Inside(
            layers=len(jax.tree.leaves(own["stack"]["blocks"])[0]),
            states=lambda video: in_batches(batch, functools.partial(states, own), video).swapaxes(0, 1),
            tokens=at,
            resume=resumed,
            params=own,
            before=traced[0],
            after=traced[1],
            attention=lambda video, groups: in_batches(batch, functools.partial(attention, own), video, groups),
        )

    @functools.cached_property
    def _compiled_inside(self):
        """models.inside on this network's encoder: four functions jitted, and before and after as functions."""
        dtype = jnp.dtype(getattr(self.objective, "dtype", "float32"))
        encoder = Encoder(**self.objective.encoder, dtype=dtype)
        states, before, after = (functools.partial(f, encoder) for f in (inside.states, inside.before, inside.after))
        attention = jax.jit(functools.partial(inside.attention, encoder))
        return jax.jit(states), jax.jit(before), jax.jit(after, static_argnames="grid"), attention, before, after

    def _world(self, batch: int, state: TrainState) -> dict[str, Any]:
        """base.Model.latents and advance."""
        (latents, predict), params = self._compiled_world, state.params | state.extra

        def advance(z: np.ndarray, actions: np.ndarray, proprio: np.ndarray | None = None) -> np.ndarray:
            recent = [x[:, -self.objective.history :] for x in (z, actions, proprio) if x is not None]
            return in_batches(batch, functools.partial(predict, state.params, state.extra), *recent)

        return {"latents": lambda v: in_batches(batch, functools.partial(latents, params), v), "advance": advance}

    @functools.cached_property
    def _compiled_world(self):
        return jax.jit(self.objective.latents), jax.jit(self.objective.predict)

    @functools.cached_property
    def _compiled(self):
        """encode and hide, jitted, on parameters."""
        objective = self.objective

        def encode(params, video):
            return objective.encode(params, video).astype(jnp.float32)

        def hide(params, video, context, rows, object_patches, removed):
            batch = _asked(video, context, object_patches, removed & self.names_objects, rows)
            if not isinstance(objective, Masking):
                return None, None, None
            tokens = objective.encode_context(params, batch)
            if not (getattr(objective, "predicts", False) and self.predicts):
                return tokens.astype(jnp.float32), None, None
            prediction, change = objective.predict(params, tokens, batch)
            learned = self.changes and getattr(objective, "causal_weight", 1.0)
            return tokens.astype(jnp.float32), prediction, change if learned else None

        compiled = jax.jit(hide)

        shows = "predictor" in exports(objective) and dict(objective.predictor).get("name_context", False)

        def with_rows(params, video, context, object_patches, removed):
            if shows:  # as in training: removed objects stay visible, the predictor is told which they are
                context = context | (object_patches & removed[..., None]).any(1)
            rows = Rows(*batching.lay_out(context, 1, context.shape), alone=True)
            return compiled(params, video, context, rows=rows, object_patches=object_patches, removed=removed)

        return jax.jit(encode), with_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored(Network):
    """A network that is evaluated, with its origin.

    Attributes (see Network for the others):
      run: the run's folder. None for a random network, an export or published weights.
      about: for the record: checkpoint, step, a digest of the parameters, the training's seed, batch, mask, optim and
        data, and `transfer`: a line for each key in which these data differ from the evaluation's. An export and
        published weights also have `weights` (layout, digest, licence). Their seed is None if it is not known.
      fresh: seed -> TrainState at initialisation.
      rate: the peak learning rate of the training.
      notes: lines for the user about weights from outside a run.
    """

    run: pathlib.Path | None
    about: dict[str, Any]
    fresh: Callable[[int], TrainState]
    rate: float
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        config: Any,
        checkpoint: str,
        trust: tuple[str, ...] = (),
        reading: Reading = Reading(),  # noqa: B008 (immutable)
    ) -> "Restored":
        """The newest readable checkpoint of a run's folder, an export, published weights, or the network at
        initialisation ("random").

        The training's settings are read from the run's config.json. Its model and input must be those of `config`.
        Nothing is written to the run's folder. For weights from outside a run, and for a run that started from some,
        objective.encoder of `config` is set to theirs (see init_from).

        The run's config may name code of this package, code that `config` names, and code of packages in `trust`
        (foreign.trusted). `reading`: what published weights do not say themselves.

        Raises: ConfigError for a folder without checkpoints, and for data that the encoder cannot take.
          CheckpointError for another architecture, or without a readable config.json. DataError if no scene is
          readable.
        """
        trust = (*trust, *foreign.named(config))
        run, weights = _opened(checkpoint, trust, reading)
        notes = init_from.use(config, weights) if weights else []
        training = config if run is None else _training(run, config, trust)
        objective = experiment.make_objective(config, config.train.steps or 1)
        of_model = objective.patch, objective.tubelet, objective.max_removed, isinstance(objective, Masking)
        scenes = assemble.make_scenes(config, assemble.make_source(config, "train"), *of_model)
        batch = batch_of(batching.collate([scenes(0, 0)]))
        init = functools.partial(train_step.init_state, objective, optim.make(training.optim))
        fresh = jax.jit(lambda seed: init(seed, batch))
        step, state = (
            (0, fresh(config.seed)) if run is None else pretrained.restore(run, jax.eval_shape(fresh, config.seed))
        )
        if weights:
            state = init_from.start(config, state, weights)
        about = {"checkpoint": str(run or checkpoint), "step": step} | _about(state, training, config)
        rate = optim.peak_rate(training.optim, training.train.batch)
        names = names_objects(training.mask, scenes.grid)
        if weights:
            about |= {"weights": {name: getattr(weights, name) for name in ("layout", "digest", "licence")}}
            about |= {"checkpoint": weights.source} if hub.is_address(checkpoint) else {}  # with the commit
            about |= {"step": weights.about.get("step", 0), "seed": weights.about.get("training", {}).get("seed")}
            names = bool(weights.input.get("names_objects"))
        predicts = not weights or not init_from.predictor_line(config, weights).startswith(init_from.FRESH)
        changes = predicts and (not weights or weights.layout == "cjepa_jax")  # others have no such head
        return cls(
            objective=objective,
            state=state,
            names_objects=names,
            predicts=predicts,
            changes=changes,
            seed=int(config.seed),
            run=run,
            about=about,
            fresh=fresh,
            rate=rate,
            notes=tuple(notes),
        )

    def trained(self, batch: int) -> Model:
        """The model, compiled for `batch` scenes."""
        return self.functions(batch)

    def random(self, index: int, batch: int) -> Model:
        """The same network at the index-th random initialisation."""
        return self.functions(batch, f"{RANDOM} {index}", self.fresh(INIT + index))


def _fresh_predictor(objective: Any, outputs: int) -> tuple[Callable, Callable]:
    """base.Model.fresh_predictor: of the objective's predictor, or of SMALL where it has none."""
    sizes = dict(objective.predictor) if "predictor" in exports(objective) else SMALL
    predictor = Predictor(**{**sizes, "max_objects": 1, "out": outputs})
    return predictor.init, predictor.apply


def _about(state: TrainState, training: Any, config: Any) -> dict[str, Any]:
    """What `Restored.about` says of every network."""
    trained = {key: training.data[key] for key in ("source", "options")}
    now = {key: config.data[key] for key in trained}
    return {
        "digest": trees.digest((state.params, state.extra, state.target)),
        "seed": training.seed,
        "batch": training.train.batch,
        "mask": training.mask,
        "optim": training.optim,
        "data": trained,
        "transfer": config_lib.differences({"data": trained}, {"data": now}, ignore=()),
    }


def _asked(video: Any, context: Any, object_patches: Any, removed: Any, rows: Rows | None) -> Batch:
    """The batch of masked inputs that a protocol asks about."""
    return Batch(
        scene=None,
        epoch=None,
        video=video,
        object_patches=object_patches,
        object_valid=object_patches.any(-1),
        removed=removed,
        context=context,
        rows=rows,
        valid=jnp.ones(len(video), bool),
        hidden=~context,
    )


def in_batches(batch: int, function, *arrays):
    """`function` over arrays with a common first axis, `batch` rows at a time. The last batch is padded."""
    parts = []
    for start in range(0, len(arrays[0]), batch):
        chunk = [array[start : start + batch] for array in arrays]
        count = len(chunk[0])
        filled = [np.concatenate([a, np.repeat(a[:1], batch - count, 0)]) if count < batch else a for a in chunk]
        parts.append(jax.tree.map(lambda out, count=count: np.asarray(out)[:count], function(*filled)))
    return jax.tree.map(lambda *out: np.concatenate(out), *parts)


def _opened(checkpoint: str, trust: tuple[str, ...], reading: Reading) -> tuple[pathlib.Path | None, Pretrained | None]:
    """(a run's folder, weights from outside a run): one of them is None. Both are None for "random"."""
    if checkpoint == "random":
        return None, None
    if hub.is_address(checkpoint):
        return None, pretrained.load_weights(checkpoint, reading=reading)
    path = pathlib.Path(shipped.find(checkpoint)).absolute()
    if run := run_folder(path):
        require_published(run, reading)
        return run, None
    path = path.parent if path.name == "checkpoints" else path
    if path.is_file() or (path / "config.json").is_file():
        return None, pretrained.load_weights(path, trust=trust, reading=reading)
    raise ConfigError(f"--checkpoint={checkpoint}: {path} has neither a folder checkpoints nor weights")


def _training(run: pathlib.Path, config: Any, trust: tuple[str, ...]) -> ConfigDict:
    """`config` with the training's settings from the run's config.json. If the run was started from weights,
    objective.encoder of `config` itself is set to theirs.

    Raises: CheckpointError for a run of another model or input, for an unreadable config.json, and as foreign.read.
    """
    if known := init_from.recorded(run, trust):
        init_from.adopt(config, known["encoder"])
    file = run / "config.json"
    try:
        saved = foreign.read(file, trust).to_dict()
        data = saved["data"]
        keys = {"objective": saved["objective"], "data": {key: data[key] for key in ("size", "frames")}}
        training = config.copy_and_resolve_references().unlock()
        training.seed, training.train.batch = saved["seed"], saved["train"]["batch"]
        training.mask, training.optim = ConfigDict(tuples(saved["mask"])), ConfigDict(saved["optim"])
        training.data.source, training.data.options = data["source"], ConfigDict(data["options"])
    except (foreign.NoConfig, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{file}: is not readable as a run's config, which says what the checkpoint is"
        raise CheckpointError(f"{text} ({type(error).__name__}: {error})") from error
    wanted = {"objective": config.objective, "data": {key: config.data[key] for key in keys["data"]}}
    different = config_lib.differences(
        config_lib.with_since(keys, wanted), wanted, ignore=(*config_lib.MAY_CHANGE, *NOT_THE_MODEL)
    )
    if different:
        raise CheckpointError(f"{run}: belongs to another model: {'; '.join(different)} (run -> config)")
    return training
