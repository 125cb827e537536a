"""Devices, the mesh, and where each array lives on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cjepa_jax.errors import ConfigError
from cjepa_jax.types import Batch, Rows


def make_mesh(batch: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices (or those given) along one axis, "data".

    Raises: ConfigError if the global batch does not divide among them.
    """
    count = len(devices or jax.devices())
    if batch % count:
        raise ConfigError(f"train.batch = {batch}: must be a multiple of the number of devices, {count}")
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def local_shards(mesh: Mesh) -> int:
    """Data shards that this process feeds."""
    return mesh.local_mesh.shape["data"]


def put_batch(mesh: Mesh, arrays: dict[str, Any]) -> Batch:
    """A loader's arrays on the devices, split along their first axis (B, or S of rows)."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def put(array: np.ndarray):
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    arrays = jax.tree.map(put, arrays)
    return Batch(**(arrays | {"rows": Rows(**arrays["rows"])}))


def state_sharding(mesh: Mesh) -> NamedSharding:
    """Where the training state lives: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
