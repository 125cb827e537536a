"""Superpixels as a source: another source's scenes, segments for masks, nothing of its objects."""

import functools
import pickle

import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.sources.superpixels import Superpixels
from cjepa_jax.data.worlds import Balls, Shadows
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import objects

SMALL = dict(size=32, frames=4, count=3, seed=1)
pytestmark = pytest.mark.needs("skimage")


@pytest.mark.parametrize("frames", [1, 4])
def test_segments_fill_every_frame_of_the_sources_scenes(frames):
    fields = SMALL | {"frames": frames}
    source, plain = Superpixels(**fields, of_options={"objects": (2, 3)}), Balls(**fields, objects=(2, 3))
    assert len(source) == 3 and source.label_names == plain.label_names and not source.can_rerender
    for i in range(3):
        scene, wanted = source[i], plain[i]
        assert set(scene) == {"video", "masks", "labels"}
        assert (scene["video"] == wanted["video"]).all() and (scene["labels"] == wanted["labels"]).all()
        assert scene["masks"].dtype == bool and scene["masks"].shape[1:] == (frames, 32, 32)
        assert (scene["masks"].sum(0) == 1).all()  # every pixel is in exactly one
        assert 4 <= len(scene["masks"]) <= 20 and scene["masks"].any((1, 2, 3)).all()


def test_segments_go_through_the_clip_and_keep_to_colours():
    """A square that moves over a plain ground: one segment is it in all frames, as no block of the plane would be."""
    clips = Superpixels(**SMALL, of=f"{__name__}:Square", segments=4, compactness=1.0)
    scene = clips[0]
    square = scene["video"][..., 0] > 128
    overlap = [(mask & square).sum() / (mask | square).sum() for mask in scene["masks"]]
    assert max(overlap) > 0.9
    assert scene["masks"][np.argmax(overlap)].any((1, 2)).all()


class Square:
    """A bright square that moves one pixel a frame."""

    label_names, can_rerender = (), False

    def __init__(self, **_):
        pass

    def __len__(self):
        return 1

    def __getitem__(self, i):
        video = np.zeros((4, 32, 32, 3), np.uint8)
        for time, frame in enumerate(video):
            frame[8:20, 8 + time : 20 + time] = 255
        return {"video": video, "masks": np.zeros((0, 4, 32, 32), bool), "labels": np.zeros(0, np.float32)}


def test_the_same_bits_after_pickling_and_other_segments_by_its_options():
    source = Superpixels(**SMALL)
    again = pickle.loads(pickle.dumps(source))
    assert again == source and (again[2]["masks"] == source[2]["masks"]).all()
    assert len(Superpixels(**SMALL, segments=40)[2]["masks"]) > len(source[2]["masks"])
    assert isinstance(Superpixels(**SMALL, of="cjepa_jax.data.worlds:Shadows").source, Shadows)


def test_a_segment_is_hidden_as_an_object_would_be():
    mask = functools.partial(objects.draw, area=(0.05, 0.6), anchor=1)
    scenes = pipeline.SceneMap(Superpixels(**SMALL), mask, 8, 2, 32, 16, "zero_pixels", 0, frames=4, with_masks=True)
    scene = scenes(0, 0)
    hidden = scene["object_patches"][scene["removed"]].any(0)
    assert scene["removed"].any() and (~scene["context"] == hidden & (np.arange(32) >= 16)).all()
    changed = (scene["intervened"] != scene["video"]).any(-1)
    assert changed.any() and not (changed & ~scene["masks"][scene["removed"]].any(0)).any()


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"segments": 1}, "data.options.segments = 1: must be"),
        ({"segments": 8.0}, "data.options.segments = 8.0: must be"),
        ({"compactness": 0}, "data.options.compactness = 0: must be"),
        ({"of": "cjepa_jax.data.worlds:Bulls"}, "Balls"),
        ({"of_options": {"boxs": 0.1}}, "boxs"),
    ],
)
def test_options_that_cannot_work_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        Superpixels(**SMALL, **wrong)
