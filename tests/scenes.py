"""Small real scenes for tests: simulated clips of 32 x 32 pixels, drawn and laid out by the pipeline."""

import functools

from cjepa_jax.data import batching, pipeline
from cjepa_jax.data.worlds import Balls
from cjepa_jax.masks import objects

PATCH, SIZE, TUBELET = 8, 32, 2


def scene_map(frames=1, intervened="zero_pixels", count=16, max_objects=6, seed=0, mask=None, **options):
    """16 tokens per tubelet. Objects of 5 % of them and more are eligible."""
    source = Balls(size=SIZE, frames=frames, count=count)
    mask = mask or functools.partial(objects.draw, max_objects=3, area=(0.05, 0.6))
    return pipeline.SceneMap(
        source, mask, PATCH, TUBELET, SIZE, max_objects, intervened, seed, frames=frames, **options
    )  # fmt: skip


def batch(scenes=(0, 1, 2, 3), shards=1, shapes=(), **options):
    """The arrays of a batch of these scenes, as the loader gives them."""
    scene_of = scene_map(**options)
    return batching.collate([scene_of(i, 0) for i in scenes], shards, shapes)
