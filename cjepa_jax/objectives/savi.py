"""Find slots by painting: SAVi as in SlotFormer (arXiv 2210.05861), a slot encoder for Causal-JEPA on slots."""

import dataclasses
import functools
from collections.abc import Mapping

import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.slot_encoders import START, Savi
from cjepa_jax.models.slots import hard
from cjepa_jax.objectives import options
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.objectives.joint import best_overlap
from cjepa_jax.types import Array, Batch, Params

PRIOR = 0.01  # variance of the prior around each slot's mean


@dataclasses.dataclass(frozen=True)
class SaviLoss(PerExample):
    """Mean squared error of the painted frames, plus kl_weight x KL(N(mu, sigma^2) || N(mu, 0.01)) of the slots' noise.

    Frames are scaled to -1 .. 1. The KL is a sum over a slot's components, and a mean over slots and frames.

    Attributes:
      savi: keyword arguments of models.slot_encoders.Savi. The strides decide the size of the pictures, 8 x their
        product, which must be data.size.
      patch: side of a token, for `encode` and for `slots/mbo`.
      kl_weight: 1e-4 as published.
      steps: not used. dtype: of the convolutions.
    Raises: ConfigError for values outside their limits, and for pictures of another size.
    """

    savi: Mapping
    steps: int
    dtype: str = "float32"
    patch: int = 8
    kl_weight: float = 1e-4

    tubelet = 1
    max_removed = 0
    method = "slots by slot attention for video, trained by painting frames"

    def __post_init__(self):
        options.keywords("objective.savi", self.savi, Savi)
        for name in ("slots", "width", "embed", "hidden", "units", "iterations"):
            options.whole(f"objective.savi.{name}", self.savi.get(name, 1))
        for name in ("channels", "decoder", "strides"):
            values = self.savi.get(name, (1,))
            if not isinstance(values, list | tuple):
                raise ConfigError(f"objective.savi.{name} = {values!r}: must be a list of whole numbers")
            for value in values:
                options.whole(f"objective.savi.{name}", value)
        options.flags("objective.savi", self.savi, "noise")
        options.whole("objective.patch", self.patch)
        options.number("objective.kl_weight", self.kl_weight, 0, limit="a number of at least 0")
        model = self.model
        if len(model.decoder) != len(model.strides) or not model.channels:
            text = f"objective.savi.strides = {tuple(model.strides)!r}"
            raise ConfigError(f"{text}: must have as many entries as objective.savi.decoder = {tuple(model.decoder)!r}")

    @functools.cached_property
    def model(self) -> Savi:
        """The network."""
        sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in self.savi.items()}
        return Savi(**sizes, dtype=jnp.dtype(self.dtype))

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh parameters. There is no target."""
        side = START
        for stride in self.model.strides:
            side *= stride
        if batch.video.shape[-1] != 3:
            raise ConfigError(
                f"data.source: videos have {batch.video.shape[-1]} channels: must be 3 for objective.savi"
            )
        if batch.video.shape[2:4] != (side, side):
            raise ConfigError(f"data.size = {batch.video.shape[2]}: must be {side}, 8 x the objective.savi.strides")
        return {"savi": self.model.init(key, scaled(batch.video[:1]), key)["params"]}, {}, {}

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample."""
        video = scaled(batch.video)
        found = self.model.apply({"params": params["savi"]}, video, key)
        error = jnp.square(found["video"] - video).mean((1, 2, 3, 4))
        terms = {"painted": error, "kl": divergence(found["kernel"]).mean((1, 2))}
        return terms, scene_stats(found["slots"], self._tokens(found["masks"]), error, batch)

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Means over scenes, and monitors."""
        valid = stats["valid"]
        painted, kl = (losses.masked_mean(terms[name], valid) for name in ("painted", "kl"))
        total = painted + self.kl_weight * kl
        metrics = {
            "loss": total,
            "loss/painted": painted,
            "loss/kl": kl,
            **monitors(stats),
        }
        return total, (metrics, extra)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none: {}."""
        return target

    def slots(self, params: Params, video: Array, key: Array | None = None) -> dict[str, Array]:
        """The module's values for uint8 [B, T, H, W, 3]: "slots" [B, T, K, S], "masks" [B, T, K, H, W] and more.

        Without noise unless a key is given. The published code extracts slots with noise.
        """
        return self.model.apply({"params": params.get("savi", params)}, scaled(video), key)

    @property
    def segment_count(self) -> int:
        """See objectives.base.Segmenting."""
        return self.model.slots

    def segments(self, params: Params, video: Array) -> Array:
        """Each pixel's slot, that of the largest share: int32 [B, T, H, W]."""
        return self.slots(params, video)["masks"].argmax(2).astype(jnp.int32)

    def encode(self, params: Params, video: Array) -> Array:
        """At each token the slots, weighted by their masks there: [B, T, H, W, C] -> [B, N, S]."""
        found = self.slots(params, video)
        batch, frames, slots, width = found["slots"].shape
        masks = self._tokens(found["masks"]).reshape(batch, slots, frames, -1)
        return jnp.einsum("bktn,btks->btns", masks, found["slots"]).reshape(batch, -1, width)

    def _tokens(self, masks: Array) -> Array:
        """Masks [B, T, K, H, W] as means over the tokens' pixels, [B, K, N]."""
        batch, frames, slots, height, width = masks.shape
        if height % self.patch or width % self.patch:
            raise ConfigError(f"objective.patch = {self.patch}: must divide data.size = {height}")
        shape = (batch, frames, slots, height // self.patch, self.patch, width // self.patch, self.patch)
        cut = masks.reshape(shape)
        return cut.mean((4, 6)).transpose(0, 2, 1, 3, 4).reshape(batch, slots, -1)


def scene_stats(slots: Array, masks: Array, error: Array, batch: Batch) -> dict[str, Array]:
    """What `monitors` needs, a row a scene.

    slots [B, T, K, S], their shares of the tokens [B, K, N], and each scene's error [B].
    """
    return {
        "pooled": slots.mean((1, 2)),
        "valid": batch.valid,
        "context": batch.context.mean(-1),
        "per_scene": error,
        "overlap": best_overlap(hard(masks), batch.object_patches & batch.object_valid[..., None]),
        "labelled": batch.object_valid.any(-1) & batch.valid,
    }


def monitors(stats: dict[str, Array]) -> dict[str, Array]:
    """Collapse of the slots, their overlap with objects, and what each scene adds to the loss."""
    valid = stats["valid"]
    return {
        **losses.collapse_monitors(stats["pooled"], valid),
        "context_fraction": losses.masked_mean(stats["context"], valid),
        "slots/mbo": losses.masked_mean(stats["overlap"], stats["labelled"]),
        "per_scene": stats["per_scene"],
    }


def scaled(video: Array) -> Array:
    """uint8 to float32 in -1 .. 1."""
    return video.astype(jnp.float32) / 127.5 - 1


def divergence(kernel: Array) -> Array:
    """KL(N(mu, sigma^2) || N(mu, PRIOR)), summed over components: [..., 2 S] of mu and log sigma^2 -> [...]."""
    log_variance = jnp.split(kernel, 2, -1)[1]
    return 0.5 * (jnp.log(PRIOR) - log_variance + jnp.exp(log_variance) / PRIOR - 1).sum(-1)
