"""Poses of a robot's hand as V-JEPA 2-AC (arXiv 2506.09985) counts them: 7 numbers.

Three of place, three Euler angles in radians (turns about the fixed axes x, y, z, in this order), and the gripper, 0 to
1. An action is a difference of two poses. Compared with the outputs of vjepa2 c2963a4 (MIT), notebooks/utils/mpc_utils.
"""

import jax
import jax.numpy as jnp

PLACE, TURN, GRIP = slice(0, 3), slice(3, 6), slice(6, 7)


def matrix(angles: jax.Array) -> jax.Array:
    """Rotation matrices [...,3,3] of Euler angles [...,3]: Rz Ry Rx."""
    (cx, cy, cz), (sx, sy, sz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.cos, jnp.sin))
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def angles(rotation: jax.Array) -> jax.Array:
    """Euler angles [...,3] of rotation matrices [...,3,3]. The second is within -pi/2 and pi/2."""
    y = jnp.arcsin(jnp.clip(-rotation[..., 2, 0], -1, 1))
    x = jnp.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    return jnp.stack([x, y, jnp.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])], -1)


def integrate(pose: jax.Array, action: jax.Array) -> jax.Array:
    """The pose [...,7] after an action [...,7]: the place moves, the action's turn comes after the pose's, and the
    gripper stays within 0 and 1. For rollouts that give the model its next state."""
    with jax.default_matmul_precision("float32"):
        turn = angles(matrix(action[..., TURN]) @ matrix(pose[..., TURN]))
    grip = jnp.clip(pose[..., GRIP] + action[..., GRIP], 0, 1)
    return jnp.concatenate([pose[..., PLACE] + action[..., PLACE], turn, grip], -1)


def difference(first: jax.Array, second: jax.Array) -> jax.Array:
    """The action [...,7] that leads from one pose to another: the inverse of `integrate`."""
    with jax.default_matmul_precision("float32"):
        turn = angles(matrix(second[..., TURN]) @ jnp.swapaxes(matrix(first[..., TURN]), -1, -2))
    return jnp.concatenate([second[..., PLACE] - first[..., PLACE], turn, second[..., GRIP] - first[..., GRIP]], -1)
