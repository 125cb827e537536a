"""Pooled features of random views of a scene agree: BYOL and LeJEPA, without masks or negatives."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.heads import Projector
from cjepa_jax.models.tokenizers import SCALE
from cjepa_jax.objectives.views import Views
from cjepa_jax.schedules import ema_momentum
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Siamese:
    """What both methods share: views, the encoder, its tokens' mean, a projector behind it.

    `encoder`, `projector` and `views` are keyword arguments of models.encoder.Encoder, models.heads.Projector and
    objectives.views.Views. `steps` is the length of the run. `dtype` is the compute type. `extra` holds the running
    statistics of the batch norms ("batch_stats"), which no loss reads: training normalises by the global batch.
    """

    encoder: Mapping
    projector: Mapping
    steps: int
    views: Mapping = dataclasses.field(default_factory=dict)
    dtype: str = "float32"

    max_removed = 0  # nothing is removed, so any number may be
    exports = ("encoder",)

    def __post_init__(self):
        _ = self._views, self._projector  # refused when built, not at the first step
        channels, scale = self._encoder.channels, self._encoder.scale
        if channels != 3 or scale != SCALE:
            text = f"objective.encoder.channels = {channels}, scale = {scale:g}: must be 3 and {SCALE:g}"
            raise ConfigError(f"{text} with objective.views, which change brightness and colour of RGB")

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(**build.plain(self.encoder), dtype=jnp.dtype(self.dtype))

    @functools.cached_property
    def _projector(self) -> Projector:
        return projector("projector", self.projector, self.dtype)

    @functools.cached_property
    def _views(self) -> Views:
        return Views(**self.views)

    @property
    def patch(self) -> int:
        return self._encoder.patch

    @property
    def tubelet(self) -> int:
        return self._encoder.tubelet

    def encode(self, params: Params, video: Array) -> Array:
        """Tokens of whole scenes, [B, T, H, W, C] -> [B, N, D]."""
        return self._encoder.apply({"params": params["encoder"]}, video)

    def pooled(self, params: Params, views: Array) -> Array:
        """Mean tokens of views, [B, V, T, H, W, C] -> float32 [B, V, D]."""
        scenes, count = views.shape[:2]  # scenes first: a scene's views stay on its device
        tokens = self.encode(params, views.reshape(scenes * count, *views.shape[2:]))
        return tokens.astype(jnp.float32).mean(1).reshape(scenes, count, -1)

    def _init(self, key: Array, batch: Batch) -> tuple[Params, Params]:
        """Fresh parameters and batch statistics of encoder and projector."""
        encoder_key, projector_key = jax.random.split(key)
        encoder = self._encoder.init(encoder_key, batch.video)["params"]
        pooled = jnp.zeros((batch.video.shape[0], self._encoder.width))
        projector = self._projector.init(projector_key, pooled, batch.valid)
        stats = {"projector": projector.get("batch_stats", {})}
        return {"encoder": encoder, "projector": projector["params"]}, stats


@dataclasses.dataclass(frozen=True)
class Byol(Siamese):
    """Bootstrap your own latent (arXiv 2006.07733): predict the EMA network's projection of the other view.

    The loss is 2 - 2 cos in both directions, added. `predictor` holds keyword arguments of models.heads.Projector but
    for `out`. `predict=False` leaves it out, and `stop_gradient=False` lets the target be the network itself: both
    are controls that collapse.
    """

    predictor: Mapping = dataclasses.field(default_factory=dict)
    predict: bool = True
    stop_gradient: bool = True
    ema: tuple[float, float] = (0.996, 1.0)

    method = "BYOL: two views, an EMA target, no negatives"

    def __post_init__(self):
        super().__post_init__()
        _ = self._predictor
        require_two(self._views, "BYOL")

    @functools.cached_property
    def _predictor(self) -> Projector:
        return projector("predictor", {**self.predictor, "out": self._projector.out}, self.dtype)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder, projector and predictor. The target starts as a copy of the first two."""
        key, predictor_key = jax.random.split(key)
        params, stats = self._init(key, batch)
        target = jax.tree.map(jnp.copy, params)
        if self.predict:
            projected = jnp.zeros((batch.video.shape[0], self._projector.out))
            predictor = self._predictor.init(predictor_key, projected, batch.valid)
            params["predictor"], stats["predictor"] = predictor["params"], predictor.get("batch_stats", {})
        return params, target, {"batch_stats": stats}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """Equation 2 of the paper, both ways. See objectives.base.Objective."""
        views, stats, valid = self._views(key, batch.video), extra["batch_stats"], batch.valid
        pooled = self.pooled(params, views)
        projected, new = by_view(self._projector, params["projector"], stats["projector"], pooled, valid)
        stats, predicted, wanted = stats | {"projector": new}, projected, projected
        if self.stop_gradient:
            seen = self.pooled(target, views)
            wanted = jax.lax.stop_gradient(by_view(self._projector, target["projector"], {}, seen, valid)[0])
        if self.predict:
            predicted, new = by_view(self._predictor, params["predictor"], stats["predictor"], projected, valid)
            stats = stats | {"predictor": new}
        per_scene = sum(losses.cosine_distance(predicted[:, view], wanted[:, 1 - view]) for view in range(2))
        total = losses.masked_mean(per_scene, valid)
        unit = losses.unit(projected[:, 0]) * self._projector.out**0.5
        metrics = monitors(pooled[:, 0], unit, valid) | {
            "loss": total,
            "loss/cosine": total,
            "ema_momentum": ema_momentum(step, self.steps, *self.ema),
            "per_scene": per_scene,
        }
        return total, (metrics, extra | {"batch_stats": stats})

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """theta_bar <- tau theta_bar + (1 - tau) theta of encoder and projector, in float32."""
        tau = ema_momentum(step, self.steps, *self.ema)
        # As a small step towards theta: near tau = 1 this keeps what tau * old + (1 - tau) * new rounds away.
        return {
            name: jax.tree.map(lambda old, new: old + (1.0 - tau) * (new - old), old, params[name])
            for name, old in target.items()
        }


@dataclasses.dataclass(frozen=True)
class LeJepa(Siamese):
    """LeJEPA (arXiv 2511.08544): projections of all views agree and are distributed as N(0, I). No target network.

    L = (1 - lambda) mean((mean over large views - view)^2) + lambda SIGReg, lambda = `weight`. SIGReg is the
    Epps-Pulley statistic per view on `slices` directions drawn again each step, with `knots` points up to `t_max`,
    averaged over views (as the paper's minimal listing has it). With `views.small`, small views are drawn too (the
    paper's main recipe: two large and six small ones). They enter both terms, but not the mean that all views are
    compared with.
    """

    weight: float = 0.02
    slices: int = 1024
    knots: int = 17
    t_max: float = 3.0

    method = "LeJEPA: several views and the Epps-Pulley statistic"

    def __post_init__(self):
        super().__post_init__()
        for good, name, limit in (
            (0 <= self.weight <= 1, "weight", "in [0, 1]"),
            (self.slices >= 1, "slices", "at least 1"),
            (self.knots >= 2, "knots", "at least 2"),
            (self.t_max > 0, "t_max", "above 0"),
        ):
            if not good:
                raise ConfigError(f"objective.{name} = {getattr(self, name)}: must be {limit}")
        if self._views.count < 2:
            raise ConfigError(f"objective.views.count = {self._views.count}: must be at least 2, to agree")
        if self._views.small and self._views.small_size % self.patch:
            text = f"objective.views.small_size = {self._views.small_size}: must be a multiple of the patch"
            raise ConfigError(f"{text}, {self.patch} pixels")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder and projector. There is no target."""
        params, stats = self._init(key, batch)
        return params, {}, {"batch_stats": stats}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See objectives.base.Objective."""
        views_key, slices_key = jax.random.split(key)
        pooled = self.pooled(params, self._views(views_key, batch.video))
        if self._views.small:
            small = self.pooled(params, self._views.small_views(views_key, batch.video))
            pooled = jnp.concatenate([pooled, small], axis=1)
        valid = jnp.broadcast_to(batch.valid[:, None], pooled.shape[:2])
        stats = extra["batch_stats"]
        projected, projected_stats = apply(self._projector, params["projector"], stats["projector"], pooled, valid)
        centre = projected[:, : self._views.count].mean(1, keepdims=True)
        per_scene = jnp.square(projected - centre).mean((1, 2))
        slices = losses.random_slices(slices_key, projected.shape[-1], self.slices)
        statistic = functools.partial(losses.epps_pulley, knots=self.knots, t_max=self.t_max)
        terms = {
            "invariance": losses.masked_mean(per_scene, batch.valid),
            "epps_pulley": jax.vmap(statistic, (1, None, None))(projected, slices, batch.valid).mean(),
        }
        total = (1.0 - self.weight) * terms["invariance"] + self.weight * terms["epps_pulley"]
        metrics = monitors(pooled[:, 0], projected[:, 0], batch.valid) | {"loss": total, "per_scene": per_scene}
        metrics |= {f"loss/{name}": value for name, value in terms.items()}
        return total, (metrics, extra | {"batch_stats": stats | {"projector": projected_stats}})

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none."""
        return target


def require_two(views: Views, method: str) -> None:
    """Raises ConfigError for other than two large views."""
    for name, value, wanted in (("count", views.count, 2), ("small", views.small, 0)):
        if value != wanted:
            text = f"must be {wanted} with {method}, which compares two"
            raise ConfigError(f"objective.views.{name} = {value}: {text}")


def projector(name: str, section: Mapping, dtype: str) -> Projector:
    """The network of a section, its values checked."""
    network = Projector(**{**section, "hidden": tuple(section.get("hidden", Projector.hidden))}, dtype=dtype)
    if network.norm not in ("batch", "layer", "none"):
        raise ConfigError(f"objective.{name}.norm = {network.norm!r}: must be one of batch, layer, none")
    if min(*network.hidden, network.out) < 1:
        raise ConfigError(f"objective.{name}: hidden = {network.hidden}, out = {network.out}: must be at least 1")
    return network


def apply(network: Projector, params: Params, stats: Params, x: Array, valid: Array) -> tuple[Array, Params]:
    """The network's output and its next batch statistics ({} where it has none).

    All of [B, V, D] is normalised together, with `valid` [B, V]."""
    out, changed = network.apply({"params": params, "batch_stats": stats}, x, valid, mutable=["batch_stats"])
    return out, changed.get("batch_stats", {})


def by_view(network: Projector, params: Params, stats: Params, x: Array, valid: Array) -> tuple[Array, Params]:
    """`apply` to [B, V, D] one view after the other, so that each is normalised by its own statistics."""
    out = []
    for view in range(x.shape[1]):
        projected, stats = apply(network, params, stats, x[:, view], valid)
        out.append(projected)
    return jnp.stack(out, axis=1), stats


def monitors(pooled: Array, projected: Array, valid: Array) -> dict[str, Array]:
    """Collapse, seen behind the encoder and behind the projector."""
    return losses.collapse_monitors(pooled, valid) | {"projection_std": losses.feature_std(projected, valid)}
