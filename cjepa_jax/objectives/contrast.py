"""What JEPA is compared with: views that agree against negatives (SimCLR), a self-made teacher (DINO), or VICReg."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.heads import Prototypes
from cjepa_jax.objectives import siamese
from cjepa_jax.objectives.siamese import Siamese
from cjepa_jax.schedules import ema_momentum
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Pair(Siamese):
    """Base of methods with two views and without a target network.

    By default each view is normalised by its own statistics."""

    def __post_init__(self):
        super().__post_init__()
        siamese.require_two(self._views, type(self).__name__)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder and projector. There is no target."""
        params, stats = self._init(key, batch)
        return params, {}, {"batch_stats": stats}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See objectives.base.Objective."""
        pooled, stats = self.pooled(params, self._views(key, batch.video)), extra["batch_stats"]
        projected, new = self.project(params["projector"], stats["projector"], pooled, batch.valid)
        per_scene, terms, total = self.compare(projected, batch.valid)
        unit = losses.unit(projected[:, 0]) * self._projector.out**0.5
        metrics = siamese.monitors(pooled[:, 0], unit, batch.valid) | {"loss": total, "per_scene": per_scene}
        metrics |= {f"loss/{name}": value for name, value in terms.items()}
        return total, (metrics, extra | {"batch_stats": stats | {"projector": new}})

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none."""
        return target

    def project(self, params: Params, stats: Params, pooled: Array, valid: Array) -> tuple[Array, Params]:
        """(projections of pooled features [B, 2, D], the next batch statistics)."""
        return siamese.by_view(self._projector, params, stats, pooled, valid)

    def compare(self, projected: Array, valid: Array) -> tuple[Array, dict[str, Array], Array]:
        """(an error of each scene [B], terms by name, the loss) of both views' projections, float32 [B, 2, P]."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class SimClr(Pair):
    """SimCLR (arXiv 2002.05709): a view finds the scene's other view among all views of the batch (NT-Xent).

    As in the public code, the projector's batch norm takes both views together: otherwise what all first views have in
    common would be taken out of them.

    temperature: of the softmax over cosine similarities.
    """

    temperature: float = 0.1

    method = "SimCLR: two views, and the other scenes as negatives"

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(f"objective.temperature = {self.temperature}: must be above 0")

    def project(self, params: Params, stats: Params, pooled: Array, valid: Array) -> tuple[Array, Params]:
        """See `Pair`."""
        both = jnp.broadcast_to(valid[:, None], pooled.shape[:2])
        return siamese.apply(self._projector, params, stats, pooled, both)

    def compare(self, projected: Array, valid: Array) -> tuple[Array, dict[str, Array], Array]:
        """See `Pair`."""
        per_scene = nt_xent(projected, valid, self.temperature)
        total = losses.masked_mean(per_scene, valid)
        return per_scene, {"contrast": total}, total


@dataclasses.dataclass(frozen=True)
class VicReg(Pair):
    """VICReg (arXiv 2105.04906): views agree, components vary and are not correlated.

    L = 25 mse + 25 mean relu(1 - std) + 1 sum of squared covariances / P, with the weights `invariance`, `variance` and
    `covariance`. The second term is the mean over the two views, the third their sum.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    method = "VICReg: two views, variance and covariance"

    def __post_init__(self):
        super().__post_init__()
        for name in ("invariance", "variance", "covariance"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"objective.{name} = {getattr(self, name)}: must be 0 or more")

    def compare(self, projected: Array, valid: Array) -> tuple[Array, dict[str, Array], Array]:
        """See `Pair`."""
        per_scene, terms = losses.vicreg(projected[:, 0], projected[:, 1], valid)
        total = sum(getattr(self, name) * value for name, value in terms.items())
        return per_scene, terms, total


@dataclasses.dataclass(frozen=True)
class Dino(Siamese):
    """DINO (arXiv 2104.14294): all views give the classes that an EMA network gives the other large views.

    The classes are `prototypes` directions that are learned. The EMA network's scores minus their running mean over
    scenes ("centre" in `extra`, momentum `centre`) are divided by `teacher`, the network's by `student`. The loss is
    their cross-entropy over pairs of a large view and another view.
    """

    prototypes: int = 256
    student: float = 0.1
    teacher: float = 0.04
    centre: float = 0.9
    ema: tuple[float, float] = (0.996, 1.0)

    method = "DINO: views, an EMA teacher, learned classes"

    def __post_init__(self):
        super().__post_init__()
        for good, name, limit in (
            (self.prototypes >= 2, "prototypes", "at least 2"),
            (self.student > 0, "student", "above 0"),
            (self.teacher > 0, "teacher", "above 0"),
            (0 <= self.centre < 1, "centre", "at least 0 and below 1"),
        ):
            if not good:
                raise ConfigError(f"objective.{name} = {getattr(self, name)}: must be {limit}")
        if self._views.count < 2:
            raise ConfigError(f"objective.views.count = {self._views.count}: must be at least 2 with DINO")

    @property
    def _prototypes(self) -> Prototypes:
        return Prototypes(self.prototypes)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder, projector and prototypes. The target starts as their copy."""
        key, prototypes_key = jax.random.split(key)
        params, stats = self._init(key, batch)
        projected = jnp.zeros((batch.video.shape[0], self._projector.out))
        params["prototypes"] = self._prototypes.init(prototypes_key, projected)["params"]
        centre = jnp.zeros((self.prototypes,), jnp.float32)
        return params, jax.tree.map(jnp.copy, params), {"batch_stats": stats, "centre": centre}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See objectives.base.Objective."""
        large, stats, valid = self._views(key, batch.video), extra["batch_stats"], batch.valid
        pooled = self.pooled(params, large)
        if self._views.small:
            pooled = jnp.concatenate([pooled, self.pooled(params, self._views.small_views(key, batch.video))], axis=1)
        projected, new = siamese.by_view(self._projector, params["projector"], stats["projector"], pooled, valid)
        scores = self._prototypes.apply({"params": params["prototypes"]}, projected)
        wanted, _ = siamese.by_view(self._projector, target["projector"], {}, self.pooled(target, large), valid)
        wanted = jax.lax.stop_gradient(self._prototypes.apply({"params": target["prototypes"]}, wanted))
        classes = jax.nn.softmax((wanted - extra["centre"]) / self.teacher)
        per_scene = cross_entropy(scores / self.student, classes)
        total = losses.masked_mean(per_scene, valid)
        counted = jnp.broadcast_to(valid[:, None, None], wanted.shape)
        mean = losses.masked_mean(wanted, counted, axis=(0, 1))
        likely = losses.masked_mean(classes, counted, axis=(0, 1))
        entropy = -(likely * jnp.log(jnp.where(likely > 0, likely, 1.0))).sum()
        unit = losses.unit(projected[:, 0]) * self._projector.out**0.5
        metrics = siamese.monitors(pooled[:, 0], unit, valid) | {
            "loss": total,
            "loss/classes": total,
            "classes_used": jnp.exp(entropy),
            "ema_momentum": ema_momentum(step, self.steps, *self.ema),
            "per_scene": per_scene,
        }
        following = {"centre": self.centre * extra["centre"] + (1 - self.centre) * mean}
        return total, (metrics, extra | following | {"batch_stats": stats | {"projector": new}})

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """theta_bar <- tau theta_bar + (1 - tau) theta, in float32."""
        tau = ema_momentum(step, self.steps, *self.ema)
        # As a small step towards theta: near tau = 1 this keeps what tau * old + (1 - tau) * new rounds away.
        return jax.tree.map(lambda old, new: old + (1.0 - tau) * (new - old), target, params)


def nt_xent(projected: Float[Array, "B 2 P"], valid: Bool[Array, " B"], temperature: float) -> Float[Array, " B"]:
    """-log softmax of the similarity to the scene's other view among all other valid views, mean over both views."""
    scenes = projected.shape[0]
    views = losses.unit(projected).reshape(2 * scenes, -1)
    with jax.default_matmul_precision("float32"):
        similar = views @ views.T / temperature
    counted = jnp.repeat(valid, 2)[None] & ~jnp.eye(2 * scenes, dtype=bool)
    total = jax.nn.logsumexp(jnp.where(counted, similar, -jnp.inf), axis=-1, where=counted)
    own = similar[jnp.arange(2 * scenes), jnp.arange(2 * scenes) ^ 1]
    # A scene that does not count has no view among those that are compared, so its value is not used.
    return jnp.where(valid, (total - own).reshape(scenes, 2).mean(-1), 0.0)


def cross_entropy(scores: Float[Array, "B V K"], classes: Float[Array, "B G K"]) -> Float[Array, " B"]:
    """Mean over pairs of one of the first G views' classes and another view's scores: -sum classes log softmax."""
    log = jax.nn.log_softmax(scores)
    each = -jnp.einsum("bgk,bvk->bgv", classes, log)
    pairs = jnp.arange(classes.shape[1])[:, None] != jnp.arange(scores.shape[1])
    return losses.masked_mean(each, jnp.broadcast_to(pairs, each.shape), axis=(1, 2))
