"""Predict the next frame's latents from actions: LeWorldModel, V-JEPA 2-AC and PLDM, by their configs.

docs/WORLD_MODELS.md has the equations and the sources.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.heads import Projector
from cjepa_jax.objectives import options
from cjepa_jax.schedules import ema_momentum
from cjepa_jax.types import Array, Batch, Params

CHOICES = {
    "latent": ("first", "flat", "tokens"),
    "target": ("none", "ema", "frozen"),
    "target_norm": ("none", "layer_norm"),
    "distance": ("mse", "l1"),
    "samples": ("first", "times", "all", "space"),
}
WEIGHTS = tuple(
    f"{name}_weight" for name in ("teacher", "rollout", "sigreg", "variance", "covariance", "similarity", "inverse")
)

LOGGED = {"sigreg": "epps_pulley"}  # "loss/sigreg" is another statistic in this package's logs


@dataclasses.dataclass(frozen=True)
class World:
    """L = teacher-forced error + rolled-out error + terms against collapse, each with its weight.

    Args:
      encoder: keyword arguments of models.encoder.Encoder. It encodes each frame on its own.
      predictor: `type`, a module of models.dynamics, and its arguments.
      steps, dtype: given by the trainer.
      latent: what stands for a frame: the "first" token (a class token), all tokens in one "flat" vector, or the
        "tokens" themselves.
      projector, predictor_projector: arguments of models.heads.Projector but for `out`, applied to latents and to
        predictions. {}: none. Running statistics of batch norms are in `extra`, and only `encode`, `latents` and
        `predict` use them.
      projection: the projector's width.
      target: what predictions are compared with: the latents themselves with gradients on both sides ("none"), those of
        a moving average ("ema"), or those of an encoder that no gradient reaches ("frozen", with optim.freeze).
      target_norm: "layer_norm" normalises latents and predictions over D, without learned scale.
      distance: "mse" or "l1", mean over components.
      rollout: number of frames that are predicted one after the other, with true actions.
      given: number of true first frames from which a rollout starts. What moves without an action needs two.
      proprio: whether the predictor is given the agent's state.
      samples: on which vectors the terms against collapse work: the "first" latents of the clips, those of each of the
        "times" on their own (the terms are averaged over times), "all" latents, or all tokens in "space" and time.
      slices, knots, t_max: of the Epps-Pulley statistic (losses.epps_pulley).
      inverse_hidden: hidden units of the network that infers an action from two latents.
      grace: see objectives.base.Objective.
    """

    encoder: Mapping
    predictor: Mapping
    steps: int
    dtype: str = "float32"
    latent: str = "flat"
    projector: Mapping = dataclasses.field(default_factory=dict)
    predictor_projector: Mapping = dataclasses.field(default_factory=dict)
    projection: int = 64
    target: str = "none"
    target_norm: str = "none"
    ema: tuple[float, float] = (0.996, 1.0)
    distance: str = "mse"
    teacher_weight: float = 1.0
    rollout_weight: float = 0.0
    rollout: int = 0
    given: int = 1
    proprio: bool = False
    samples: str = "times"
    sigreg_weight: float = 0.0
    slices: int = 1024
    knots: int = 17
    t_max: float = 3.0
    variance_weight: float = 0.0
    covariance_weight: float = 0.0
    similarity_weight: float = 0.0
    inverse_weight: float = 0.0
    inverse_hidden: int = 256
    grace: int = 0

    max_removed = 0
    memory = 0  # first frames that are only seen, never predicted (objectives.remembering)
    tubelet = 1
    framewise = True
    kinds = ("episodes",)
    method = "a world model: latents of the next frame, predicted from latents and actions"

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"objective.{name} = {getattr(self, name)!r}: must be one of {', '.join(choices)}")
        options.whole("objective.given", self.given)
        for good, name, limit in (
            *((getattr(self, name) >= 0, name, "0 or more") for name in WEIGHTS),
            (self.teacher_weight + self.rollout_weight > 0, "teacher_weight", "above 0, or rollout_weight"),
            (self.rollout >= 1 or not self.rollout_weight, "rollout", "at least 1 with rollout_weight"),
            (self.slices >= 1, "slices", "at least 1"),
            (self.knots >= 2, "knots", "at least 2"),
            (self.t_max > 0, "t_max", "above 0"),
            (self.grace >= 0, "grace", "0 or more"),
            (self.latent != "tokens" or not (self.projector or self.predictor_projector), "latent", "one vector"),
        ):
            if not good:
                raise ConfigError(f"objective.{name} = {getattr(self, name)}: must be {limit}")
        _ = self.networks

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(**build.plain(self.encoder), dtype=jnp.dtype(self.dtype))

    @functools.cached_property
    def networks(self) -> dict[str, Any]:
        """All but the encoder, by the name of their parameters. The inverse model is made in `_inverse`."""
        out = self.projection
        networks = {"predictor": build.build(self.predictor, "objective.predictor", **self._type)}
        for name in ("projector", "predictor_projector"):
            section = getattr(self, name)
            if section:
                networks[name] = Projector(**{**section, "hidden": tuple(section["hidden"])}, out=out, **self._type)
        return networks

    @property
    def _type(self) -> dict[str, Any]:
        return {"dtype": jnp.dtype(self.dtype)}

    @property
    def patch(self) -> int:
        return self._encoder.patch

    @property
    def history(self) -> int:
        """The most frames that `predict` uses."""
        return self.networks["predictor"].history

    @property
    def recent(self) -> int:
        """The most frames before a prediction, without those of the memory, that `predict` uses."""
        return self.history

    def setting(self, key: str) -> Any:
        """The value of config.objective's key with dots, or its default: "latent", "predictor.depth",
        "projector.hidden". None for a part that there is not."""
        part, _, name = key.rpartition(".")
        if not part:
            return getattr(self, name)
        network = self.networks.get(part)
        kind = type(network)
        return f"{kind.__module__}:{kind.__qualname__}" if name == "type" else getattr(network, name, None)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh networks. The target is a copy of encoder and projector, or nothing."""
        if batch.actions is None or batch.video.shape[1] < 2:
            raise ConfigError("data.frames: a world model needs episodes of at least 2 frames, with actions")
        most = batch.video.shape[1] - self.given
        if most < 1:
            raise ConfigError(
                f"objective.given = {self.given}: must be at most data.frames - 1 = {most + self.given - 1}"
            )
        if self.rollout > most:
            text = f"must be at most data.frames - objective.given = {most}"
            raise ConfigError(f"objective.rollout = {self.rollout}: {text}")
        if self.proprio and batch.proprio is None:
            raise ConfigError("objective.proprio = True: the source gives no state of the agent")
        keys = dict(zip(("encoder", *self.networks, "inverse"), jax.random.split(key, 5), strict=False))
        few = jax.tree.map(lambda x: x[:1], batch)
        encoder = self._encoder.init(keys["encoder"], few.video[:, 0:1])["params"]
        params, stats = {"encoder": encoder}, {}
        z = self._tokens(params, few.video)
        for name in ("projector", "predictor", "predictor_projector"):
            if name not in self.networks:
                continue
            inputs = (few.actions[:, :1], self._agent_state(few.proprio, 1)) if name == "predictor" else (None,)
            made = self.networks[name].init(keys[name], z[:, :1], *inputs)
            params[name], stats[name] = made["params"], made.get("batch_stats", {})
            if name == "projector":
                z = jnp.zeros((*z.shape[:2], self.projection))
        if self.inverse_weight:
            pair, actions = z.reshape(1, z.shape[1], -1), batch.actions.shape[-1]
            params["inverse"] = self._inverse(actions).init(keys["inverse"], _pairs(pair), None)["params"]
        target = {name: jax.tree.map(jnp.copy, params[name]) for name in ("encoder", "projector") if name in params}
        return params, target if self.target == "ema" else {}, {"batch_stats": stats}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See objectives.base.Objective and docs/WORLD_MODELS.md."""
        stats, valid = extra["batch_stats"], batch.valid
        z, stats = self._latents(params, stats, batch.video, valid)
        if self.target == "ema":
            wanted = jax.lax.stop_gradient(self._latents(target, stats, batch.video, valid)[0])
        else:
            z = wanted = jax.lax.stop_gradient(z) if self.target == "frozen" else z
        agent = batch.actions, batch.proprio
        predicted, stats = self._next(params, stats, z[:, :-1], *agent, valid=valid)
        errors = {"teacher": self._error(predicted, wanted[:, 1 + self.memory :])}
        if self.rollout_weight:
            known = self.given
            rolled = self._roll(params, stats, z[:, :known], predicted[:, known - 1 : known], *agent, valid=valid)
            errors["rollout"] = self._error(rolled, wanted[:, known : known + self.rollout])
        terms = {name: losses.masked_mean(error, valid) for name, error in errors.items()}
        terms |= self._regularisers(params, z, batch, key)
        total = sum(getattr(self, f"{name}_weight") * value for name, value in terms.items())
        pooled = z if z.ndim == 3 else z.mean(2)
        rows, counted = pooled.reshape(-1, pooled.shape[-1]), jnp.repeat(valid, z.shape[1])
        known, later = z[:, self.memory : -1], wanted[:, 1 + self.memory :]
        copied = losses.masked_mean(self._error(known, later), valid)
        metrics = {f"loss/{LOGGED.get(name, name)}": value for name, value in terms.items()} | {
            "loss": total,
            "copy_error": jax.lax.stop_gradient(copied),
            **losses.collapse_monitors(rows, counted),
            "per_scene": errors["teacher"],
        }
        return total, (metrics, extra | {"batch_stats": stats})

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """The moving average of encoder and projector, if it is the target."""
        if self.target != "ema":
            return target
        tau = ema_momentum(step, self.steps, *self.ema, "linear")
        return jax.tree.map(lambda old, new: old + (1.0 - tau) * (new - old), target, {n: params[n] for n in target})

    def encode(self, params: Params, video: Array) -> Array:
        """Latents of a clip as tokens: [B, T, H, W, C] -> [B, T, D] or [B, T M, D]. See `latents`."""
        z = self.latents(params, video)
        return z.reshape(len(z), -1, z.shape[-1])

    def latents(self, params: Params, frames: Array) -> Array:
        """See objectives.base.World."""
        stats = params.get("batch_stats", {})
        return self._latents(params, stats, frames, None, train=False)[0]

    def predict(
        self, params: Params, extra: Params, latents: Array, actions: Array, proprio: Array | None = None
    ) -> Array:
        """See objectives.base.World."""
        z, actions, own = (None if x is None else x[:, -self.history :] for x in (latents, actions, proprio))
        stats = extra.get("batch_stats", {})
        return self._next(params, stats, z, actions, own, train=False)[0][:, -1]

    def _tokens(self, params: Params, frames: Array) -> Array:
        """[B, T, H, W, C] -> the encoder's [B, T, D] or [B, T, M, D] float32, frame by frame."""
        scenes, times = frames.shape[:2]
        tokens = self._encoder.apply({"params": params["encoder"]}, frames.reshape(-1, 1, *frames.shape[2:]))
        tokens = tokens.astype(jnp.float32).reshape(scenes, times, *tokens.shape[1:])
        if self.latent == "tokens":
            return tokens
        return tokens[:, :, 0] if self.latent == "first" else tokens.reshape(scenes, times, -1)

    def _latents(self, params, stats, frames, valid, train=True) -> tuple[Array, Params]:
        """Latents of frames, and the next batch statistics."""
        z, stats = self._project("projector", params, stats, self._tokens(params, frames), valid=valid, train=train)
        return self._normed(z), stats

    def _next(self, params, stats, z, actions, proprio, valid=None, train=True) -> tuple[Array, Params]:
        """Predictions [B, t - memory, D] of what follows each of z [B, t, D] but the first `memory`, and the next batch
        statistics."""
        count, network = z.shape[1], self.networks["predictor"]
        agent = actions[:, :count].astype(jnp.float32), self._agent_state(proprio, count)
        out = network.apply({"params": params["predictor"]}, z, *agent)[:, self.memory :]
        out, stats = self._project("predictor_projector", params, stats, out, valid=valid, train=train)
        return self._normed(out.astype(jnp.float32)), stats

    def _roll(self, params, stats, first, second, actions, proprio, valid) -> Array:
        """`rollout` predictions one after the other from the true `first` latents. `second`: the first of them."""
        z = jnp.concatenate([first, second], axis=1)
        for _ in range(self.rollout - 1):
            start, stop = max(0, z.shape[1] - self.history), z.shape[1]
            own = None if proprio is None else proprio[:, start:stop]
            following = self._next(params, stats, z[:, start:], actions[:, start:stop], own, valid=valid)[0]
            z = jnp.concatenate([z, following[:, -1:]], axis=1)
        return z[:, self.given :]

    def _agent_state(self, proprio: Array | None, count: int) -> Array | None:
        return proprio[:, :count].astype(jnp.float32) if self.proprio and proprio is not None else None

    def _project(self, name, params, stats, x, valid, train) -> tuple[Array, Params]:
        if name not in self.networks:
            return x, stats
        variables = {"params": params[name], "batch_stats": stats.get(name, {})}
        rows = None if valid is None else jnp.broadcast_to(valid[:, None], x.shape[:2])
        out, changed = self.networks[name].apply(variables, x, rows, train, mutable=["batch_stats"])
        return out, stats | {name: changed.get("batch_stats", {})}

    def _normed(self, z: Array) -> Array:
        return jax.nn.standardize(z, axis=-1, epsilon=1e-5) if self.target_norm == "layer_norm" else z

    def _error(self, predicted: Array, wanted: Array) -> Array:
        """Mean over times and components: [B, t, ...] -> [B]."""
        error = predicted - wanted
        error = jnp.square(error) if self.distance == "mse" else jnp.abs(error)
        return error.mean(tuple(range(1, error.ndim)))

    def _regularisers(self, params: Params, z: Array, batch: Batch, key: Array) -> dict[str, Array]:
        """The terms against collapse that have a weight."""
        terms, valid = {}, batch.valid
        vectors, counted = _samples(z, valid, self.samples)
        z = z[:, self.memory :]  # frames that follow each other
        if self.sigreg_weight:
            slices = losses.random_slices(key, vectors.shape[-1], self.slices)
            terms["sigreg"] = self.sigreg(vectors, slices, counted)
        for name, term in (("variance", losses.variance_hinge), ("covariance", losses.decorrelation)):
            if getattr(self, f"{name}_weight"):
                terms[name] = jax.vmap(term)(vectors, counted).mean()
        if self.similarity_weight:
            moves = jnp.square(z[:, 1:] - z[:, :-1])
            terms["similarity"] = losses.masked_mean(moves.mean(tuple(range(1, moves.ndim))), valid)
        if self.inverse_weight:
            given: Any = batch.actions  # checked by `init`
            actions, flat = given[:, self.memory : -1].astype(jnp.float32), z.reshape(*z.shape[:2], -1)
            inferred = self._inverse(actions.shape[-1]).apply({"params": params["inverse"]}, _pairs(flat), None)
            terms["inverse"] = losses.masked_mean(jnp.square(inferred - actions).mean((1, 2)), valid)
        return terms

    def sigreg(self, vectors: Array, slices: Array, counted: Array) -> Array:
        """The Epps-Pulley statistic of each of S sets of vectors [S, n, D], averaged. counted: bool [S, n]."""
        statistic = functools.partial(losses.epps_pulley, knots=self.knots, t_max=self.t_max)
        return jax.vmap(statistic, (0, None, 0))(vectors, slices, counted).mean()

    def _inverse(self, actions: int) -> Projector:
        return Projector(hidden=(self.inverse_hidden,), out=actions, norm="none", **self._type)


def _pairs(z: Array) -> Array:
    """Two latents that follow each other: [B, T, D] -> [B, T - 1, 2 D]."""
    return jnp.concatenate([z[:, :-1], z[:, 1:]], axis=-1)


def _samples(z: Array, valid: Array, kind: str) -> tuple[Array, Array]:
    """Sets of vectors [S, n, D] of latents [B, T, ...], and which of them count, bool [S, n]."""
    scenes, times = z.shape[:2]
    counted = jnp.broadcast_to(valid[:, None], (scenes, times))
    if kind == "space":
        each = z.reshape(scenes, times, -1, z.shape[-1]).shape[2]
        return z.reshape(1, -1, z.shape[-1]), jnp.repeat(counted, each).reshape(1, -1)
    flat = z.reshape(scenes, times, -1)
    if kind == "times":
        return flat.swapaxes(0, 1), counted.T
    flat, counted = (flat[:, :1], counted[:, :1]) if kind == "first" else (flat, counted)
    return flat.reshape(1, -1, flat.shape[-1]), counted.reshape(1, -1)
