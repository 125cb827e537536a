"""Which masks tell the predictor what they hide."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import naming

OBJECTS = dict(type="cjepa_jax.masks.objects:draw", max_objects=3, area=(0.3, 0.35), anchor=0)


@pytest.mark.parametrize(
    "mask,names",
    [
        (OBJECTS, True),
        (OBJECTS | {"anchor": 1}, True),
        (OBJECTS | {"area": (0.01, 0.02)}, True),
        (OBJECTS | {"type": "cjepa_jax.masks.displaced:draw"}, False),
        (OBJECTS | {"type": "cjepa_jax.masks.displaced:in_place"}, False),
        (OBJECTS | {"type": "cjepa_jax.masks.random:matched"}, False),
        (dict(type="cjepa_jax.masks.tubes:draw"), False),
        (dict(type="cjepa_jax.masks.multiblock:draw"), False),
    ],
)
def test_whether_a_mask_names_what_it_hides_is_read_from_the_mask_alone(mask, names):
    assert naming.names_objects(ConfigDict(mask), (2, 8, 8)) is names


def silent(rng, object_patches, object_valid, grid, told=None):
    """Removes no object in its first draws, so draws cannot tell."""
    return np.arange(object_patches.shape[1]) == 0, np.zeros(len(object_valid), bool)


@pytest.mark.parametrize("told", [True, False])
def test_what_a_mask_declares_counts_more_than_its_draws(monkeypatch, told):
    mask = ConfigDict(dict(type="tests.masks.test_naming:silent"))
    assert naming.names_objects(mask, (1, 4, 4)) is False
    monkeypatch.setattr(silent, "names_objects", told, raising=False)
    assert naming.names_objects(mask, (1, 4, 4)) is told
    monkeypatch.setattr(silent, "names_objects", "yes")
    with pytest.raises(ConfigError, match="names_objects of the function is 'yes': must be True or False"):
        naming.names_objects(mask, (1, 4, 4))
