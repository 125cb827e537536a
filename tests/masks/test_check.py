"""A mask of the user's that goes wrong ends in one line that names mask.type."""

import pickle

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import check
from tests.scenes import scene_map

HERE = "tests.masks.test_check"
NONE, ALL = np.zeros(16, bool), np.ones(16, bool)
FEW = np.arange(16) < 5


def returns(rng, object_patches, object_valid, grid, what="fine"):
    """What a mask may return and what it may not, of 16 tokens."""
    nothing = np.zeros(len(object_valid), bool)
    return {
        "fine": (FEW, nothing),
        "with dropped": (FEW, nothing, ~FEW & (np.arange(16) > 5)),
        "a list": [FEW, nothing],
        "hides nothing": (NONE, nothing),
        "hides everything": (ALL, nothing),
        "drops the rest": (FEW, nothing, ~FEW),
        "only masked": FEW,
        "four": (FEW, nothing, NONE, NONE),
        "indices": (np.flatnonzero(FEW), nothing),
        "integers": (FEW.astype(int), nothing),
        "lists": (FEW.tolist(), nothing),
        "too long": (np.ones(17, bool), nothing),
        "removed is short": (FEW, nothing[1:]),
        "dropped is integers": (FEW, nothing, NONE.astype(int)),
        "removes padding": (FEW, ~object_valid),
    }[what]


def raises(rng, object_patches, object_valid, grid):
    return object_patches[99], object_valid


def no_grid(rng, object_patches, object_valid):
    return object_patches.any(0), object_valid


def drawn(what, hides=True):
    mask = check.bind({"type": f"{HERE}:returns", "what": what}, hides)
    return scene_map(max_objects=20, mask=pickle.loads(pickle.dumps(mask)))(0, 0)


@pytest.mark.parametrize("what", ["fine", "with dropped", "a list"])
def test_what_a_mask_may_return(what):
    scene = drawn(what)
    np.testing.assert_array_equal(scene["hidden"] if what == "with dropped" else ~scene["context"], FEW)


@pytest.mark.parametrize(
    "what, text",
    [
        ("hides nothing", "hid no token of a scene with "),
        ("hides everything", "left no token of a scene with "),
        ("drops the rest", "left no token of a scene with "),
        ("only masked", "returned bool [16]: must return (masked, removed) or (masked, removed, dropped)"),
        ("four", "returned of type tuple"),
        ("indices", "returned masked as int64 [5]: must be bool [N], here [16]"),
        ("integers", "returned masked as int64 [16]: must be bool [N], here [16]"),
        ("lists", "returned masked as of type list: must be bool"),
        ("too long", "returned masked as bool [17]: must be bool [N], here [16]"),
        ("removed is short", "returned removed as bool [19]: must be bool [K], here [20]"),
        ("dropped is integers", "returned dropped as int64 [16]: must be bool [N]"),
        ("removes padding", "removed must be False where object_valid is"),
    ],
)
def test_what_it_may_not_return_is_refused_in_one_line(what, text):
    with pytest.raises(ConfigError) as error:
        drawn(what)
    assert str(error.value).startswith(f"mask.type = '{HERE}:returns': ") and text in str(error.value)


def test_an_objective_that_ignores_masks_may_have_one_that_hides_nothing():
    assert drawn("hides nothing", hides=False)["context"].all()
    with pytest.raises(ConfigError, match="left no token"):  # an empty context has no row
        drawn("hides everything", hides=False)


def test_what_a_mask_raises_is_one_line_with_its_place():
    with pytest.raises(ConfigError, match=r"raises': raised IndexError: index 99 is .* \(test_check.py, line \d+\)$"):
        scene_map(mask=check.bind({"type": f"{HERE}:raises"}))(0, 0)


def test_a_mask_that_cannot_be_called_is_refused_before_any_scene():
    with pytest.raises(ConfigError, match=r"no_grid': must take \(rng, object_patches, object_valid, grid\): got an"):
        check.bind({"type": f"{HERE}:no_grid"})
    with pytest.raises(ConfigError, match="^mask.own: "):
        check.bind({"type": f"{HERE}:returns", "own": 0.3})
