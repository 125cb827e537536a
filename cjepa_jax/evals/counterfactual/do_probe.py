"""The do-probe: a predictor of the training's architecture, fitted with labels on frozen tokens of the context."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cjepa_jax.configuration import seeds

RATE, DECAY, WARM, BATCH = 3e-3, 1e-3, 50, 64  # of AdamW, fixed for every use: peak, weight decay, warm-up steps, pairs
APPLIED = 50  # pairs at a time


class Asked(NamedTuple):
    """The inputs of a predictor for removals: n scenes, one removed object in each."""

    tokens: np.ndarray  # float32 [n, N, D] of the context
    context: np.ndarray  # bool [n, N]
    touched: np.ndarray  # bool [n, N] tokens that the removed object touches


def fit(
    predictor: tuple[Callable, Callable], asked: Asked, change: np.ndarray, grid: tuple, steps: int, seed: int
) -> Callable[[Asked], np.ndarray]:
    """A function that gives the change of the picture, float32 [m, N, P], of other removals.

    Args:
      predictor: base.Model.fresh_predictor(P).
      change: the true change, [n, N, P]. The loss covers the tokens that the removed object does not touch.
      grid: times, rows, cols. steps: of AdamW, with warm-up and cosine decay, on random batches.
    """
    init, apply = predictor
    centre, spread = asked.tokens.mean((0, 1)), asked.tokens.std((0, 1)) + 1e-6
    scale = float(change[~asked.touched].std()) or 1.0
    standard = functools.partial(_standard, centre=centre, spread=spread)
    given = standard(asked)
    rng = seeds.generator(seed, "do-probe")
    key = jax.random.key(int(rng.integers(2**31)))
    params = init(key, *_told(given, slice(0, 2)), grid)
    order = rng.integers(0, len(change), (steps, min(BATCH, len(change))))
    params = _learn(apply, grid, params, given, (change / scale, order))

    def predict(asked: Asked) -> np.ndarray:
        asked = standard(asked)
        parts = [slice(start, start + APPLIED) for start in range(0, len(asked.tokens), APPLIED)]
        return scale * np.concatenate([_predict(apply, grid, params, *_filled(asked, part)) for part in parts])

    return predict


def _standard(asked: Asked, centre: np.ndarray, spread: np.ndarray) -> Asked:
    return asked._replace(tokens=((asked.tokens - centre) / spread).astype(np.float32))


def _told(asked: tuple, rows) -> tuple:
    """Arguments of a predictor: tokens, context, one object's patches, and that it is removed."""
    tokens, context, touched = (values[rows] for values in asked)
    return tokens, context, touched[:, None], np.ones((len(tokens), 1), bool)


def _filled(asked: Asked, part: slice) -> tuple:
    return (len(asked.tokens[part]), _told(asked, np.arange(part.start, part.stop) % len(asked.tokens)))


def _predict(apply: Callable, grid: tuple, params: Any, count: int, told: tuple) -> np.ndarray:
    return np.asarray(_residual(apply, grid, params, told), np.float32)[:count]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _residual(apply, grid, params, told):
    return apply(params, *told, grid)[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _learn(apply, grid, params, asked, how):
    """The parameters after one step of AdamW on each row of `order`, int [steps, b]. how: (changes, order)."""
    change, order = how
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, min(WARM, len(order) // 4), len(order))
    optimiser = optax.adamw(schedule, weight_decay=DECAY)

    def loss(params, rows):
        told = _told(asked, rows)
        rest = ~told[2][:, 0]
        error = jnp.square(apply(params, *told, grid)[1] - change[rows]).mean(-1)
        return (error * rest).sum() / jnp.maximum(rest.sum(), 1)

    def step(carry, rows):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimiser.init(params)), order)[0][0]


def identity(predictor: tuple[Callable, Callable], asked: Asked, grid: tuple) -> bytes:
    """A name for a predictor: its outputs on two removals at one fixed initialisation."""
    init, apply = predictor
    told = _told(asked, slice(0, 2))
    return np.asarray(apply(init(jax.random.key(0), *told, grid), *told, grid)[1], np.float32).tobytes()
