"""Supervised learning of the source's labels: what a backbone gains from being told."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.layers import Dense
from cjepa_jax.models.resnet import ResNet
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Supervised(PerExample):
    """A linear head on the mean of a backbone's tokens.

    With `classes` = 0 it regresses the scene's label vector, each label standardised by its mean and variance over all
    scenes seen so far. Otherwise the first label is one of `classes`, for softmax cross-entropy. `backbone` names
    models.resnet.ResNet or models.encoder.Encoder and holds its keyword arguments. `steps` is not used. `dtype` is the
    compute type.

    `extra` holds "batch_stats" (running statistics of the backbone's batch norms) and "labels" (count, mean and squared
    deviations of the labels). `encode` reads "batch_stats" beside the trained parameters.
    """

    backbone: Mapping
    steps: int
    classes: int = 0
    dtype: str = "float32"

    max_removed = 0  # nothing is removed, so any number may be

    def __post_init__(self):
        if self.classes < 0 or self.classes == 1:
            raise ConfigError(f"objective.classes = {self.classes}: must be 0 (regression) or at least 2")

    @functools.cached_property
    def _backbone(self):
        return build.build(self.backbone, "objective.backbone", dtype=jnp.dtype(self.dtype))

    @property
    def patch(self) -> int:
        return self._backbone.patch

    @property
    def tubelet(self) -> int:
        return self._backbone.tubelet

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh backbone and head. There is no target. Raises: ConfigError for scenes without labels."""
        if batch.labels is None:
            raise ConfigError("objective.type = Supervised: needs labels, which the scenes of data.source do not have")
        backbone_key, head_key = jax.random.split(key)
        backbone = self._backbone.init(backbone_key, batch.video)
        count = batch.labels.shape[-1]
        pooled = jnp.zeros((1, jax.eval_shape(self._backbone.apply, backbone, batch.video).shape[-1]))
        head = Dense(self.classes or count).init(head_key, pooled)["params"]
        labels = {"count": jnp.zeros(()), "mean": jnp.zeros(count), "square": jnp.zeros(count)}
        extra = {"batch_stats": backbone.get("batch_stats", {}), "labels": labels}
        return {"backbone": backbone["params"], "head": head}, {}, extra

    @property
    def indivisible(self) -> str:
        """See objectives.base.PerExample."""
        return "the batch norms of objective.backbone need" if isinstance(self._backbone, ResNet) else ""

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample. The next running statistics are of the batch."""
        variables = {"params": params["backbone"], "batch_stats": extra["batch_stats"]}
        training = {"valid": batch.valid, "train": True} if isinstance(self._backbone, ResNet) else {}
        tokens, changed = self._backbone.apply(variables, batch.video, mutable=["batch_stats"], **training)
        pooled = tokens.astype(jnp.float32).mean(1)
        out = Dense(params["head"]["bias"].shape[0]).apply({"params": params["head"]}, pooled)
        stats = {"pooled": pooled, "labels": batch.labels, "valid": batch.valid}
        return {"out": out}, stats | {"batch_stats": changed.get("batch_stats", {})}

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """The mean error of the labels, standardised by all that have been seen."""
        out, wanted, valid, labels = terms["out"], stats["labels"], stats["valid"], extra["labels"]
        if self.classes:
            per_scene = optax.softmax_cross_entropy_with_integer_labels(out, wanted[:, 0].astype(jnp.int32))
        else:
            labels = joined(labels, wanted, valid)
            deviation = jnp.sqrt(labels["square"] / jnp.maximum(labels["count"], 1.0))
            wanted = (wanted - labels["mean"]) / jnp.maximum(deviation, 1e-6)
            per_scene = jnp.square(out - wanted).mean(-1)
        total = losses.masked_mean(per_scene, valid)
        metrics = {
            "loss": total,
            "loss/labels": total,
            **losses.collapse_monitors(stats["pooled"], valid),
            "per_scene": per_scene,
        }
        return total, (metrics, {"batch_stats": stats["batch_stats"], "labels": labels})

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none: {}."""
        return target

    def encode(self, params: Params, video: Array) -> Array:
        """Tokens of whole scenes, [B, T, H, W, C] -> [B, N, D], batch norms by their running statistics."""
        variables = {"params": params["backbone"], "batch_stats": params["batch_stats"]}
        return self._backbone.apply(variables, video)


def joined(seen: Params, labels: Array, valid: Array) -> Params:
    """`seen` (count [], mean [P], square [P]: summed squared deviations) after more labels [B, P], the valid [B] ones.

    Exact for any split into batches, without the cancellation of a difference of sums (Chan et al., 1979).
    """
    rows = jnp.broadcast_to(valid[:, None], labels.shape)
    more, mean = valid.sum().astype(jnp.float32), losses.masked_mean(labels, rows, axis=0)
    square = jnp.where(rows, jnp.square(labels - mean), 0.0).sum(0)
    count, shift = seen["count"] + more, mean - seen["mean"]
    share = more / jnp.maximum(count, 1.0)
    return {
        "count": count,
        "mean": seen["mean"] + share * shift,
        "square": seen["square"] + square + jnp.square(shift) * seen["count"] * share,
    }
