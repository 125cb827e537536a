"""Video slot encoders of Causal-JEPA's experiments: the recurrent slot attention, and SAVi (arXiv 2111.12594).

SAVi is the one of SlotFormer (arXiv 2210.05861), whose first slots are learned and whose slots are drawn around them.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from cjepa_jax.models.layers import Dense
from cjepa_jax.models.slot_predictor import EPSILON, FAN_IN
from cjepa_jax.models.slots import compete
from cjepa_jax.types import Array

START = 8  # side of the grid on which a slot is repeated before it is decoded
LATENT = nn.initializers.normal(1.0)


class Gru(nn.Module):
    """PyTorch's gated recurrent unit: both sides have a bias, and the reset gate acts on the hidden side's sum."""

    @nn.compact
    def __call__(self, inputs: Float[Array, "*B S"], hidden: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
        width = hidden.shape[-1]
        one = Dense(3 * width, kernel_init=FAN_IN, name="input")(inputs)
        other = Dense(3 * width, kernel_init=FAN_IN, name="hidden")(hidden)
        (r, z, n), (hr, hz, hn) = jnp.split(one, 3, -1), jnp.split(other, 3, -1)
        update = jax.nn.sigmoid(z + hz)
        return (1 - update) * jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn) + update * hidden


class Corrector(nn.Module):
    """Slot attention from given slots, in float32: slots compete for tokens, and a GRU moves them.

    Attributes: hidden, of the MLP (0: none). epsilon: added to attention. normed: whether the GRU's state is the normed
    slot (VideoSAUR) or the slot (SAVi).
    """

    hidden: int = 256
    epsilon: float = 1e-6
    normed: bool = False

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B N F"], slots: Float[Array, "B K S"], iterations: int
    ) -> tuple[Float[Array, "B K S"], Float[Array, "B K N"]]:
        """The slots after `iterations`, and the last attention [B, K, N], which adds up to 1 over slots."""
        width = slots.shape[-1]
        project = {
            name: nn.Dense(width, use_bias=False, kernel_init=FAN_IN, name=name, dtype=jnp.float32)
            for name in ("q", "k", "v")
        }
        norm, gru = nn.LayerNorm(epsilon=EPSILON, name="norm_slots"), Gru(name="gru")
        tokens = nn.LayerNorm(epsilon=EPSILON, name="norm_tokens")(tokens)
        keys, values = project["k"](tokens), project["v"](tokens)
        if self.hidden:
            norm_mlp = nn.LayerNorm(epsilon=EPSILON, name="norm_mlp")
            up, down = (Dense(n, kernel_init=FAN_IN, name=m) for n, m in ((self.hidden, "up"), (width, "down")))
        attention = jnp.zeros((*slots.shape[:2], tokens.shape[1]))
        for _ in range(iterations):
            normed = norm(slots)
            logits = jnp.einsum("bks,bns->bkn", project["q"](normed), keys) * width**-0.5
            updates, attention = compete(logits, values, self.epsilon)
            slots = gru(updates, normed if self.normed else slots)
            if self.hidden:
                slots = slots + down(nn.relu(up(norm_mlp(slots))))
        return slots, attention


class SoftPositions(nn.Module):
    """Adds a linear map of the place (y, x, 1 - y, 1 - x), each in 0 .. 1, to every pixel of [B, H, W, C]."""

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        grid = jnp.asarray(places(*pixels.shape[1:3]))
        return pixels + Dense(pixels.shape[-1], kernel_init=FAN_IN, name="dense")(grid)


class Transposed(nn.Module):
    """PyTorch's transposed convolution of 5 x 5, with padding 2 and output padding stride - 1. Its kernel is flipped
    here.

    The stride x stride pixels that a place of the input gives are computed side by side, as channels. No zeros are put
    between pixels and multiplied. So with stride 2 it has 36 % of those products.

    Attributes: count, of channels. stride. dtype: of the products.
    """

    count: int
    stride: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
        """Pixels of an image that is `stride` times as large."""
        batch, height, width, channels = pixels.shape
        stride, size = self.stride, 5
        kernel = self.param("kernel", FAN_IN, (size, size, channels, self.count))
        bias = self.param("bias", nn.initializers.zeros, (self.count,))
        # Output pixel stride x i + r is the sum of the kernel's entries stride x t - r + 2 with the input pixels i + t.
        first, last = -(2 // stride), (stride + 1) // stride  # of t
        taps = last - first + 1
        before = stride - 3 - stride * first
        kernel = jnp.pad(kernel, [(before, taps * stride - size - before)] * 2 + [(0, 0)] * 2)
        kernel = kernel.reshape((taps, stride, taps, stride, channels, self.count))[:, ::-1, :, ::-1]
        kernel = kernel.transpose((0, 2, 4, 1, 3, 5)).reshape(taps, taps, channels, -1)
        out = jax.lax.conv_general_dilated(
            pixels.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(1, 1),
            padding=[(-first, last)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        out = out.reshape((batch, height, width, stride, stride, self.count)).swapaxes(2, 3)
        return out.reshape(batch, height * stride, width * stride, self.count) + bias.astype(self.dtype)


class Savi(nn.Module):
    """Pictures in, one slot after the other out: a CNN, slot attention from frame to frame, a decoder for each slot.

    Attributes:
      slots, width: K and S. channels: of the CNN's 5 x 5 convolutions. embed: width of its tokens.
      hidden: of slot attention's MLP. units: of the map from one frame's slots to the next one's first.
      iterations: of slot attention, in every frame.
      decoder, strides: channels and strides of the decoder's 5 x 5 transposed convolutions, from 8 x 8 on.
      noise: whether slots are drawn, N(mu, sigma^2), before each frame's attention. The published code draws them in
        evaluation too.
    """

    slots: int = 7
    width: int = 128
    channels: Sequence[int] = (64, 64, 64, 64)
    embed: int = 128
    hidden: int = 256
    units: int = 256
    iterations: int = 2
    decoder: Sequence[int] = (64, 64, 64, 64)
    strides: Sequence[int] = (2, 2, 2, 1)
    noise: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.latents = self.param("latents", LATENT, (self.slots, self.width))
        self.kernel = Dense(2 * self.width, kernel_init=FAN_IN)
        self.convolutions = [self._convolution(count) for count in self.channels]
        self.encoder_position, self.decoder_position = SoftPositions(), SoftPositions()
        self.norm_pixels = nn.LayerNorm(epsilon=EPSILON)
        self.token_up, self.token_down = (Dense(self.embed, kernel_init=FAN_IN) for _ in range(2))
        self.corrector = Corrector(self.hidden)
        self.norm_next = nn.LayerNorm(epsilon=EPSILON)
        self.next_up, self.next_down = (Dense(n, kernel_init=FAN_IN) for n in (self.units, self.width))
        self.transposed = [Transposed(n, s, self.dtype) for n, s in zip(self.decoder, self.strides, strict=True)]
        self.out = nn.Conv(4, (1, 1), kernel_init=FAN_IN)

    def __call__(self, video: Float[Array, "B T H W 3"], key: Array | None = None) -> dict[str, Array]:
        """Slots and what they paint.

        Args:
          video: values in -1 .. 1.
          key: draws the slots' noise. None: without noise.
        Returns: as `painted`, "slots" [B, T, K, S], and "kernel" [B, T, K, 2 S]: mu and log sigma^2 of each frame.
        """
        noise = None
        if key is not None and self.noise:
            noise = jax.random.normal(key, (*video.shape[:2], self.slots, self.width))
        slots, kernel = self.encode(self.tokens(video), noise)
        return self.painted(slots) | {"slots": slots, "kernel": kernel}

    def tokens(self, video: Float[Array, "B T H W 3"]) -> Float[Array, "B T N F"]:
        """The CNN's output at every pixel."""
        x = video.reshape(-1, *video.shape[2:]).astype(self.dtype)
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x if i == 0 else nn.relu(x))
        x = self.encoder_position(x.astype(jnp.float32)).reshape(*video.shape[:2], -1, x.shape[-1])
        return self.token_down(nn.relu(self.token_up(self.norm_pixels(x))))

    def encode(
        self, tokens: Float[Array, "B T N F"], noise: Float[Array, "B T K S"] | None = None
    ) -> tuple[Float[Array, "B T K S"], Float[Array, "B T K S2"]]:
        """(slots after each frame, and the mean and log variance from which each frame starts)."""
        start = jnp.broadcast_to(self.latents, (len(tokens), self.slots, self.width))
        found, kernels = [], []
        for t in range(tokens.shape[1]):
            slots, start, kernel = self._next(tokens[:, t], start, None if noise is None else noise[:, t])
            found.append(slots)
            kernels.append(kernel)
        return jnp.stack(found, 1), jnp.stack(kernels, 1)

    def step(
        self, frame: Float[Array, "B H W 3"], start: Float[Array, "B K S"], noise: Float[Array, "B K S"] | None = None
    ) -> tuple[Float[Array, "B K S"], Float[Array, "B K S"], Float[Array, "B K S2"]]:
        """(slots after one frame, in -1 .. 1, the next frame's start, and the kernel), from a start: `encode` in steps.

        The first start is the parameter "latents"."""
        return self._next(self.tokens(frame[:, None])[:, 0], start, noise)

    def _next(self, tokens, start, noise):
        kernel = self.kernel(start)
        mean, log_variance = jnp.split(kernel, 2, -1)
        drawn = mean if noise is None else mean + jnp.exp(log_variance / 2) * noise
        slots, _ = self.corrector(tokens, drawn, self.iterations)
        normed = self.norm_next(slots)
        return slots, normed + self.next_down(nn.relu(self.next_up(normed))), kernel

    def painted(self, slots: Float[Array, "B T K S"]) -> dict[str, Array]:
        """ "video" [B, T, H, W, 3] in -1 .. 1, and "masks" [B, T, K, H, W], which add up to 1 over slots."""
        x = jnp.broadcast_to(slots.reshape(-1, 1, 1, self.width), (slots[..., 0].size, START, START, self.width))
        x = self.decoder_position(x).astype(self.dtype)
        for convolution in self.transposed:
            x = nn.relu(convolution(x))
        x = self.out(x.astype(jnp.float32)).reshape(*slots.shape[:3], *x.shape[1:3], 4)
        masks = jax.nn.softmax(x[..., 3], axis=2)
        return {"video": (masks[..., None] * x[..., :3]).sum(2), "masks": masks}

    def _convolution(self, count: int) -> nn.Conv:
        return nn.Conv(count, (5, 5), dtype=self.dtype, kernel_init=FAN_IN)


def places(height: int, width: int) -> np.ndarray:
    """The places y, x, 1 - y, 1 - x of pixels, float32 [H, W, 4]."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return np.stack([y, x, 1 - y, 1 - x], -1).astype(np.float32)
