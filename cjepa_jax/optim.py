"""AdamW through optax, without the learning rate. The step multiplies by it, so a skipped step shifts no schedule."""

import functools

import jax
import jax.numpy as jnp
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

    With optim.layer_decay < 1, updates are multiplied by `layer_scales`, after the decay of weights.

    optim.freeze names parts: top-level keys of the parameters. Frozen parts get no update and no decay, do not count
    in the clipped norm, and have no moments. In a checkpoint the moments of the other parts are then
    opt_state/0/inner_state/1/mu/... . Without freezing they are opt_state/1/mu/... .

    Raises: ConfigError for an unknown part. The transformation raises it when it sees the parameters.
    """
    chain = optax.chain(
        optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps),
        optax.add_decayed_weights(optim.weight_decay, mask=matrices),
        *_layerwise(getattr(optim, "layer_decay", 1.0)),
    )
    freeze = tuple(getattr(optim, "freeze", ()))
    if not freeze:
        return chain
    return optax.chain(
        optax.masked(chain, functools.partial(_parts, freeze, False)),
        optax.masked(optax.set_to_zero(), functools.partial(_parts, freeze, True)),
    )


def _layerwise(decay: float) -> list[optax.GradientTransformation]:
    def scaled(updates, _):
        return jax.tree.map(lambda update, scale: update * scale, updates, layer_scales(updates, decay))

    return [optax.stateless(scaled)] if decay < 1 else []


def layer_scales(params, decay: float):
    """Multipliers of the learning rate for fine-tuning, with the structure of `params`: layer-wise rate decay.

    Block i of L blocks of the encoder has decay^(L - i), its tokenizer and embeddings decay^(L + 1), its last norm and
    all other parts of the model 1 (BEiT, arXiv 2106.08254, and the fine-tuning of MAE). The blocks of a scanned stack
    are one leaf [L, ...], whose multiplier is float32 [L, 1, ...].

    Raises: ConfigError for an encoder without blocks, such as a ResNet.
    """
    depth = _depth(params.get("encoder", {}))
    if not depth:
        raise ConfigError(f"layer_decay = {decay}: the encoder has no blocks, so it must be 1.0")

    def scale(path, leaf):
        names = [getattr(key, "key", None) for key in path]
        if names[0] != "encoder" or "stack" in names and "blocks" not in names:
            return 1.0
        if "blocks" in names:
            return (decay ** jnp.arange(len(leaf), 0, -1)).reshape((-1, *(1,) * (leaf.ndim - 1)))
        return decay ** (depth + 1)

    return jax.tree_util.tree_map_with_path(scale, params)


def _depth(encoder) -> int:
    """The number of blocks of an encoder's parameters. 0 if it has none, as a ResNet."""
    flat, _ = jax.tree_util.tree_flatten_with_path(encoder)
    return next((len(leaf) for path, leaf in flat if "blocks" in [getattr(key, "key", None) for key in path]), 0)


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
    return min(round(steps), total - cooldown_steps(optim, total))


def cooldown_steps(optim, total: int) -> int:
    """The number of last steps in which the rate falls linearly: the share optim.cooldown of all. 0: a cosine."""
    return round(getattr(optim, "cooldown", 0.0) * total)
