"""Small networks after an encoder: the MLPs of the siamese methods."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from cjepa_jax.models.layers import Dense
from cjepa_jax.types import Array


class BatchNorm(nn.Module):
    """Normalises by the mean and variance of the *global* batch, in float32, or with `train` False by running ones.

    Attributes: momentum of the running statistics (collection "batch_stats"). zero: the learned scale starts at 0.
    """

    momentum: float = 0.9
    zero: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"], valid: Bool[Array, "*ones"] | None = None, train: bool = True):
        """[..., D] -> [..., D]. Rows with `valid` False (one axis less than x, or broadcast to it) do not count."""
        start = nn.initializers.zeros if self.zero else nn.initializers.ones
        norm = nn.BatchNorm(not train, momentum=self.momentum, epsilon=1e-5, dtype=self.dtype, scale_init=start)
        return norm(x, mask=None if valid is None else valid[..., None])


class Prototypes(nn.Module):
    """Cosine similarities with `count` learned directions, [..., P] -> [..., count], float32."""

    count: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch P"]) -> Float[Array, "*batch {self.count}"]:
        kernel = self.param("kernel", nn.initializers.truncated_normal(0.02), (x.shape[-1], self.count))
        with jax.default_matmul_precision("float32"):
            return _unit(x) @ _unit(kernel.T).T


def _unit(x: Float[Array, "*batch P"]) -> Float[Array, "*batch P"]:
    """Of length 1, with a finite gradient at 0."""
    return x * jax.lax.rsqrt(jnp.square(x.astype(jnp.float32)).sum(-1, keepdims=True) + 1e-12)


class Projector(nn.Module):
    """Dense, norm, ReLU for each width of `hidden`, then Dense to `out`: [..., D] -> [..., out], float32.

    Attributes: hidden, out. norm: "batch", "layer" or "none". dtype of the products. activation: "relu" or "gelu". With
    `train` False of the call, batch norms use their running statistics.
    """

    hidden: tuple[int, ...] = (256,)
    out: int = 64
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    activation: str = "relu"

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch D"], valid: Bool[Array, "*batch"] | None, train: bool = True
    ) -> Float[Array, "*batch {self.out}"]:
        for index, width in enumerate(self.hidden):
            x = Dense(width, self.dtype, name=f"dense{index}")(x)
            if self.norm == "batch":
                x = BatchNorm(dtype=self.dtype, name=f"norm{index}")(x, valid, train)
            elif self.norm == "layer":
                x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=f"norm{index}")(x)
            x = nn.relu(x) if self.activation == "relu" else nn.gelu(x, approximate=False)
        return Dense(self.out, self.dtype, result=jnp.float32, name="out")(x)
