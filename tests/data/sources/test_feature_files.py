"""Features of an image encoder in files: what a slot encoder trains on instead of pixels."""

import dataclasses

import jax
import numpy as np
import pytest

from cjepa_jax import experiment
from cjepa_jax.data import assemble, show
from cjepa_jax.data.slot_files import writing
from cjepa_jax.data.sources.feature_files import FeatureFiles
from cjepa_jax.errors import ConfigError
from configs.slots import savi, videosaur

FRAMES = {"train": (5, 7), "eval": (6,)}


@pytest.fixture
def folder(tmp_path):
    """6 places of 8 components."""
    rng, kept = np.random.default_rng(0), {}
    with writing(tmp_path / "features") as write:
        for split, counts in FRAMES.items():
            for i, count in enumerate(counts):
                kept[split, i] = rng.standard_normal((count, 6, 8)).astype(np.float32)
                write(split, str(i), kept[split, i])
    return tmp_path / "features", kept


def config(folder, **options):
    c = videosaur.get_config().unlock()
    c.data.source = "cjepa_jax.data.sources.feature_files:FeatureFiles"
    c.data.path, c.data.options, c.data.frames = str(folder), options, 3
    c.data.count = c.data.eval_count = c.data.workers = 0
    c.train.batch, c.objective.patch = 8, 1
    small = dict(slots=3, width=8, embed=8, heads=2, blocks=1, units=(8,), first=1, iterations=1, placed=False)
    c.objective.videosaur.update(small)
    return c


def test_a_window_has_the_places_in_rows_and_a_token_for_each(folder):
    root, kept = folder
    c = config(root, rows=2)
    source = assemble.make_source(c, "train")
    assert (source.rows, source.columns, source.width, len(source)) == (2, 3, 8, 3 + 5)
    np.testing.assert_array_equal(source[4]["video"], kept["train", 1][1:4].reshape(3, 2, 3, 8))
    scenes = assemble.make_scenes(c, source, 1, 1, hides=False)
    scene = scenes(4, 0)
    assert scenes.grid == (3, 2, 3) and scene["context"].shape == (18,) and not scene["object_valid"].any()
    np.testing.assert_array_equal(scene["video"], source[4]["video"])


def test_videosaur_trains_on_them_and_its_features_are_those_of_the_file(folder):
    run = experiment.assemble(config(folder[0], rows=3))
    batch = run.example()
    assert batch.video.shape == (8, 3, 3, 2, 8) and batch.video.dtype == np.float32
    given = jax.jit(run.objective.patches)(batch.video)
    np.testing.assert_array_equal(given, np.asarray(batch.video).reshape(8, 3, 6, 8))
    state = run.init(batch)
    state, metrics = run.step(state, batch)
    assert np.isfinite(metrics["loss"]) and float(metrics["loss/features"]) > 0
    slots = jax.jit(run.objective.slots)(state.params | state.extra, batch.video)["slots"]
    assert slots.shape == (8, 3, 3, 8)
    jax.block_until_ready(slots)


def test_what_does_not_fit_is_refused_in_one_line(folder, tmp_path):
    root, _ = folder
    with pytest.raises(ConfigError, match="data.options.rows = 0: must divide the 6 places of .* not square$"):
        FeatureFiles("train", str(root), frames=3)
    with pytest.raises(ConfigError, match="data.options.rows = 4: must divide the 6 places of"):
        FeatureFiles("train", str(root), frames=3, rows=4)
    for change, message in (
        ({"objective.patch": 4}, "gives features: the model must take tokens of one place and one frame$"),
        ({"data.crop": True}, "data.crop = True: must be False for features$"),
        ({"data.intervened": "zero_pixels"}, "data.intervened = 'zero_pixels': must be none for features$"),
    ):
        c = config(root, rows=2)
        c.update_from_flattened_dict(change)
        with pytest.raises(ConfigError, match=message) as error:
            experiment.assemble(c)
        assert "\n" not in str(error.value)
    other = savi.get_config().unlock()
    other.data, other.train.batch = config(root, rows=2).data, 8
    with pytest.raises(ConfigError, match=r"kind 'features': objective.type = '.*SaviLoss' takes video or episodes$"):
        experiment.assemble(other)
    with pytest.raises(ConfigError, match="gives scenes of kind 'features': data.show takes video"):
        show.draw(config(root, rows=2), str(tmp_path / "sheet.png"), count=1)
    assert dataclasses.is_dataclass(FeatureFiles)
