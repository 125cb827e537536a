"""Random views of clips on the device: crop, flip, colour, blur, solarise, as in BYOL (arXiv 2006.07733, appendix B).

All frames of a clip share one draw, so that motion stays motion.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.errors import ConfigError
from cjepa_jax.types import Array

GREY = (0.299, 0.587, 0.114)  # luma of RGB, ITU-R BT.601
TO_YIQ = np.array([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])


@dataclasses.dataclass(frozen=True)
class Views:
    """`count` views of every scene. Called with (key, video) it gives [B, count, T, H, W, C] float32 in 0..255.

    Attributes:
      scale: a crop's share of the frame's area, uniform between the two.
      aspect: its width / height, log-uniform between the two, as far as it fits into the frame.
      flip: probability of a horizontal flip.
      jitter: the most by which brightness, contrast and saturation are scaled (0.4: factors of 0.6 to 1.4), and by
        which the hue is turned (0.1: a tenth of the colour circle to either side). Applied in this order.
      jitter_share, grey: probability of the jitter, and of a view without colour.
      blur, solarise: probability for the first view, the second, ... (repeated if there are more views). The blur's
        deviation is uniform in 0.1..2 pixels of a frame of 224, and scales with it. Pixels from 128 up are inverted.
      small: how many small views there are besides (multi-crop, arXiv 2006.09882). small_size: their height and width
        in pixels, which the patch divides. small_scale: their crops' share of the frame's area. They have the same
        colours, flips and blur.

    Raises: ConfigError for values that cannot work.
    """

    count: int = 2
    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.75, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_share: float = 0.8
    grey: float = 0.2
    blur: tuple[float, ...] = (0.0,)
    solarise: tuple[float, ...] = (0.0,)
    small: int = 0
    small_size: int = 0
    small_scale: tuple[float, float] = (0.05, 0.3)

    def __post_init__(self):
        shares = (self.flip, self.jitter_share, self.grey, *self.blur, *self.solarise)
        hue = self.jitter[-1]
        for good, name, limit in (
            (self.count >= 1, "count", "at least 1"),
            (0 < self.scale[0] <= self.scale[1] <= 1, "scale", "two shares in (0, 1], the lower first"),
            (self.small >= 0, "small", "0 or more"),
            (not self.small or self.small_size >= 1, "small_size", "pixels, as small views are wanted"),
            (0 < self.small_scale[0] <= self.small_scale[1] <= 1, "small_scale", "two shares in (0, 1], lower first"),
            (0 < self.aspect[0] <= self.aspect[1], "aspect", "two numbers above 0, the lower first"),
            (len(self.jitter) == 4 and 0 <= min(self.jitter) and max(self.jitter) <= 1, "jitter", "four in [0, 1]"),
            (hue <= 0.5, "jitter", "at most 0.5 for the hue, half a turn"),
            (self.blur and self.solarise, "blur", "a probability per view, as solarise"),
            (all(0 <= share <= 1 for share in shares), "flip, jitter_share, grey, blur, solarise", "in [0, 1]"),
        ):
            if not good:
                values = ", ".join(str(getattr(self, field)) for field in name.split(", "))
                raise ConfigError(f"objective.views.{name} = {values}: must be {limit}")

    def __call__(self, key: Array, video: Array) -> Array:
        """[B, T, H, W, C] uint8 or float in 0..255. Scene b's view v has the key fold_in(fold_in(key, b), v)."""
        return self._views(key, video, range(self.count), video.shape[2:4], self.scale)

    def small_views(self, key: Array, video: Array) -> Array:
        """[B, small, T, small_size, small_size, C] of the same scenes: views count, count + 1, ..."""
        size = (self.small_size, self.small_size)
        return self._views(key, video, range(self.count, self.count + self.small), size, self.small_scale)

    def _views(self, key: Array, video: Array, numbers: range, size: tuple[int, ...], scale: tuple) -> Array:
        blur, solarise = (
            jnp.resize(jnp.array(shares, jnp.float32), numbers.stop)[numbers.start :]
            for shares in (self.blur, self.solarise)
        )
        view = functools.partial(self._view, size=size, scale=scale)

        def scene(index, clip):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, index), jnp.array(numbers))
            return jax.vmap(view, (0, None, 0, 0))(keys, clip, blur, solarise)

        return jax.vmap(scene)(jnp.arange(video.shape[0]), video.astype(jnp.float32))

    def _view(
        self, key: Array, clip: Array, blur: Array, solarise: Array, size: tuple[int, ...], scale: tuple
    ) -> Array:
        """One view of one clip [T, H, W, C], `size` pixels high and wide. blur and solarise are probabilities."""
        crop_key, flip_key, colour_key, blur_key, solarise_key = jax.random.split(key, 5)
        clip = self._crop(crop_key, clip, size, scale)
        clip = jnp.where(jax.random.bernoulli(flip_key, float(self.flip)), clip[:, :, ::-1], clip)
        clip = self._colour(colour_key, clip)
        if any(self.blur):
            clip = jnp.where(jax.random.bernoulli(blur_key, blur), _blur(blur_key, clip), clip)
        inverted = jnp.where(clip >= 128.0, 255.0 - clip, clip)
        return jnp.where(jax.random.bernoulli(solarise_key, solarise), inverted, clip)

    def _crop(self, key: Array, clip: Array, size: tuple[int, ...], share: tuple) -> Array:
        """A box of `crop_box`, resized to `size` (linear, antialiased)."""
        top, left, height, width = crop_box(key, *clip.shape[1:3], share, self.aspect)
        scale = jnp.stack([size[0] / height, size[1] / width])
        shift = -jnp.stack([top, left]) * scale
        shape = (clip.shape[0], *size, clip.shape[3])
        # A mean of neighbours, but for rounding.
        place: dict[str, Any] = dict(scale=scale, translation=shift)
        return jnp.clip(jax.image.scale_and_translate(clip, shape, (1, 2), **place, method="linear"), 0.0, 255.0)

    def _colour(self, key: Array, clip: Array) -> Array:
        strength, turn_key, jitter_key, grey_key = jax.random.split(key, 4)
        brightness, contrast, saturation, hue = self.jitter
        limits = jnp.array([brightness, contrast, saturation])
        by = jax.random.uniform(strength, (3,), minval=1.0 - limits, maxval=1.0 + limits)
        jittered = jnp.clip(by[0] * clip, 0.0, 255.0)
        jittered = _blend(jittered, _grey(jittered).mean(), by[1])
        jittered = _blend(jittered, _grey(jittered), by[2])
        if hue:
            jittered = _turn(jittered, jax.random.uniform(turn_key, minval=-hue, maxval=hue))
        clip = jnp.where(jax.random.bernoulli(jitter_key, float(self.jitter_share)), jittered, clip)
        return jnp.where(jax.random.bernoulli(grey_key, float(self.grey)), _grey(clip), clip)


def crop_box(key: Array, rows: int, cols: int, scale: tuple, aspect: tuple) -> tuple[Array, Array, Array, Array]:
    """(top, left, height, width) of a random box inside a frame of rows x cols pixels, not rounded to whole ones."""
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, minval=scale[0], maxval=scale[1])
    # width <= cols and height <= rows bound the aspect. Drawing within the bounds keeps the area's distribution.
    low, high = (jnp.log(jnp.clip(bound, area * cols / rows, cols / rows / area)) for bound in aspect)
    ratio = jnp.exp(low + (high - low) * jax.random.uniform(aspect_key))
    height = jnp.minimum(jnp.sqrt(area * rows * cols / ratio), rows)
    width = jnp.minimum(jnp.sqrt(area * rows * cols * ratio), cols)
    top, left = jax.random.uniform(place_key, (2,)) * jnp.stack([rows - height, cols - width])
    return top, left, height, width


def _grey(clip: Array) -> Array:
    """Every channel the luma."""
    return jnp.broadcast_to((clip * jnp.array(GREY)).sum(-1, keepdims=True), clip.shape)


def _blend(clip: Array, other: Array, share: Array) -> Array:
    return jnp.clip(share * clip + (1.0 - share) * other, 0.0, 255.0)


def _turn(clip: Array, turns: Array) -> Array:
    """The hue turned in YIQ space, where brightness is an axis: linear, unlike HSV."""
    angle = 2.0 * jnp.pi * turns
    grey, plane, area = np.diag([1.0, 0, 0]), np.diag([0, 1.0, 1.0]), np.array([[0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    parts = [jnp.asarray((np.linalg.inv(TO_YIQ) @ part @ TO_YIQ).T, jnp.float32) for part in (grey, plane, area)]
    matrix = parts[0] + jnp.cos(angle) * parts[1] + jnp.sin(angle) * parts[2]
    return jnp.clip(clip @ matrix, 0.0, 255.0)


def _blur(key: Array, clip: Array) -> Array:
    """Gaussian blur as a product with one matrix per axis. Weights beyond the edge go to the pixels inside."""
    sigma = jax.random.uniform(jax.random.fold_in(key, 1), minval=0.1, maxval=2.0) * clip.shape[1] / 224

    def weights(size):
        offset = jnp.arange(size)[:, None] - jnp.arange(size)
        weight = jnp.exp(-0.5 * jnp.square(offset / sigma))
        return weight / weight.sum(1, keepdims=True)

    return jnp.einsum("ih,jw,thwc->tijc", weights(clip.shape[1]), weights(clip.shape[2]), clip)
