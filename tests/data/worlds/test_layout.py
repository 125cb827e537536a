"""Colours: which combinations of shape and hue are held out."""

import colorsys

import numpy as np

from cjepa_jax.data.worlds.layout import colours


def sectors(rgb: np.ndarray) -> np.ndarray:
    return np.array([int(6 * colorsys.rgb_to_hsv(*(row / 255))[0]) for row in rgb])


def test_held_out_colours_and_the_others_never_meet():
    kind = np.arange(2000) % 4
    held = sectors(colours(np.random.default_rng(1), 2000, kind, True))
    allowed = sectors(colours(np.random.default_rng(1), 2000, kind, False))
    assert ((held + kind) % 6 == 0).all() and ((allowed + kind) % 6 != 0).all()
    for k in range(4):
        assert len(set(allowed[kind == k])) == 5
    assert set(sectors(colours(np.random.default_rng(1), 2000))) == set(range(6))


def test_the_draws_are_the_same_whatever_is_held_out():
    states = set()
    for held in (None, False, True):
        rng = np.random.default_rng(3)
        colours(rng, 5, np.arange(5), held)
        states.add(rng.random())
    assert len(states) == 1
