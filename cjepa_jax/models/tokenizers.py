"""From pixels to tokens of a grid.

A tokenizer is a flax module. It takes a scene's arrays (types.Batch.observation) and returns (tokens [B, N, D],
positions). Positions are codes [B or 1, N, D] that the encoder adds, or None where the tokens hold them already. Its
`grid(scene)` gives (times, rows, cols), from the arrays or their shapes. An encoder whose config names another one,
`tokenizer=dict(type="module:Name", ...)`, gives it the section's keys, `width` and `dtype`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Num

from cjepa_jax.configuration import build, sizes
from cjepa_jax.models import position_encoding
from cjepa_jax.models.layers import Dense
from cjepa_jax.types import Array

MEAN = (0.485, 0.456, 0.406)  # of the scaled RGB input, with which every model of the family was trained
STD = (0.229, 0.224, 0.225)
SCALE = 255.0


def normalise(
    video: Num[Array, "*shape C"], mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD, scale: float = SCALE
) -> Float[Array, "*shape C"]:
    """uint8 or float values [..., C] to zero mean and unit variance: (x / scale - mean) / std, float32.

    Raises: ValueError unless there is a mean for each channel. One channel would be repeated.
    """
    if len(mean) != video.shape[-1]:
        raise ValueError(f"video has {video.shape[-1]} channels: must be {len(mean)}, one for each mean")
    return (video.astype(jnp.float32) / scale - jnp.asarray(mean)) / jnp.asarray(std)


def grid(shape: tuple[int, ...], patch: int, tubelet: int) -> tuple[int, int, int]:
    """(times, rows, cols) of a video [..., T, H, W, C]. An image (T = 1) has one time for every tubelet.

    Raises: ValueError naming the size that does not divide.
    """
    frames, height, width = shape[-4:-1]
    tubelet = 1 if frames == 1 else tubelet
    for name, value, unit in (("frames", frames, tubelet), ("height", height, patch), ("width", width, patch)):
        if value % unit:
            raise ValueError(f"{name} = {value}: must be a multiple of {unit}")
    return frames // tubelet, height // patch, width // patch


def patchify(video: Num[Array, "B T H W C"], patch: int, tubelet: int) -> Num[Array, "B N P"]:
    """Each token's box of pixels, flattened as (frame, row, column, channel): [B, T, H, W, C] -> [B, N, P]."""
    times, rows, cols = grid(video.shape, patch, tubelet)
    batch, frames, channels = video.shape[0], video.shape[1], video.shape[-1]
    x = video.reshape((batch, times, frames // times, rows, patch, cols, patch, channels))
    return x.transpose((0, 1, 3, 5, 2, 4, 6, 7)).reshape(batch, times * rows * cols, -1)


def unpatchify(boxes: Num[Array, "B N P"], shape: tuple[int, ...], patch: int, tubelet: int) -> Num[Array, "B T H W C"]:
    """The video of this `shape` [B, T, H, W, C] from its boxes: the inverse of `patchify`."""
    times, rows, cols = grid(shape, patch, tubelet)
    x = boxes.reshape((shape[0], times, rows, cols, shape[1] // times, patch, patch, shape[-1]))
    return x.transpose((0, 1, 4, 2, 5, 3, 6, 7)).reshape(shape)


class Tokenizer(nn.Module):
    """One linear map per tubelet x patch x patch x C box, plus its position code (see position_encoding).

    [B, T, H, W, C] -> ([B, N, D], None). The positions are added here, before any token is dropped. With a table or
    rotations, an image given to parameters of clips is one tubelet of a repeated frame, as in V-JEPA 2. Sin-cos codes
    of images differ from those of clips.
    """

    patch: int
    tubelet: int
    width: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    scale: float = SCALE
    dtype: DTypeLike = jnp.float32
    positions: str = "sincos"
    position_grid: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, video: Num[Array, "B T H W C"]) -> tuple[Float[Array, "B N D"], None]:
        if video.shape[1] == 1 and self._for_clips(video.shape[-1]):
            video = jnp.repeat(video, self.tubelet, axis=1)
        x = patchify(normalise(video, self.mean, self.std, self.scale), self.patch, self.tubelet)
        x = Dense(self.width, self.dtype, name="projection")(x)
        return position_encoding.add(self, x.astype(jnp.float32), self.grid(video)), None

    def grid(self, video: Num[Array, "B T H W C"]) -> tuple[int, int, int]:
        """(times, rows, cols) of a video's tokens."""
        return grid(video.shape, self.patch, self.tubelet)

    def _for_clips(self, channels: int) -> bool:
        kernel = self.variables.get("params", {}).get("projection", {}).get("kernel")
        size = self.tubelet * self.patch**2 * channels
        return self.positions != "sincos" and kernel is not None and kernel.shape[0] == size


class ClipsAndImages(nn.Module):
    """A projection and a learned code for clips, and another of each for images, as in V-JEPA 2.1 (arXiv 2603.14482).

    [B, T, H, W, C] -> ([B, N, D], None). A scene of one frame is an image, whose tokens are single frames. Nothing says
    where a token is: the encoder's positions must be rotations.
    """

    patch: int
    tubelet: int
    width: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    scale: float = SCALE
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: Num[Array, "B T H W C"]) -> tuple[Float[Array, "B N D"], None]:
        image = video.shape[1] == 1
        kinds = ((False, "projection", "clip_code"), (True, "image_projection", "image_code"))
        for of_images, projection, code in kinds:
            if of_images != image and not self.is_initializing():
                continue
            own = video if of_images == image else _of_frames(video, 1 if of_images else self.tubelet)
            x = patchify(normalise(own, self.mean, self.std, self.scale), self.patch, self.tubelet)
            x = Dense(self.width, self.dtype, name=projection)(x).astype(jnp.float32)
            x = x + self.param(code, nn.initializers.normal(1e-6), (self.width,))
            if of_images == image:
                out = x
        return out, None

    def grid(self, video: Num[Array, "B T H W C"]) -> tuple[int, int, int]:
        """(times, rows, cols) of a video's tokens."""
        return grid(video.shape, self.patch, self.tubelet)


def _of_frames(video: Num[Array, "B T H W C"], frames: int) -> Num[Array, "B t H W C"]:
    """Its first frame as a scene of this length."""
    return jnp.repeat(video[:, :1], frames, axis=1)


class ClassToken(nn.Module):
    """Patches of one frame after a learned class token, with learned positions, as in a plain ViT (arXiv 2010.11929).

    [B, 1, H, W, C] -> (tokens [B, 1 + N, D], positions [1, 1 + N, D]). The pixels are normalised as in `Tokenizer`.
    """

    patch: int
    width: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: Num[Array, "B 1 H W C"]) -> tuple[Float[Array, "B M D"], Float[Array, "1 M D"]]:
        x = patchify(normalise(video, self.mean, self.std), self.patch, 1)
        x = Dense(self.width, self.dtype, name="projection")(x).astype(jnp.float32)
        normal = nn.initializers.truncated_normal(0.02)
        token = self.param("class_token", normal, (1, 1, self.width))
        positions = self.param("positions", normal, (1, x.shape[1] + 1, self.width))
        return jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1), positions

    def grid(self, video: Num[Array, "B 1 H W C"]) -> tuple[int, int, int]:
        """The class token and the patches in one line."""
        _, rows, cols = grid(video.shape, self.patch, 1)
        return 1, 1, 1 + rows * cols


def of(encoder: Any, **where: Any) -> Any:
    """The tokenizer of an encoder. where: its flax name or parent. Raises ConfigError for an invalid section."""
    size = sizes.parse(encoder.variant)
    where |= dict(width=size.width, dtype=encoder.dtype)
    if encoder.tokenizer is not None:
        return build.build(encoder.tokenizer, "objective.encoder.tokenizer", **where)
    same = ("tubelet", "mean", "std", "scale", "positions", "position_grid")
    return Tokenizer(patch=size.patch, **{name: getattr(encoder, name) for name in same}, **where)
