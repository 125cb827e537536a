"""The terms of the objective: elementwise values, masked means, SIGReg. All in float32, gradients finite everywhere.

METHOD (6) to (10).
"""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax.configuration import build, loss_names
from cjepa_jax.errors import ConfigError, reporting
from cjepa_jax.numerics import singular
from cjepa_jax.types import Array

Scalar = Float[Array, ""]
Mean = Float[Array, ""] | Float[Array, " B"]


def masked_mean(values: Float[Array, "*shape"], mask: Bool[Array, "*shape"], axis: Any = None) -> Float[Array, "..."]:
    """Mean of `values` where `mask` (same shape, bool) along `axis`. 0 where the mask is empty."""
    weight = mask.astype(values.dtype)
    return (jnp.where(mask, values, 0)).sum(axis) / jnp.maximum(weight.sum(axis), 1)


def scene_mean(
    values: Float[Array, "B N"],
    mask: Bool[Array, "B N"],
    valid: Bool[Array, " B"] | None = None,
    *,
    per_example: bool = False,
) -> Mean:
    """Mean over a scene's masked tokens, then over scenes: [B, N], [B, N] -> [].

    A scene without masked tokens adds 0 and still counts. A scene with `valid` [B] False does not count.
    per_example: return each scene's mean, [B], and leave the mean over scenes, and so `valid`, to the caller.
    """
    per_scene = masked_mean(values, mask, axis=-1)
    if per_example:
        return per_scene
    return per_scene.mean() if valid is None else masked_mean(per_scene, valid)


def norm(x: Float[Array, "*tokens D"]) -> Float[Array, "*tokens"]:
    """Euclidean norm over the last axis whose gradient at 0 is 0, not NaN."""
    square = jnp.sum(jnp.square(x), axis=-1)
    zero = square == 0  # not "> 0", which would turn a NaN into 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def huber(size: Float[Array, "*shape"], beta: float) -> Float[Array, "*shape"]:
    """size^2 / (2 beta) below beta, size - beta/2 from there on. Elementwise, size >= 0."""
    return jnp.where(size < beta, 0.5 * jnp.square(size) / beta, size - 0.5 * beta)


def smooth_l1(
    prediction: Float[Array, "B N D"],
    target: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    beta: float = 1.0,
    valid: Bool[Array, " B"] | None = None,
    *,
    per_example: bool = False,
) -> Mean:
    """L_pred, METHOD (6) and (7): Huber of the norm over D of each token's error.

    Args:
      prediction, target: [B, N, D]. No gradient flows into the target.
      mask: [B, N] bool, the tokens that were hidden.
      beta: where the quadratic part ends, in units of the norm.
      valid: [B] bool, scenes that count.
      per_example: return the loss of each scene, [B], as training does, which averages over scenes of all slices.
    Returns: float32, a scalar, or [B] with `per_example`.
    """
    error = huber(norm(_error(prediction, target)), beta)
    return scene_mean(error, mask, valid, per_example=per_example)


def smooth_l1_elementwise(
    prediction: Float[Array, "B N D"],
    target: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    beta: float = 1.0,
    valid: Bool[Array, " B"] | None = None,
    *,
    per_example: bool = False,
) -> Mean:
    """Huber of each component, averaged over D: the form of I-JEPA's published code. Arguments as `smooth_l1`."""
    error = huber(jnp.abs(_error(prediction, target)), beta).mean(-1)
    return scene_mean(error, mask, valid, per_example=per_example)


def l1(
    prediction: Float[Array, "B N D"],
    target: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    beta: float = 1.0,
    valid: Bool[Array, " B"] | None = None,
    *,
    per_example: bool = False,
) -> Mean:
    """Absolute error averaged over D, as in V-JEPA. `beta` is not used. Arguments as `smooth_l1`."""
    return scene_mean(l1_tokens(prediction, target), mask, valid, per_example=per_example)


def l1_tokens(prediction: Float[Array, "B N D"], target: Float[Array, "B N D"]) -> Float[Array, "B N"]:
    """Each token's absolute error, averaged over D. No gradient flows into the target."""
    error = _error(prediction, target)
    return (error * jnp.sign(error)).mean(-1)  # unlike abs, of gradient 0 at 0


def mse(
    prediction: Float[Array, "B N D"],
    target: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    beta: float = 1.0,
    valid: Bool[Array, " B"] | None = None,
    *,
    per_example: bool = False,
) -> Mean:
    """Squared error averaged over D, an ablation. `beta` is not used. Arguments as `smooth_l1`."""
    error = jnp.square(_error(prediction, target)).mean(-1)
    return scene_mean(error, mask, valid, per_example=per_example)


def normed_cosine(
    prediction: Float[Array, "B N D"],
    target: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    beta: float = 1.0,
    valid: Bool[Array, " B"] | None = None,
    *,
    per_example: bool = False,
) -> Mean:
    """2 - 2 cos of the prediction and the standardised target, as in Audio-JEPA (arXiv 2507.02915).

    The target loses its mean over D and is divided by its deviation, sqrt(var + 1e-6) with D - 1, which only matters
    where it is about 0. `beta` is not used. Arguments as `smooth_l1`.
    """
    target = jax.lax.stop_gradient(target.astype(jnp.float32))
    target = target - target.mean(-1, keepdims=True)
    target = target / jnp.sqrt(jnp.square(target).sum(-1, keepdims=True) / (target.shape[-1] - 1) + 1e-6)
    return scene_mean(cosine_distance(prediction, target), mask, valid, per_example=per_example)


LOSSES: dict[str, Any] = {name: globals()[function] for name, function in loss_names.LOSSES.items()}
"""The function of each name that `objective.prediction_loss` may be. The names: configuration/loss_names.py."""


def named(name: str) -> Any:
    """The prediction loss of a name of `LOSSES`, or of "module:function", which takes what `smooth_l1` takes.

    A function of another module is checked: it must take the arguments and return [B]. Another result, or an
    exception in it, ends in a ConfigError, one line that names objective.prediction_loss.

    Raises: ConfigError if there is no such module or function, or if it does not take the arguments.
    """
    if name in LOSSES:
        return LOSSES[name]
    key = "objective.prediction_loss"
    function = build.locate(name, key)
    try:
        inspect.signature(function).bind("prediction", "target", "mask", "beta", per_example=True)
    except TypeError as error:
        takes = "(prediction, target, mask, beta, valid=None, *, per_example=False)"
        raise ConfigError(f"{key} = {name!r}: must take {takes}: {error}") from error
    return functools.partial(_checked, function, f"{key} = {name!r}")


def _checked(
    function: Any, where: str, prediction: Float[Array, "B N D"], *arguments: Any, per_example: bool = False
) -> Any:
    """What a user's loss returns. Raises ConfigError, one line, for another shape and for an exception in it."""
    with reporting(f"{where}:", inspect.getsourcefile(function)):
        found = function(prediction, *arguments, per_example=per_example)
    wanted = prediction.shape[:1] if per_example else ()
    if getattr(found, "shape", None) != wanted:
        kind = list(found.shape) if hasattr(found, "shape") else type(found).__name__
        text = f"returned {kind} with per_example={per_example}: must be {list(wanted)}, as losses.scene_mean returns"
        raise ConfigError(f"{where}: {text}")
    return found


def causal_consistency(
    residual: Float[Array, "B N D"],
    full: Float[Array, "B N D"],
    intervened: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    valid: Bool[Array, " B"] | None = None,
    *,
    per_example: bool = False,
) -> Mean:
    """L_causal, METHOD (8): squared l2, summed over D, of residual - sg(full - intervened) at context tokens.

    Args:
      residual: [B, N, D], the predicted change of each context token.
      full, intervened: [B, N, D], the target encoder's tokens of the scene and of the scene under do(remove).
      mask: [B, N] bool, the context tokens that count. In METHOD (8) those outside the removed objects.
      valid: [B] bool, scenes that count.
      per_example: as in `smooth_l1`.
    Returns: float32, a scalar, or [B] with `per_example`.
    """
    change = full.astype(jnp.float32) - intervened.astype(jnp.float32)
    error = jnp.square(_error(residual, change)).sum(-1)
    return scene_mean(error, mask, valid, per_example=per_example)


def _error(prediction: Float[Array, "B N D"], target: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    return prediction.astype(jnp.float32) - jax.lax.stop_gradient(target.astype(jnp.float32))


def spectrum(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> Float[Array, " sigma"]:
    """Singular values of the centred feature matrix as shares that add up to 1: [B, D] -> [min(B, D)].

    All zero for a constant matrix. Rows with `valid` False are left out.
    """
    features = features.astype(jnp.float32)
    rows = jnp.ones(features.shape[0], bool) if valid is None else valid
    mean = masked_mean(features, jnp.broadcast_to(rows[:, None], features.shape), axis=0)
    centred = jnp.where(rows[:, None], features - mean, 0)
    # A function of the values only: a gradient through U and V would be infinite where two singular values are equal.
    # Its gradient multiplies matrices, which accelerators would by default do in less than float32.
    with jax.default_matmul_precision("float32"):
        sigma = singular.values(centred)
    total = sigma.sum()
    return sigma / jnp.where(total == 0, 1.0, total)


def sigreg(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> Scalar:
    """SIGReg: KL(sigma / sum sigma || 1/D) of the centred features' singular values, METHOD (9).

    Args:
      features: [B, D], mean-pooled context features of the *global* batch.
      valid: [B] bool, rows that count.
    Returns: a scalar in [0, log D]. It is log D for a matrix of rank one or 0. With B <= D it cannot fall below
      `sigreg_floor`. It does not see the features' scale, so a shrinking norm must be watched elsewhere.
    """
    share = spectrum(features, valid)
    entropy = -(share * jnp.log(jnp.where(share == 0, 1.0, share))).sum()  # 0 log 0 = 0
    return jnp.log(features.shape[-1]) - entropy


def sigreg_floor(rows: Array, width: int) -> Scalar:
    """The least value that `sigreg` can take for `rows` centred rows of `width`: log(D / min(B - 1, D))."""
    return jnp.log(width / jnp.clip(rows - 1, 1, width))


def rankme(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> Scalar:
    """RankMe: exp of the entropy of the singular values' shares, the effective rank (arXiv 2210.02885). Centred here.

    A monitor: no gradient flows.
    """
    features = jax.lax.stop_gradient(features)
    return jnp.exp(jnp.log(features.shape[-1]) - sigreg(features, valid))


def feature_std(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> Scalar:
    """Mean over D of the standard deviation over scenes: what SIGReg cannot see. A monitor, [B, D] -> []."""
    features = jax.lax.stop_gradient(features.astype(jnp.float32))
    rows = (jnp.ones(features.shape[0], bool) if valid is None else valid)[:, None] & jnp.ones(features.shape, bool)
    mean = masked_mean(features, rows, 0)
    return jnp.sqrt(masked_mean(jnp.square(features - mean), rows, 0)).mean()


def collapse_monitors(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> dict[str, Scalar]:
    """`feature_std` and `rankme` by name, the two metrics in which a collapse shows."""
    return {"feature_std": feature_std(features, valid), "rankme": rankme(features, valid)}


def random_slices(key: Array, width: int, count: int) -> Float[Array, "width count"]:
    """`count` unit vectors, uniform on the sphere, as columns: [width, count]."""
    directions = jax.random.normal(key, (width, count))
    return directions / jnp.linalg.norm(directions, axis=0)


def epps_pulley(
    features: Float[Array, "B D"],
    slices: Float[Array, "D K"],
    valid: Bool[Array, " B"] | None = None,
    knots: int = 17,
    t_max: float = 3.0,
) -> Scalar:
    """Sliced Epps-Pulley statistic against N(0, I), which LeJEPA (arXiv 2511.08544) calls SIGReg. It is not `sigreg`.

    Per slice N times the integral over [-t_max, t_max] of |mean exp(i t x) - phi(t)|^2 phi(t), phi(t) = exp(-t^2 / 2),
    by the trapezoid rule on `knots` points of [0, t_max], doubled since the integrand is even. Mean over slices.

    Args:
      features: [B, D], of the *global* batch.
      slices: [D, K], unit columns.
      valid: [B] bool, rows that count. N is their number.
    Returns: a scalar >= 0, about 1.05 for normal features and 0.40 N for features that are all 0.
    """
    rows = jnp.ones(features.shape[0], bool) if valid is None else valid
    with jax.default_matmul_precision("float32"):
        projected = features.astype(jnp.float32) @ slices  # [B, K]
    t = jnp.linspace(0.0, t_max, knots)
    normal = jnp.exp(-0.5 * jnp.square(t))
    step = t_max / (knots - 1)
    weight = (2.0 * step * normal).at[jnp.array([0, -1])].multiply(0.5)
    angle = projected[..., None] * t  # [B, K, knots]
    mask = jnp.broadcast_to(rows[:, None, None], angle.shape)
    real, imaginary = (masked_mean(part, mask, axis=0) for part in (jnp.cos(angle), jnp.sin(angle)))
    distance = jnp.square(real - normal) + jnp.square(imaginary)
    return rows.sum() * (distance @ weight).mean()


def cosine_distance(prediction: Float[Array, "*rows D"], target: Float[Array, "*rows D"]) -> Float[Array, "*rows"]:
    """2 - 2 cos of each row's angle (BYOL, arXiv 2006.07733, equation 2): the squared distance of the unit vectors.

    It is twice 1 - cos. Rows have any leading axes, such as [B] or [B, N], and are not averaged.
    In [0, 4], float32. Gradient flows into both sides, so a loss stops the target's. It is finite at 0.
    """
    cosine = (unit(prediction) * unit(target)).sum(-1)
    return 2.0 - 2.0 * cosine


def unit(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Rows scaled to length 1, float32. 0 stays 0, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x / jnp.maximum(norm(x), 1e-6)[..., None]


def variance_hinge(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> Scalar:
    """VICReg's variance term (arXiv 2105.04906): mean over D of relu(1 - sqrt(var + 1e-4)), var over B - 1."""
    _, variance = _centred(features, valid)
    return jax.nn.relu(1.0 - jnp.sqrt(variance + 1e-4)).mean()


def decorrelation(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> Scalar:
    """Mean of the squared covariances of two different components, over B - 1. VICReg adds them and divides by D."""
    centred, variance = _centred(features, valid)
    rows = features.shape[0] if valid is None else valid.sum()
    with jax.default_matmul_precision("float32"):
        covariance = centred.T @ centred / jnp.maximum(rows - 1, 1)
    width = features.shape[-1]
    return (jnp.square(covariance).sum() - jnp.square(variance).sum()) / max(width * (width - 1), 1)


def covariance(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None = None) -> Scalar:
    """VICReg's covariance term: the sum of the squared covariances of two different components, divided by D."""
    return decorrelation(features, valid) * (features.shape[-1] - 1)


def vicreg(
    one: Float[Array, "B D"], other: Float[Array, "B D"], valid: Bool[Array, " B"]
) -> tuple[Float[Array, " B"], dict[str, Scalar]]:
    """(squared distance of each scene's two views, mean over D; VICReg's unweighted terms by name).

    The variance term is the mean over the two views, the covariance term their sum, as in its code.
    """
    per_scene = jnp.square(one - other).mean(-1)
    return per_scene, {
        "invariance": masked_mean(per_scene, valid),
        "variance": sum(variance_hinge(view, valid) for view in (one, other)) / 2,
        "covariance": sum(decorrelation(view, valid) for view in (one, other)) * (one.shape[-1] - 1),
    }


def _centred(features: Float[Array, "B D"], valid: Bool[Array, " B"] | None) -> tuple[Array, Array]:
    """Features minus their mean, 0 in rows that do not count, and their unbiased variance [D]."""
    rows = (jnp.ones(features.shape[0], bool) if valid is None else valid)[:, None]
    mask, features = jnp.broadcast_to(rows, features.shape), features.astype(jnp.float32)
    centred = jnp.where(mask, features - masked_mean(features, mask, axis=0), 0)
    return centred, jnp.square(centred).sum(0) / jnp.maximum(rows.sum() - 1, 1)
