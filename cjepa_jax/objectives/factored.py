"""Two predictors on one encoder: one for hidden times, one for hidden places. A reading of MC-JEPA without flow."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from cjepa_jax import losses
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factored(Jepa):
    """Jepa with a predictor for scenes whose hidden tokens are whole times, and another one for all other scenes.

    Masks are those of masks/factored.py. `predictor` holds the arguments of both. The remaining fields are Jepa's.
    If both predictors have the same parameters, results are bit-identical to Jepa's.

    Metrics: "error/motion" and "error/content" are the prediction loss of the scenes of each predictor.
    """

    causal_weight: float = 0.0

    exports = ("encoder",)
    kinds: ClassVar[tuple[str, ...]] = ("video", "episodes")
    second_mask = False
    method = "two predictors on one encoder, for hidden times and for hidden places"

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """As Jepa, with two predictors."""
        params, target, extra = super().init(key, batch)
        other, *_ = super().init(jax.random.fold_in(key, 1), batch)
        return params | {"predictor": {"motion": params["predictor"], "content": other["predictor"]}}, target, extra

    def predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        """See Jepa. Each scene has the output of its predictor."""
        motion, content = (
            super(Factored, self).predict({"predictor": params["predictor"][name]}, context, batch)
            for name in ("motion", "content")
        )
        chosen = self._hides_times(batch)[:, None, None]
        return jnp.where(chosen, motion[0], content[0]), jnp.where(chosen, motion[1], content[1])

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample."""
        terms, stats = super().per_example_terms(params, target, extra, batch, key)
        return terms, stats | {"motion": self._hides_times(batch)}

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Jepa's terms, and the error of either predictor."""
        total, (metrics, extra) = super().reduce(terms, stats, extra, key, step)
        error, motion, valid = jax.lax.stop_gradient(terms["prediction"]), stats["motion"], stats["valid"]
        metrics |= {
            "error/motion": losses.masked_mean(error, motion & valid),
            "error/content": losses.masked_mean(error, ~motion & valid),
        }
        return total, (metrics, extra)

    def _hides_times(self, batch: Batch) -> Bool[Array, " B"]:
        """Whether a scene's hidden tokens are all tokens of some times."""
        hidden = ~batch.context if batch.hidden is None else batch.hidden
        times = hidden.reshape(len(hidden), self._grid(batch.observation)[0], -1)
        return (times.all(-1) == times.any(-1)).all(-1)
