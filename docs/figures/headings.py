"""What gives the class of Headings away, without seeing motion: softmax regressions on true states. docs/WORLDS.md

python docs/figures/headings.py
"""

import numpy as np

from cjepa_jax.data.worlds import Headings
from cjepa_jax.data.worlds.headings import direction_of
from cjepa_jax.evals import subspaces

FIT, TEST, FRAMES = 800, 800, 16


def main():
    world = Headings(split="test", size=8, frames=FRAMES, count=FIT + TEST, objects=(1, 2))
    scenes = [world[i] for i in range(len(world))]
    truth = np.array([scene["class"] for scene in scenes])
    states = np.stack([scene["states"][:, 0] for scene in scenes])  # of the white object
    column = world.state_names.index
    place = states[..., column("position/x") : column("position/y") + 1]
    velocity = states[..., column("velocity/x") : column("velocity/y") + 1]
    mean, start, early = place.mean(1), place[:, 0], place[:, 4]
    for name, given in {
        "its place in the first frame": start,
        "its mean place in the clip": mean,
        "the same, with squares and products": np.concatenate([mean, mean**2, mean[:, :1] * mean[:, 1:]], 1),
        "its places in the first and the fifth frame": np.concatenate([start, early - start], 1),
    }.items():
        read = subspaces.readout(given[:FIT], truth[:FIT], world.classes)
        print(f"{name}: {(read.logits(given[FIT:]).argmax(-1) == truth[FIT:]).mean():.3f}")
    now = np.array([[direction_of(v) for v in clip] for clip in velocity])
    same = (now == truth[:, None]).mean(0)
    print("share of clips in which it still has its direction, by frame:", " ".join(f"{value:.2f}" for value in same))


if __name__ == "__main__":
    main()
