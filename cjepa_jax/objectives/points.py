"""Point-JEPA (arXiv 2404.16432): hidden groups of a point cloud are predicted from visible ones."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.points import PointEncoder, PointPredictor
from cjepa_jax.objectives.jepa import explained, moments
from cjepa_jax.schedules import ema_momentum
from cjepa_jax.types import Array, Batch, Params

WIDEST = 8192  # layers of the PointNet
ENCODER, PREDICTOR = (f"cjepa_jax.models.points:{name}" for name in ("PointEncoder", "PointPredictor"))


@dataclasses.dataclass(frozen=True)
class PointJepa:
    """Smooth l1 of the hidden groups' tokens, at the layer-normed last block of an EMA of the encoder's blocks.

    As published, only the blocks have an EMA: both see the tokens and the codes of the trained PointNet, and the target
    is the last block's output before the encoder's own norm. `encoder` and `predictor` are keyword arguments of
    models.points.PointEncoder and PointPredictor. `extra` holds the running statistics of the PointNet's batch norms.
    Training normalises by the global batch, so a batch is not taken in slices. prediction_loss, beta, ema and ema_kind
    are those of objectives.jepa.Jepa.
    """

    encoder: Mapping
    predictor: Mapping
    steps: int
    dtype: str = "float32"
    prediction_loss: str = "elementwise"
    beta: float = 2.0
    ema: tuple[float, float] = (0.9995, 0.99999)
    ema_kind: str = "linear"

    max_removed = 0  # clouds have no objects
    kinds = ("points",)
    averaged = "trunk"
    method = "Point-JEPA: hidden groups of a point cloud are predicted from visible ones"

    def __post_init__(self):
        _ = self._prediction_loss  # refused here if there is no such loss
        hidden = self.encoder.get("hidden", PointEncoder.hidden)
        if len(hidden) != 3 or not all(isinstance(n, int) and 1 <= n <= WIDEST for n in hidden):
            raise ConfigError(f"objective.encoder.hidden = {hidden!r}: must be 3 numbers within 1 and {WIDEST}")

    @functools.cached_property
    def _encoder(self) -> PointEncoder:
        return build.build({"type": ENCODER, **self.encoder}, "objective.encoder", dtype=jnp.dtype(self.dtype))

    @functools.cached_property
    def _predictor(self) -> PointPredictor:
        given = dict(out=self._encoder.width, dtype=jnp.dtype(self.dtype))
        return build.build({"type": PREDICTOR, **self.predictor}, "objective.predictor", **given)

    @functools.cached_property
    def _prediction_loss(self) -> Callable:
        return losses.named(self.prediction_loss)

    @property
    def patch(self) -> int:
        return self._encoder.patch

    @property
    def tubelet(self) -> int:
        return self._encoder.tubelet

    def setting(self, key: str) -> Any:
        """The value of config.objective's key with dots, or its default: "prediction_loss", "predictor.depth"."""
        part, _, name = key.rpartition(".")
        return getattr({"": self, "encoder": self._encoder, "predictor": self._predictor}[part], name)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder and predictor. The target starts as a copy of the encoder's blocks."""
        encoder_key, predictor_key = jax.random.split(key)
        tokens, fresh = self._encoder.init_with_output(encoder_key, batch.video)
        hidden = (tokens, batch.video[:, 0, :, 0], batch.context, ~batch.context)
        predictor = self._predictor.init(predictor_key, *hidden)["params"]
        params = {"encoder": fresh["params"], "predictor": predictor}
        return params, jax.tree.map(jnp.copy, fresh["params"]["trunk"]), {"batch_stats": fresh["batch_stats"]}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See objectives.base.Objective. Each scene that counts weighs the same."""
        hidden, valid = ~batch.context if batch.hidden is None else batch.hidden, batch.valid
        variables = {"params": params["encoder"], **extra}
        (tokens, places), changed = self._encoder.apply(
            variables, batch.video, valid, True, method="tokens", mutable=["batch_stats"]
        )
        context, _ = self._encoder.apply(variables, tokens, places, batch.context, method="attend")
        wanted = self.targets(params, target, (tokens, places))
        prediction = self._predictor.apply(
            {"params": params["predictor"]}, context, batch.video[:, 0, :, 0], batch.context, hidden
        )
        counted = jnp.broadcast_to(batch.context[..., None], context.shape)
        pooled = losses.masked_mean(context.astype(jnp.float32), counted, axis=1)
        each = self._prediction_loss(prediction, wanted, hidden, self.beta, per_example=True)
        total = losses.masked_mean(each, valid)
        metrics = losses.collapse_monitors(pooled, valid) | {
            "loss": total,
            "loss/prediction": total,
            "explained/prediction": explained(moments(prediction, wanted, hidden, valid)),
            "context_fraction": losses.masked_mean(batch.context.mean(-1), valid),
            "ema_momentum": ema_momentum(step, self.steps, *self.ema, self.ema_kind),
            "per_scene": losses.masked_mean(losses.norm(prediction - wanted), hidden, axis=-1),
        }
        return total, (metrics, {"batch_stats": changed["batch_stats"]})

    def targets(self, params: Params, target: Params, tokens: tuple[Array, Array]) -> Array:
        """What is predicted, [B, G, D], from the tokens and codes of all groups. Without gradient."""
        parameters, tokens = jax.lax.stop_gradient(({**params["encoder"], "trunk": target}, tokens))
        _, last = self._encoder.apply({"params": parameters}, *tokens, method="attend")
        return jax.nn.standardize(last.astype(jnp.float32), axis=-1, epsilon=1e-5)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """The EMA of the encoder's blocks, in float32."""
        tau = ema_momentum(step, self.steps, *self.ema, self.ema_kind)
        # As a small step towards theta: near tau = 1 this keeps what tau * old + (1 - tau) * new rounds away.
        return jax.tree.map(lambda old, new: old + (1.0 - tau) * (new - old), target, params["encoder"]["trunk"])

    def encode(self, params: Params, video: Array) -> Array:
        """Tokens of whole clouds, [B, 1, G, 1 + k, 3] -> [B, G, D], with running statistics."""
        return self._encoder.apply({"params": params["encoder"], "batch_stats": params["batch_stats"]}, video)
