"""The Vision Transformer of the context encoder and the target encoder: METHOD (2), (3)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Num

from cjepa_jax.configuration.sizes import parse
from cjepa_jax.models import packing, position_encoding
from cjepa_jax.models.tokenizers import MEAN, STD, Tokenizer, grid
from cjepa_jax.models.transformer import Stack
from cjepa_jax.types import Array, Rows


class Encoder(nn.Module):
    """Encodes all tokens of a scene, or its visible ones. No class token, pre-norm, final LayerNorm.

    Attributes: variant as "L/16". tubelet: frames per token of a clip. gelu: "exact" or "tanh". remat: "none", "dots"
    or "full". depth: blocks (0: the variant's). positions, position_grid: see position_encoding. epsilon of the norms.
    mean, std of RGB in 0..1, by which pixels are normalised. dtype of the computation (sums and norms are float32).
    """

    variant: str = "L/16"
    tubelet: int = 2
    gelu: str = "exact"
    remat: str = "none"
    depth: int = 0
    positions: str = "sincos"
    position_grid: tuple[int, ...] = ()
    epsilon: float = 1e-6
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    dtype: DTypeLike = jnp.float32

    @property
    def width(self) -> int:
        return parse(self.variant).width

    @property
    def patch(self) -> int:
        return parse(self.variant).patch

    @nn.compact
    def __call__(
        self, video: Num[Array, "B T H W C"], rows: Rows | None = None, keep: Bool[Array, "B N"] | None = None
    ) -> Float[Array, "B N D"]:
        """[B, T, H, W, C] pixels in 0..255 -> [B, N, D].

        Args:
          rows: encode only these tokens, each segment of a row separately. The result is 0 at all others.
          keep: bool [B, N]. Encode the whole grid with the other tokens set to zero.
        """
        size = parse(self.variant)
        x = Tokenizer(
            patch=size.patch,
            tubelet=self.tubelet,
            width=size.width,
            mean=self.mean,
            std=self.std,
            dtype=self.dtype,
            positions=self.positions,
            position_grid=self.position_grid,
            name="tokenizer",
        )(video)
        stack = Stack(
            self.depth or size.depth,
            size.heads,
            self.gelu,
            self.remat,
            dtype=self.dtype,
            units=size.hidden,
            epsilon=self.epsilon,
            name="stack",
        )
        rotation = position_encoding.rotation(
            self, grid(video.shape, size.patch, self.tubelet), size.width // size.heads
        )
        if keep is not None:
            x = jnp.where(keep[..., None], x, 0)
        if rows is None:
            return stack(x, rotation=None if rotation is None else rotation[None])
        packed, segment = packing.gather(x, rows)
        rotation = None if rotation is None else packing.of_slots(rotation, rows)
        return packing.scatter(stack(packed, segment, None, rotation), rows, x.shape[:2])
