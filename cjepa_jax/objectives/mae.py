"""Reconstruct: masked autoencoders of images and, by tubelets, of clips."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import tokenizers
from cjepa_jax.models.decoder import Decoder
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Mae(PerExample):
    """Mean squared error of hidden patches' pixels (arXiv 2111.06377 and, for clips, arXiv 2205.09113).

    As published: the encoder sees the visible tokens only, the decoder the whole grid, and each patch's pixels are
    brought to zero mean and unit variance. Different: no class token, the initialisation of models.layers.Dense
    instead of Xavier's, and a clip's token paints all of its frames.

    `encoder` and `decoder` are keyword arguments of models.encoder.Encoder and of models.decoder.Decoder (depth, width,
    heads), which shares the encoder's gelu and remat. `norm_pixels` False keeps the pixels as the encoder normalises
    them. `steps` is not used. `dtype` is the compute type.
    """

    encoder: Mapping
    decoder: Mapping
    steps: int
    dtype: str = "float32"
    norm_pixels: bool = True

    max_removed = 0  # the decoder is not told which objects are hidden
    exports = ("encoder",)
    method = "masked autoencoder"

    def __post_init__(self):
        for name, value in self.decoder.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"objective.decoder.{name} = {value!r}: must be a whole number, at least 1")
        width, heads = (self.decoder.get(name, getattr(Decoder, name)) for name in ("width", "heads"))
        if width % heads:
            limit = f"must be a multiple of objective.decoder.heads = {heads}"
            raise ConfigError(f"objective.decoder.width = {width}: {limit}")
        if not isinstance(self.norm_pixels, bool):
            raise ConfigError(f"objective.norm_pixels = {self.norm_pixels!r}: must be True or False")

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(**build.plain(self.encoder), dtype=jnp.dtype(self.dtype))

    @property
    def patch(self) -> int:
        return self._encoder.patch

    @property
    def tubelet(self) -> int:
        return self._encoder.tubelet

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder and decoder. There is no target."""
        encoder_key, decoder_key = jax.random.split(key)
        tokens, fresh = self._encoder.init_with_output(encoder_key, batch.video)
        encoder = fresh["params"]
        decoder = self._decoder(batch.video).init(decoder_key, tokens, batch.context, self._grid(batch.video))
        return {"encoder": encoder, "decoder": decoder["params"]}, {}, {}

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample. The mean is over a scene's hidden tokens, then over scenes, which is the
        paper's mean over all hidden tokens where every scene hides as many."""
        context = self.encode_context(params, batch)
        prediction, wanted = self.decode(params, context, batch), self.pixels(batch.video)[0]
        hidden = ~batch.context if batch.hidden is None else batch.hidden
        visible = jnp.broadcast_to(batch.context[..., None], context.shape)
        error = losses.mse(prediction, wanted, hidden, per_example=True)
        stats = {
            "pooled": losses.masked_mean(context.astype(jnp.float32), visible, axis=1),  # [B, D]
            "valid": batch.valid,
            "context": batch.context.mean(-1),
            "per_scene": losses.masked_mean(jnp.square(prediction - wanted).mean(-1), hidden, axis=-1),
        }
        return {"pixels": error}, stats

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """The mean over scenes, and monitors."""
        valid = stats["valid"]
        total = losses.masked_mean(terms["pixels"], valid)
        metrics = {
            "loss": total,
            "loss/pixels": total,
            **losses.collapse_monitors(stats["pooled"], valid),
            "context_fraction": losses.masked_mean(stats["context"], valid),
            "per_scene": stats["per_scene"],
        }
        return total, (metrics, extra)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none: {}."""
        return target

    def encode(self, params: Params, video: Array) -> Array:
        """Tokens of whole scenes, [B, T, H, W, C] -> [B, N, D]."""
        return self._encoder.apply({"params": params.get("encoder", params)}, video)

    def encode_context(self, params: Params, batch: Batch) -> Array:
        """Tokens of what stays visible, encoded on their own: [B, N, D], 0 elsewhere."""
        return self._encoder.apply({"params": params["encoder"]}, batch.video, rows=batch.rows)

    def decode(self, params: Params, context: Array, batch: Batch) -> Array:
        """Predicted pixels of every token's box, float32 [B, N, P], from encoded context tokens."""
        decoder, grid = self._decoder(batch.video), self._grid(batch.video)
        return decoder.apply({"params": params["decoder"]}, context, batch.context, grid)

    def pixels(self, video: Array) -> tuple[Array, Array, Array]:
        """What the decoder learns to paint [B, N, P], and the mean and the scale [B, N, 1] that make it pixels again.

        P counts tubelet x patch x patch x C values. The variance over them is the unbiased one, with 1e-6 added.
        """
        video = tokenizers.normalise(video, self._encoder.mean, self._encoder.std, self._encoder.scale)
        boxes = tokenizers.patchify(video, self.patch, self.tubelet)
        if not self.norm_pixels:
            return boxes, jnp.zeros_like(boxes[..., :1]), jnp.ones_like(boxes[..., :1])
        mean = boxes.mean(-1, keepdims=True)
        scale = jnp.sqrt(boxes.var(-1, ddof=1, keepdims=True) + 1e-6)
        return (boxes - mean) / scale, mean, scale

    def reconstruct(self, params: Params, batch: Batch) -> Array:
        """The scenes as painted from their visible patches, [B, T, H, W, C]. uint8, or float32 without rounding.

        Visible patches are the scene's. A hidden one's contrast comes from the decoder, its true mean and scale,
        which the decoder does not learn, from the scene.
        """
        wanted, mean, scale = self.pixels(batch.video)
        painted = self.decode(params, self.encode_context(params, batch), batch)
        boxes = jnp.where(batch.context[..., None], wanted, painted) * scale + mean
        video = tokenizers.unpatchify(boxes, batch.video.shape, self.patch, self.tubelet)
        video = self._encoder.scale * (video * jnp.asarray(self._encoder.std) + jnp.asarray(self._encoder.mean))
        if batch.video.dtype != jnp.uint8:
            return video
        return jnp.clip(jnp.round(video), 0, 255).astype(jnp.uint8)

    def _decoder(self, video: Array) -> Decoder:
        """The decoder of such videos: how many pixels a token has depends on whether they are images or clips."""
        frames, channels = video.shape[1] // self._grid(video)[0], video.shape[-1]
        shared = {"gelu": self._encoder.gelu, "remat": self._encoder.remat, "dtype": jnp.dtype(self.dtype)}
        return Decoder(**self.decoder, **shared, out=frames * self.patch**2 * channels)

    def _grid(self, video: Array) -> tuple[int, int, int]:
        return tokenizers.grid(video.shape, self.patch, self.tubelet)
