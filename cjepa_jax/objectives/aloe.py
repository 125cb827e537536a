"""Training of ALOE, which answers questions about slots (models/aloe.py). See evals/benchmarks/aloe.py.

The published recipe (SlotFormer's): Adam, a linear warm-up over a tenth of the steps, then a cosine down to a
hundredth of the rate. The loss is the cross-entropy of open questions plus that of single options.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.aloe import Aloe
from cjepa_jax.objectives import options
from cjepa_jax.types import Array, Params

WARM, LAST = 0.1, 0.01  # share of the steps that warm up, and of the rate at the end
CHECKED = 1000  # steps between two looks at the loss, each of which waits for the device
SIZES = ("depth", "heads", "head_width", "units", "embed", "hidden")


class Asked(NamedTuple):
    """A batch of open questions and of single options."""

    slots: Float[np.ndarray, "B T K S"]
    words: Int[np.ndarray, "B L"]  # 0: padding
    choice: Bool[np.ndarray, " B"]  # an option of a multiple-choice question
    answer: Int[np.ndarray, " B"]  # the answer's number, or for an option 1 where it is right, else 0
    seen: Bool[np.ndarray, " B"]  # False: the words alone


class Reader(NamedTuple):
    """ALOE and how it is trained.

    module: the transformer. question: words of a question, after which those of an option start. steps, rate: of Adam.
    """

    module: Aloe
    question: int
    steps: int
    rate: float


def reader(
    section: str, given: Mapping[str, Any], *, words: int, answers: int, question: int, steps: int, rate: float
) -> Reader:
    """The Reader of a config's section: keyword arguments of models.aloe.Aloe but the sizes of the vocabularies."""
    check(section, given)
    return Reader(Aloe(**dict(given), words=words, answers=answers), question, steps, rate)


def check(section: str, given: Mapping[str, Any]) -> None:
    """Raises ConfigError for unknown options and for values outside their limits."""
    options.keywords(section, given, Aloe, "words", "answers")
    for name in SIZES:
        options.whole(f"{section}.{name}", given.get(name, 1))
    options.number(f"{section}.dropout", given.get("dropout", 0.0), 0, 1, limit="in [0, 1)")


def learn(reader: Reader, batches: Iterator[Asked], key: Array) -> Params:
    """The parameters after reader.steps batches.

    Raises ConfigError where the loss is not finite, which is looked at every CHECKED steps and at the end.
    """
    own, noise = jax.random.split(key)
    start, step, _ = _compiled(reader)
    state = None
    for number in range(reader.steps):
        batch = next(batches)
        state = start(own, batch) if state is None else state
        state, loss = step(state, batch, jax.random.fold_in(noise, number))
        done = number + 1
        if (done % CHECKED == 0 or done == reader.steps) and not np.isfinite(loss):
            raise ConfigError(f"the training of ALOE: the loss is {float(loss)} after {done} steps: lower the rate")
    assert state is not None  # reader.steps is at least 1
    return state[0]


def answers(reader: Reader, params: Params, batch: Asked) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of the most likely answers int [B], whether each option is right bool [B]), without dropout."""
    chosen, right = _compiled(reader)[2](params, batch)
    return np.asarray(chosen), np.asarray(right)


def loss(reader: Reader, params: Params, batch: Asked, key: Array | None = None) -> Array:
    """The mean cross-entropy over the batch's open questions plus that over its options. With a key: with dropout."""
    rngs = None if key is None else {"dropout": key}
    own = {"params": params}
    given = batch.slots, batch.words, batch.choice, reader.question, batch.seen, key is not None
    logits, right = reader.module.apply(own, *given, rngs=rngs)
    choice, answer = jnp.asarray(batch.choice), jnp.asarray(batch.answer)
    of_open = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(choice, 0, answer))
    of_option = optax.sigmoid_binary_cross_entropy(right, answer.astype(jnp.float32))
    return losses.masked_mean(of_open, ~choice) + losses.masked_mean(of_option, choice)


def schedule(reader: Reader) -> optax.Schedule:
    """The rate by the number of steps done: from 0 up to reader.rate, then down to LAST of it."""
    warm = max(1, round(WARM * reader.steps))
    return optax.warmup_cosine_decay_schedule(0.0, reader.rate, warm, max(reader.steps, warm + 1), LAST * reader.rate)


@functools.lru_cache(maxsize=4)
def _compiled(reader: Reader):
    """(start, step, answers) of a reader, compiled once for all seeds and inputs of one size."""
    optimiser = optax.adam(schedule(reader))

    @jax.jit
    def start(key, batch):
        given = batch.slots, batch.words, batch.choice, reader.question
        params = reader.module.init(key, *given)["params"]
        return params, optimiser.init(params)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch, key):
        params, moments = state
        value, slope = jax.value_and_grad(lambda p: loss(reader, p, batch, key))(params)
        updates, moments = optimiser.update(slope, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    @jax.jit
    def read(params, batch):
        given = batch.slots, batch.words, batch.choice, reader.question, batch.seen
        logits, right = reader.module.apply({"params": params}, *given)
        return logits.argmax(-1), right > 0

    return start, step, read
