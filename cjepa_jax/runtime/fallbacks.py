"""The share of scenes without a removed object. If it is high, causal training is I-JEPA on random blocks."""

from collections.abc import Iterable, Mapping
from typing import Any

MOST = 0.5  # limit on the share of such scenes between two log lines
LARGEST = 2**31  # of a batch that can be
ADVICE = "Look at masks and annotations with data.show. mask.area and data.max_objects limit which objects are removed"


def expected(config: Mapping[str, Any]) -> bool:
    """Whether a run's config removes no objects by intention: it has another mask, or no causal term."""
    mask, objective = config.get("mask"), config.get("objective")
    if not (isinstance(mask, Mapping) and isinstance(objective, Mapping)):
        return True
    return mask.get("type") != "cjepa_jax.masks.objects:draw" or not objective.get("causal_weight")


def share(row: Mapping[str, Any], before: int, batch: int) -> float:
    """The share of scenes without a removed object in the steps from `before` to the log line `row`."""
    count = row.get("fallback_scenes")
    scenes = batch * (row["step"] - before)
    return min(count, scenes) / scenes if isinstance(count, int | float) and scenes > 0 else 0.0


def worst(rows: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    """The warning for the log lines of a run with this config, or "" if no line has a share above MOST."""
    train = config.get("train")
    batch = train.get("batch") if isinstance(train, Mapping) else None
    if expected(config) or not isinstance(batch, int) or batch > LARGEST:
        return ""
    most, step, before = 0.0, 0, 0
    for row in rows:
        if "fallback_scenes" in row and isinstance(row.get("step"), int):
            found = share(row, before, batch)
            if found > most:
                most, step = found, row["step"]
            before = row["step"]
    return sign(most, step) if most > MOST else ""


def sign(found: float, step: int) -> str:
    """The warning for a share that is too high, one line."""
    return f"at step {step} {found:.0%} of the scenes had no object to remove: random blocks were hidden. {ADVICE}"
