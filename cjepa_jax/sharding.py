"""Devices, the mesh, and the sharding of each array.

Three axes: scenes are sharded over "data" and "fsdp", parameters and optimiser state over "fsdp", and the inside of
each layer over "tensor". XLA derives the communication from the shardings (docs/SCALING.md).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cjepa_jax.errors import ConfigError, did_you_mean
from cjepa_jax.types import Batch, batch_of

AXES = ("data", "fsdp", "tensor")
SCENES = ("data", "fsdp")

# (pattern of a path, mesh axes of the leaf's last axes). The first match counts. Leaves without a match are replicated.
# Within a layer "tensor" shards heads and the MLP's hidden units. The columns of a q-k-v kernel hold q, k and v of all
# heads, so no contiguous block of columns belongs to one head. This kernel is sharded by rows and resharded when used.
BUILT_IN = (
    (r"(attention|cross)/(q|kv|qkv)/kernel$", (("tensor", "fsdp"), None)),
    (r"(attention|cross)/out/kernel$", ("tensor", "fsdp")),
    (r"mlp/up/kernel$", ("fsdp", "tensor")),
    (r"mlp/up/bias$", ("tensor",)),
    (r"mlp/down/kernel$", ("tensor", "fsdp")),
    (r"kernel$", ("fsdp", None)),
)


def make_mesh(
    section: Mapping[str, Any], batch: int, microbatches: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """All devices (or those given) along the axes "data", "fsdp" and "tensor".

    Args:
      section: config.sharding. Read are data (0: all remaining devices), fsdp and tensor. {}: all along "data".
      batch: scenes of the global batch.
      microbatches: parts of a step's batch that are accumulated.
    Raises: ConfigError if the axes do not fit the number of devices, or the batch is not divisible.
    """
    devices = list(devices or jax.devices())
    fsdp, tensor = section.get("fsdp", 1), section.get("tensor", 1)
    if len(devices) % (fsdp * tensor):
        product = f"{fsdp} x {tensor} = {fsdp * tensor}"
        raise ConfigError(
            f"sharding.fsdp x sharding.tensor = {product}: must divide the number of devices, {len(devices)}"
        )
    data = section.get("data", 0) or len(devices) // (fsdp * tensor)
    if data * fsdp * tensor != len(devices):
        product = f"{data} x {fsdp} x {tensor} = {data * fsdp * tensor}"
        raise ConfigError(
            f"sharding.data x fsdp x tensor = {product}: must be the number of devices, {len(devices)}"
            " (sharding.data = 0 takes all that are left)"
        )
    parts = data * fsdp * microbatches
    if batch % parts:
        product = f"sharding.data x fsdp x train.accumulate = {data} x {fsdp} x {microbatches}"
        what = "the number of devices" if parts == len(devices) else product
        raise ConfigError(f"train.batch = {batch}: must be a multiple of {what}, {parts}")
    mesh = jax.make_mesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    if any(len({device.process_index for device in group}) > 1 for group in mesh.devices.reshape(-1, tensor)):
        raise ConfigError(f"sharding.tensor = {tensor}: must divide the devices of each process")
    return mesh


def shards(mesh: Mesh) -> int:
    """Number of shards of a batch, over all processes."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def local_shards(mesh: Mesh) -> int:
    """Number of shards of a batch that this process loads."""
    first = mesh.devices.reshape(shards(mesh), -1)[:, 0]
    return sum(device.process_index == jax.process_index() for device in first)


def by_scene(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: its first axis (B, or S of rows) is sharded, and replicated along "tensor"."""
    return NamedSharding(mesh, PartitionSpec(SCENES))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, arrays: dict[str, Any]) -> Batch:
    """Puts a loader's arrays on the devices, sharded along their first axis (B, or S of rows)."""
    arrays = jax.make_array_from_process_local_data(by_scene(mesh), jax.tree.map(np.asarray, arrays))
    return batch_of(arrays)


def abstract_batch(mesh: Mesh, shapes: Batch) -> Batch:
    """What `put_batch` gives, as ShapeDtypeStructs with their sharding."""
    where = by_scene(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)


def state_sharding(mesh: Mesh, abstract_state: Any, rules: Sequence[tuple[str, Sequence]] = ()) -> Any:
    """A tree of NamedShardings for a tree of arrays or ShapeDtypeStructs, by the leaves' paths.

    The paths of optimiser state and target end like those of their parameters, so they are sharded like them. Scalars
    are replicated. A built-in rule does not shard an axis that "fsdp" does not divide.

    Args:
      rules: (regular expression, mesh axes) pairs, tried before the built-in ones. The axes are those of a leaf's
        *last* axes, so the layer axis of a scanned stack is not sharded. None: not sharded.
    Raises: ConfigError, naming the parameter, for a rule that matches nothing or does not divide the matched leaf, and
      for mesh axes that shard no leaf.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path(abstract_state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    for pattern, _ in rules:
        if not any(re.search(pattern, name) for name in names):
            known = (name for name in names if name.startswith("params/"))
            hint = did_you_mean(pattern, known, least=0)  # a part of a path is not like the whole
            raise ConfigError(f"sharding.rules: {pattern!r} matches no parameter{hint}")
    specs = [_spec(mesh, name, leaf.shape, rules) for name, (_, leaf) in zip(names, paths, strict=True)]
    used = {axis for spec in specs for entry in spec for axis in _axes(entry)}
    for axis in ("fsdp", "tensor"):
        if mesh.shape[axis] > 1 and axis not in used:
            raise ConfigError(f"sharding.{axis} = {mesh.shape[axis]}: divides no parameter of this model: must be 1")
    return jax.tree.unflatten(tree, [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs])


def _spec(mesh: Mesh, name: str, shape: tuple[int, ...], rules: Sequence) -> list:
    """The mesh axes of each axis of a leaf."""
    if not shape:
        return []
    for pattern, axes in rules:
        if re.search(pattern, name):
            return _given(mesh, name, shape, pattern, tuple(axes))
    for pattern, axes in BUILT_IN:
        if re.search(pattern, name) and len(axes) <= len(shape):
            return _built_in(mesh, name, shape, axes)
    return []


def _given(mesh: Mesh, name: str, shape: tuple[int, ...], pattern: str, axes: tuple) -> list:
    rule = f"sharding.rules: ({pattern!r}, {axes})"
    named = [axis for axis in axes if axis]
    if len(set(named)) < len(named):
        raise ConfigError(f"{rule}: names an axis twice")
    if len(axes) > len(shape):
        raise ConfigError(f"{rule}: {name} {list(shape)} has only {len(shape)} axes")
    spec = [None] * (len(shape) - len(axes)) + list(axes)
    for size, axis in zip(shape, spec, strict=True):
        if axis and size % mesh.shape[axis]:
            raise ConfigError(
                f"{rule}: {size} of {name} {list(shape)} is not a multiple of {axis} = {mesh.shape[axis]}"
            )
    return spec


def _built_in(mesh: Mesh, name: str, shape: tuple[int, ...], axes: tuple) -> list:
    spec = [None] * (len(shape) - len(axes))
    for size, entry in zip(shape[len(spec) :], axes, strict=True):
        split = [axis for axis in _axes(entry) if mesh.shape[axis] > 1]
        if "tensor" in split and size % mesh.shape["tensor"]:
            raise ConfigError(
                f"sharding.tensor = {mesh.shape['tensor']}: does not divide {size} of {name} {list(shape)}"
            )
        if size % math.prod(mesh.shape[axis] for axis in split):
            split.remove("fsdp")
        spec.append(tuple(split) if len(split) > 1 else split[0] if split else None)
    return spec


def _axes(entry: Any) -> tuple[str, ...]:
    return entry if isinstance(entry, tuple) else (entry,) if entry else ()


def on_mesh(mesh: Mesh, function: Callable) -> Callable:
    """`function`, to be jitted, with the mesh set as context for `pin`, `hold` and `numerics.singular`.

    On one device, returns `function` unchanged.
    """
    if mesh.size == 1:
        return function

    def traced(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def divided(axis: str) -> bool:
    """Whether the traced code runs under `on_mesh` of a mesh with several devices along this axis."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1) > 1


def parts() -> int:
    """Shards of a batch where the traced code runs under `on_mesh`, else 1, as in each device's part under jax.pmap."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.manual_axes else mesh.shape.get("data", 1) * mesh.shape.get("fsdp", 1)


def hold(x: jax.Array, *axes: Any) -> jax.Array:
    """`pin` on any mesh of several devices: for operands of a kernel whose partitions have to agree."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or mesh.manual_axes:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def pin(x: jax.Array, *axes: Any) -> jax.Array:
    """Constrains the sharding of x to these mesh axes under `on_mesh`; elsewhere returns x.

    None, and axes that are not given: not sharded. Without the constraint, XLA may shard activations like parameters
    instead of by scene.
    """
    if not (divided("fsdp") or divided("tensor")):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))
