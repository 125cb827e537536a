"""Detects collapse: features that are equal for every scene, or all in one direction. It uses metrics already
logged."""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from cjepa_jax.errors import NumericsError

# Healthy runs may lose four fifths of their first spread and seven tenths of their first rank.
LEAST_STD = 0.02  # of the first spread
LEAST_RANK = 0.2  # of the first rank
LEAST_SHARE = 0.05  # of the highest rank possible: a rank above it is never called collapsed
ONE_DIRECTION = 1.5  # a rank below it always is,
FEWEST = 4  # if the batch's highest rank is at least this (for smaller ones a low rank is normal)
NO_SPREAD = 1e-6  # left by rounding in features that are all equal
ADVICE = "A lower optim.peak or a higher weight of the term against collapse may help"


def collapsed(rankme: float, feature_std: float, first: Mapping[str, float], limit: int) -> str:
    """The sign of collapse in these numbers, in words, "" if there is none.

    Args:
      rankme: effective rank of the pooled features, 1 .. limit.
      feature_std: their standard deviation over scenes, mean over components.
      first: the same two, by name, of the run's first log line.
      limit: the highest rank that a batch can have, min(B - 1, D).
    """
    least = max(LEAST_STD * first["feature_std"], NO_SPREAD)
    if feature_std < least:
        return f"feature_std {feature_std:.3g} < {least:.3g} (at first {first['feature_std']:.3g}): all scenes alike"
    least = max(ONE_DIRECTION, min(LEAST_SHARE * limit, LEAST_RANK * first["rankme"]))
    if rankme < least and limit >= FEWEST:
        return (
            f"rankme {rankme:.3g} < {least:.3g} (at first {first['rankme']:.3g}, at most {limit}): few directions left"
        )
    return ""


class Alarms:
    """Watches a run's log lines; warns once per collapse, again only after the features had recovered.

        alarms = Alarms(config.train.collapse, limit=31, logged=rows)
        alarms.check(step, metrics)

    Args:
      mode: "warn" or "stop".
      limit: as in `collapsed`.
      grace: no alarm before this step. Some methods collapse at first and recover (LeWorldModel).
      logged: the run's log lines from before a restart; the first one with both numbers is what others are held to.
    """

    def __init__(self, mode: str, limit: int, logged: Iterable[Mapping[str, Any]] = (), grace: int = 0):
        self._mode, self._limit, self._grace = mode, limit, grace
        self._first = next(filter(None, map(_numbers, logged)), {})
        self._ringing = False

    def check(self, step: int, metrics: Mapping[str, Any]) -> str:
        """The sign of collapse at this log line, "" if none. What is not finite is the skipped steps' business.

        Raises: NumericsError if there is one and the mode is "stop".
        """
        numbers = _numbers(metrics)
        if not numbers:
            return ""
        self._first = self._first or numbers
        if step < self._grace:
            return ""
        sign = collapsed(**numbers, first=self._first, limit=self._limit)
        if sign and self._mode == "stop":
            raise NumericsError(f"train.collapse = 'stop': step {step}: {sign}. {ADVICE}")
        if sign and not self._ringing:
            logging.warning("collapse at step %d: %s. %s", step, sign, ADVICE)
        self._ringing = bool(sign)
        return sign


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The two numbers, or {} where an objective has no such features or they are not finite."""
    numbers = {name: float(metrics.get(name, math.nan)) for name in ("rankme", "feature_std")}
    return numbers if all(map(math.isfinite, numbers.values())) else {}
