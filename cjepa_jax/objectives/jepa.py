"""Predict the hidden: Causal-JEPA and, by masks and weights, other joint-embedding predictors."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.objectives.explained import explained, moments
from cjepa_jax.schedules import ema_momentum
from cjepa_jax.types import Array, Batch, Params

SLICES = 256  # directions of the Epps-Pulley statistic, drawn again each step


@dataclasses.dataclass(frozen=True)
class Jepa(PerExample):
    """L = L_pred + lambda L_causal + mu L_SIGReg, METHOD (10). The fields are `objective` in configs/vitl.py.

    `encoder` and `predictor` are keyword arguments of models.encoder.Encoder and models.predictor.Predictor. `steps`
    is the length of the run, which the EMA momentum needs. `dtype` is the compute type. `sigreg_kind` is "kl", METHOD
    (9), or "epps_pulley" (LeJEPA's, of the same features). `causal_tokens` are the visible tokens over which the causal
    term is averaged: those outside the removed objects ("remaining", METHOD (8)), or all ("context"). They differ where
    removed objects stay visible at first (mask.anchor).

    Scenes with two masks (masks.tubes, `both`) are predicted with each, and L_pred is the mean of both. The other terms
    and the monitors are those of the first mask.
    """

    encoder: Mapping
    predictor: Mapping
    steps: int
    dtype: str = "float32"
    prediction_loss: str = "smooth_l1"
    beta: float = 1.0
    target_norm: str = "none"
    causal_weight: float = 0.5
    causal_tokens: str = "remaining"
    sigreg_weight: float = 0.01
    sigreg_kind: str = "kl"
    encoder_input: str = "context"
    ema: tuple[float, float] = (0.996, 1.0)
    ema_kind: str = "cosine"

    exports: ClassVar[tuple[str, ...]] = ("encoder", "predictor")
    predicts = True
    second_mask = True
    kinds: ClassVar[tuple[str, ...]] = ("video", "episodes", "spectrogram")
    method = (
        "Causal-JEPA: an encoder sees the tokens of the objects that stay, an EMA copy of it the whole scene. "
        "A narrow predictor infers the latents of the removed objects and the change of the rest"
    )

    def __post_init__(self):
        if self.sigreg_kind not in ("kl", "epps_pulley"):
            raise ConfigError(f"objective.sigreg_kind = {self.sigreg_kind!r}: must be kl or epps_pulley")
        if self.causal_tokens not in ("remaining", "context"):
            raise ConfigError(f"objective.causal_tokens = {self.causal_tokens!r}: must be remaining or context")
        _ = self._prediction_loss  # refused here if there is no such loss

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(**build.plain(self.encoder), dtype=jnp.dtype(self.dtype))

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return Predictor(**self.predictor, out=self._encoder.width, dtype=jnp.dtype(self.dtype))

    @functools.cached_property
    def _prediction_loss(self) -> Callable:
        return losses.named(self.prediction_loss)

    @property
    def patch(self) -> int:
        return self._encoder.patch

    @property
    def tubelet(self) -> int:
        return self._encoder.tubelet

    @property
    def max_removed(self) -> int:
        return self._predictor.max_objects

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder and predictor. The target starts as a copy of the encoder."""
        encoder_key, predictor_key = jax.random.split(key)
        tokens, fresh = self._encoder.init_with_output(encoder_key, batch.observation)
        hidden = (tokens, batch.context, batch.object_patches, batch.removed, self._grid(batch.observation))
        params = {"encoder": fresh["params"], "predictor": self._predictor.init(predictor_key, *hidden)["params"]}
        return params, jax.tree.map(jnp.copy, fresh["params"]), {}

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """METHOD, Algorithm 1, lines 6 to 9, up to the reductions over scenes. See objectives.base.PerExample."""
        full, intervened = self.targets(target, batch)
        context = self.encode_context(params, batch)
        prediction, residual = self.predict(params, context, batch)
        hidden, valid = ~batch.context if batch.hidden is None else batch.hidden, batch.valid

        wanted = layer_norm(full) if self.target_norm == "layer_norm" else full
        errors = [self._prediction_loss(prediction, wanted, hidden, self.beta, per_example=True)]
        if other := second_of(batch):
            again, _ = self.predict(params, self.encode_context(params, other), other)
            errors.append(self._prediction_loss(again, wanted, other.hidden, self.beta, per_example=True))
        terms = {
            "prediction": errors[0] if len(errors) == 1 else sum(errors) / len(errors),
            "pooled": losses.masked_mean(context.astype(jnp.float32), _wide(batch.context, context), axis=1),  # [B, D]
        }
        stats = {
            "valid": valid,
            "context": batch.context.mean(-1),
            "fallback": ~batch.removed.any(-1),
            "per_scene": losses.masked_mean(losses.norm(prediction - wanted), hidden, axis=-1),
            "explained": {"prediction": moments(prediction, wanted, hidden, valid)},
        }
        if intervened is not None:
            counts = valid if batch.intervened_valid is None else valid & batch.intervened_valid
            # Where no removed object is: elsewhere (a clip's anchor) its own absence is most of the change.
            rest = batch.context & ~(batch.object_patches & batch.removed[..., None]).any(1)
            counted = rest if self.causal_tokens == "remaining" else batch.context
            terms["causal"] = losses.causal_consistency(residual, full, intervened, counted, per_example=True)
            stats["causal"] = counts
            stats["explained"]["causal"] = moments(residual, full - intervened, rest, counts)
        return terms | self.further(params, prediction, wanted, hidden, batch), stats

    def further(self, params: Params, prediction: Array, wanted: Array, hidden: Array, batch: Batch) -> dict:
        """Per-example terms that a subclass adds, from the tokens [B, N, D] that are computed already."""
        return {}

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """METHOD (7) to (10): each scene that counts weighs the same, and SIGReg is one term of all scenes."""
        pooled, valid = terms["pooled"], stats["valid"]
        values = {"prediction": losses.masked_mean(terms["prediction"], valid)}
        values["sigreg"], floor, kl = self._sigreg(pooled, valid, key)
        total = values["prediction"] + self.sigreg_weight * values["sigreg"]
        if "causal" in terms:
            values["causal"] = losses.masked_mean(terms["causal"], stats["causal"])
            total = total + self.causal_weight * values["causal"]
        metrics = {f"loss/{name}": value for name, value in values.items()}
        metrics |= {f"explained/{name}": explained(moments) for name, moments in stats["explained"].items()}
        metrics |= {
            "loss": total,
            "loss/sigreg_floor": floor,
            "feature_std": losses.feature_std(pooled, valid),
            # RankMe, from the spectrum that the KL has decomposed already.
            "rankme": jnp.exp(jnp.log(pooled.shape[-1]) - jax.lax.stop_gradient(kl)),
            "context_fraction": losses.masked_mean(stats["context"], valid),
            "fallback_scenes": (valid & stats["fallback"]).sum(),
            "ema_momentum": ema_momentum(step, self.steps, *self.ema, self.ema_kind),
            "per_scene": stats["per_scene"],
        }
        return total, (metrics, extra)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """theta_bar <- tau theta_bar + (1 - tau) theta, in float32: METHOD (11)."""
        tau = ema_momentum(step, self.steps, *self.ema, self.ema_kind)
        # As a small step towards theta: near tau = 1 this keeps what tau * old + (1 - tau) * new rounds away.
        return jax.tree.map(lambda old, new: old + (1.0 - tau) * (new - old), target, params["encoder"])

    def encode(self, params: Params, video: Array) -> Array:
        """Tokens of whole scenes, [B, T, H, W, C] -> [B, N, D], by the encoder in `params` or by the target's."""
        return self._encoder.apply({"params": params.get("encoder", params)}, video)

    def encode_context(self, params: Params, batch: Batch) -> Array:
        """Tokens of what stays visible, encoded on their own: [B, N, D], 0 elsewhere."""
        chosen = {"keep": batch.context} if self.encoder_input == "zeroed" else {"rows": batch.rows}
        return self._encoder.apply({"params": params["encoder"]}, batch.observation, **chosen)

    def predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        """METHOD (5): predicted tokens and predicted change, float32 [B, N, D] each, from encoded context tokens."""
        return self._predictor.apply(
            {"params": params["predictor"]},
            context,
            context=batch.context,
            object_patches=batch.object_patches,
            removed=batch.removed,
            grid=self._grid(batch.observation),
            hidden=batch.hidden,
            image=batch.video.shape[1] == 1,
        )

    def targets(self, target: Params, batch: Batch) -> tuple[Array, Array | None]:
        """METHOD (3): s_full and s_int, float32 [B, N, D], without gradient. s_int is None without a causal term."""
        target = jax.lax.stop_gradient(target)
        full = self.encode(target, batch.observation).astype(jnp.float32)
        if not self.causal_weight:
            return full, None
        if batch.intervened is not None:
            intervened = self.encode(target, batch.intervened)
        else:  # drop_tokens: the scene without the objects is the scene's other tokens
            intervened = self._encoder.apply({"params": target}, batch.observation, rows=batch.rows)
        return full, intervened.astype(jnp.float32)

    def _sigreg(self, pooled: Array, valid: Array, key: Array) -> tuple[Array, Array, Array]:
        """The term of pooled context features [B, D], the least that it can be, and the KL that is the default."""
        kl = losses.sigreg(pooled, valid)
        if self.sigreg_kind == "kl":
            return kl, losses.sigreg_floor(valid.sum(), pooled.shape[-1]), kl
        slices = losses.random_slices(key, pooled.shape[-1], SLICES)
        return losses.epps_pulley(pooled, slices, valid), jnp.zeros(()), kl

    def _grid(self, scene: Array) -> tuple[int, int, int]:
        return self._encoder.grid(scene)


def second_of(batch: Batch) -> Batch | None:
    """The same scenes under their second mask, which removes no objects. None if they have one mask."""
    if batch.second_context is None:
        return None
    fields = {"context": batch.second_context, "hidden": batch.second_hidden, "rows": batch.second_rows}
    none = dict.fromkeys(("second_context", "second_hidden", "second_rows"))
    return dataclasses.replace(batch, **fields, **none, removed=jnp.zeros_like(batch.removed))


def _wide(mask: Array, like: Array) -> Array:
    return jnp.broadcast_to(mask[..., None], like.shape)


def layer_norm(x: Array) -> Array:
    """Zero mean and unit variance over D, without learned scale."""
    return jax.nn.standardize(x, axis=-1, epsilon=1e-6)
