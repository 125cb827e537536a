"""What every reader of published videos must do, with any files."""

import functools
import pickle

import numpy as np

from cjepa_jax.data import pipeline
from cjepa_jax.masks import objects


def check_source(source, size: int = 32) -> None:
    """Types and shapes of every scene, pickling, determinism, the pipeline and its loader."""
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source and len(copy) == len(source) > 0 and not source.can_rerender
    for i in range(len(source)):
        scene, again = source[i], copy[i]
        assert scene.keys() == again.keys() and all((scene[key] == again[key]).all() for key in scene)
        video, masks = scene["video"], scene["masks"]
        assert video.dtype == np.uint8 and video.shape[0] == source.frames and video.shape[3] == 3
        assert masks.dtype == bool and masks.shape[1:] == video.shape[:3]
        assert scene["labels"].dtype == np.float32 and scene["labels"].shape == (len(source.label_names),)
        assert np.isfinite(scene["labels"]).all()
        if "states" in scene:
            assert scene["states"].dtype == np.float32
            assert scene["states"].shape == (source.frames, len(masks), len(source.state_names))
    mask = functools.partial(objects.draw, max_objects=3, area=(0.01, 0.6))
    tubelet = 2 if source.frames > 1 else 1
    scenes = pipeline.SceneMap(source, mask, 8, tubelet, size, 6, "zero_pixels", 0, source.frames)
    loader = pipeline.Loader(scenes, batch=2, seed=0, shards=1, shapes=[(2, scenes.tokens)], threads=1)
    (batch,) = list(loader.iterate(0, 1))
    assert batch["video"].shape == (2, source.frames, size, size, 3) and not batch["replaced"].any()


def message(error) -> str:
    """The one line of an error that pytest caught."""
    text = str(error.value)
    assert "\n" not in text
    return text
