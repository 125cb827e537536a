"""Scenes of other channels than RGB: from files through the pipeline to the model, pictures and inspection."""

import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from cjepa_jax import experiment
from cjepa_jax.configuration import check
from cjepa_jax.data import assemble, inspect, show
from cjepa_jax.data.drawing import marks
from cjepa_jax.data.sources.folder import Folder
from cjepa_jax.data.sources.mixture import Mixture
from cjepa_jax.data.sources.videos import Videos
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.objectives.mae import Mae
from cjepa_jax.objectives.siamese import LeJepa
from configs import tiny

BANDS = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four images of five bands, two objects each. Band c has the mean c + 1 and the deviation 0.5."""
    root, rng = tmp_path_factory.mktemp("bands"), np.random.default_rng(0)
    for kind in ("images", "masks", "eval/images", "eval/masks"):
        (root / kind).mkdir(parents=True)
    for name in ("a", "b", "eval/c", "eval/d"):
        where, name = name.rpartition("/")[::2]
        ids = np.zeros((36, 40), np.uint8)
        ids[4:12, 4:14], ids[20:30, 16:30] = 1, 2
        values = rng.normal(np.arange(1, BANDS + 1), 0.5, (36, 40, BANDS)).astype(np.float32)
        np.save(root / where / f"images/{name}.npy", values)
        Image.fromarray(ids).save(root / where / f"masks/{name}.png")
    return root


def config(root, **values):
    made = tiny.get_config()
    made.data.source, made.data.path = "cjepa_jax.data.sources.folder:Folder", str(root)
    made.data.options = {"channels": BANDS, "pixels": "float32"}
    made.data.update(dict(size=32, frames=1, count=0, eval_count=2, intervened="zero_pixels", workers=0))
    made.probe.update(dict(train=1, test=1, batch=1))
    made.mask.anchor, made.train.batch, made.train.steps = 0, 8, 2
    made.objective.encoder.update(
        dict(variant="24x1x2x32/8", channels=BANDS, scale=1.0, mean=(1.0, 2.0, 3.0, 4.0, 5.0), std=(0.5,) * BANDS)
    )
    return check.override(made, values)


def test_scenes_of_a_folder_keep_their_values(root):
    source = Folder(path=str(root), size=32, channels=BANDS, pixels="float32")
    scene = source[0]
    assert scene["video"].dtype == np.float32 and scene["video"].shape == (1, 36, 40, BANDS)
    np.testing.assert_array_equal(scene["video"][0], np.load(source.names[0][0]))
    assert [mask.sum() for mask in scene["masks"]] == [80, 140]


def test_the_pipeline_crops_blanks_and_batches_them(root):
    of = config(root)
    source = assemble.make_source(of, "train")
    scenes = assemble.make_scenes(of, source, 8, 2, 3)
    drawn = scenes(0, 0)
    assert drawn["video"].shape == (1, 32, 32, BANDS) and drawn["video"].dtype == np.float32
    differs = (drawn["intervened"] != drawn["video"]).any(-1)
    assert differs.any() and not drawn["intervened"][differs].any()


def test_a_model_takes_them(root):
    parts = experiment.assemble(config(root))
    batch = experiment.shapes(parts.scenes, 8, (1, 16), 8)
    state = jax.eval_shape(parts.init, batch)
    kernel = state.params["encoder"]["tokenizer"]["projection"]["kernel"]
    assert kernel.shape == (8 * 8 * BANDS, 24) and batch.video.dtype == np.float32


@pytest.mark.parametrize(
    "values, text",
    [
        ({"objective.encoder.channels": 4}, "encoder.mean = .*must be 4 numbers, one per channel"),
        ({"objective.encoder.channels": 0}, "encoder.channels = 0: must be a whole number from 1 to 512"),
        ({"objective.encoder.scale": 0.0}, "encoder.scale = 0.0: must be above 0"),
    ],
)
def test_settings_are_checked(root, values, text):
    with pytest.raises(ConfigError, match=text):
        config(root, **values)


def test_a_model_of_other_channels_is_refused(root):
    rgb = {"channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    of = config(root, **{f"objective.encoder.{key}": value for key, value in rgb.items()})
    with pytest.raises(ConfigError, match="channels = 3: must be that of the scenes, 5 .data.options.channels"):
        experiment.assemble(of)
    of = config(root)
    of.data.options = {}
    with pytest.raises(DataError, match=r"no images \(.png"):
        experiment.assemble(of)


def test_a_config_of_before_is_that_of_rgb():
    now = tiny.get_config()
    old = check.resolve(now)
    del old["objective"]["encoder"]["channels"], old["objective"]["encoder"]["scale"]
    now = check.resolve(now)
    assert check.differences(old, now) and not check.differences(check.completed(old, now), now)
    now["objective"]["encoder"]["scale"] = 1.0
    assert check.differences(check.completed(old, now), now) == ["objective.encoder.scale: 255.0 -> 1.0"]


def test_what_was_painted_has_the_values_of_the_scene(root):
    encoder = dict(variant="24x1x2x32/8", channels=BANDS, scale=10.0, mean=(0.2,) * BANDS, std=(0.5,) * BANDS)
    objective = Mae(encoder=encoder, decoder=dict(depth=1, width=16, heads=2), steps=1, norm_pixels=False)
    batch = experiment.shapes(assemble.make_scenes(config(root), Folder(
        path=str(root), size=32, channels=BANDS, pixels="float32"), 8, 2), 1, (1, 16))  # fmt: skip
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), batch)
    video = np.random.default_rng(0).normal(2, 5, batch.video.shape).astype(np.float32)
    seen = type(batch)(**{**vars(batch), "video": video, "context": np.ones((1, 16), bool)})
    params = jax.eval_shape(functools.partial(objective.init, jax.random.key(0)), seen)[0]
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)
    np.testing.assert_allclose(jax.jit(objective.reconstruct)(params, seen), video, rtol=1e-4, atol=1e-4)


def test_clips_are_arrays(tmp_path):
    rng = np.random.default_rng(0)
    clips = {name: rng.normal(size=(9, 20, 24, BANDS)).astype(np.float32) for name in "ab"}
    for name, clip in clips.items():
        np.save(tmp_path / f"{name}.npy", clip)
        (tmp_path / "masks" / name).mkdir(parents=True)
        for t in range(9):
            ids = np.zeros((20, 24), np.uint8)
            ids[t : t + 5, 4:10] = 1
            Image.fromarray(ids).save(tmp_path / f"masks/{name}/{t:02}.png")
    options = dict(path=str(tmp_path), size=16, channels=BANDS, pixels="float32", masks="masks")
    source = Videos(frames=3, fps=2.0, rate=4.0, **options)
    scene = source[0]
    clip = clips[source.entries[0].name[0]]
    # 9 frames last 2.25 s and the clip spans 1 s, so it begins at 0.625 s. A frame is the last before the middle of its
    # half second: before 0.875, 1.375 and 1.875 s.
    np.testing.assert_array_equal(scene["video"], clip[[3, 5, 7]])
    assert [int(np.argmax(mask.any(1))) for mask in scene["masks"][0]] == [3, 5, 7]
    every = Videos(frames=9, **options)
    np.testing.assert_array_equal(every[0]["video"], clip)
    with pytest.raises(DataError, match=r"must be \[T, H, W, 20\].*Channels come last: np.moveaxis\(x, 1, -1\)"):
        Videos(frames=3, **options | {"channels": 20, "masks": ""})[0]
    with pytest.raises(ConfigError, match="data.options.rate is -1"):
        Videos(rate=-1, **options)
    (tmp_path / "list.csv").write_text("path\na.npy\nb.mp4\n")
    (tmp_path / "b.mp4").write_bytes(b"")
    for channels, text in ((BANDS, "b.mp4: a video file holds RGB"), (3, "a.npy: is an array, no video file")):
        given = options | {"path": str(tmp_path / "list.csv"), "channels": channels, "masks": ""}
        with pytest.raises(DataError, match=text):
            [Videos(split, frames=3, **given | {"pixels": "uint8"}) for split in ("train", "eval")]


def test_pictures_show_three_channels_or_one():
    values = np.random.default_rng(0).integers(0, 256, (2, 6, 7, 5), np.uint8)
    assert marks.rgb(values[..., :3]) is not None and (marks.rgb(values) == values[..., :3]).all()
    assert (marks.rgb(values[..., :1]) == values[..., [0, 0, 0]]).all()
    floats = values.astype(np.float32) * 0.01 - 1
    shown = marks.rgb(floats)
    assert shown.dtype == np.uint8 and shown.shape == (2, 6, 7, 3) and shown.min() == 0 and shown.max() == 255
    assert np.corrcoef(shown[..., 1].ravel(), floats[..., 1].ravel())[0, 1] > 0.99
    assert (marks.rgb(floats[:1], floats) == shown[:1]).all()
    assert not marks.rgb(np.zeros((4, 4, 1), np.float32)).any()


def test_they_are_shown_and_inspected(root, tmp_path):
    show.draw(config(root), str(tmp_path / "sheet.png"), count=1)
    assert Image.open(tmp_path / "sheet.png").width > 100
    assert inspect.inspect(config(root), str(tmp_path / "good"), ("train", "eval"), 1) == 0
    found = json.loads((tmp_path / "good/summary.json").read_text())
    np.testing.assert_allclose(found["splits"]["train"]["mean of each channel"], [1, 2, 3, 4, 5], atol=0.05)
    np.testing.assert_allclose(found["splits"]["train"]["deviation of each channel"], [0.5] * 5, atol=0.05)
    assert not [line for line in found["what to set"] if "normalises" in line]
    usual = {"objective.encoder.mean": (0.0,) * 5, "objective.encoder.scale": 255.0}
    inspect.inspect(config(root, **usual), str(tmp_path / "off"), ("train",), 1)
    (line,) = [
        each for each in json.loads((tmp_path / "off/summary.json").read_text())["what to set"] if "norm" in each
    ]
    assert "--config.objective.encoder.scale=1 --config.objective.encoder.mean=" in line and "encoder.std=" in line
    inspect.inspect(config(root, **usual), str(tmp_path / "off"), ("train",), 1)  # from the stored rows


def test_sources_of_other_scenes_say_what_they_take(root):
    of = {"path": str(root), "channels": BANDS, "pixels": "float32"}
    bands = {"type": "cjepa_jax.data.sources.folder:Folder", **of}
    both = {"bands": bands, "pictures": {"type": "cjepa_jax.data.worlds:Balls", "count": 4}}
    with pytest.raises(ConfigError, match="channels differ .3 x uint8, 5 x float32"):
        Mixture(size=32, frames=1, sources=both)
    mixed = Mixture(size=32, frames=1, sources={"bands": bands})
    assert (mixed.channels, mixed.pixels) == (BANDS, "float32") and mixed[0]["video"].shape[-1] == BANDS
    with pytest.raises(ConfigError, match="objective.encoder.channels = 5, scale = 255: must be 3 and 255"):
        LeJepa(encoder=dict(variant="Mu/8", channels=BANDS), projector={}, steps=1)
