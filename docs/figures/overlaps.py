"""Prints how far objects are inside each other under interventions (docs/WORLDS.md, "Other interventions").

python docs/figures/overlaps.py
"""

import itertools

import numpy as np
import pymunk

from cjepa_jax.data.worlds import Blocks, Ramps, interventions, physics

LEAST, DEEP = 0.001, 0.02  # view widths


class AnyBlocks(Blocks):
    """Also with what Blocks refuses."""

    dos, attributes = interventions.DOS, tuple(interventions.ATTRIBUTES)


def depth(bodies):
    """How far one of these bodies is inside another, at most."""
    space, nothing = pymunk.Space(), np.zeros(len(bodies.kind), bool)  # shapes live as long as their space
    shapes = physics.add_bodies(space, bodies, physics.Physics(0.0, False, 0.0, 0.0), nothing)
    deepest = 0.0
    for one, other in itertools.combinations(shapes, 2):
        if shapes[one] != shapes[other] and one.cache_bb().intersects(other.cache_bb()):
            try:
                deepest = max(deepest, *(-point.distance for point in one.shapes_collide(other).points), 0.0)
            except AssertionError:  # pymunk's, for shapes that are apart
                continue
    return deepest


def begins(world, scenes):
    """How many interventions on one object begin inside another."""
    found = []
    for i in range(scenes):
        setup = world.setup(i)
        found += [depth(world.done(setup, row).setup.bodies) for row in np.eye(len(setup.colour), dtype=bool)]
    counts = [sum(each > limit for each in found) for limit in (LEAST, DEEP)]
    return f"{len(found)} cases: {counts[0]} begin more than {LEAST} inside another, {counts[1]} more than {DEEP}"


def sinks(world, scenes):
    """How far blocks are inside each other at any frame, with an intervention on the last block."""
    deepest = 0.0
    for i in range(scenes):
        setup = world.setup(i)
        last = np.arange(len(setup.colour)) == len(setup.colour) - 1
        act = world.done(setup, last if world.do == "set" else None)
        motion, _ = physics.simulate(act.setup.bodies, setup.physics, world.frames, world.dt, act.removed, events=False)
        for frame in motion:
            deepest = max(deepest, depth(act.setup.bodies._replace(position=frame[:, :2], angle=frame[:, 2])))
    return f"at most {deepest:.3f} inside each other in {scenes} scenes of {world.frames} frames"


angle = dict(do="set", attribute="angle", value=0.5)
for kind in (AnyBlocks, Ramps):
    for do in ("remove", "swap", "insert"):
        print(kind.__name__, do, begins(kind(do=do), 60))
    print(kind.__name__, "angle .5", begins(kind(**angle), 15))
print("Blocks, mass unchanged:", sinks(Blocks(frames=20), 15))
print("Blocks, mass x 100:", sinks(Blocks(frames=20, do="set", attribute="mass", value=100.0), 15))
