"""Point-JEPA's networks (arXiv 2404.16432): a small PointNet for each group of points, and transformers over groups.

Scenes are [B, 1, G, 1 + k, 3]: each group's centre, then its points relative to it (data/kinds/points.py).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.heads import BatchNorm
from cjepa_jax.models.layers import Dense, LayerNorm
from cjepa_jax.models.transformer import Block
from cjepa_jax.types import Array

EPSILON = 1e-5  # of the published norms
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's, which the small networks begin with


class PointNet(nn.Module):
    """Each group's points as one vector: [B, G, k, 3] -> [B, G, D], the same for any order of the points.

    Two pairs of layers with batch norm and ReLU between, each followed by a maximum over the group's points. Each
    point of the second pair also gets the first maximum. hidden: their widths.
    """

    width: int
    hidden: tuple[int, int, int] = (128, 256, 512)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, points: Float[Array, "B G k 3"], valid: Bool[Array, " B"], train: bool) -> Float[Array, "B G D"]:
        first, middle, second = self.hidden
        counted = jnp.broadcast_to(valid[:, None, None], points.shape[:3])
        x = Dense(middle, self.dtype, kernel_init=UNIFORM, name="out0")(self._normed(points, first, 0, counted, train))
        whole = jnp.broadcast_to(x.max(2, keepdims=True), x.shape)
        x = self._normed(jnp.concatenate([whole, x], axis=-1), second, 1, counted, train)
        return Dense(self.width, self.dtype, result=jnp.float32, kernel_init=UNIFORM, name="out1")(x).max(2)

    def _normed(self, x, width, number, counted, train):
        layer = nn.Dense(width, use_bias=False, dtype=self.dtype, kernel_init=UNIFORM, name=f"in{number}")
        return nn.relu(BatchNorm(dtype=self.dtype, name=f"norm{number}")(layer(x), counted, train))


class Places(nn.Module):
    """A code of each centre, [..., 3] -> [..., D]: two layers with 128 units and GELU."""

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, centres: Float[Array, "*batch 3"]) -> Float[Array, "*batch D"]:
        x = nn.gelu(Dense(128, self.dtype, kernel_init=UNIFORM, name="up")(centres), approximate=False)
        return Dense(self.width, self.dtype, result=jnp.float32, kernel_init=UNIFORM, name="down")(x)


class Trunk(nn.Module):
    """Pre-norm blocks and a norm. The tokens' codes are added before each block, or, with `every` False, the first.

    `seen` bool [B, G]: tokens that attend to each other. The outputs of the others are meaningless. None: all. With
    `across`, also bool [B, G], these tokens attend to each other and to the tokens of `across`, and those to them.
    Returns: the norm's output, and the last block's, [B, G, D] each.
    """

    depth: int
    heads: int
    units: int = 0
    dtype: DTypeLike = jnp.float32
    every: bool = True
    cross: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B G D"],
        places: Float[Array, "B G D"],
        seen: Bool[Array, "B G"] | None = None,
        across: Bool[Array, "B G"] | None = None,
    ) -> tuple[Float[Array, "B G D"], Float[Array, "B G D"]]:
        segment = None if seen is None else seen.astype(jnp.int32)
        other = None
        if self.cross and seen is not None and across is not None:
            kind = jnp.where(seen, 2, jnp.where(across, 1, 0))
            other = kind, jnp.where(kind == 0, 0, 3 - kind)
        for i in range(self.depth):
            block = Block(
                self.heads, cross=self.cross, dtype=self.dtype, units=self.units, epsilon=EPSILON, name=f"block{i}"
            )
            x = block(x + places if self.every or not i else x, segment, other, None)[0]
        return LayerNorm(epsilon=EPSILON, dtype=jnp.float32, name="norm")(x), x


class PointEncoder(nn.Module):
    """Groups of points as tokens: the parts "tokenizer", "places" and "trunk" of one encoder.

    Attributes: variant "S/1" (a token is one group). depth: blocks (0: the variant's). groups, neighbours: G and k, of
    the scenes. hidden: of the PointNet. `tubelet` is 1.
    """

    variant: str = "S/1"
    depth: int = 0
    groups: int = 64
    neighbours: int = 32
    hidden: tuple[int, int, int] = (128, 256, 512)
    dtype: DTypeLike = jnp.float32
    tubelet: int = 1

    @property
    def width(self) -> int:
        return parse(self.variant).width

    @property
    def patch(self) -> int:
        return parse(self.variant).patch

    def setup(self):
        size = parse(self.variant)
        self.tokenizer = PointNet(size.width, tuple(self.hidden), self.dtype)
        self.places = Places(size.width, self.dtype)
        self.trunk = Trunk(self.depth or size.depth, size.heads, size.hidden, self.dtype)

    def __call__(self, scenes: Float[Array, "B 1 G k 3"], valid: Bool[Array, " B"] | None = None, train: bool = False):
        """Tokens of all groups after the last norm, [B, G, D], with running statistics unless `train`."""
        tokens, places = self.tokens(scenes, valid, train)
        return self.trunk(tokens, places)[0]

    def tokens(self, scenes: Float[Array, "B 1 G k 3"], valid: Bool[Array, " B"] | None = None, train: bool = False):
        """The groups' vectors and the codes of their centres, float32 [B, G, D] each."""
        x = scenes[:, 0].astype(jnp.float32)
        valid = jnp.ones(len(x), bool) if valid is None else valid
        return self.tokenizer(x[:, :, 1:], valid, train), self.places(x[:, :, 0])

    def attend(self, tokens: Array, places: Array, seen: Array | None = None) -> tuple[Array, Array]:
        """The trunk's two outputs, see `Trunk`."""
        return self.trunk(tokens, places, seen)


class PointPredictor(nn.Module):
    """Hidden groups from the visible ones and the centres of both.

    A hidden group begins as zeros. Its code is that of its centre plus a learned vector. Codes are added before
    the first block, or with `every` before each. attention: "joint" (one self-attention over all), or "cross": hidden
    groups attend to each other, and then to the visible ones, in every block.
    """

    depth: int = 6
    width: int = 192
    heads: int = 6
    out: int = 384
    every: bool = False
    attention: str = "joint"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B G D"],
        centres: Float[Array, "B G 3"],
        context: Bool[Array, "B G"],
        hidden: Bool[Array, "B G"],
    ) -> Float[Array, "B G D"]:
        """Predicted tokens, float32 [B, G, D], used where `hidden`."""
        mask_token = self.param("mask_token", nn.initializers.truncated_normal(0.02), (self.width,))
        embedded = Dense(self.width, self.dtype, name="embed")(tokens)
        places = Places(self.width, self.dtype, name="places")(centres)
        places = jnp.where(context[..., None], places, places + mask_token)
        x = jnp.where(context[..., None], embedded, 0)
        if self.attention not in ("joint", "cross"):
            raise ConfigError(f"objective.predictor.attention = {self.attention!r}: must be joint or cross")
        cross = self.attention == "cross"
        trunk = Trunk(self.depth, self.heads, dtype=self.dtype, every=self.every, cross=cross, name="trunk")
        x = trunk(x, places, hidden, context)[0] if cross else trunk(x, places, context | hidden)[0]
        return Dense(self.out, self.dtype, result=jnp.float32, name="prediction")(x)
