"""Digits: what all worlds promise, and motion that the edges fold back."""

import cv2
import numpy as np
import pytest

from cjepa_jax.data.worlds import promises
from cjepa_jax.data.worlds.digits import BITS, Digits, Setup
from cjepa_jax.errors import ConfigError

WORLD = Digits(size=48, frames=40)


def test_digits():
    promises.check(Digits)


def test_all_digits_differ_and_have_the_holes_of_their_shape():
    assert len({bits.tobytes() for bits in BITS}) == 10
    holes = []
    for bits in BITS:
        framed = np.pad(1 - bits, 1, constant_values=1).astype(np.uint8)
        holes.append(cv2.connectedComponents(framed, connectivity=4)[0] - 2)  # without ink and the outside
    assert [holes[digit] for digit in (0, 8, 6, 9, 4)] == [2, 2, 1, 1, 1]  # the 0 is slashed
    assert all(holes[digit] == 0 for digit in (1, 2, 3, 5, 7))


def test_a_digit_moves_straight_and_bounces_with_the_angle_of_a_mirror():
    half = WORLD._half
    for i in range(10):
        states = WORLD[i]["states"].astype(float)
        place, velocity = states[..., 1:3], states[..., 3:5]
        assert (place >= half - 1e-6).all() and (place <= 1 - half + 1e-6).all()
        assert np.allclose(np.abs(velocity), np.abs(velocity[0]), atol=1e-6)  # only signs change
        kept = (velocity[1:] == velocity[:-1]).all(-1)
        np.testing.assert_allclose((place[1:] - place[:-1])[kept], velocity[:-1][kept], atol=1e-5)
        turned = np.sign(velocity[1:]) != np.sign(velocity[:-1])
        near = np.minimum(place[1:] - half, 1 - half - place[1:]) <= np.abs(velocity[1:]) + 1e-6
        assert near[turned].all()
    assert any((WORLD[i]["states"][0, :, 3:5] != WORLD[i]["states"][-1, :, 3:5]).any() for i in range(10))


def test_the_ink_is_the_area_of_the_cells_at_any_place():
    """Anti-aliased by exact areas: the sum of a digit's pixels does not depend on where it is."""
    for digit in (1, 8):
        cells = BITS[digit].sum() * (WORLD.height / 7) ** 2
        for place in ((0.5, 0.5), (0.4137, 0.6271)):
            setup = Setup(np.array([digit]), np.array([place]), np.zeros((1, 2)))
            ink = Digits(size=48, frames=1, digits=1).play(setup)["video"][0, ..., 0] / 255
            assert abs(ink.mean() - cells) < 1e-3


def test_the_first_digit_is_in_front_and_nobody_acts():
    setup = Setup(np.array([1, 8]), np.full((2, 2), 0.5), np.zeros((2, 2)))
    scene = Digits(size=48, frames=1).play(setup)
    assert np.array_equal(scene["masks"][0], scene["amodal"][0]) and not (scene["masks"][0] & scene["masks"][1]).any()
    assert scene["masks"][1].any() and scene["amodal"][1].sum() > scene["masks"][1].sum()
    assert WORLD[0]["actions"].shape == (40, 1) and not WORLD[0]["actions"].any()


@pytest.mark.parametrize(
    "options", [{"digits": 0}, {"digits": 9}, {"height": 0.05}, {"speed": (0.1, 0.5)}, {"hold_out": True}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=f"data.options.{next(iter(options))} is"):
        Digits(**options)
