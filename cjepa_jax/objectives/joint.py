"""Causal-JEPA whose objects are slots that it learns: an ablation of the given segmentation."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks.grid import anchored
from cjepa_jax.masks.objects import REDRAWS
from cjepa_jax.models import packing, slots, tokenizers
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint(Jepa):
    """`Jepa` on a batch whose objects are slots, plus the error of the tokens that the slots rebuild.

    The target encoder's tokens, without gradient, are what slots are fitted to and what they rebuild, so that only
    `loss/slots` trains them. A token belongs to the slot of its largest mask. Which slots are removed is drawn inside
    the step, by Algorithm 2, from the step's key. The batch's own objects are used for pictures (`encode_context`,
    `predict`, `targets`) and for `slots/mbo`, never for learning.

    `slots` holds keyword arguments of models.slots.Slots and `slots_weight` the weight of its error. `area` and
    `anchor` are those of masks.objects.draw, M_max is the predictor's `max_objects`. Without an eligible slot, the
    share `fallback` of the tokens that may be hidden is, at random. The remaining fields are Jepa's.
    """

    slots: Mapping
    slots_weight: float = 1.0
    area: tuple[float, float] = (0.05, 0.40)
    anchor: int = 0
    fallback: float = 0.5

    kinds: ClassVar[tuple[str, ...]] = ("video", "episodes")
    second_mask = False
    method = "Causal-JEPA whose objects are slots, found while it learns"

    def __post_init__(self):
        super().__post_init__()
        for name, value in self.slots.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"objective.slots.{name} = {value!r}: must be a whole number, at least 1")
        for good, name, limit in (
            (self.slots_weight >= 0, "slots_weight", "0 or more"),
            (0 <= self.area[0] <= self.area[1] <= 1, "area", "two numbers, the lower bound first, in [0, 1]"),
            (self.anchor >= 0, "anchor", "0 or more"),
            (0 < self.fallback < 1, "fallback", "between 0 and 1"),
        ):
            if not good:
                raise ConfigError(f"objective.{name} = {getattr(self, name)}: must be {limit}")

    @functools.cached_property
    def _slots(self) -> slots.Slots:
        return slots.Slots(**self.slots, dtype=jnp.dtype(self.dtype))

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """As Jepa's, and fresh slots."""
        key, slots_key = jax.random.split(key)
        params, target, extra = super().init(key, batch)
        tokens = self.encode(target, batch.video).astype(jnp.float32)
        fresh = self._slots.init(slots_key, tokens, self._grid(batch.video), slots_key)["params"]
        return params | {"slots": fresh}, target, extra

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample. Which slots are removed is drawn from the slice's key."""
        slots_key, draw_key, key = jax.random.split(key, 3)
        # The same as in `targets`, which XLA does not compute twice.
        tokens = self.encode(jax.lax.stop_gradient(target), batch.video).astype(jnp.float32)
        rebuilt, masks = self.segment(params, tokens, self._grid(batch.video), slots_key)
        patches = slots.hard(masks)
        # Prediction, change and SIGReg as in Jepa, of the scenes without some of these slots.
        terms, stats = super().per_example_terms(params, target, extra, self.intervene(draw_key, batch, patches), key)
        everywhere = jnp.ones(batch.context.shape, bool)
        terms["slots"] = losses.mse(rebuilt, tokens, everywhere, per_example=True)
        stats["overlap"] = best_overlap(patches, batch.object_patches & batch.object_valid[..., None])
        stats["labelled"] = batch.object_valid.any(-1) & batch.valid
        return terms, stats

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Jepa's terms and the error of what slots rebuild."""
        total, (metrics, extra) = super().reduce(terms, stats, extra, jax.random.split(key, 3)[2], step)
        error = losses.masked_mean(terms["slots"], stats["valid"])
        total = total + self.slots_weight * error
        overlap = losses.masked_mean(stats["overlap"], stats["labelled"])
        return total, (metrics | {"loss": total, "loss/slots": error, "slots/mbo": overlap}, extra)

    def segment(self, params: Params, tokens: Array, grid: tuple[int, int, int], key: Array) -> tuple[Array, Array]:
        """The target's tokens [B, N, D] as rebuilt from slots, and the slots' soft masks [B, K, N]."""
        return self._slots.apply({"params": params["slots"]}, tokens, grid, key)

    def intervene(self, key: Array, batch: Batch, patches: Array) -> Batch:
        """The batch with these objects, bool [B, K, N], and with a new draw of the removed ones."""
        scenes, _, tokens = patches.shape
        maskable = ~anchored(tokens, self._grid(batch.video), self.anchor)
        one = functools.partial(
            draw, maskable=maskable, max_objects=self.max_removed, area=self.area, fallback=self.fallback
        )
        masked, removed = jax.vmap(one)(jax.random.split(key, scenes), patches)
        context = ~masked
        # Shapes are fixed before the draw, so a row holds the whole grid: dropping tokens saves no time here.
        rows = packing.unpacked(context, batch.rows)
        intervened = None
        if batch.intervened is not None:  # else tokens are dropped, which needs no picture
            boxes = tokenizers.patchify(batch.video, self.patch, self.tubelet)
            boxes = jnp.where(context[..., None], boxes, jnp.zeros_like(boxes))
            intervened = tokenizers.unpatchify(boxes, batch.video.shape, self.patch, self.tubelet)
        return dataclasses.replace(
            batch,
            object_patches=patches,
            object_valid=patches.any(-1),
            removed=removed,
            context=context,
            rows=rows,
            hidden=None,
            intervened=intervened,
            intervened_valid=None,
        )


def draw(
    key: Array, patches: Array, maskable: Array, max_objects: int, area: tuple[float, float], fallback: float
) -> tuple[Array, Array]:
    """masks.objects.draw within a jitted step, for one scene: bool [K, N] -> masked bool [N], removed bool [K].

    `maskable` bool [N] are the tokens that may be hidden. All draws that may be needed are made and the first one that
    hides something and not everything counts. Where there is none, single tokens are hidden, not blocks.
    """
    objects, tokens = patches.shape
    redraws_key, fallback_key = jax.random.split(key)
    size = patches.sum(-1)
    # As there, bounds are inclusive where tokens * bound is a whole number that binary fractions miss.
    eligible = (size > 0) & (size >= (area[0] - 1e-6) * tokens) & (size <= (area[1] + 1e-6) * tokens)

    def attempt(key):
        count_key, order_key = jax.random.split(key)
        count = jax.random.randint(count_key, (), 1, max_objects + 1)
        removed = eligible & (_rank(order_key, eligible) < count)
        masked = (patches & removed[:, None]).any(0) & maskable
        return masked, removed, masked.any() & ~masked.all()

    masked, removed, fits = jax.vmap(attempt)(jax.random.split(redraws_key, REDRAWS))
    first, found = jnp.argmax(fits), fits.any()
    count = jnp.clip(jnp.round(fallback * maskable.sum()), 1, tokens - 1)
    scattered = maskable & (_rank(fallback_key, maskable) < count)
    return jnp.where(found, masked[first], scattered), removed[first] & found


def _rank(key: Array, among: Array) -> Array:
    """Each place's rank in a random order of the places where `among` [I]. The others come last."""
    noise, place = jnp.where(among, jax.random.uniform(key, among.shape), 2.0), jnp.arange(among.shape[0])
    # Counted: XLA takes many times as long to compile a sort.
    before = (noise < noise[:, None]) | ((noise == noise[:, None]) & (place < place[:, None]))
    return before.sum(-1)


def best_overlap(found: Array, true: Array) -> Array:
    """Mean over a scene's true objects of the best intersection over union with any found one (mBO, DINOSAUR).

    bool [B, K, N], [B, O, N] -> [B], in 0..1. True objects without a token do not count. 0 for a scene without any.
    """
    found, true = found[:, None], true[:, :, None]
    union = (found | true).sum(-1)
    overlap = (found & true).sum(-1) / jnp.maximum(union, 1)  # [B, O, K]
    return losses.masked_mean(overlap.max(-1), true.any(-1)[..., 0], axis=-1)
