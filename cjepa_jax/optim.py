"""AdamW through optax, but for the learning rate: the step multiplies it in, so a skipped step shifts no schedule."""

import jax
import optax


def matrices(params):
    """True for weight matrices, False for biases, norms and single learned vectors: what weight decay acts on.

    A leaf of a scanned stack (under "blocks") has a leading layer axis, which is not counted. A table of positions is
    no weight: it has no gradient, and without decay it stays as it is.
    """

    def is_matrix(path, leaf):
        names = [getattr(key, "key", None) for key in path]
        return leaf.ndim - ("blocks" in names) >= 2 and names[-1] != "positions"

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def make(optim) -> optax.GradientTransformation:
    """The chain of config.optim: optional clipping, Adam, decoupled decay on matrices. Its output is *not* scaled."""
    return optax.chain(
        optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps),
        optax.add_decayed_weights(optim.weight_decay, mask=matrices),
    )


def peak_rate(optim, batch: int) -> float:
    """The explicit peak, or base x batch / 256 (the linear scaling rule)."""
    return optim.peak or optim.base * batch / 256


def warmup_steps(optim, total: int, steps_per_epoch: float) -> int:
    """The explicit share of all steps, or `warmup_epochs`; never more than `total`."""
    steps = optim.warmup_share * total if optim.warmup_share else optim.warmup_epochs * steps_per_epoch
    return min(round(steps), total)
