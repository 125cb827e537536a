"""Small classifiers and regressors on frozen features. No hyper-parameter is selected on test rows."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cjepa_jax.evals import ridge

RATE, DECAY = 2e-3, 0.1  # learning rate and weight decay of AdamW (arXiv 1711.05101), fixed for every use
BATCH = 256  # rows per step
LOOKS = 20  # candidates for the number of steps, one of which is selected on the held-out rows
HELD = 5  # the last 1/HELD of the rows is held out while the number of steps is selected


def ridge_classify(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
    """One-against-all ridge regression on targets +1 and -1: [n, D], int [n], [m, D] -> scores float64 [m, classes].

    Classes are 0..max(train_y). Features are standardised by the training rows. Each class has its own regularisation
    strength, selected by leave-one-out.
    """
    targets = np.where(np.arange(train_y.max() + 1) == train_y[:, None], 1.0, -1.0)
    return ridge.predict(train_x, targets, test_x)


def mlp(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    classes: int,
    seed: int,
    hidden: int = 128,
    steps: int = 1000,
    inits: int = 3,
) -> np.ndarray:
    """One hidden layer with GELU: class probabilities float32 [m, classes], the mean over `inits` initialisations.

    train_x [n, D], test_x [m, D], train_y int [n]. classes = 0 gives a regression, with train_y [n, P] and output
    [m, P]. hidden = 0 gives no hidden layer: softmax or linear regression. Features, and the targets of a regression,
    are standardised by the training rows. The number of steps, at most `steps`, is selected on the last fifth of the
    training rows. So the caller keeps the rows of one scene together and does not sort rows by class. The same seed
    gives the same bits.
    """
    train_x, test_x = standardised(train_x, test_x)
    centre, scale = 0.0, 1.0
    if not classes:
        centre, scale = train_y.mean(0), train_y.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        train_y = (train_y - centre) / scale
    widths = (train_x.shape[1], *([hidden] if hidden else []), classes or train_y.shape[1])
    keys = jax.random.split(jax.random.key(seed), inits)
    params = jax.vmap(functools.partial(_dense_layers, widths=widths))(keys)
    params = learn(_dense, params, train_x, y=train_y, seed=seed, steps=steps)
    out = predict(_dense, params, test_x)
    out = np.asarray(jax.nn.softmax(out) if classes else out, np.float32).mean(0)
    return (out * scale + centre).astype(np.float32)


def learn(apply: Callable, params: Any, x: np.ndarray, y: np.ndarray, seed: int, steps: int, batch: int = BATCH) -> Any:
    """Fits several initialisations of one head in parallel, by AdamW on random batches.

    A first run trains on all but the last fifth of the rows. It selects the number of steps after which that fifth has
    the least loss, averaged over the initialisations. A second run trains on all rows for this number of steps.

    Args:
      apply: (params, x [b, ...]) -> [b, outputs]. It must be a module-level function, so that it is compiled once.
      params: a tree of float32 arrays with a first axis over initialisations.
      x: [n, ...].
      y: int [n] for cross-entropy, or float [n, P] for squared error.
      steps: the largest number of steps.
      batch: rows per step.

    Returns: the fitted params.
    Raises: ValueError for fewer than 2 rows, or if x and y differ in length.
    """
    if not 2 <= len(x) == len(y):
        raise ValueError(f"a head needs at least 2 rows, as many of x as of y, not {len(x)} and {len(y)}")
    y = jnp.asarray(y, jnp.int32 if np.ndim(y) == 1 else jnp.float32)
    looks = min(LOOKS, steps)
    held = max(1, len(x) // HELD)
    fixed = apply, held, steps // looks, looks, min(batch, len(x))
    given = params, jnp.asarray(x), y, seed
    run = functools.partial(_run, *fixed, *given)
    losses = np.asarray(run(len(x) - held, looks)[1]).mean(0)
    return run(len(x), int(losses.argmin()) + 1)[0]


def predict(apply: Callable, params: Any, x: np.ndarray, batch: int = 4096) -> np.ndarray:
    """Outputs of every initialisation for x [m, ...], `batch` rows at a time: float32 [inits, m, outputs]."""
    parts = [np.asarray(_each(apply, params, x[i : i + batch]), np.float32) for i in range(0, len(x), batch)]
    return np.concatenate(parts, 1)


def standardised(train_x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float32 with mean 0 and standard deviation 1 over the training rows.

    A feature that is constant in the training rows becomes 0.
    """
    centre, scale = ridge.moments(train_x)
    return tuple(((x - centre) / scale).astype(np.float32) for x in (train_x, test_x))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(apply, held, every, looks, batch, params, x, y, seed, rows, stop):
    """Trains for `stop` x `every` steps on the first `rows` rows.

    Returns: params, and the loss of the last `held` rows after every `every` steps, [inits, looks].
    """
    optimiser = optax.adamw(RATE, weight_decay=DECAY, mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree))

    def loss(params, x, y):
        out = apply(params, x)
        if y.ndim == 1:
            return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()
        return jnp.square(out - y).mean()

    def one(params, key):
        def step(carry, key):
            params, state = carry
            chosen = jax.random.randint(key, (batch,), 0, rows)
            updates, state = optimiser.update(jax.grad(loss)(params, x[chosen], y[chosen]), state, params)
            return (optax.apply_updates(params, updates), state), None

        def look(index, carry):
            carry, losses = carry
            carry, _ = jax.lax.scan(step, carry, jax.random.split(jax.random.fold_in(key, index), every))
            return carry, losses.at[index].set(loss(carry[0], x[-held:], y[-held:]))

        carry = (params, optimiser.init(params)), jnp.full(looks, jnp.inf)
        (params, _), losses = jax.lax.fori_loop(0, stop, look, carry)
        return params, losses

    inits = len(jax.tree.leaves(params)[0])
    return jax.vmap(one)(params, jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), inits))


@functools.partial(jax.jit, static_argnums=0)
def _each(apply, params, x):
    return jax.vmap(apply, (0, None))(params, x)


def _dense_layers(key, widths):
    """Layers [(weights [in, out], bias [out])]. Weights are normal with variance 1 / in. The last layer starts at 0."""
    layers = []
    for index, (rows, columns) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        scale = 0.0 if index == len(widths) - 2 else rows**-0.5
        layers.append((scale * jax.random.normal(jax.random.fold_in(key, index), (rows, columns)), jnp.zeros(columns)))
    return layers


def _dense(params, x):
    for weights, bias in params[:-1]:
        x = jax.nn.gelu(x @ weights + bias)
    return x @ params[-1][0] + params[-1][1]
