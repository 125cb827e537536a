"""The narrow Transformer that infers removed objects and the change of the rest: METHOD (4), (5)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from cjepa_jax.models import position_encoding
from cjepa_jax.models.layers import GELU, Dense
from cjepa_jax.models.transformer import Stack
from cjepa_jax.types import Array


def ranks(object_patches: Bool[Array, "B K N"], removed: Bool[Array, "B K"]) -> Int[Array, "B K"]:
    """Each removed object's rank (METHOD (4)), from 0, by its lowest patch index: [B, K, N], [B, K] -> int32 [B, K].

    Ties go to the smaller area, then to the lower centroid, so an object's rank does not depend on its index in K.
    Objects that are not removed have the meaningless rank K.
    """
    patches = object_patches & removed[..., None]
    index = jnp.arange(patches.shape[-1])
    keys = (
        jnp.argmax(patches, axis=-1),  # lowest patch
        patches.sum(-1),  # area
        jnp.where(patches, index, 0).sum(-1),  # equal areas: the sum orders like the centroid
        jnp.where(patches, index * index, 0).sum(-1),  # equal centroids: the narrower object first
    )
    before = jnp.zeros((*removed.shape, removed.shape[-1]), bool)  # [B, i, j]: object j comes before object i
    for key in reversed(keys):
        i, j = key[:, :, None], key[:, None, :]
        before = (j < i) | ((j == i) & before)
    rank = (before & removed[:, None, :]).sum(-1)
    return jnp.where(removed, rank, removed.shape[-1]).astype(jnp.int32)


class Predictor(nn.Module):
    """Predicts on the whole grid: context tokens at their places, mask tokens at the others, no padding.

    A mask token is a learned vector + its position + the embedding of each removed object that covers it (by rank).

    Attributes: depth, width, heads. attention: "joint" (self-attention over all) or "cross" (mask tokens attend to each
    other and to the context, context tokens to mask tokens). max_objects: most objects that can be removed. out: the
    encoder's width. gelu, remat, positions, position_grid, epsilon, dtype as the encoder's. name_context: a removed
    object's embedding is also added to the visible tokens that it covers (for the control masks.displaced:named).
    embed_units: hidden units of the layer before the blocks, with GELU (0: it is linear). scene_code: all tokens get a
    learned code, one of clips and one of images. Both are V-JEPA 2.1's.
    """

    depth: int = 6
    width: int = 384
    heads: int = 8
    attention: str = "joint"
    max_objects: int = 3
    out: int = 1024
    gelu: str = "exact"
    remat: str = "none"
    positions: str = "sincos"
    position_grid: tuple[int, ...] = ()
    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32
    name_context: bool = False
    embed_units: int = 0
    scene_code: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        context: Bool[Array, "B N"],
        object_patches: Bool[Array, "B K N"],
        removed: Bool[Array, "B K"],
        grid: tuple[int, int, int],
        hidden: Bool[Array, "B N"] | None = None,
        image: bool = False,
        guide: Float[Array, "B N C"] | None = None,
        causal: bool = False,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N D"]]:
        """Encoded context tokens [B, N, D], context bool [B, N], object_patches bool [B, K, N], removed bool [B, K].

        `hidden` bool [B, N] names the tokens to predict (None: all that are not context). A token that is neither takes
        no part in the attention, and its output is meaningless. `image`: whether the scenes are images, for scene_code.
        `guide`: conditions that modulate the norms of all blocks ("film" of transformer.Block). `causal`, with joint
        attention: a token sees none of a later time.

        Returns: the predicted tokens and the residual (the predicted change), float32 [B, N, D] each. The first is used
        at hidden tokens, the second at context tokens.
        """
        normal = nn.initializers.truncated_normal(0.02)
        mask_token = self.param("mask_token", normal, (self.width,)).astype(self.dtype)
        object_embedding = self.param("object_embedding", normal, (self.max_objects, self.width))

        order = jnp.equal(ranks(object_patches, removed)[..., None], jnp.arange(self.max_objects))  # [B, K, M]
        order &= removed[..., None]  # rank K of objects that are not removed may be below M
        covers = jnp.einsum("bkn,bkm->bnm", object_patches.astype(self.dtype), order.astype(self.dtype))
        masked = mask_token + covers @ object_embedding.astype(self.dtype)
        if self.embed_units:
            tokens = GELU[self.gelu](Dense(self.embed_units, self.dtype, name="embed_up")(tokens))
        embedded = Dense(self.width, self.dtype, name="embed")(tokens)
        if self.name_context:
            embedded = embedded + covers @ object_embedding.astype(self.dtype)
        x = jnp.where(context[..., None], embedded, masked)
        x = position_encoding.add(self, x.astype(jnp.float32), grid)
        if self.scene_code:
            small = nn.initializers.normal(1e-6)
            clip, still = (self.param(name, small, (self.width,)) for name in ("clip_code", "image_code"))
            x = x + (still if image else clip)
        rotation = position_encoding.rotation(self, grid, self.width // self.heads)
        rotation = None if rotation is None else rotation[None]

        stack = Stack(
            depth=self.depth,
            heads=self.heads,
            gelu=self.gelu,
            remat=self.remat,
            cross=self.attention == "cross",
            dtype=self.dtype,
            epsilon=self.epsilon,
            condition="none" if guide is None else "film",
            causal="frame" if causal else "none",
            name="stack",
        )
        time = jnp.repeat(jnp.arange(grid[0]), grid[1] * grid[2]) if causal else None
        x = stack(x, *self._limits(context, hidden), rotation, condition=guide, time=time)
        heads = (Dense(self.out, self.dtype, result=jnp.float32, name=name) for name in ("prediction", "residual"))
        return tuple(head(x) for head in heads)

    def _limits(self, context: Array, hidden: Array | None) -> tuple[Any, Any]:
        """The arguments `segment` and `other` of the stack: who attends to whom."""
        if self.attention != "cross":
            return None if hidden is None else (context | hidden).astype(jnp.int32), None
        # Ids 1 for context, 2 for mask tokens. Among themselves only mask tokens attend; across, each to the other.
        to_predict = jnp.where(~context if hidden is None else hidden, 2, 0)
        kind = jnp.where(context, 1, to_predict)
        return to_predict, (kind, jnp.where(kind == 0, 0, 3 - kind))
