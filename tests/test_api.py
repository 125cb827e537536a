"""The model of users: the numbers of training and evaluation, with any batch size, one compilation per shape."""

import dataclasses
import inspect
import logging
import re

import jax
import numpy as np
import pytest

import cjepa_jax
from cjepa_jax import api
from cjepa_jax.api import Model
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.evals.base import Hidden
from cjepa_jax.evals.counterfactual import readouts
from cjepa_jax.evals.counterfactual.questions import DoQuestions
from cjepa_jax.loading import pretrained
from cjepa_jax.loading.inputs import InputError
from cjepa_jax.loading.model import Restored
from cjepa_jax.masks import objects
from configs.baselines import mae
from tests import pretrained as pretrained_weights
from tests import run_folders, running, scenes

COMPILED = []  # a name for each program that XLA has compiled
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folders.write(tmp_path_factory.mktemp("run") / "run", steps=(4,))


@pytest.fixture(scope="module")
def model(run):
    return cjepa_jax.load(run, batch=4)


@pytest.fixture(scope="module")
def shown():
    """Clips uint8 [5, 2, 32, 32, 3] and their objects' masks bool [5, 4, 2, 32, 32], all visible."""
    source, found = scenes.scene_map(frames=2, count=64).source, []
    for i in range(len(source)):
        scene = source[i]
        masks = scene["masks"][scene["masks"].any((1, 2, 3))]
        if len(masks) >= 4:
            found.append((scene["video"], masks[:4]))
    videos, masks = zip(*found[:5], strict=True)
    return np.stack(videos), np.stack(masks)


def refused(function, *args, **options):
    with pytest.raises(InputError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(one, other, **options):
    for name in one._fields:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **options), getattr(one, name), getattr(other, name))


@pytest.fixture(scope="module")
def restored(run):
    """The same model as the evaluation has it."""
    return Restored.of(run_folders.config(), str(run))


def test_encode_is_the_objectives_encode_and_features_its_mean(restored, model, shown):
    encode = jax.jit(restored.objective.encode)
    for weights, params in (("encoder", restored.state.params["encoder"]), ("target", restored.state.target)):
        expected = np.asarray(encode(params, shown[0]))
        each = dataclasses.replace(model, weights=weights)
        tokens = each.encode(shown[0])
        assert tokens.dtype == np.float32 and tokens.shape == (5, 16, 96)
        np.testing.assert_allclose(tokens, expected, atol=2e-5)
        np.testing.assert_array_equal(each.features(shown[0]), tokens.mean(1))


def check_layers(model, video):
    """Each layer resumes to what `encode` gives, an edit is seen, and an edit of nothing changes no bit."""
    states, grid, encoded = model.states(video), model.grid(video), model.encode(video)
    assert states.shape == (model.info["depth"] + 1, *encoded.shape) and states.dtype == np.float32
    for at, tokens in enumerate(states):
        np.testing.assert_allclose(model.resume(tokens, at, grid), encoded, atol=1e-5)
        clean = model.run(video, at)
        np.testing.assert_allclose(clean, encoded, atol=1e-5)
        np.testing.assert_array_equal(model.run(video, at, lambda x: x), clean)
        np.testing.assert_array_equal(model.run(video, at, lambda x: x[::-1])[::-1], clean)  # scenes are independent
    assert np.abs(model.run(video, 0, np.zeros_like) - encoded).max() > 0.01


def test_the_layers_of_a_run_of_an_export_and_of_an_imported_vjepa_2(model, shown, tmp_path):
    check_layers(model, shown[0])
    check_layers(dataclasses.replace(model, weights="target"), shown[0])
    file = pretrained_weights.published(tmp_path / "vjepa2.safetensors", pretrained_weights.weights(predictor=None))
    found = cjepa_jax.load(file, layout="vjepa2", heads=3, batch=4)
    assert found.pretrained.encoder["positions"] == "rope_tile"
    check_layers(found, shown[0])
    check_layers(cjepa_jax.load(pretrained_weights.export(tmp_path / "export", found.pretrained), batch=4), shown[0])


def test_layers_of_no_scenes_and_what_a_layer_cannot_be(model, shown):
    video, grid = shown[0], model.grid(shown[0])
    assert model.states(video[:0]).shape == (2, 0, 16, 96) and model.run(video[:0], 1).shape == (0, 16, 96)
    assert refused(model.run, video, 2) == "at = 2: must be a layer from 0 to 1"
    assert "at = -1: must be a whole number from 0" in refused(model.run, video, -1)
    assert "edit: shape (5, 16) from tokens (5, 16, 96)" in refused(model.run, video, 1, lambda x: x[..., 0])
    assert "edit: NoneType" in refused(model.run, video, 1, lambda x: None)
    assert "tokens: 7680 values are not finite" in refused(model.run, video, 1, lambda x: x * np.nan)
    assert "must be [B, 16, 96], B scenes of 1 x 4 x 4" in refused(model.resume, np.zeros((5, 9, 96)), 1, grid)
    tokens = np.zeros((5, 16, 96))
    assert "grid[1] = 0: must be" in refused(model.resume, tokens, 1, (1, 0, 4))
    assert refused(model.resume, tokens, 1, 4) == "grid = 4: must be (times, rows, columns)"
    assert "tokens: dtype complex128: must be real numbers" in refused(model.resume, tokens + 0j, 1, grid)
    assert "tokens: dtype <U32: must be real numbers" in refused(model.resume, tokens.astype(str), 1, grid)
    assert "edit = 3: must be a function of tokens, or None" in refused(model.run, video, 1, 3)
    pretrained = dataclasses.replace(model.pretrained, encoder=model.pretrained.encoder | {"levels": (1,)})
    dense = dataclasses.replace(model, pretrained=pretrained)
    assert "levels = (1,): earlier layers are a part of the output" in refused(dense.resume, tokens, 1, grid)


def test_intervene_is_what_the_evaluation_asks(restored, model, shown):
    video, masks = shown
    patches = np.stack([objects.patches(each, 8, 2) for each in masks])
    removed = np.array([0, 1, 2, 3, 0])
    zeros = {name: np.zeros((5, 1)) for name in DoQuestions._fields}
    asked = DoQuestions(**zeros | dict(video=video, object_patches=patches, removed=removed, asked=removed - 1))
    expected = readouts.features(restored.trained(5), asked, 1, 0, 5, ("masked", "counterfactual"))
    answer = model.intervene(video, masks, [[k] for k in removed])
    for name, value in expected.items():  # there, the asked object's tokens follow
        np.testing.assert_allclose(answer.readouts[name], value[:, :96], atol=2e-5)
    both = np.concatenate([answer.readouts["masked"], answer.readouts["counterfactual"]], 1)
    np.testing.assert_array_equal(answer.readouts["both"], both)
    np.testing.assert_array_equal(answer.hidden, patches[np.arange(5), removed])
    np.testing.assert_array_equal(answer.context, ~answer.hidden)
    assert not answer.prediction[answer.context].any() and answer.prediction[answer.hidden].all()
    assert not answer.change[answer.hidden].any() and answer.change[answer.context].all()
    full = dataclasses.replace(model, weights="target").encode(video)
    left = (full - answer.change)[2][answer.context[2]].mean(0)
    np.testing.assert_allclose(answer.readouts["counterfactual"][2], left, atol=2e-5)


def test_a_scenes_answer_does_not_depend_on_the_others(model, shown):
    video, masks = shown
    together = model.intervene(video, masks, [1, 2])
    for rows in (slice(0, 3), slice(3, 5), slice(1, 2)):
        alone = model.intervene(video[rows], masks[rows], [1, 2])
        np.testing.assert_array_equal(alone.hidden, together.hidden[rows])
        np.testing.assert_allclose(alone.prediction, together.prediction[rows], atol=2e-5)
        np.testing.assert_allclose(alone.change, together.change[rows], atol=2e-5)
    np.testing.assert_array_equal(model.encode(video[:3]), model.encode(video[:4])[:3])


def test_how_the_objects_are_numbered_changes_nothing(model, shown):
    video, masks = shown
    order = np.array([2, 0, 3, 1])  # object 1 is now the last, object 2 the first
    same(model.intervene(video, masks, [1, 2]), model.intervene(video, masks[:, order], [3, 0]), rtol=0)
    same(model.intervene(video, masks, [1]), model.intervene(video, masks[:, 1:2], 0), rtol=0)
    labels = masks[:, 0] * 1 + (masks[:, 1] & ~masks[:, 0]) * 2
    split = np.stack([labels == 1, labels == 2], 1)
    same(model.intervene(video[:3], split[:3], [0]), model.intervene(video[:3], labels[:3], [0]), rtol=0)


def test_one_compilation_for_each_shape(run, shown):
    video, masks = (np.concatenate([array] * 3) for array in shown)
    model = cjepa_jax.load(run, batch=4)

    def compiled(function):
        before = len(COMPILED)
        function()
        return len(COMPILED) - before

    assert compiled(lambda: model.encode(video[:3])) == 1
    assert compiled(lambda: [model.encode(video[:n]) for n in (2, 4, 5, 15)]) == 0
    assert compiled(lambda: [model.features(video[:n]) for n in (15, 13)]) == 0  # the last of 13 is not alone
    assert compiled(lambda: model.encode(video[:, :, :16])) == 1  # another shape
    assert compiled(lambda: model.intervene(video[:4], masks[:4], [0])) == 2  # of the encoder, and of the target
    objects = ((7, 0), (15, [1, 2]), (2, [[0], [1, 2, 3]]))
    assert compiled(lambda: [model.intervene(video[:n], masks[:n], k) for n, k in objects]) == 0
    assert compiled(lambda: model.intervene(video[:5], masks[:5, :2], [1])) == 0  # other numbers of objects
    assert compiled(lambda: model.encode(video[:1])) == 1  # one scene is computed alone
    assert compiled(lambda: model.encode(video[:1])) == 0


def test_no_scenes(model, shown):
    video, masks = (array[:0] for array in shown)
    assert model.encode(video).shape == (0, 16, 96) and model.features(video).shape == (0, 96)
    answer = model.intervene(video, masks, [0])
    shapes = {name: value.shape for name, value in answer.readouts.items()}
    assert shapes == {"masked": (0, 96), "counterfactual": (0, 96), "both": (0, 192)}
    assert answer.prediction.shape == answer.change.shape == (0, 16, 96) and answer.hidden.shape == (0, 16)


@pytest.mark.slow
def test_other_sizes_and_lengths_than_trained(model):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (2, 4, 24, 40, 3), np.uint8)
    assert model.encode(video).shape == (2, 2 * 3 * 5, 96) and model.grid(video) == (2, 3, 5)
    masks = np.zeros((2, 1, 4, 24, 40), bool)
    masks[:, 0, 3, 23, 39] = True
    assert model.intervene(video, masks, 0).hidden.nonzero()[1].tolist() == [29, 29]


def test_what_cannot_be_asked(model, shown):
    video, masks = shown
    assert "nothing would stay visible" in refused(model.intervene, video, np.ones_like(masks), 0)
    assert "touched at the first 1 times only" in refused(model.intervene, video, masks, 0, anchor=1)
    for anchor in (-1, np.int64(-1), True, 0.5):
        assert f"anchor = {anchor!r}: must be" in refused(model.intervene, video, masks, 0, anchor=anchor)
    assert "first 1 times only" in refused(model.intervene, video, masks, 0, anchor=np.int64(1))
    anchored = Model(dataclasses.replace(model.pretrained, input=model.pretrained.input | {"anchor": 1}))
    assert "first 1 times only" in refused(anchored.intervene, video, masks, 0)  # as in training
    assert "has no pixel" in refused(model.intervene, video, np.zeros_like(masks), 0)
    assert "object 4 is not in masks" in refused(model.intervene, video, masks, [4])
    assert "4 objects of scene 0, the predictor was trained to remove 3" in refused(
        model.intervene, video, masks, range(4)
    )
    assert "the model takes clips" in refused(model.encode, video[:, 0])
    found = model.pretrained
    lone = dataclasses.replace(found, params={"encoder": found.params["encoder"]}, predictor=None, layout="ijepa")
    assert "has no predictor (layout ijepa): it can only encode" in refused(Model(lone).intervene, video, masks, [0])


@pytest.mark.slow
def test_what_was_not_trained_is_not_shown(model, shown):
    found = model.pretrained
    without = dataclasses.replace(found, input=found.input | {"change": False, "names_objects": False})
    other = Model(without, batch=4)
    answer = other.intervene(*shown, range(4))  # no object is named, so any number can be hidden
    assert answer.change is None and list(answer.readouts) == ["masked"]
    assert not other.info["foresees_change"] and other.info["max_objects"] == 0
    patches = np.zeros((5, 3, 16), bool)  # the evaluation has room for as many objects as are ever named
    patches[:, 0] = answer.hidden
    asked = Hidden(shown[0], answer.context, patches, patches.any(-1))
    expected = np.where(answer.hidden[..., None], other._compiled(4).hide(asked).prediction, 0)
    np.testing.assert_allclose(answer.prediction, expected, atol=1e-6)
    head = {**found.params["predictor"], "residual": jax.tree.map(np.zeros_like, found.params["predictor"]["residual"])}
    zeros = dataclasses.replace(found, params=found.params | {"predictor": head})
    assert not Model(zeros).info["foresees_change"]


def test_load_says_what_it_is_and_refuses_what_cannot_be(run, model, caplog):
    with caplog.at_level(logging.INFO, "cjepa_jax"):
        assert cjepa_jax.load(str(run)).info == model.info
    assert f"{run}: cjepa_jax, 96x1x3x384/8, 0.1 M parameters (encoder, target, predictor), licence" in caplog.text
    expected = dict(layout="cjepa_jax", step=4, width=96, depth=1, patch=8, tubelet=2, size=32, frames=2, max_objects=3)
    assert model.info.items() >= expected.items() and model.info["digest"] == pretrained.load_weights(run).digest
    assert "licence unspecified" in repr(model)
    for options, text in (
        ({"weights": "teacher"}, "weights = 'teacher': must be 'encoder' or 'target'"),
        ({"dtype": "float16"}, "dtype = 'float16': must be 'float32' or 'bfloat16'"),
        ({"batch": 0}, "batch = 0: must be a whole number from 1"),
        ({"batch": True}, "batch = True"),
    ):
        assert text in refused(cjepa_jax.load, run, **options)
    for path in (None, 3):
        assert f"path = {path}: must be the path" in refused(cjepa_jax.load, path)
    assert cjepa_jax.load(run, batch=np.int64(4)).batch == 4
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        cjepa_jax.load(run / "nowhere")
    assert cjepa_jax.load is api.load
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        cjepa_jax.lode  # noqa: B018


@pytest.mark.slow
@pytest.mark.needs("torch")
def test_tensors_of_pytorch(model, shown):
    import torch

    video, masks = shown
    np.testing.assert_array_equal(model.encode(torch.from_numpy(video)), model.encode(video))
    tensors = torch.from_numpy(video).float(), torch.from_numpy(masks), torch.tensor([0, 1])
    same(model.intervene(*tensors), model.intervene(video, masks, [0, 1]), atol=2e-5)
    numbers = video.astype(np.float64), masks.astype(int)
    same(model.intervene(video, masks, [1]), model.intervene(*numbers, [1]), atol=2e-5)
    assert "requires grad" in refused(model.encode, torch.ones(1, 2, 32, 32, 3, requires_grad=True))
    text = "Channels come last: np.moveaxis(images, 1, -1)"
    assert text in refused(model.encode, torch.from_numpy(video).permute(0, 4, 1, 2, 3))


@pytest.mark.slow
def test_the_page_says_what_runs(run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/clips").symlink_to(run)
    (tmp_path / "my_masks.py").write_text("from cjepa_jax.masks.objects import draw\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = run_folders.config(mask__type="my_masks:draw")
    run_folders.write(tmp_path / "runs/mine", mine, steps=(1,))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="mask.type = .*my_masks"):
        cjepa_jax.load("runs/mine")
    page, names = (running.ROOT / "docs/API.md").read_text(), {}
    for snippet in re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S):
        exec(snippet, names)
    same(names["answer"], names["same"], rtol=0)
    documented = set(re.findall(r"^\| `(\w+)(?:=.*?)?` \|", page, flags=re.M))
    assert documented == {name for name in inspect.signature(cjepa_jax.load).parameters if name != "path"}
    assert {"source", "layout", "licence", "digest", "step", "size", "frames", "anchor"} <= set(names["model"].info)


@pytest.mark.slow
def test_images_bfloat16_and_a_model_without_target(tmp_path, model, shown):
    folder = run_folders.write(tmp_path, run_folders.config(mae, data__frames=1), steps=(1,))
    assert "has no target" in refused(cjepa_jax.load, folder, weights="target")
    images, masks = shown[0][:, 0], shown[1][:, :, 0]
    found = cjepa_jax.load(folder)
    assert found.encode(images).shape == (5, 16, 96) and found.encode(images[0]).shape == (1, 16, 96)
    np.testing.assert_array_equal(found.encode(images), found.encode(images[:, None]))
    assert "the model takes images" in refused(found.encode, shown[0])
    assert "has no predictor" in refused(found.intervene, images, masks, [0])
    half = dataclasses.replace(model, dtype="bfloat16").encode(shown[0])
    difference = np.abs(half - model.encode(shown[0]))
    assert half.dtype == np.float32 and 0 < difference.max() < 0.2
