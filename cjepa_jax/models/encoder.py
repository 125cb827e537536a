"""The Vision Transformer of the context encoder and the target encoder: METHOD (2), (3)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import class_token, packing, position_encoding, tokenizers
from cjepa_jax.models.transformer import Stack
from cjepa_jax.types import Array, Rows


class Encoder(nn.Module):
    """Encodes all tokens of a scene, or its visible ones. Pre-norm, final LayerNorm.

    Attributes: variant as "L/16". tubelet: frames per token of a clip. gelu: "exact" or "tanh". remat: "none", "dots"
    or "full". depth: blocks (0: the variant's). positions, position_grid: see position_encoding. epsilon of the norms.
    channels: C, of which each has a mean and a std: (x / scale - mean) / std. dtype of the computation (sums and norms
    are float32). tokenizer: the section of another one (models/tokenizers.py). None: of videos. causal, levels: see
    transformer.Stack. With causal = "frame" a token sees none of a later time. class_token: see models/class_token.py.
    layer_scale: see transformer.Block (0: none).
    """

    variant: str = "L/16"
    tubelet: int = 2
    gelu: str = "exact"
    remat: str = "none"
    depth: int = 0
    positions: str = "sincos"
    position_grid: tuple[int, ...] = ()
    epsilon: float = 1e-6
    channels: int = 3
    scale: float = tokenizers.SCALE
    mean: tuple[float, ...] = tokenizers.MEAN
    std: tuple[float, ...] = tokenizers.STD
    dtype: DTypeLike = jnp.float32
    tokenizer: Mapping | None = None
    causal: str = "none"
    levels: tuple[int, ...] = ()
    class_token: bool = False
    layer_scale: float = 0.0

    @property
    def width(self) -> int:
        return parse(self.variant).width

    @property
    def patch(self) -> int:
        return parse(self.variant).patch

    def grid(self, scene: Any) -> tuple[int, int, int]:
        """(times, rows, cols) of the tokens of these scenes, arrays or their shapes."""
        return tokenizers.of(self, parent=None).grid(scene)

    @nn.compact
    def __call__(
        self, scene: Any, rows: Rows | None = None, keep: Bool[Array, "B N"] | None = None, whole: bool = False
    ) -> Float[Array, "B N E"]:
        """[B, T, H, W, C] values (pixels in 0..255 with the default scale), or what the tokenizer takes -> [B, N, D].

        Args:
          rows: encode only these tokens, each segment of a row separately. The result is 0 at all others.
          keep: bool [B, N]. Encode the whole grid with the other tokens set to zero.
          whole: with `class_token`, its token comes first: [B, 1 + N, D].
        """
        size = parse(self.variant)
        (x, positions), grid = tokenizers.of(self, name="tokenizer")(scene), self.grid(scene)
        x = x if positions is None else x + positions
        same = {name: getattr(self, name) for name in ("dtype", "epsilon", "causal", "layer_scale")}
        same |= dict(units=size.hidden, levels=tuple(self.levels), name="stack")
        stack = Stack(self.depth or size.depth, size.heads, self.gelu, self.remat, **same)
        rotation = position_encoding.rotation(self, grid, size.width // size.heads)
        time = jnp.repeat(jnp.arange(grid[0]), grid[1] * grid[2]) if self.causal == "frame" else None
        if rows is not None and self.causal != "none":
            raise ConfigError(f"objective.encoder.causal = {self.causal!r}: must be none with rows of visible tokens")
        if keep is not None:
            x = jnp.where(keep[..., None], x, 0)
        if self.class_token:
            return class_token.encode(self, stack, x, rows)[:, 0 if whole else 1 :]
        if rows is None:
            return stack(x, rotation=None if rotation is None else rotation[None], time=time)
        packed, segment = packing.gather(x, rows)
        rotation = None if rotation is None else packing.of_slots(rotation, rows)
        return packing.scatter(stack(packed, segment, None, rotation), rows, x.shape[:2])
