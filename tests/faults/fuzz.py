"""Scenes that no data set should have, from the pipeline to the gradient: finite, or refused in one clear line.

(Module of the scene campaign; `tests/scenes.py` has the good ones.)
"""

import dataclasses
import functools
import random
import re
import time

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.data import batching, pipeline
from cjepa_jax.errors import CjepaError
from cjepa_jax.masks import objects
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Batch, Rows
from tests.faults.record import Outcome

PATCH, SIZE, TUBELET, FRAMES, SLOTS, MORE, BATCH = 8, 32, 2, 2, 6, 11, 8
CLEAR = re.compile(r"scene \d+ of Strange( without objects)?: (video|masks|labels?|states)\b.+: must be .+")  # one line
COUNTS = (0, 1, 2, SLOTS, SLOTS + 1, 1000)
SIDES = (1, 3, 7, 17, SIZE, 48, 65)
PLACES = ("inside", "edge", "outside", "empty", "full", "a pixel", "overlapping", "the same", "all but a pixel")
VIDEOS = (
    "uint8", "black", "white", "float in 0..1", "float in 0..255", "float64", "float16", "with nan", "with inf",
    "bool", "int32", "grey", "one channel", "two channels", "with alpha", "channels first", "negative strides",
    "not contiguous", "read-only", "a frame too few", "a frame too many", "no frames", "not an array",
)  # fmt: skip
MASKS = (
    "bool",
    "uint8",
    "0 and 255",
    "float",
    "other height",
    "other frames",
    "without frames",
    "an index map",
    "list",
)
LABELS = ("fine", "fine", "fine", "nan", "of another shape", "text")


@dataclasses.dataclass(frozen=True)
class Strange:
    """A source whose scene i is made by the name of the campaign and i alone. Most of them are good in most ways."""

    name: str
    seed: int = 0
    plain: bool = False  # all good
    label_names = ("count",)
    can_rerender = False

    def __len__(self):
        return 2**30

    def __getitem__(self, i):
        if self.plain:
            masks = _masks(random.Random(i), 2, SIZE, SIZE)
            return {"video": _video("", np.random.default_rng(i), SIZE, SIZE), "masks": masks, "labels": np.ones(1)}
        rng, np_rng = random.Random(f"{self.name}/{i}"), np.random.default_rng([self.seed, i])
        height, width = rng.choice([(SIZE, SIZE), (rng.choice(SIDES), rng.choice(SIDES))])
        common = rng.random()
        video = _video(rng.choice(VIDEOS) if common < 0.5 else "uint8", np_rng, height, width)
        masks = _masks(rng, rng.choice(COUNTS), height, width)
        masks = _as(rng.choice(MASKS) if 0.4 < common < 0.6 else "bool", masks)
        kind = rng.choice(LABELS) if common > 0.9 else "fine"
        labels = {"nan": [np.nan], "of another shape": [1, 2, 3], "text": ["many"]}.get(kind, [0.5])
        return {"video": video, "masks": masks, "labels": np.asarray(labels)}


def _video(kind, rng, height, width):
    frames = FRAMES + {"a frame too few": -1, "a frame too many": 1, "no frames": -FRAMES}.get(kind, 0)
    video = rng.integers(0, 256, (frames, height, width, 3), np.uint8)
    changes = {
        "black": lambda: video * 0,
        "white": lambda: video * 0 + 255,
        "float in 0..1": lambda: (video / 255).astype(np.float32),
        "float in 0..255": lambda: video.astype(np.float32),
        "float64": lambda: video / 255,
        "float16": lambda: (video / 255).astype(np.float16),
        "with nan": lambda: np.where(video > 250, np.nan, video).astype(np.float32),
        "with inf": lambda: np.where(video > 250, np.inf, video).astype(np.float32),
        "bool": lambda: video > 127,
        "int32": lambda: video.astype(np.int32) * 1000,
        "grey": lambda: video[..., 0],
        "one channel": lambda: video[..., :1],
        "two channels": lambda: video[..., :2],
        "with alpha": lambda: np.concatenate([video, video[..., :1]], -1),
        "channels first": lambda: video.transpose(0, 3, 1, 2),
        "negative strides": lambda: video[:, ::-1, ::-1],
        "not contiguous": lambda: np.repeat(video, 2, 2)[:, :, ::2],
        "read-only": lambda: np.frombuffer(video.tobytes(), np.uint8).reshape(video.shape),
        "not an array": lambda: video.tolist(),
    }
    return changes.get(kind, lambda: video)()


def _masks(rng, count, height, width):
    masks = np.zeros((count, FRAMES, height, width), bool)
    for mask in masks:
        place, size = rng.choice(PLACES), rng.choice((2, 6, 12, 30))
        top, left = rng.randint(-2, height), rng.randint(-2, width)
        if place == "edge":
            top, left = rng.choice([(0, left), (top, 0), (height - 2, left), (top, width - 2)])
        if place in ("full", "all but a pixel"):
            mask[:] = True
            mask[:, 0, 0] = place == "full"
        elif place == "a pixel":
            mask[:, rng.randrange(height), rng.randrange(width)] = True
        elif place in ("overlapping", "the same"):
            mask[:, : max(1, height // 2), : max(1, width // 2)] = True
        elif place != "empty" and place != "outside":
            mask[rng.randrange(FRAMES) :, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = True
    return masks


def _as(kind, masks):
    changes = {
        "uint8": lambda: masks.astype(np.uint8),
        "0 and 255": lambda: masks.astype(np.uint8) * 255,
        "float": lambda: masks.astype(np.float32),
        "other height": lambda: masks[:, :, :-1],
        "other frames": lambda: masks[:, :1],
        "without frames": lambda: masks[:, 0],
        "an index map": lambda: masks.argmax(0) if len(masks) else masks,
        "list": lambda: masks[:3].tolist(),
    }
    return changes.get(kind, lambda: masks)()


@functools.cache
def graded():
    """The jitted (loss, metrics, gradient) of a small model, for one shape of batches, and its parameters."""
    encoder = {"variant": f"Mu/{PATCH}", "depth": 1}
    objective = Jepa(encoder=encoder, predictor={"depth": 1, "width": 16, "heads": 2, "max_objects": 3}, steps=10)
    good = batch_of([made(0, "plain", plain=True)] * BATCH)
    state = jax.jit(objective.init)(jax.random.key(0), good)

    @jax.jit
    def run(params, batch):
        loss = functools.partial(objective.loss, target=state[1], extra=state[2], key=jax.random.key(1), step=0)
        (value, (metrics, _)), gradient = jax.value_and_grad(lambda params: loss(params, batch=batch), has_aux=True)(
            params
        )
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)]).all()
        return value, metrics, finite

    return lambda batch: run(state[0], batch)


def scene_map(name, rng):
    """The pipeline's map over strange scenes, with one of its own settings drawn too."""
    mask = functools.partial(objects.draw, max_objects=3, area=rng.choice([(0.05, 0.6), (0.0, 1.0), (0.5, 0.5)]))
    return pipeline.SceneMap(
        Strange(name), mask, PATCH, TUBELET, SIZE, SLOTS, "zero_pixels", 0, FRAMES, 3, crop=rng.random() < 0.5
    )


def made(number, name, plain=False):
    """The arrays of one strange scene, or of a plain one."""
    rng = random.Random(f"{name}/{number}/map")
    scene_of = scene_map(name, rng)
    return dataclasses.replace(scene_of, source=Strange(name, plain=plain))(number, rng.randrange(3))


def batch_of(scenes):
    arrays = batching.collate(scenes)
    return Batch(**arrays | {"rows": Rows(**arrays["rows"])})


def campaign(count, seed, until=float("inf")):
    """`count` strange scenes through the pipeline. What it lets pass goes through loss and gradient, in batches."""
    outcome, waiting = Outcome("scenes"), []
    good = made(0, "plain", plain=True)
    for number in range(count):
        if time.monotonic() > until:
            break
        case = f"{seed}/{number}"
        try:
            scene = made(number, str(seed))
            if any(np.shape(scene[name]) != np.shape(good[name]) for name in good):
                batch_of([good, scene])  # what is odd only beside another scene is refused there
            waiting.append((case, scene))
            outcome.add("taken")
        except CjepaError as error:
            text = str(error)
            outcome.add("refused", "" if CLEAR.fullmatch(text) else f"{case}: not clear: {text}")
        except Exception as error:  # a traceback for the user: what is looked for
            outcome.add("crashed", f"{case}: {type(error).__name__}: {error}")
        if len(waiting) == BATCH:
            check(waiting, outcome)
            waiting = []
    if waiting:
        check((waiting * BATCH)[:BATCH], outcome)
    return outcome


def check(cases, outcome):
    """One batch: finite. The same with empty slots more. The same within rounding with its objects in another order."""
    names, scenes = zip(*cases, strict=True)
    where = f"one of {names[0]} to {names[-1]}"
    batch = batch_of(scenes)
    loss, metrics, finite = graded()(batch)
    numbers = {name: np.asarray(value) for name, value in metrics.items()}
    bad = [name for name, value in numbers.items() if not np.isfinite(value).all()]
    if bad or not finite or not np.isfinite(loss):
        outcome.fail(f"{where}: not finite: loss {loss}, {bad}, gradient finite: {bool(finite)}")
    padded, _, _ = graded()(reordered(batch, [*range(SLOTS), *[-1] * (MORE - SLOTS)]))
    if float(padded) != float(loss):
        outcome.fail(f"{where}: empty slots change the loss: {loss} {padded}")
    order = np.random.default_rng(len(names[0])).permutation(SLOTS)
    permuted, _, _ = graded()(reordered(batch, order))
    if abs(float(permuted) - float(loss)) > 1e-6 * abs(float(loss)):
        outcome.fail(f"{where}: the order of objects changes the loss: {loss} {permuted}")


def reordered(batch, order):
    """The batch with its objects in this order; -1 is an empty slot."""
    real = np.asarray(order) >= 0

    def take(array):
        array = np.asarray(array)[:, order]
        return array & real.reshape(1, -1, *[1] * (array.ndim - 2))

    changed = {name: take(getattr(batch, name)) for name in ("object_patches", "object_valid", "removed")}
    return dataclasses.replace(batch, **changed)
