"""The mask of a config: the function that its section names, and what each draw must be."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError, described, reporting

BY_POSITION, BY_NAME = ("rng", "object_patches", "object_valid"), ("grid",)  # what a mask is given


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask whose draws are checked. Picklable.

    Attributes:
      draw: the function, with the section's options bound.
      path: "module:function".
      hides: whether a draw must hide something. An objective that ignores masks needs none that does.
    """

    draw: Callable[..., Any]
    path: str
    hides: bool = True

    def __call__(
        self,
        rng: np.random.Generator,
        object_patches: Bool[np.ndarray, "K N"],
        object_valid: Bool[np.ndarray, " K"],
        grid: tuple[int, ...],
    ) -> tuple[Bool[np.ndarray, "..."], ...]:
        """masked [N], removed [K] and, if the mask returns it, dropped [N]. For two masks of a scene, then masked and
        dropped of the second.

        Raises: ConfigError, one line that names mask.type, for a draw of another form, one that leaves nothing visible
          or hides nothing, and for an exception in a function of another package.
        """
        with self._reporting:
            drawn = self.draw(rng, object_patches, object_valid, grid=grid)
        if problem := self._problem(drawn, object_patches, object_valid):
            raise ConfigError(f"mask.type = {self.path!r}: {problem}")
        return tuple(drawn)

    @property
    def anchor(self) -> int:
        """Times (tubelets) at the start that the masks leave visible. 0 for a mask without this option."""
        return int(getattr(self.draw, "keywords", {}).get("anchor", 0))

    @property
    def _reporting(self) -> contextlib.AbstractContextManager[None]:
        if build.is_ours(self.path):
            return contextlib.nullcontext()
        function = self.draw.func if isinstance(self.draw, functools.partial) else self.draw
        return reporting(f"mask.type = {self.path!r}:", inspect.getsourcefile(inspect.unwrap(function)))

    def _problem(self, drawn: Any, object_patches: np.ndarray, object_valid: np.ndarray) -> str:
        """What is wrong with a draw, "" if nothing is. It takes microseconds."""
        objects, tokens = object_patches.shape
        if isinstance(drawn, tuple | list) and len(drawn) == 5:  # two masks of the scene
            second = (drawn[3], drawn[1], drawn[4])
            problems = (self._problem(one, object_patches, object_valid) for one in (drawn[:3], second))
            return next(filter(None, problems), "")
        if not isinstance(drawn, tuple | list) or len(drawn) not in (2, 3):
            return f"returned {described(drawn)}: must return (masked, removed) or (masked, removed, dropped)"
        lengths = {"masked": tokens, "removed": objects, "dropped": tokens}
        for (name, length), array in zip(lengths.items(), drawn, strict=False):
            if not isinstance(array, np.ndarray) or array.dtype != np.bool_ or array.shape != (length,):
                axis = "K" if name == "removed" else "N"
                return f"returned {name} as {described(array)}: must be bool [{axis}], here [{length}]"
        masked, removed, *dropped = drawn
        problem = ""
        if (removed & ~object_valid).any():
            problem = "removed an object that {} does not have: removed must be False where object_valid is"
        elif self.hides and not masked.any():
            problem = "hid no token of {}: at least one must be hidden and one visible"
        elif (masked | dropped[0] if dropped else masked).all():
            problem = "left no token of {} visible: at least one must be hidden and one visible"
        return problem and problem.format(f"a scene with {object_valid.sum()} objects and {tokens} tokens")


def second(drawn: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """The second mask of a draw that has two, as fields of types.Batch. {} for a draw with one."""
    if len(drawn) < 5:
        return {}
    return {"second_context": ~(drawn[3] | drawn[4]), "second_hidden": drawn[3]}


def bind(section: Any, hides: bool = True) -> Mask:
    """The mask of config.mask. Raises ConfigError for an unknown option, and for a function that cannot be called."""
    return Mask(build.bind(section, "mask", BY_POSITION, BY_NAME), str(section["type"]), hides)
