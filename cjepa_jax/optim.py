"""AdamW through optax, without the learning rate. The step multiplies by it, so a skipped step shifts no schedule."""

import functools

import jax
import optax

from cjepa_jax.errors import ConfigError

VECTORS = ("positions", "object_embedding")  # leaves whose rows are separate vectors


def matrices(params):
    """The mask of weight decay: True for weight matrices, False for biases, norms and learned vectors.

    A leaf of a scanned stack (under "blocks") has a leading layer axis, which is not counted. The object embeddings
    are vectors, like the mask token to which they are added. A table of positions has no gradient. Without decay it
    stays constant.
    """

    def is_matrix(path, leaf):
        names = [getattr(key, "key", None) for key in path]
        return leaf.ndim - ("blocks" in names) >= 2 and names[-1] not in VECTORS

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def make(optim) -> optax.GradientTransformation:
    """The chain of config.optim: optional clipping, Adam, decoupled decay on matrices. Its output is *not* scaled.

    optim.freeze names parts: top-level keys of the parameters. Frozen parts get no update and no decay, do not count
    in the clipped norm, and have no moments. In a checkpoint the moments of the other parts are then
    opt_state/0/inner_state/1/mu/... . Without freezing they are opt_state/1/mu/... .

    Raises: ConfigError for an unknown part. The transformation raises it when it sees the parameters.
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
    """A tree of bools: True for the leaves of the frozen parts, or of the others if `frozen` is False."""
    for name in freeze:
        if name not in params:
            raise ConfigError(f"optim.freeze = {freeze}: {name!r} is not part of the model: {', '.join(params)}")
    if not set(params) - set(freeze):
        raise ConfigError(f"optim.freeze = {freeze}: nothing is left to train of {', '.join(params)}")
    return {name: jax.tree.map(lambda _, own=name in freeze: own == frozen, part) for name, part in params.items()}


def peak_rate(optim, batch: int) -> float:
    """The explicit peak, or base x batch / 256 (the linear scaling rule)."""
    return optim.peak or optim.base * batch / 256


def warmup_steps(optim, total: int, steps_per_epoch: float) -> int:
    """The explicit share of all steps, or `warmup_epochs` epochs. At most `total`."""
    steps = optim.warmup_share * total if optim.warmup_share else optim.warmup_epochs * steps_per_epoch
    return min(round(steps), total)
