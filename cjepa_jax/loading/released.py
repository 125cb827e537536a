"""Released weights that are for one objective alone, as that objective and its state (weights.worlds.World).

LeWorldModel and Point-JEPA have encoders that only their objective runs. V-JEPA 2-AC's encoder is V-JEPA 2's, and only
its predictor is for the world model. See loading.model and the API.
"""

from collections.abc import Mapping
from typing import Any

import jax

from cjepa_jax.configuration import build, sizes
from cjepa_jax.types import Params, TrainState
from cjepa_jax.weights.read import Pretrained, frames


def alone(weights: Pretrained) -> bool:
    """Whether the encoder too runs in one objective alone."""
    return bool(weights.world) and bool({"tokenizer", "type"} & weights.encoder.keys())


def fields(weights: Pretrained, dtype: str, part: str = "encoder") -> dict[str, Any]:
    """The fields of loading.model.Network: the objective with these networks, and their parameters, without a target.

    `weights.world` is not None. part: whose parameters encode, "encoder", or its moving average, the "target".
    """
    world: Any = weights.world
    sections: dict[str, Any] = {"encoder": dict(weights.encoder), "predictor": {}}
    for key, value in world.settings.items():
        place, _, name = key.rpartition(".")
        (sections.setdefault(place, {}) if place else sections)[name] = value
    kind = build.locate(world.objective, "objective.type")
    tree = weights.params["encoder"]
    if part == "target":
        averaged = getattr(kind, "averaged", "")
        tree = tree | {averaged: weights.params["target"]} if averaged else weights.params["target"]
    if getattr(kind, "framewise", False):
        taken = frames(weights)
        if taken > 1:
            tree, sections["encoder"]["tubelet"] = still(tree, taken), 1
    objective = kind(steps=1, dtype=dtype, **sections)
    params, extra = jax.device_put(({"encoder": tree, **world.params}, dict(world.extra)))  # once, not at every call
    state = TrainState(step=0, params=params, target={}, extra=extra, opt_state=None, skipped=0)
    return {"objective": objective, "state": state, "names_objects": False}


def still(params: Params, count: int) -> Params:
    """An encoder's parameters for images, with the outputs for clips of one repeated image. count: frames of a token.

    The first layer is summed over its frames.
    """
    projection = params["tokenizer"]["projection"]
    kernel = projection["kernel"].reshape(count, -1, projection["kernel"].shape[-1]).sum(0)
    return params | {"tokenizer": params["tokenizer"] | {"projection": projection | {"kernel": kernel}}}


def sizes_of(weights: Pretrained) -> dict[str, int]:
    """What `advance` of a world model takes: numbers of a `latent`, an `action` and the agent's `proprio` (0: none)."""
    world: Any = weights.world
    predictor: Mapping[str, Any] = world.params["predictor"]
    action = predictor["action"].get("mix", predictor["action"])["kernel"].shape[0]
    latent = predictor["embed"]["kernel"].shape[0] if "embed" in predictor else predictor["positions"].shape[-1]
    return {
        "latent": latent,
        "action": action,
        "proprio": predictor["state"]["kernel"].shape[0] if "state" in predictor else 0,
    }


def side(weights: Pretrained) -> int:
    """The one height and width in pixels whose positions an encoder with a class token has. 0 for others."""
    tokenizer = weights.params["encoder"]["tokenizer"]
    if "class_token" not in tokenizer:
        return 0
    return round((tokenizer["positions"].shape[1] - 1) ** 0.5) * sizes.parse(weights.encoder["variant"]).patch
