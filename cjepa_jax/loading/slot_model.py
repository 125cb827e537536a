"""A slot predictor that was trained with actions, as a function of evaluations."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cjepa_jax.planning.mpc import of_slots
from cjepa_jax.types import Params


def ahead(objective: Any, params: Params, in_batches: Callable) -> Callable[..., np.ndarray] | None:
    """evals.base.Model.ahead. None for every objective but Slots with the auxiliary token "action".

    in_batches: calls a function on arrays with a common first axis, a batch at a time.
    """
    if "action" not in getattr(objective, "auxiliary", ()):
        return None

    names = ("slots", "actions", *(["proprio"] if "proprio" in objective.auxiliary else []))

    @jax.jit
    def rolled(params, *arrays):
        seen = {"proprio": None} | dict(zip(names, arrays, strict=True))
        model, given = of_slots(objective, params), seen["slots"].shape[1]
        context = model.encode(params, seen | {"actions": seen["actions"][:, : given - 1]})
        future = seen["actions"][:, given - 1 :]
        return jax.vmap(lambda own, actions: model.predict(params, own, actions[None])[0])(context, future)

    def function(slots: np.ndarray, actions: np.ndarray, proprio: np.ndarray | None = None) -> np.ndarray:
        arrays = dict(slots=slots, actions=actions, proprio=proprio)
        predicted = in_batches(functools.partial(rolled, params), *(arrays[name] for name in names))
        return predicted[:, :, : slots.shape[2]]

    return function
