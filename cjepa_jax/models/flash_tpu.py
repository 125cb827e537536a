"""Flash attention for TPU: JAX's Pallas kernel, padded to its blocks, with a rule for dividing it among devices."""

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas.ops.tpu import flash_attention as pallas
from jax.sharding import NamedSharding, PartitionSpec

from cjepa_jax.models.visibility import BLOCK, visibility
from cjepa_jax.types import Array

UNSEEN_QUERY, UNSEEN_KEY = -1, -2  # ids that match no other


def flash(q: Array, k: Array, v: Array, q_segment: Array | None = None, k_segment: Array | None = None) -> Array:
    """`models.attention.attention` with the arguments of the same names. Lengths are padded to whole blocks.

    The backward pass runs the forward kernel again instead of keeping its logits' sums, because attention is only a few
    percent of a step's work at the lengths of this package.
    """
    if q_segment is None:
        q_segment, k_segment = (jnp.ones((x.shape[0], x.shape[2]), jnp.int32) for x in (q, k))
    seen = visibility(q_segment, k_segment).any(-1)  # [B, T]
    ids = (
        _pad(jnp.where(q_segment == 0, UNSEEN_QUERY, q_segment), 1, UNSEEN_QUERY),
        _pad(jnp.where(k_segment == 0, UNSEEN_KEY, k_segment), 1, UNSEEN_KEY),
    )
    out = _attend(*(_pad(x, 2, 0) for x in (q, k, v)), *ids)[:, :, : q.shape[2]]
    # A row without keys would come out as the mean of the values. Through the choice, no gradient reaches it either.
    return jnp.where(seen[:, None, :, None], out, 0)


def _pad(x, axis: int, value: int) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % BLOCK)
    return jnp.pad(x, widths, constant_values=value)


def _kernel(q, k, v, q_segment, k_segment) -> Array:
    segments = pallas.SegmentIds(q_segment, k_segment)
    return pallas.flash_attention(q, k, v, segment_ids=segments, sm_scale=q.shape[-1] ** -0.5)


def _gradients(q, k, v, q_segment, k_segment, gradient) -> tuple[Array, Array, Array]:
    _, backward = jax.vjp(lambda *qkv: _kernel(*qkv, q_segment, k_segment), q, k, v)
    return backward(gradient)


def _divided(function, rule: str, outputs: int):
    """The function, which XLA may divide by scenes and heads. The partitioner cannot infer this from a kernel."""
    divided = custom_partitioning(function)

    def partition(mesh, arguments, _):
        batch, heads = (*arguments[0].sharding.spec, None, None)[:2]
        whole, ids = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((batch, heads), (batch,)))
        places = tuple(whole if len(argument.shape) == 4 else ids for argument in arguments)
        return mesh, function, whole if outputs == 1 else (whole,) * outputs, places

    divided.def_partition(partition, sharding_rule=rule, need_replication_factors=("t", "d", "u"))
    return divided


_OPERANDS = "b h t d, b h u d, b h u d, b t, b u"
_forward = _divided(_kernel, f"{_OPERANDS} -> b h t d", 1)
_backward = _divided(_gradients, f"{_OPERANDS}, b h t d -> b h t d, b h u d, b h u d", 3)


@jax.custom_vjp
def _attend(q, k, v, q_segment, k_segment) -> Array:
    return _forward(q, k, v, q_segment, k_segment)


def _save(*operands):
    return _forward(*operands), operands


def _differentiate(operands, gradient):
    return *_backward(*operands, gradient), None, None


_attend.defvjp(_save, _differentiate)
