"""Whether masks tell the predictor which objects they hide."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cjepa_jax.configuration import build, seeds
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import check

MOST = 2**26  # objects times tokens
DRAWS = 16  # masks drawn for this check


def names_objects(mask: Any, grid: tuple[int, int, int]) -> bool:
    """Whether the masks of a config's section say which objects they hide: see `tells_objects`."""
    return tells_objects(build.bind(mask, "mask", check.BY_POSITION, check.BY_NAME), grid)


def tells_objects(draw: Callable[..., Any], grid: tuple[int, int, int]) -> bool:
    """Whether a function that draws masks says which objects it hides: its attribute `names_objects`, if it has one.

    Otherwise the function is called, so that a mask is one plain function without a declaration. The check draws masks
    for artificial objects of many sizes. So at least one object can be hidden for all area limits and anchors. The
    draws themselves are not checked: one of the objects is the whole scene.

    Raises: ConfigError for an attribute that is not True or False.
    """
    function = draw
    while isinstance(function, functools.partial):
        function = function.func
    told = getattr(function, "names_objects", None)
    if told is not None:
        if not isinstance(told, bool):
            raise ConfigError(f"mask.type: names_objects of the function is {told!r}: must be True or False")
        return told
    count = math.prod(grid)
    objects = min(count, max(1, MOST // count))
    sizes = np.linspace(1, count, objects).astype(int)  # 1, 2, 3, ... if they are few enough
    patches = np.arange(count) >= count - sizes[:, None]
    rngs = (seeds.generator(0, "masks that may name objects", i) for i in range(DRAWS))
    drawn = (draw(rng, patches, np.ones(objects, bool), grid=grid) for rng in rngs)
    return any(removed.any() for _, removed, *_ in drawn)
