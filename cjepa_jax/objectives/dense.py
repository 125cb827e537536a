"""V-JEPA 2.1 (arXiv 2603.14482): hidden and visible tokens are predicted, at several depths of the encoder."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import packing
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.objectives import jepa
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense(Jepa):
    """L = L_hidden + lambda(step) L_visible, both l1, of the outputs of `encoder.levels` side by side.

    L_hidden is the mean error of the hidden tokens. L_visible is the mean over visible tokens of error / sqrt(d), where
    d is the distance in tokens (times, rows, cols) to the nearest hidden token. lambda rises linearly from 0 to
    `context_weight` between the two steps of `ramp`. Visible tokens are predicted by the predictor's second head,
    which other objectives use for changes, so there is no causal term. With target_norm = "layer_norm" each level of
    the target is normalised alone.

    `images`: weight of the same loss of one frame of each clip, drawn at random, as an image with the clip's mask at
    that time. The clips' loss has the weight 1 - images. Then encoder and predictor should tell images from clips
    (models.tokenizers.ClipsAndImages, predictor.scene_code). The remaining fields are Jepa's.

    With context_weight = 0, images = 0 and one level, it is V-JEPA 2, `Jepa` with l1 and layer-normed targets.
    """

    prediction_loss: str = "l1"
    target_norm: str = "layer_norm"
    causal_weight: float = 0.0
    sigreg_weight: float = 0.0
    context_weight: float = 0.5
    ramp: tuple[int, int] = (15_000, 30_000)
    images: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("video", "episodes")
    method = "V-JEPA 2.1: hidden and visible tokens are predicted, at several depths of the encoder"

    def __post_init__(self):
        super().__post_init__()
        for good, name, limit in (
            (self.prediction_loss == "l1", "prediction_loss", "l1, as that of visible tokens"),
            (not self.causal_weight, "causal_weight", "0: the predictor's second head has another use here"),
            (self.context_weight >= 0, "context_weight", "0 or more"),
            (len(self.ramp) == 2 and 0 <= self.ramp[0] <= self.ramp[1], "ramp", "two steps, the lower first"),
            (0 <= self.images < 1, "images", "at least 0 and below 1"),
        ):
            if not good:
                raise ConfigError(f"objective.{name} = {getattr(self, name)!r}: must be {limit}")

    @functools.cached_property
    def _predictor(self) -> Predictor:
        out = self._encoder.width * max(1, len(self._encoder.levels))
        return Predictor(**self.predictor, out=out, dtype=jnp.dtype(self.dtype))

    def encode(self, params: Params, video: Array) -> Array:
        """Tokens of whole scenes at the last level, [B, T, H, W, C] -> [B, N, D]."""
        return super().encode(params, video)[..., -self._encoder.width :]

    def predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        """The last level of hidden and of visible tokens, [B, N, D] each, from visible tokens at all levels."""
        hidden, visible = self._predict(params, context, batch)
        return hidden[..., -self._encoder.width :], visible[..., -self._encoder.width :]

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample."""
        hidden, valid = ~batch.context if batch.hidden is None else batch.hidden, batch.valid
        wanted = self._wanted(target, batch)
        prediction, context, terms = self._terms(params, wanted, batch, hidden)
        if other := jepa.second_of(batch):
            again = self._terms(params, wanted, other, other.hidden)[-1]
            terms = {name: (value + again[name]) / 2 for name, value in terms.items()}
        last = context[..., -self._encoder.width :].astype(jnp.float32)
        counted = jnp.broadcast_to(batch.context[..., None], last.shape)
        terms["pooled"] = losses.masked_mean(last, counted, axis=1)
        stats = {
            "valid": valid,
            "context": batch.context.mean(-1),
            "fallback": ~batch.removed.any(-1),
            "per_scene": losses.masked_mean(losses.norm(prediction - wanted), hidden, axis=-1),
            "explained": {"prediction": jepa.moments(prediction, wanted, hidden, valid)},
        }
        if self.images:
            one, its_hidden = self._images(batch, hidden, key)
            found = self._terms(params, self._wanted(target, one), one, its_hidden)[-1]
            terms |= {f"image_{name}": value for name, value in found.items()}
        return terms, stats

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Jepa's terms, those of visible tokens and those of images."""
        total, (metrics, extra) = super().reduce(terms, stats, extra, key, step)
        weight = self._context_weight(step)
        means = {name: losses.masked_mean(terms[name], stats["valid"]) for name in terms if name != "pooled"}
        total = total + weight * means["visible"]
        if self.images:
            image = means["image_prediction"] + weight * means["image_visible"]
            total = (1.0 - self.images) * total + self.images * image
        metrics |= {f"loss/{name}": value for name, value in means.items()}
        return total, (metrics | {"loss": total, "context_weight": weight}, extra)

    def _wanted(self, target: Params, batch: Batch) -> Array:
        """Targets at all levels [B, N, L D]."""
        full = super().encode(jax.lax.stop_gradient(target), batch.observation).astype(jnp.float32)
        return self._normed(full) if self.target_norm == "layer_norm" else full

    def _terms(self, params: Params, wanted: Array, batch: Batch, hidden: Array) -> tuple[Array, Array, Any]:
        """Predictions at all levels [B, N, L D], encoded context tokens, and each scene's two errors."""
        context = self.encode_context(params, batch)
        prediction, visible = self._predict(params, context, batch)
        near = distance(hidden, self._grid(batch.observation))
        weight = jnp.where(batch.context, jax.lax.rsqrt(jnp.maximum(near, 1.0)), 0.0)  # a visible token is 1 away
        terms = {
            "prediction": losses.l1(prediction, wanted, hidden, per_example=True),
            "visible": losses.masked_mean(losses.l1_tokens(visible, wanted) * weight, batch.context, axis=-1),
        }
        return prediction, context, terms

    def _normed(self, full: Array) -> Array:
        levels = full.reshape(*full.shape[:-1], -1, self._encoder.width)
        return jepa.layer_norm(levels).reshape(full.shape)

    def _images(self, batch: Batch, hidden: Array, key: Array) -> tuple[Batch, Array]:
        """A frame of each clip as an image, and its hidden tokens, from the clip's mask."""
        scenes, frames = batch.video.shape[:2]
        if frames == 1:
            raise ConfigError(f"objective.images = {self.images}: must be 0 for images, which all scenes are here")
        times, rows, cols = self._grid(batch.video)
        frame = jax.random.randint(key, (scenes,), 0, frames)
        every, time = jnp.arange(scenes), frame // self.tubelet

        def plane(tokens):  # [..., N] of each clip
            return tokens.reshape(scenes, -1, times, rows * cols)[every, :, time]

        context, masked = plane(batch.context)[:, 0], plane(hidden)[:, 0]
        image = dataclasses.replace(
            batch,
            video=batch.video[every, frame][:, None],
            context=context,
            hidden=masked,
            rows=packing.unpacked(context, batch.rows),
            second_context=None,
            second_hidden=None,
            second_rows=None,
            object_patches=plane(batch.object_patches),
        )
        return image, masked

    def _context_weight(self, step: Array) -> Array:
        """lambda at a step."""
        first, last = self.ramp
        share = (jnp.asarray(step, jnp.float32) - first) / max(last - first, 1)
        return self.context_weight * jnp.clip(share, 0.0, 1.0)

    def _predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        """Hidden and visible tokens at all levels, side by side."""
        return super().predict(params, context, batch)


def distance(hidden: Bool[Array, "B N"], grid: tuple[int, int, int]) -> Float[Array, "B N"]:
    """Euclidean distance in tokens from each token to the nearest hidden one, 0 at these: [B, N]. Without any: inf.

    Exact, one axis after the other, so that no matrix of all pairs is needed.
    """
    square = jnp.where(hidden, 0.0, jnp.inf).reshape(-1, *grid)
    for axis in (1, 2, 3):
        place = jnp.arange(grid[axis - 1], dtype=jnp.float32)
        moved = jnp.moveaxis(square, axis, -1)
        square = jnp.moveaxis((moved[..., None, :] + jnp.square(place[:, None] - place)).min(-1), -1, axis)
    return jnp.sqrt(square).reshape(hidden.shape)
