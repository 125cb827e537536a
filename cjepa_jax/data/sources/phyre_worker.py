"""PHYRE's simulator behind a pipe. It runs under the Python 3.9 that has `phyre`, not under the trainer's Python.

    python -I phyre_worker.py SECONDS        SECONDS: the most that a request may take

stdin and stdout carry messages: b"PHYR", the length (uint32, little endian), msgpack. A request is a map of "op", the
name of one of OPERATIONS, and its arguments. The reply is {"ok": result} or {"error": line}. An array is sent as
{"dtype", "shape", "raw"}. The simulator's own output goes to stderr. Requests are independent of each other.

The worker ends when stdin is closed, which happens when the parent ends. During a request it ends at the latest after
SECONDS.
"""

import copy
import functools
import math
import os
import signal
import struct
import sys

import msgpack
import numpy as np

MAGIC, LIMIT = b"PHYR", 1 << 28  # first bytes of a message, most bytes that follow its header
HEADER = struct.Struct("<4sI")
DTYPES = ("|b1", "|i1", "|u1", "<i4", "<i8", "<f4", "<f8")
WALLS = 4  # the first bodies of every PHYRE scene surround the picture, out of sight
LEFT_WALL, RIGHT_WALL = 1, 3


def fold(setup: str, seed: int) -> list:
    """Task names of fold `seed` (0 to 9): train, dev, test."""
    return [list(names) for names in phyre.get_fold(setup, seed)]


def scenes(names: list) -> np.ndarray:
    """The scenes before any action: colour codes uint8 [N,256,256], the lowest row first."""
    return np.stack([phyre.simulator.scene_to_raster(tasks()[name].scene) for name in names]).astype(np.uint8)


def valid(name: str, actions: np.ndarray) -> np.ndarray:
    """bool [N]: which of the actions [N,D] stay inside the scene and cover no object."""
    return np.array([user_input is not None for user_input in user_inputs(name, actions)])


def statuses(name: str, actions: np.ndarray) -> np.ndarray:
    """PHYRE's result for each of the actions [N,D]: int8 [N], 1 solved, -1 not solved, 0 invalid."""
    simulator = official_simulator(name)
    verdicts = [simulator.simulate_action(0, action, need_images=False).status for action in actions.tolist()]
    return np.array([int(verdict) for verdict in verdicts], np.int8)


def simulate(name: str, action: np.ndarray, stride: int) -> tuple:
    """PHYRE's own rollout, which ends when the task is solved: status, colour codes uint8 [F,256,256] or None."""
    result = official_simulator(name).simulate_action(0, action.tolist(), stride=stride)
    return int(result.status), result.images


def rollout(name: str, actions: np.ndarray, frames: int, stride: int, removed: list) -> list:
    """The simulation of the first valid one of the actions [N,D], whether or not it solves the task.

    removed: indices of objects (the user's balls last) that are removed before the start. Returns None if no action is
    valid, else its index, the objects' colour codes uint8 [K], the object seen at each pixel uint8 [frames,256,256]
    (index + 1, 0 for none) and PHYRE's features float32 [frames+1,K,14] (removed: 0).
    """
    inputs = enumerate(user_inputs(name, actions))
    index, user_input = next(((i, user_input) for i, user_input in inputs if user_input is not None), (-1, None))
    if user_input is None:
        return None
    task = copy.copy(tasks()[name])
    task.bodyId1, task.bodyId2 = LEFT_WALL, RIGHT_WALL  # an unreachable goal, so that no scene ends early
    task.scene = phyre.simulator.add_user_input_to_scene(task.scene, user_input, keep_space_around_bodies=False)
    walls, objects = task.scene.bodies[:WALLS], task.scene.bodies[WALLS:] + task.scene.user_input_bodies
    kept = [k for k in range(len(objects)) if k not in removed]
    task.scene.bodies, task.scene.user_input_bodies = walls + [objects[k] for k in kept], None
    colours = np.array([body.color for body in objects], np.uint8)

    features = np.zeros((frames + 1, len(objects), phyre.simulator.OBJECT_FEATURE_SIZE), np.float32)
    if kept:
        features[:, kept] = run(task, frames * stride + 1, stride, need_featurized_objects=True)[3]
    # The second drawing, with each object's number as its colour, shows where PHYRE draws each object.
    for body in walls:
        body.color = 0
    for k, body in enumerate(objects):
        body.color = k + 1
    seen = run(task, (frames - 1) * stride + 1, stride, need_images=True)[2]
    return [index, colours, seen, features]


def evaluate(names: list, attempts: list) -> float:
    """AUCCESS by PHYRE's own Evaluator, from `attempts`: pairs of an index into `names` and a status."""
    evaluator = phyre.Evaluator(tuple(names))
    for index, status in attempts:
        evaluator.maybe_log_attempt(index, status)
    return float(evaluator.get_auccess())


def hello() -> str:
    return sys.version.split()[0]


OPERATIONS = {f.__name__: f for f in (fold, scenes, valid, statuses, simulate, rollout, evaluate, hello)}


@functools.lru_cache(maxsize=64)
def official_simulator(name):
    return phyre.ActionSimulator([tasks()[name]], tasks()[name].tier.lower())


def user_inputs(name, actions):
    """For each of the actions [N,D] the balls that it puts into the scene, or None if it is invalid."""
    task = tasks()[name]
    mapper = phyre.action_mappers.get_action_mapper(task.tier.lower())
    serialised, keep_space = phyre.simulator.serialize(task), mapper.KEEP_SPACE_AROUND_BODIES
    for action in actions.tolist():
        balls, inside = mapper.action_to_user_input(action)
        yield balls if inside and not phyre.simulator.check_for_occlusions(serialised, balls, keep_space) else None


def run(task, steps, stride, **wanted):
    """(solved, had occlusions, images, features) of a task whose scene already holds the user's balls."""
    nothing = phyre.action_mappers.EMPTY_USER_INPUT
    return phyre.simulator.magic_ponies(task, nothing, steps, stride, keep_space_around_bodies=False, **wanted)


def pack(value) -> bytes:
    """The message that carries a value."""

    def array(x):
        return {"dtype": x.dtype.str, "shape": x.shape, "raw": x.tobytes()}

    body = msgpack.packb(value, default=array)
    return HEADER.pack(MAGIC, len(body)) + body


def length(header: bytes) -> int:
    """Number of bytes that follow the header of a message. Raises ValueError for an invalid header."""
    magic, size = HEADER.unpack(header)
    if magic != MAGIC or size > LIMIT:
        raise ValueError(f"not a message: {header!r}")
    return size


def unpack(body: bytes):
    """The value that a message carries. Raises ValueError (or msgpack's errors) for an invalid message."""

    def array(x):
        if x.keys() != {"dtype", "shape", "raw"}:
            return x
        if x["dtype"] not in DTYPES:
            raise ValueError(f"an array of type {x['dtype']!r}")
        return np.frombuffer(x["raw"], x["dtype"]).reshape(x["shape"])

    return msgpack.unpackb(body, object_hook=array)


def answer(body: bytes) -> dict:
    """The reply to a request."""
    try:
        request = unpack(body)
        return {"ok": OPERATIONS[request.pop("op")](**request)}
    except Exception as error:  # the trainer reports it
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of the simulator and its libraries must not mix with the messages
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the trainer, which closes the pipe when it ends
    seconds = math.ceil(float(sys.argv[1])) + 1
    while len(header := source.read(HEADER.size)) == HEADER.size:
        body = source.read(length(header))
        # Ends the process even inside the simulator's code and without the trainer. It counts processor time, so the
        # time of a suspension does not count.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        sink.write(pack(answer(body)))
        sink.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    import phyre

    # All tasks by name. PHYRE would read them again (2 s) for each split of a fold.
    tasks = phyre.loader.load_compiled_task_dict = functools.cache(phyre.loader.load_compiled_task_dict)
    tasks()
    main()
