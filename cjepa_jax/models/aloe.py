"""ALOE, a transformer that answers questions about slots (arXiv 2012.08508), as in SlotFormer (arXiv 2210.05861).

The sequence is a learned class token, the slots of all frames, and the words. Two heads read the class token: one
chooses among the answers of open questions, the other judges one option of a multiple-choice question.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from cjepa_jax import sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.layers import Dense, LayerNorm
from cjepa_jax.models.slot_predictor import EPSILON, FAN_IN, SlotBlock
from cjepa_jax.types import Array

# Two numbers that say what a token is. They are constants, and the public state dict stores them.
TEXT, VISION = (1.0, 0.0), (0.0, 1.0)
OPEN, QUESTION, CHOICE = (0.0, 1.0), (1.0, 0.0), (0.0, 1.0)  # words of an open question, of a question, of its option


class AloeBlock(SlotBlock):
    """PyTorch's pre-norm encoder layer with ReLU: x + attention(norm(x)), then x + mlp(norm(x)).

    `dropout` acts on the attention weights, on the output of the attention, and on both layers of the MLP.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], present: Bool[Array, "B N"] | None, train: bool = False):
        """The tokens after the block. No token attends to one that is not `present`."""
        x = sharding.pin(x, sharding.SCENES, None, None)
        y, _ = self._attention(LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm1")(x), present, train, None)
        x = x + self._drop(y, train)
        y = LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm2")(x)
        y = nn.relu(Dense(self.units, self.dtype, "tensor", kernel_init=FAN_IN, name="up")(y))
        y = Dense(x.shape[-1], self.dtype, kernel_init=FAN_IN, name="down")(self._drop(y, train))
        return x + self._drop(y, train)


class Aloe(nn.Module):
    """Answers from slots and words. The defaults are the published sizes: 2,879,427 parameters on 7 slots of 128.

    Attributes:
      words: of the vocabulary, with 0, which stands for no word. answers: likewise, 0 stands for no answer.
      depth, heads, units: of the blocks. head_width: of one head. The width is heads x head_width.
      embed: of a word. hidden: units of the two heads' layer.
      dropout: of training.
    """

    words: int = 82
    answers: int = 22
    depth: int = 12
    heads: int = 8
    head_width: int = 18
    units: int = 512
    embed: int = 14
    hidden: int = 128
    dropout: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        slots: Float[Array, "B T K S"],
        words: Int[Array, "B L"],
        choice: Bool[Array, " B"],
        question: int,
        seen: Bool[Array, " B"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B {self.answers}"], Float[Array, " B"]]:
        """(logits of the answers, logit of a right option), float32.

        Args:
          slots: K slots of T frames. words: indices, 0 for padding, which no token attends to.
          choice: the words are a question and one of its options. question: the number of words of the question, after
            which those of the option start.
          seen: False where no token attends to a slot. None: slots are seen everywhere.
          train: with dropout, which needs the random key "dropout".
        Raises: ConfigError for an embedding of fewer than 1 component.
        """
        if self.embed < 1 or self.head_width < 1:
            raise ConfigError("Aloe: embed and head_width must be at least 1")
        width, batch = self.heads * self.head_width, len(words)
        table = self.param("words", nn.initializers.normal(1.0), (self.words, self.embed))
        kind = jnp.where((jnp.arange(words.shape[1]) < question)[:, None], jnp.array(QUESTION), jnp.array(CHOICE))
        kind = jnp.where(choice[:, None, None], kind, jnp.array(OPEN))  # [B, L, 2]
        text = jnp.concatenate([table[words], kind, _constant(TEXT, kind.shape[:2])], -1)
        vision = slots.reshape(batch, -1, slots.shape[-1]).astype(jnp.float32)
        vision = jnp.concatenate([vision, _constant(VISION, vision.shape[:2])], -1)
        first = self.param("cls", nn.initializers.zeros, (width,))
        x = jnp.concatenate(
            [
                jnp.broadcast_to(first, (batch, 1, width)),
                Dense(width, self.dtype, kernel_init=FAN_IN, result=jnp.float32, name="vision")(vision),
                Dense(width, self.dtype, kernel_init=FAN_IN, result=jnp.float32, name="text")(text),
            ],
            1,
        )
        x = x + self.param("positions", nn.initializers.zeros, (x.shape[1], width))
        shown = jnp.ones(vision.shape[:2], bool) if seen is None else jnp.broadcast_to(seen[:, None], vision.shape[:2])
        present = jnp.concatenate([jnp.ones((batch, 1), bool), shown, words > 0], 1)
        for i in range(self.depth):
            x = AloeBlock(self.heads, self.units, dropout=self.dropout, dtype=self.dtype, name=f"block{i}")(
                x, present, train
            )
        return self._head("answer", self.answers, x[:, 0]), self._head("choice", 1, x[:, 0])[:, 0]

    def _head(self, name: str, outputs: int, x: Float[Array, "B D"]) -> Array:
        x = nn.relu(Dense(self.hidden, self.dtype, kernel_init=FAN_IN, name=f"{name}_up")(x))
        return Dense(outputs, self.dtype, kernel_init=FAN_IN, result=jnp.float32, name=f"{name}_down")(x)


def _constant(value: tuple[float, float], shape: tuple[int, ...]) -> Array:
    """[*shape, 2]."""
    return jnp.broadcast_to(jnp.array(value), (*shape, 2))
