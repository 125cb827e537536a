"""Which masks tell the predictor what they hide."""

import pytest
from ml_collections import ConfigDict

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
