"""AdamW through optax, but for the learning rate: the step multiplies it in, so a skipped step shifts no schedule."""

import functools

import jax
import optax

from cjepa_jax.errors import ConfigError

VECTORS = ("positions", "object_embedding")  # leaves whose rows are vectors of their own


def matrices(params):
    """True for weight matrices, False for biases, norms and learned vectors: what weight decay acts on.

    A leaf of a scanned stack (under "blocks") has a leading layer axis, which is not counted. The objects' embeddings
    are vectors like the mask token to which they are added. A table of positions is no weight: it has no gradient, and
    without decay it stays as it is.
    """

    def is_matrix(path, leaf):
        names = [getattr(key, "key", None) for key in path]
        return leaf.ndim - ("blocks" in names) >= 2 and names[-1] not in VECTORS

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def make(optim) -> optax.GradientTransformation:
    """The chain of config.optim: optional clipping, Adam, decoupled decay on matrices. Its output is *not* scaled.

    Parts that optim.freeze names (top-level keys of the parameters) get no update and no decay, count in no clipped
    norm, and have no moments: in a checkpoint the moments of the others are then opt_state/0/inner_state/1/mu/...,
    without freezing opt_state/1/mu/... .

    Raises (by the transformation, once it sees the parameters): ConfigError for a part that there is not.
    """
    chain = optax.chain(
        optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps),
        optax.add_decayed_weights(optim.weight_decay, mask=matrices),
    )
    freeze = tuple(getattr(optim, "freeze", ()))
    if not freeze:
        return chain
    return optax.chain(
        optax.masked(chain, functools.partial(_parts, freeze, False)),
        optax.masked(optax.set_to_zero(), functools.partial(_parts, freeze, True)),
    )


def _parts(freeze: tuple[str, ...], frozen: bool, params):
    """True for every leaf of the parts that are frozen, or of those that are not."""
    for name in freeze:
        if name not in params:
            raise ConfigError(f"optim.freeze = {freeze}: {name!r} is no part of the model: {', '.join(params)}")
    if not set(params) - set(freeze):
        raise ConfigError(f"optim.freeze = {freeze}: nothing is left to train of {', '.join(params)}")
    return {name: jax.tree.map(lambda _, own=name in freeze: own == frozen, part) for name, part in params.items()}


def peak_rate(optim, batch: int) -> float:
    """The explicit peak, or base x batch / 256 (the linear scaling rule)."""
    return optim.peak or optim.base * batch / 256


def warmup_steps(optim, total: int, steps_per_epoch: float) -> int:
    """The explicit share of all steps, or `warmup_epochs`; never more than `total`."""
    steps = optim.warmup_share * total if optim.warmup_share else optim.warmup_epochs * steps_per_epoch
    return min(round(steps), total)
