"""Poses against the public code's outputs and SciPy's rotations."""

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from cjepa_jax.planning import pose
from tests.objectives.family import close, stored


def test_poses_are_those_of_the_public_code():
    arrays = stored("vjepa2_ac")[1]
    close(pose.integrate(arrays["pose"], arrays["pose_action"]), arrays["new_pose"])
    close(pose.difference(arrays["pose"][0], arrays["pose"][1]), arrays["pose_diff"])


def test_angles_are_scipys_and_a_difference_leads_to_its_pose():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(-1.5, 1.5, (2, 50, 7)).astype(np.float32)
    first[:, 6], second[:, 6] = rng.uniform(0, 1, (2, 50))
    matrices = Rotation.from_euler("xyz", first[:, 3:6]).as_matrix()
    np.testing.assert_allclose(pose.matrix(first[:, 3:6]), matrices, atol=1e-6)
    np.testing.assert_allclose(pose.angles(matrices), first[:, 3:6], atol=1e-5)
    np.testing.assert_allclose(pose.integrate(first, pose.difference(first, second)), second, atol=1e-5)


def test_a_gripper_stays_within_its_limits_and_all_is_differentiable():
    start = np.zeros(7, np.float32)
    moved = pose.integrate(start, np.full(7, 0.4, np.float32) * [1, 1, 1, 1, 1, 1, 5])
    assert moved[6] == 1 and pose.integrate(start, np.eye(7, dtype=np.float32)[6] * -1)[6] == 0
    gradient = jax.jacobian(pose.integrate, 1)(start, np.full(7, 0.2, np.float32))
    assert np.isfinite(gradient).all() and np.abs(np.linalg.det(gradient)) > 0.1
