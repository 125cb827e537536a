"""The published protocol of planning on Push-T (arXiv 2602.11389): its tasks and settings (docs/SLOTS.md)."""

import dataclasses
from typing import Any, cast

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.worlds.acting.push import TICK, Push, Table
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.control import Tasks
from cjepa_jax.planning.mpc import MPC

SETTINGS = dict(
    episodes=50,
    seeds=3,
    seed=0,
    steps=50,
    planner="cem",
    over="last",
    samples=300,
    elites=30,
    iterations=30,
    horizon=25,  # 5 blocks of 5 actions
    receding=25,
)
FRAMES = 50  # of an episode, at least. Those of training that are shorter are continued under the same policy
MEASURED = 64  # episodes from which the actions' spread is measured


def drawn(world: Push, seed: int, episodes: int, ahead: int) -> Tasks:
    """Pairs of two frames, `ahead` apart, of the world's training episodes, all equally likely and different.

    The world is that of training: its seed and policies give the episodes. As in the published environment, loading a
    start takes one physics step, in which the agent moves by its velocity x 0.01 s.

    Raises ConfigError for more tasks than there are such pairs.
    """
    world = recorded(world)
    rng, rows = seeds.generator(seed, "tasks from recorded episodes"), world.frames - ahead
    if episodes > len(world) * rows:
        text = f"must be at most {len(world) * rows}, the pairs of frames of {len(world)} training episodes"
        raise ConfigError(f"--episodes={episodes}: {text}")
    places = rng.choice(min(len(world), 2**31) * rows, episodes, replace=False)
    pairs = []
    for i, at in zip(*divmod(places, rows), strict=True):
        states, _ = world.trajectory(world.setup(int(i)))
        pairs.append((loaded(states[at]), states[at + ahead]))
    return Tasks(np.arange(episodes), *map(np.stack, zip(*pairs, strict=True)))


def recorded(world: Push) -> Push:
    """The world of training's episodes, of FRAMES frames at least."""
    return dataclasses.replace(world, split="train", frames=max(world.frames, FRAMES))


def loaded(state: np.ndarray) -> np.ndarray:
    """The state [7] in which the published environment is after this one has been set."""
    table = Table(state)
    table.space.step(TICK)
    return np.array([*table.agent.position, *table.block.position, table.block.angle % (2 * np.pi), *state[5:]])


def require(world: Any, chosen: bool = True) -> None:
    """Raises ConfigError if the protocol is chosen for another world than Push."""
    if chosen and not isinstance(world, Push):
        raise ConfigError(f"--protocol=published: is for Push, not {type(world).__name__}")


def scaled(mpc: MPC, world: Any) -> MPC:
    """`mpc`, whose first candidates' actions have the standard deviation of the recorded ones, per axis of each frame.

    `mpc` has its deviation in units of the recorded ones. The published search has 1. Raises ConfigError for another
    world than Push.
    """
    require(world)
    world = recorded(world)
    actions = np.concatenate([world.trajectory(world.setup(i))[1] for i in range(min(MEASURED, len(world)))])
    planner = cast(Any, mpc.planner)
    spread = tuple(float(planner.std * value) for value in actions.std(0, ddof=1))
    return dataclasses.replace(mpc, planner=dataclasses.replace(planner, std=mpc.block * spread))
