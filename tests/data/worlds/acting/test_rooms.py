"""Rooms: the dot never crosses a wall, the expert always arrives, and what all worlds promise."""

import jax
import numpy as np
import pytest

from cjepa_jax import experiment
from cjepa_jax.configs.family import lewm
from cjepa_jax.data.worlds import promises
from cjepa_jax.data.worlds.acting import Rooms
from cjepa_jax.data.worlds.acting.rooms import DOOR, EDGE, FAR, GAP, SPEED, TOLERANCE, WALL, X, Y
from cjepa_jax.errors import ConfigError, DataError

ROOMS = Rooms(size=32)
MARGIN = EDGE + ROOMS.radius


def tasks(kind, count=200):
    found = [ROOMS.task(i, kind) for i in range(count)]
    return np.stack([task.start for task in found]), np.stack([task.goal for task in found])


def play(policy, states, goals, steps=50):
    """All states [steps + 1, n, 4] under a policy."""
    trace = [states]
    for _ in range(steps):
        trace.append(ROOMS.advance(trace[-1], policy(trace[-1], goals)))
    return np.stack(trace)


def test_rooms():
    promises.check(Rooms)


def test_the_dot_stays_in_the_rooms_and_crosses_the_wall_only_in_the_door():
    rng, (states, _) = np.random.default_rng(0), tasks("any", 500)
    crossed = 0
    for _ in range(200):
        new = ROOMS.advance(states, rng.uniform(-3, 3, (500, 2)))  # clipped to -1 .. 1
        assert (np.abs(new - states)[:, :WALL] <= SPEED + 1e-12).all() and (new[:, WALL:] == states[:, WALL:]).all()
        assert (new[:, :WALL] >= MARGIN).all() and (new[:, :WALL] <= 1 - MARGIN).all()
        within = np.abs(new[:, X] - new[:, WALL]) < MARGIN - 1e-12
        assert (np.abs(new[:, Y] - new[:, GAP])[within] <= DOOR - ROOMS.radius + 1e-12).all()
        sides = (states[:, X] < states[:, WALL]) != (new[:, X] < new[:, WALL])
        assert (np.abs(states[:, Y] - states[:, GAP])[sides] <= DOOR - ROOMS.radius + 1e-12).all()
        crossed += sides.sum()
        states = new
    assert crossed > 100


def test_a_rounded_state_moves_the_same():
    """A dot that touches a wall or the door's side is not elsewhere because float32 rounds its place."""
    rng, (states, _) = np.random.default_rng(1), tasks("any", 500)
    for _ in range(100):
        actions = rng.uniform(-2, 2, (500, 2))
        new = ROOMS.advance(states, actions)
        np.testing.assert_allclose(ROOMS.advance(states.astype(np.float32), actions), new, atol=1e-5)
        states = new


def test_a_move_stops_at_the_face_of_the_wall_and_slides_along_it():
    state = np.array([0.5 - MARGIN - 0.01, 0.3, 0.5, 0.7])
    assert np.allclose(ROOMS.advance(state, np.array([1.0, 0.5])), [0.5 - MARGIN, 0.3 + SPEED / 2, 0.5, 0.7])
    door = np.array([0.5 - MARGIN - 0.01, 0.7, 0.5, 0.7])
    assert np.allclose(ROOMS.advance(door, np.array([1.0, 1.0])), [0.5 - MARGIN + SPEED - 0.01, 0.775, 0.5, 0.7])


@pytest.mark.parametrize("kind", Rooms.tasks)
def test_the_expert_reaches_every_goal(kind):
    states, goals = tasks(kind)
    assert (np.hypot(*(states - goals)[:, :WALL].T) >= FAR).all()
    other = (states[:, X] < states[:, WALL]) != (goals[:, X] < goals[:, WALL])
    assert {"door": other.all(), "room": not other.any(), "any": 0.2 < other.mean() < 0.8}[kind]
    assert ROOMS.reached(play(ROOMS.expert, states, goals)[-1], goals).all()


def test_a_straight_line_suffices_within_a_room_but_not_through_the_door():
    assert ROOMS.reached(play(ROOMS.straight, *tasks("room"))[-1], tasks("room")[1]).all()
    assert 0.3 < ROOMS.reached(play(ROOMS.straight, *tasks("door"))[-1], tasks("door")[1]).mean() < 0.7


def test_success_is_the_distance_of_the_dot():
    goal = np.array([0.5, 0.5, 0.5, 0.5])
    for away, reached in ((0.99, True), (1.01, False)):
        assert ROOMS.reached(goal + away * TOLERANCE * np.array([0.6, 0.8, 0, 0]), goal) == reached


def test_actions_lead_from_each_frame_to_the_next():
    for i in range(10):
        scene = Rooms(size=32, frames=12)[i]
        states, actions = scene["states"][:, 0, 1:].astype(float), scene["actions"].astype(float)
        assert np.allclose(ROOMS.advance(states[:-1], actions[:-1]), states[1:], atol=1e-6)
        assert np.abs(actions).max() <= 1 and np.array_equal(scene["proprio"], scene["states"][:, 0, 1:3])
        assert np.array_equal(ROOMS.picture(Rooms(size=32, frames=12).trajectory(ROOMS.setup(i))[0]), scene["video"])


def test_both_policies_act_and_one_can_be_chosen():
    drawn = [ROOMS.setup(i).policy for i in range(200)]
    assert 60 < sum(drawn) < 140
    for policy in Rooms.policies:
        world = Rooms(policy=policy)
        assert {world.policies[world.setup(i).policy] for i in range(20)} == {policy}
        assert all((world.setup(i).first == ROOMS.setup(i).first).all() for i in range(5))


def test_a_mix_has_its_shares_and_off_is_the_same():
    mix = (("press", 0.5), ("door", 0.3), ("walk", 0.2))
    world = Rooms(size=32, mix=mix)
    names = [world._behaviours[world.setup(i).policy] for i in range(400)]
    for name, share in mix:
        assert abs(names.count(name) / 400 - share) < 0.08
    assert Rooms(size=32, mix=[["walk", 1]]).mix == (("walk", 1.0),)  # as from a command line
    alone = Rooms(size=32, frames=6, mix=(("walk", 1.0),))
    assert all(np.array_equal(alone[i]["actions"], Rooms(size=32, frames=6, policy="walk")[i]["actions"])
               for i in range(3))  # fmt: skip
    assert world.setup(5).seed == ROOMS.setup(5).seed and (world.setup(5).first == ROOMS.setup(5).first).all()


def test_press_pushes_at_the_wall_in_front_of_the_door_and_elsewhere():
    """Half of the pushes pass, and what it does at the wall does not depend on where the door is."""
    world, begun, passed = Rooms(size=8, frames=80, policy="press"), 0, 0
    for i in range(40):
        states, actions = world.trajectory(world.setup(i))
        wall, gap = states[0, WALL:]
        face = np.abs(np.abs(states[:, X] - wall) - MARGIN) < 0.021
        towards = np.sign(wall - states[:, X]) * actions[:, 0] > 0.8
        first = np.flatnonzero(face[:-4] & towards[:-4] & ~np.r_[False, (face & towards)[:-5]])
        begun += len(first)
        passed += (np.sign(states[first + 4, X] - wall) != np.sign(states[first, X] - wall)).sum()
        inside = np.abs(states[:, X] - wall) < MARGIN - 1e-9
        assert (np.abs(states[inside, Y] - gap) <= DOOR).all()
    assert begun > 100 and 0.3 < passed / begun < 0.7


def test_an_expert_does_tasks_and_stays_at_the_goal():
    """The goal's room is the task's. The places that follow differ by the noise alone."""
    for kind, crosses in (("door", True), ("room", False)):
        for i in range(5):
            world = Rooms(size=32, frames=40, policy=kind)
            assert (world.setup(i).first == ROOMS.setup(i).first).all()
            place = world.trajectory(world.setup(i))[0][:, :2]
            wall = world.setup(i).first[2]
            assert ((place[0, 0] < wall) != (place[-1, 0] < wall)) == crosses
            assert np.hypot(*(place[-10:] - place[-10:].mean(0)).T).max() < TOLERANCE
            assert np.hypot(*(place[-1] - place[0])) > FAR - TOLERANCE
    states = np.stack([ROOMS.setup(i).first for i in range(3)])
    np.testing.assert_array_equal(ROOMS.felt(states), states[:, :2].astype(np.float32))


def test_a_task_without_a_goal_ends():
    class Endless(Rooms):
        def goal(self, rng, task, start):
            return None

    with pytest.raises(DataError, match="no goal of the task 'room' was found in 1000 draws"):
        Endless(policy="room")[0]


def test_a_moving_dot_changes_the_picture_by_less_than_a_pixel():
    state = np.array([0.3, 0.3, 0.5, 0.5])
    first, second = ROOMS.picture(np.stack([state, state + [0.002, 0, 0, 0]])).astype(int)
    assert (first != second).any() and np.abs(first - second).max() < 64
    two = Rooms(size=32, look="channels").picture(state) / 255
    assert two.shape == (32, 32, 2) and abs(two[..., 0].sum() / 32**2 - np.pi * ROOMS.radius**2) < 1e-3
    free = (1 - 2 * EDGE) ** 2 - 2 * EDGE * (1 - 2 * EDGE - 2 * DOOR)
    assert abs(1 - two[..., 1].mean() - free) < 1e-3


def test_the_dot_has_its_ink():
    state = np.array([0.3, 0.3, 0.5, 0.5])
    pixel = int(0.3 * 32)
    assert ROOMS.picture(state)[pixel, pixel].tolist() == [208, 48, 40]
    blue = Rooms(size=32, ink=(40, 80, 208)).picture(state)
    assert blue[pixel, pixel].tolist() == [40, 80, 208] and (blue != ROOMS.picture(state)).any(-1).mean() < 0.02


def test_the_door_can_be_shown_in_the_first_frames_only():
    shown, always = Rooms(size=32, frames=5, shown=2)[0], Rooms(size=32, frames=5)[0]
    assert np.array_equal(shown["video"][:2], always["video"][:2])
    wall, door = (int(round(32 * v)) for v in always["states"][0, 0, 3:])
    assert (shown["video"][2:, door, wall] != always["video"][2:, door, wall]).all()
    assert np.array_equal(shown["states"], always["states"])


def test_tasks_are_reproducible_and_differ_from_episodes():
    assert all((a == b).all() for a, b in zip(ROOMS.task(3), Rooms(size=64, frames=9).task(3), strict=True))
    assert not (ROOMS.task(3).start == ROOMS.setup(3).first).all()
    assert not (ROOMS.task(3).start == Rooms(split="eval").task(3).start).all()
    with pytest.raises(IndexError, match="0 to 9999"):
        ROOMS.task(10_000)
    with pytest.raises(DataError, match="'window'; Rooms has door, room, any"):
        ROOMS.task(0, "window")


@pytest.mark.parametrize(
    "options",
    [{"policy": "walks"}, {"look": "grey"}, {"radius": 0.2}, {"speed": True}, {"wall": (0.1, 0.5)}, {"door": 0.5},
     {"mix": 5}, {"mix": (("walk", 0.5),)}, {"shown": -1}, {"ink": (0, 0, 256)}, {"ink": 7}, {"hold_out": True}],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=f"data.options.{next(iter(options))} is"):
        Rooms(**options)


def test_a_mix_of_unknown_policies_is_refused():
    for mix, text in ((("run", 1.0), "has 'run'; it must have some of walk, expert, door, room, any, press"),
                      (("walk", 2.0), "has the share 2.0; it must be within 0 and 1")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"^data.options.mix {text}"):
            Rooms(mix=(mix,))
    with pytest.raises(ConfigError, match="^data.options.policy is 'walk'; it must be 'mixed' with data.options.mix"):
        Rooms(policy="walk", mix=(("walk", 1.0),))


@pytest.mark.parametrize("look, channels", [("rgb", 3), ("channels", 2)])
def test_a_world_model_trains_on_both_looks(look, channels):
    config = lewm.get_config().unlock()
    config.data.options.look, config.objective.encoder.channels = look, channels
    config.objective.encoder.mean = config.objective.encoder.std = (0.5,) * channels
    config.train.batch, config.data.workers = 8, 0
    run = experiment.assemble(config)
    batch = run.example()
    assert batch.video.shape == (8, 4, 32, 32, channels)
    metrics = jax.eval_shape(run.step, jax.eval_shape(run.init, batch), batch)[1]
    assert metrics["loss"].shape == ()
    scene = run.held_out_scenes(0, 0)
    assert scene["video"].shape == (4, 32, 32, channels) and scene["video"].any((0, 1, 2)).all()
    config.objective.encoder.channels = 5 - channels
    with pytest.raises(ConfigError, match=f"channels = {5 - channels}: must be that of the scenes, {channels}"):
        experiment.assemble(config)
