"""Prediction at several scales with VICReg against collapse: H-JEPA, our reading."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pyramid(Jepa):
    """Jepa's prediction loss, and the same of averages over 2 x 2, 4 x 4, ... tokens of the plane.

    Level h compares the mean prediction of the hidden tokens in a square of 2^h x 2^h with their mean target, for every
    square that has any, with the weight `weights[h]`. weights[0] is that of single tokens. `variance` and `covariance`
    are the weights of VICReg's terms of each scene's mean visible token (losses.variance_hinge, and the sum of squared
    covariances divided by D). The remaining fields are Jepa's. With weights = (1.0,) and without VICReg it is Jepa, to
    the bit.

    Metrics: "level/h" is the loss at level h, and "level/h_copy" that of predicting the mean target of the visible
    tokens everywhere.
    """

    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    variance: float = 0.0
    covariance: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("video", "episodes")
    second_mask = False
    method = "H-JEPA: prediction at several scales, with VICReg"

    def __post_init__(self):
        super().__post_init__()
        weights = tuple(self.weights)
        if not weights or len(weights) > 8 or min(weights) < 0 or not weights[0]:
            raise ConfigError(
                f"objective.weights = {weights}: must be 1 to 8 numbers, the first above 0, others 0 or more"
            )
        for name in ("variance", "covariance"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"objective.{name} = {getattr(self, name)}: must be 0 or more")

    def further(self, prediction: Array, wanted: Array, hidden: Array, batch: Batch) -> dict[str, Array]:
        """See Jepa: the error at each level, and that of the mean visible token."""
        terms: dict[str, Array] = {}
        if len(self.weights) == 1:
            return terms
        seen = jnp.broadcast_to(batch.context[..., None], wanted.shape)
        copied = jnp.broadcast_to(losses.masked_mean(wanted, seen, axis=1)[:, None], wanted.shape)
        grid = self._grid(batch.observation)
        for level in range(len(self.weights)):
            of, cells = pool(wanted, hidden, grid, 2**level)
            for name, value in (("", prediction), ("_copy", jax.lax.stop_gradient(copied))):
                mean, _ = pool(value, hidden, grid, 2**level)
                terms[f"level/{level}{name}"] = self._prediction_loss(mean, of, cells, self.beta, per_example=True)
        return terms

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Jepa's terms with the first weight, those of the other levels, and VICReg's."""
        total, (metrics, extra) = super().reduce(terms, stats, extra, key, step)
        pooled, valid = terms["pooled"], stats["valid"]
        levels = {name: losses.masked_mean(terms[name], valid) for name in terms if name.startswith("level/")}
        if self.weights[0] != 1:
            total = total + (self.weights[0] - 1) * metrics["loss/prediction"]
        for level, weight in enumerate(self.weights[1:], start=1):
            total = total + weight * levels[f"level/{level}"]
        if self.variance or self.covariance:
            own = {
                "loss/variance": losses.variance_hinge(pooled, valid),
                "loss/covariance": losses.covariance(pooled, valid),
            }
            total = total + self.variance * own["loss/variance"] + self.covariance * own["loss/covariance"]
            metrics = metrics | own
        return total, (metrics | levels | {"loss": total}, extra)


def pool(
    tokens: Float[Array, "B N D"], mask: Bool[Array, "B N"], grid: tuple[int, int, int], side: int
) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"]]:
    """Means over the masked tokens of each square of side x side tokens of the plane, and whether it has any.

    The plane's last squares may be cut. Squares without masked tokens are 0.
    """
    times, rows, cols = grid
    more = ((0, 0), (0, 0), (0, -rows % side), (0, -cols % side))
    shape = (-1, times, -(-rows // side), side, -(-cols // side), side)
    weight = jnp.pad(mask.reshape(-1, *grid), more).reshape(shape)
    values = jnp.where(mask[..., None], tokens, 0).reshape(-1, *grid, tokens.shape[-1])
    values = jnp.pad(values, (*more, (0, 0))).reshape(*shape, tokens.shape[-1])
    count = weight.sum((3, 5))
    mean = values.sum((3, 5)) / jnp.maximum(count, 1)[..., None]
    return mean.reshape(tokens.shape[0], -1, tokens.shape[-1]), (count > 0).reshape(tokens.shape[0], -1)
