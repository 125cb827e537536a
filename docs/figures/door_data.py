"""Prints how much of an agent's training data says that the door matters (docs/PLANNING.md, "The agent").

python docs/figures/door_data.py

Of the transitions behind the first two frames of the episodes of configs/family/jepa2022.py, for several policies: how
many push at the wall between the rooms, how many of these pass because the door is there, and how well that is told
from the dot's place and the action, without the door. That is the accuracy of the 5 nearest other transitions, next to
that of the more frequent answer. Where it is above, the data tell where the door is without a memory.
"""

import numpy as np

from cjepa_jax.data.worlds.acting import Rooms
from cjepa_jax.data.worlds.acting.rooms import EDGE, GAP, WALL, X, Y

EPISODES, NEAREST = 1500, 5
MIXES = {
    "mixed (walk, expert)": {},
    "door": {"policy": "door"},
    "press": {"policy": "press"},
    "mix of the config": {"mix": (("press", 0.6), ("walk", 0.2), ("expert", 0.2))},
}


def main():
    for name, options in MIXES.items():
        world = Rooms(size=8, frames=12, wall=(0.5, 0.5), shown=2, count=EPISODES, **options)
        played = [world.trajectory(world.setup(i)) for i in range(EPISODES)]
        states, actions = (np.stack(part) for part in zip(*played, strict=True))
        now, after = (part.reshape(-1, 4) for part in (states[:, 2:-1], states[:, 3:]))
        moves = actions[:, 2:-1].reshape(-1, 2)
        closed = now.copy()
        closed[:, GAP] = 9.0
        margin = EDGE + world.radius
        outside = np.abs(now[:, X] - now[:, WALL]) >= margin - 1e-6
        stops = world.advance(closed, moves)[:, X]
        free = now[:, X] + world.speed * np.clip(moves[:, 0], -1, 1)
        asked = outside & (np.abs(stops - free) > 1e-6) & ((now[:, X] < now[:, WALL]) == (free > now[:, X]))
        passes = np.abs(after[:, X] - stops) > 1e-6
        seen = np.concatenate([now[asked][:, [X, Y]] / 0.1, np.clip(moves[asked], -1, 1)], 1)
        answer, half = passes[asked], asked.sum() // 2
        near = np.argsort(np.square(seen[half:, None] - seen[None, :half]).sum(-1), axis=1)[:, :NEAREST]
        right = ((answer[:half][near].mean(1) > 0.5) == answer[half:]).mean()
        guess = max(answer[half:].mean(), 1 - answer[half:].mean())
        print(f"{name}: {asked.mean():.3f} of the transitions push at the wall, {answer.mean():.2f} of these pass; "
              f"told without the door {right:.2f}, guessed {guess:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
