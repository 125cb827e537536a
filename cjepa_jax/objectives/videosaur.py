"""Find slots in patches: VideoSAUR (arXiv 2306.04829) and SlotContrast (arXiv 2412.14295)."""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import videosaur
from cjepa_jax.models.videosaur import VideoSaur
from cjepa_jax.objectives import options, savi
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.types import Array, Batch, Params

WEIGHTS = ("features", "similarity", "contrast")


@dataclasses.dataclass(frozen=True)
class VideoSaurLoss(PerExample):
    """L = features x MSE of the decoded features + similarity x L_sim + contrast x L_contrast.

    L_sim is the cross-entropy of where each patch's content is in the next frame (VideoSAUR). The last frame has no
    next one and counts for the features alone, as published. L_contrast tells each slot from all slots of the batch
    in the frame before (SlotContrast). Both are in models/videosaur.py.

    The published features are DINOv2's, which a source of kind "features" gives (patch=1). Of a source of pixels they
    are a patch's pixels: twice its mean colour, and `texture` times what each pixel differs from it, where colours
    are -1 .. 1. So no frozen encoder is needed, but these features know no categories.

    Attributes:
      videosaur: keyword arguments of models.videosaur.VideoSaur but `similarity`. fixed=True for SlotContrast.
      patch: side of a patch.
      features, similarity, contrast: the weights. 1, 0.3 and 0 for VideoSAUR, 1, 0 and 0.5 for SlotContrast.
      texture: weight of the pixels in features of pixels. With more, the border of an object counts for more than it.
      temperature: of the similarity, 0.15 as published. contrast_temperature: 0.1 as published.
      steps, dtype: not used. All is computed in float32.
    Raises: ConfigError for values outside their limits, and for images.
    """

    videosaur: Mapping
    steps: int
    dtype: str = "float32"
    patch: int = 4
    features: float = 1.0
    similarity: float = 0.3
    contrast: float = 0.0
    temperature: float = 0.15
    contrast_temperature: float = 0.1
    texture: float = 1.0

    tubelet = 1
    max_removed = 0
    kinds = ("video", "episodes", "features")
    method = "slots by slot attention for video, trained by features of patches"

    def __post_init__(self):
        options.keywords("objective.videosaur", self.videosaur, VideoSaur, "similarity")
        for name in ("slots", "width", "embed", "first", "iterations", "heads", "blocks"):
            options.whole(f"objective.videosaur.{name}", self.videosaur.get(name, 1))
        options.whole("objective.videosaur.hidden", self.videosaur.get("hidden", 0), 0)
        if self.videosaur.get("decoder", "mixer") not in ("mixer", "mlp"):
            text = f"objective.videosaur.decoder = {self.videosaur['decoder']!r}"
            raise ConfigError(f"{text}: must be mixer or mlp")
        options.flags("objective.videosaur", self.videosaur, "fixed", "placed")
        units = self.videosaur.get("units", (1,))
        if not isinstance(units, list | tuple):
            raise ConfigError(f"objective.videosaur.units = {units!r}: must be a list of whole numbers")
        for value in units:
            options.whole("objective.videosaur.units", value)
        width, heads = (self.videosaur.get(name, getattr(VideoSaur, name)) for name in ("width", "heads"))
        if width % heads:
            raise ConfigError(f"objective.videosaur.heads = {heads}: must divide objective.videosaur.width = {width}")
        options.whole("objective.patch", self.patch)
        for name in (*WEIGHTS, "texture"):
            options.number(f"objective.{name}", getattr(self, name), 0, limit="a number of at least 0")
        for name in ("temperature", "contrast_temperature"):
            options.number(f"objective.{name}", getattr(self, name), 1e-6, limit="a number of at least 1e-6")

    @functools.cached_property
    def model(self) -> VideoSaur:
        """The network."""
        sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in self.videosaur.items()}
        return VideoSaur(**sizes, similarity=self.similarity > 0)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh parameters, and the noise of first slots that are drawn, for `slots`. There is no target."""
        if batch.video.shape[1] < 2:
            raise ConfigError(f"data.frames = {batch.video.shape[1]}: must be at least 2 for objective.videosaur")
        found = self.patches(batch.video[:1])
        if self.model.placed and math.isqrt(found.shape[2]) ** 2 != found.shape[2]:
            text = f"objective.videosaur.placed = True: {found.shape[2]} features a frame"
            raise ConfigError(f"{text}: must be a square number of them, or placed=False")
        noise = self._noise(jax.random.fold_in(key, 1), 1)
        params = {"videosaur": self.model.init(key, found, noise)["params"]}
        return params, {}, {} if noise is None else {"noise": noise}

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample."""
        given = self.patches(batch.video)
        found = self.model.apply({"params": params["videosaur"]}, given, self._noise(key, len(given)))
        terms = {"features": jnp.square(found["features"] - given).mean((1, 2, 3))}
        if self.similarity:
            wanted = videosaur.similarity(given, self.temperature)
            terms["similarity"] = -(wanted * jax.nn.log_softmax(found["logits"][:, :-1])).sum(-1).mean((1, 2))
        if self.contrast:
            terms["slots"] = found["slots"]  # not a stat: gradients flow through terms alone
        masks = found["masks"].transpose(0, 2, 1, 3).reshape(len(given), found["masks"].shape[2], -1)  # [B, K, T P]
        return terms, savi.scene_stats(found["slots"], masks, terms["features"], batch)

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Weighted means over scenes, the contrast of all of them, and monitors."""
        valid = stats["valid"]
        means = {name: losses.masked_mean(term, valid) for name, term in terms.items() if name != "slots"}
        if self.contrast:
            each = videosaur.slot_contrast(terms["slots"], self.contrast_temperature, valid=valid)
            means["contrast"] = losses.masked_mean(each, valid)
        total = sum(getattr(self, name) * value for name, value in means.items())
        metrics = {
            "loss": total,
            **{f"loss/{name}": value for name, value in means.items()},
            **savi.monitors(stats),
        }
        return total, (metrics, extra)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none: {}."""
        return target

    def slots(self, params: Params, video: Array) -> dict[str, Array]:
        """The module's values for uint8 [B, T, H, W, 3]. `params` as for `encode`.

        First slots that are drawn have the same noise for each scene and each time: `params["noise"]`, which `init`
        draws from the run's seed.
        """
        given = self.patches(video)
        noise = None if self.model.fixed else jnp.repeat(params["noise"], len(given), 0)
        return self.model.apply({"params": params["videosaur"]}, given, noise)

    @property
    def segment_count(self) -> int:
        """See objectives.base.Segmenting."""
        return self.model.slots

    def segments(self, params: Params, video: Array) -> Array:
        """Each pixel's slot, that of the decoder's largest share in its patch: int32 [B, T, H, W]."""
        labels = self.slots(params, video)["masks"].argmax(2).astype(jnp.int32)  # [B, T, P]
        rows, columns = (side // self.patch for side in video.shape[2:4])
        labels = labels.reshape(*labels.shape[:2], rows, columns)
        return labels.repeat(self.patch, 2).repeat(self.patch, 3)

    def encode(self, params: Params, video: Array) -> Array:
        """At each patch the slots, weighted by their shares there: [B, T, H, W, C] -> [B, N, S]."""
        found = self.slots(params, video)
        return jnp.einsum("btkn,btks->btns", found["masks"], found["slots"]).reshape(
            len(video), -1, found["slots"].shape[-1]
        )

    def patches(self, video: Array) -> Float[Array, "B T P F"]:
        """The features, which float32 videos are already if the patch is 1. Raises ConfigError for a size that the
        patch does not divide."""
        batch, frames, height, width, channels = video.shape
        if video.dtype == jnp.float32 and self.patch == 1:
            return video.reshape(batch, frames, height * width, channels)
        if height % self.patch or width % self.patch:
            raise ConfigError(f"objective.patch = {self.patch}: must divide data.size = {height}")
        rows, columns = height // self.patch, width // self.patch
        shape = (batch, frames, rows, self.patch, columns, self.patch, channels)
        cut = savi.scaled(video).reshape(shape).swapaxes(3, 4)
        cut = cut.reshape(batch, frames, rows * columns, self.patch**2, channels)
        mean = cut.mean(-2, keepdims=True)
        texture = self.texture * (cut - mean).reshape(*cut.shape[:3], -1)
        return jnp.concatenate([2 * mean[..., 0, :], texture], -1)

    def _noise(self, key: Array, count: int) -> Array | None:
        model = self.model
        return None if model.fixed else jax.random.normal(key, (count, model.slots, model.width))
