"""Prints where an agent's world model predicts the dot when it is pushed at the wall (docs/PLANNING.md, "The agent").

python docs/figures/door_memory.py runs/jepa2022

The dot stands at the wall, as high as the door or away from it, in a frame without a door. It is pushed towards the
other room for four steps. The model knows the door from its memory alone: the memory of this episode, that of another
one whose door is elsewhere, or none (the present frame). The predicted x is read from latents by a linear map.
"""

import dataclasses
import sys

import jax
import numpy as np

from cjepa_jax.data import assemble
from cjepa_jax.data.worlds.acting.rooms import DOOR, EDGE, GAP, WALL, X, Y
from cjepa_jax.evals import agent
from cjepa_jax.loading import eval_config
from cjepa_jax.loading.model import Restored
from cjepa_jax.planning.agent import Modules

EPISODES, STEPS = 400, 4


def main(path):
    config = eval_config.of_checkpoint(path, ())
    restored = Restored.of(config, path, ())
    world = dataclasses.replace(assemble.make_source(config, "train"), split="test", frames=2, count=EPISODES)
    modules = Modules.of(restored.objective, restored.state.params, restored.state.extra)
    seen = agent.experience(world, modules, EPISODES, 20, 0)
    z, x = (part[:, 2:].reshape(-1, part.shape[-1]) for part in (seen.z, seen.states[..., [X]]))
    rows = np.concatenate([z, np.ones((len(z), 1))], 1)
    line = np.linalg.lstsq(rows, x, rcond=None)[0]
    print(f"x is read with an R2 of {1 - np.square(rows @ line - x).sum() / np.square(x - x.mean()).sum():.3f}")
    start = seen.states[:, 0].copy()
    start[:, X], door = start[:, WALL] - EDGE - world.radius, start[:, GAP].copy()
    rolled = jax.jit(jax.vmap(modules.world, (None, 0, 0, 0)))
    for name, height in (("at the door", door), ("away from it", np.where(door > 0.5, door - 0.3, door + 0.3))):
        start[:, Y] = height
        push = np.zeros((EPISODES, 1, STEPS, 2), np.float32)
        push[..., X] = 1
        true = world.open_loop(start, push[:, 0].astype(float))[:, 1:, X]
        now = np.asarray(jax.jit(modules.perceive)(modules.params, world.seen(start, 5)))
        every, far = np.ones(EPISODES, bool), np.abs(door - np.roll(door, 1)) > 2 * DOOR
        memories = {
            "of this episode": (seen.memory[:, 0], every),
            "of another episode": (np.roll(seen.memory[:, 0], 1, 0), far),
            "none": (np.broadcast_to(now[:, None], seen.memory[:, 0].shape), every),
        }
        print(f"{name}: true x {np.round(true.mean(0), 2)}")
        for memory, (kept, chosen) in memories.items():
            latents = np.asarray(rolled(modules.params, kept, now, push))[:, 0]
            said = (np.concatenate([latents, np.ones((*latents.shape[:2], 1))], -1) @ line)[chosen, :, 0]
            print(f"    memory {memory}: {np.round(said.mean(0), 2)}, standard deviation {np.round(said.std(0), 2)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
