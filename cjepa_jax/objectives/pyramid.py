"""Prediction at several scales with VICReg against collapse: H-JEPA, our reading."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.fusion import KINDS, Levels, pool
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

    `fusion` is what predictions and targets pass before they are compared (models.fusion.Levels): "none", "project", or
    a feature pyramid, "add" or "concat". Its layers learn from the predictions alone. Both could then become constant,
    so each scene's mean predicted vector of each level has VICReg's terms too, with the same weights.

    Metrics: "level/h" is the loss at level h, and "level/h_copy" that of predicting the mean target of the visible
    tokens everywhere.
    """

    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    variance: float = 0.0
    covariance: float = 0.0
    fusion: str = "none"

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
        if self.fusion not in KINDS:
            raise ConfigError(f"objective.fusion = {self.fusion!r}: must be one of {', '.join(KINDS)}")
        if self.fusion != "none" and not self.variance:
            raise ConfigError(
                f"objective.variance = {self.variance}: must be above 0 with objective.fusion = {self.fusion!r}, whose "
                "levels would become constant"
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """See Jepa. `fusion` adds parameters "levels"."""
        params, target, extra = super().init(key, batch)
        if self.fusion != "none":
            hidden = ~batch.context if batch.hidden is None else batch.hidden
            tokens = jnp.zeros((*batch.context.shape, self._encoder.width))
            made = self._levels(batch).init(jax.random.fold_in(key, 1), tokens, hidden)
            params["levels"] = made["params"]
        return params, target, extra

    def further(self, params: Params, prediction: Array, wanted: Array, hidden: Array, batch: Batch):
        """See Jepa: the error at each level, and that of the mean visible token."""
        terms: dict[str, Array] = {}
        if len(self.weights) == 1 and self.fusion == "none":
            return terms
        seen = jnp.broadcast_to(batch.context[..., None], wanted.shape)
        copied = jnp.broadcast_to(losses.masked_mean(wanted, seen, axis=1)[:, None], wanted.shape)
        grid = self._grid(batch.observation)
        every = range(len(self.weights))
        if self.fusion == "none":
            made = lambda tokens: [pool(tokens, hidden, grid, 2**level)[0] for level in every]  # noqa: E731
        else:
            made = functools.partial(self._levels(batch).apply, {"params": params["levels"]}, mask=hidden)
        found = {"": made(prediction), "_copy": made(jax.lax.stop_gradient(copied))}
        for level, target in enumerate(made(wanted)):  # without gradient, as losses take a target
            cells = pool(wanted, hidden, grid, 2**level)[1]
            for name, value in found.items():
                error = self._prediction_loss(value[level], target, cells, self.beta, per_example=True)
                terms[f"level/{level}{name}"] = error
            if self.fusion != "none":
                counted = jnp.broadcast_to(cells[..., None], target.shape)
                terms[f"mean/{level}"] = losses.masked_mean(found[""][level], counted, axis=1)
        return terms

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Jepa's terms with the first weight, those of the other levels, and VICReg's."""
        total, (metrics, extra) = super().reduce(terms, stats, extra, key, step)
        valid = stats["valid"]
        levels = {name: losses.masked_mean(terms[name], valid) for name in terms if name.startswith("level/")}
        if self.fusion != "none":
            total = total - metrics["loss/prediction"] + self.weights[0] * levels["level/0"]
        elif self.weights[0] != 1:
            total = total + (self.weights[0] - 1) * metrics["loss/prediction"]
        for level, weight in enumerate(self.weights[1:], start=1):
            total = total + weight * levels[f"level/{level}"]
        if self.variance or self.covariance:
            pooled = [terms["pooled"], *(terms[name] for name in sorted(terms) if name.startswith("mean/"))]
            own = {
                "loss/variance": sum(losses.variance_hinge(value, valid) for value in pooled),
                "loss/covariance": sum(losses.covariance(value, valid) for value in pooled),
            }
            total = total + self.variance * own["loss/variance"] + self.covariance * own["loss/covariance"]
            metrics = metrics | own
        return total, (metrics | levels | {"loss": total}, extra)

    def _levels(self, batch: Batch) -> Levels:
        grid = self._grid(batch.observation)
        return Levels(self.fusion, len(self.weights), grid, dtype=jnp.dtype(self.dtype))
