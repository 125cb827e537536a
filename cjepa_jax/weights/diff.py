"""All differences between a file's arrays and a model's, in one message."""

import difflib
from collections.abc import Iterable, Mapping

from cjepa_jax.errors import CheckpointError

SHOWN = 20  # of each kind
COMPARED = 2000  # names that are searched for the closest match
LIKENESS = 0.6

Shapes = Mapping[str, tuple[int, ...]]


def compare(found: Shapes, wanted: Shapes, where: str, strict: bool = True) -> None:
    """Raises CheckpointError, one line that begins with `where`, unless `found` has every name of `wanted` with its
    shape.

    Args:
      found, wanted: shapes by name.
      strict: whether names that `wanted` lacks are refused too. They are always listed.
    """
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    other = [name for name in wanted if name in found and tuple(found[name]) != tuple(wanted[name])]
    if not (missing or other or (strict and extra)):
        return
    parts = [
        _listed("missing", (f"{name}{_nearest(name, extra)}" for name in missing), len(missing)),
        _listed(
            "of another shape",
            (f"{name} is {list(found[name])}, must be {list(wanted[name])}" for name in other),
            len(other),
        ),
        _listed("not in the model", (repr(name)[1:-1] for name in extra), len(extra)),
    ]
    raise CheckpointError(f"{where}: is not this model: {'; '.join(filter(None, parts))}")


def _nearest(name: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(name, choices[:COMPARED], n=1, cutoff=LIKENESS)
    return f" (there is {near[0]!r})" if near else ""


def _listed(title: str, texts: Iterable[str], count: int) -> str:
    if not count:
        return ""
    shown = ", ".join(text for text, _ in zip(texts, range(SHOWN), strict=False))
    return f"{count} {title}: {shown}" + (f" and {count - SHOWN} more" if count > SHOWN else "")
