"""Predict the future of a clip with guidance from another model: ThinkJEPA's conditioned predictor, our reading.

docs/FAMILY.md has the equations and the source.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cjepa_jax.errors import ConfigError
from cjepa_jax.models import packing
from cjepa_jax.models.guide import Guide
from cjepa_jax.objectives import options
from cjepa_jax.objectives.jepa import Jepa, layer_norm, moments
from cjepa_jax.types import Array, Batch, Params, Rows


@dataclasses.dataclass(frozen=True)
class Thinking(Jepa):
    """As Jepa on clips whose last times are hidden (masks.future), with a predictor that an embedding modulates.

    What is seen and what is hidden are encoded separately, also by the target encoder, so no token of the past depends
    on the future. The predictor is causal: a token attends to no later time. The embedding reaches the predictor alone,
    as scale and shift of the norms of each block, which start at 0.

    Args:
      condition: "film", or "none" (no embedding is used: a control).
      guide: keyword arguments of models.guide.Guide.
      Others: see Jepa. causal_weight must be 0 and predictor.attention "joint".
    Raises: ConfigError for options that cannot work, and for scenes without an embedding.
    """

    condition: str = "film"
    guide: Mapping = dataclasses.field(default_factory=dict)
    causal_weight: float = 0.0

    exports = ("encoder",)
    predicts = False
    kinds = ("video", "episodes")
    second_mask = False
    method = "the future's latents from the past's, with a predictor that embeddings of another model modulate"

    def __post_init__(self):
        super().__post_init__()
        options.keywords("objective.guide", self.guide, Guide)
        for name in ("width", "hidden"):
            options.whole(f"objective.guide.{name}", self.guide.get(name, 1))
        for good, name, value, limit in (
            (self.condition in ("film", "none"), "condition", self.condition, "film or none"),
            (self.causal_weight == 0, "causal_weight", self.causal_weight, "0: no object is removed"),
            (self.encoder_input == "context", "encoder_input", self.encoder_input, "context"),
            (self._predictor.attention == "joint", "predictor.attention", self._predictor.attention, "joint"),
        ):
            if not good:
                raise ConfigError(f"objective.{name} = {value!r}: must be {limit}")

    @functools.cached_property
    def _guide(self) -> Guide:
        return Guide(**self.guide, dtype=jnp.dtype(self.dtype))

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """See Jepa."""
        grid, guide = self._grid(batch.observation), None
        if self.condition == "film":
            self._check_embedding(batch.embedding, grid[0])
        encoder_key, predictor_key, guide_key = jax.random.split(key, 3)
        tokens, fresh = self._encoder.init_with_output(encoder_key, batch.observation)
        params = {"encoder": fresh["params"]}
        if self.condition == "film":
            guide, made = self._guide.init_with_output(guide_key, batch.embedding, grid)
            params["guide"] = made["params"]
        hidden = (tokens, batch.context, batch.object_patches, batch.removed, grid)
        made = self._predictor.init(predictor_key, *hidden, guide=guide, causal=True)
        params["predictor"] = made["params"]
        return params, jax.tree.map(jnp.copy, fresh["params"]), {}

    def _check_embedding(self, embedding: Array | None, times: int) -> None:
        if embedding is None:
            known = "cjepa_jax.data.sources.guided:Guided does"
            raise ConfigError(f"objective.condition = 'film': the source gives no embedding ({known})")
        if embedding.shape[1] > times:
            limit = f"must be at most the {times} times (data.frames / objective.encoder.tubelet)"
            raise ConfigError(f"data.source: an embedding has {embedding.shape[1]} steps: {limit}")

    def predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        """See Jepa."""
        grid, guide = self._grid(batch.observation), None
        if self.condition == "film":
            guide = self._guide.apply({"params": params["guide"]}, batch.embedding, grid)
        return self._predictor.apply(
            {"params": params["predictor"]},
            context,
            context=batch.context,
            object_patches=batch.object_patches,
            removed=batch.removed,
            grid=grid,
            hidden=batch.hidden,
            guide=guide,
            causal=True,
        )

    def targets(self, target: Params, batch: Batch) -> tuple[Array, None]:
        """Tokens float32 [B, N, D] of the past and of the future, each encoded without the other, without gradient."""
        whole = packing.unpacked(jnp.ones_like(batch.context), batch.rows)
        parts = jnp.where(batch.context, 1, 2).astype(jnp.int32).reshape(whole.segment.shape)
        target = jax.lax.stop_gradient(target)
        full = self._encoder.apply({"params": target}, batch.observation, rows=Rows(whole.index, parts))
        return full.astype(jnp.float32), None

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See Jepa. Another monitor is how much copying the last visible time explains."""
        terms, stats = super().per_example_terms(params, target, extra, batch, key)
        full, _ = self.targets(target, batch)  # the same computation as above, which XLA does once
        wanted = layer_norm(full) if self.target_norm == "layer_norm" else full
        hidden = ~batch.context if batch.hidden is None else batch.hidden
        copied = last_visible(wanted, batch.context, self._grid(batch.observation))
        stats["explained"]["copying"] = moments(copied, wanted, hidden, batch.valid)
        return terms, stats


def last_visible(tokens: Array, context: Array, grid: tuple[int, int, int]) -> Array:
    """At each token, the one at its place at the last time that is visible there: [B, N, D], bool [B, N] -> [B, N, D].

    Places that are never visible copy time 0."""
    times = grid[0]
    seen = context.reshape(len(context), times, -1)
    last = jnp.where(seen, jnp.arange(times)[:, None], 0).max(1)  # [B, rows cols]
    each = tokens.reshape(*seen.shape, tokens.shape[-1])
    copied = jnp.take_along_axis(each, last[:, None, :, None], axis=1)
    return jnp.broadcast_to(copied, each.shape).reshape(tokens.shape)
