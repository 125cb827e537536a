"""Published Point-JEPA, from its stored names."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from cjepa_jax import experiment
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.loading import init_from
from cjepa_jax.loading.model import Network, Restored
from cjepa_jax.objectives.points import PointJepa
from cjepa_jax.weights import points, read
from configs import clips
from configs.family import point_jepa as point_jepa_py
from tests.objectives import family
from tests.objectives.test_points import ENCODER, PREDICTOR, published
from tests.weights.test_worlds import equal, tensors, without

MEAN, VAR = (f"{points.NET}.first_conv.1.running_{name}" for name in ("mean", "var"))


@pytest.fixture(autouse=True)
def heads(monkeypatch):
    monkeypatch.setattr(points, "HEADS", {24: 2, 16: 2})


def arrays():
    """What the published state dict holds, at the size of the stored numbers."""
    numbers, _ = family.stored("point_jepa")
    found = family.parameters(numbers["parameters"], numbers["seed"])
    for number, (conv, width) in enumerate((("first_conv", 128), ("second_conv", 512))):
        found[f"{points.NET}.{conv}.1.running_mean"] = np.full(width, 0.5 + number, np.float32)
        found[f"{points.NET}.{conv}.1.running_var"] = np.full(width, 2.0 + number, np.float32)
        found[f"{points.NET}.{conv}.1.num_batches_tracked"] = np.array(3)
    for name in [name for name in found if name.startswith("student.")]:  # the average differs from what it follows
        found[name.replace("student", "teacher.ema_model")] = found[name] + 1
    assert set(numbers["state_dict_keys"]) < set(found)  # the list is cut off
    assert set(numbers["gradnorm"]) <= set(found)
    return found


def test_it_is_read_as_the_golden_test_lays_it_out():
    assert points.is_point_jepa(arrays()) and not points.is_point_jepa(["encoder.blocks.0.norm1.weight"])
    encoder, params, found = points.point_jepa(tensors(arrays()))
    _, _, objective, (wanted, _, extra), _ = published()
    assert encoder == {"type": points.ENCODER, "variant": ENCODER["variant"], "hidden": (128, 256, 512)}
    equal(params["encoder"], wanted["encoder"])
    equal(found.params, {"predictor": wanted["predictor"]})
    equal(params["target"]["norm"]["scale"], arrays()["student.norm.weight"] + 1)
    equal(params["target"]["block1"]["mlp"]["up"]["kernel"], arrays()["student.blocks.1.mlp.fc1.weight"].T + 1)
    assert jax.tree.map(np.shape, found.extra) == jax.tree.map(np.shape, extra)
    net = found.extra["batch_stats"]["tokenizer"]
    equal(net["norm0"]["BatchNorm_0"], {"mean": np.full(128, 0.5), "var": np.full(128, 2.0)})
    equal(net["norm1"]["BatchNorm_0"], {"mean": np.full(512, 1.5), "var": np.full(512, 3.0)})
    assert {key: objective.setting(key) for key in found.settings} == found.settings


def test_what_wraps_the_names_is_removed_and_what_is_not_read_is_left_out():
    wrapped = {f"state_dict.{name.replace('student.', 'student._orig_mod.')}": a for name, a in arrays().items()}
    found = points.point_jepa(tensors(wrapped | {"state_dict.cls_head.weight": np.ones(3), "epoch": np.ones(1)}))
    equal(found[1], points.point_jepa(tensors(arrays()))[1])


@pytest.mark.needs("torch")
def test_a_checkpoint_of_lightning_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "epoch=499.ckpt"
    state = {name: torch.tensor(array) for name, array in arrays().items()}
    moments = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(24)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save({"epoch": 499, "pytorch-lightning_version": "2.0.0", "state_dict": state, "callbacks": {},
                "optimizer_states": [moments], "hyper_parameters": {"encoder_dim": 24}}, path)  # fmt: skip
    found = read.read(path)
    assert (found.layout, found.licence, found.encoder["variant"]) == ("point-jepa", "MIT", "24x2x2x96/1")
    equal(found.params, points.point_jepa(tensors(arrays()))[1])


@pytest.mark.parametrize(("change", "text"), [
    (lambda a: without(a, "student.norm.bias"), "1 missing: student.norm.bias"),
    (lambda a: without(a, MEAN), "1 missing: .*running_mean"),
    (lambda a: a | {"student.blocks.0.attn.gate": np.ones(2)}, "1 not in the model: student.blocks.0.attn.gate"),
    (lambda a: a | {"student.blocks.2.norm1.bias": np.ones(24)}, "missing: student.blocks.2"),
    (lambda a: a | {"predictor.mask_token": np.ones(16)}, r"mask_token is \[16\], must be \[1, 1, 16\]"),
    (lambda a: a | {"positional_encoding.0.bias": np.ones(64)}, "of another shape"),
    (lambda a: a | {VAR: -a[VAR]}, "running_var has -2: must be 0 or more"),
    (lambda a: a | {"model.student.norm.bias": np.ones(24)}, "have one name without their prefixes"),
])  # fmt: skip
def test_other_arrays_are_refused_in_one_line(change, text):
    with pytest.raises(CheckpointError, match=text) as error:
        points.point_jepa(tensors(change(arrays())))
    assert "\n" not in str(error.value)


def test_any_array_of_another_rank_or_without_numbers_is_refused_in_one_line():
    given = arrays()
    for name, array in given.items():
        if name.endswith("num_batches_tracked") or name == "mask_token" or name.startswith(points.UNUSED):
            continue
        for other in (np.float32(1), np.ones((0, *array.shape[1:]), np.float32), array[..., None]):
            with pytest.raises(CheckpointError, match="is not this model|must have numbers|heads") as error:
                points.point_jepa(tensors(given | {name: np.asarray(other)}))
            assert "\n" not in str(error.value)


def test_unknown_heads_are_asked_for(monkeypatch):
    monkeypatch.setattr(points, "HEADS", {16: 2})
    with pytest.raises(CheckpointError, match="has a width of 24: how many heads it has is not in it: give it"):
        points.point_jepa(tensors(arrays()))
    assert points.point_jepa(tensors(arrays()), heads=3)[0]["variant"] == "24x2x3x96/1"
    with pytest.raises(CheckpointError, match="heads = 5: must divide the width 24"):
        points.point_jepa(tensors(arrays()), heads=5)
    monkeypatch.setattr(points, "HEADS", {24: 2})
    assert points.point_jepa(tensors(arrays()))[2].settings["predictor.heads"] == "unknown"


def stored(folder):
    path = folder / "pointjepa.safetensors"
    safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays().items()}, path)
    return path


def config_of(path, **changes):
    config = point_jepa_py.get_config().unlock()
    sizes = {
        "data.workers": 0, "train.batch": 8, "data.count": 16, "data.options.points": 64, "train.steps": 2,
        "objective.encoder.groups": 8, "objective.encoder.neighbours": 4, "objective.predictor.depth": 2,
        "objective.predictor.width": PREDICTOR["width"], "objective.predictor.heads": PREDICTOR["heads"],
    }  # fmt: skip
    config.update_from_flattened_dict(sizes | changes)
    config.init_from = str(path)
    return config.lock()


def test_a_run_starts_from_it(tmp_path):
    path = stored(tmp_path)
    config = config_of(path)
    weights, lines = init_from.prepare(config, tmp_path / "run")
    assert lines[0].startswith(f"{path}: point-jepa, 24x2x2x96/1, ")
    assert lines[0].endswith("(encoder, target, Point-JEPA's predictor), licence MIT")
    assert lines[-1] == "predictor: taken, Point-JEPA's"
    assert (config.objective.encoder.variant, config.objective.encoder.hidden) == ("24x2x2x96/1", (128, 256, 512))
    run = experiment.assemble(config)
    batch = run.example()
    state = init_from.start(config, run.init(batch), weights, tmp_path)
    held = {"encoder": weights.params["encoder"], **weights.world.params}
    equal(
        jax.device_get((state.params, state.target, state.extra)), (held, weights.params["target"], weights.world.extra)
    )
    assert init_from.recorded(tmp_path)["licence"] == "MIT"
    assert init_from.adopt(config, init_from.recorded(tmp_path)["encoder"]) == []
    _, metrics = run.step(state, batch)
    assert np.isfinite(metrics["loss"])
    file = tmp_path / "init_from.json"
    good = json.loads(file.read_text())
    for other, text in (
        ({"type": "os:system"}, "encoder.type = 'os:system': is code of another package"),
        ({"type": "cjepa_jax.objectives.points:PointJepa"}, "encoder.type = .*: this package has no such model"),
        ({"type": 3}, "encoder.type = '3': must be 'module:Name'"),
        ({"tokenizer": {"type": "os:system"}}, "encoder.tokenizer.type = 'os:system': is code of another package"),
        ({"tokenizer": {"of": {"type": "os:system"}, "type": None}}, "tokenizer.of.type = .*|must be 'module:Name'"),
        ({"tokenizer": 3}, "encoder.tokenizer = '3': must be a section with a type"),
        ({"tokenizer": {"a": 3}}, "encoder.tokenizer = .*: must be a section with a type"),
    ):
        file.write_text(json.dumps(good | {"encoder": good["encoder"] | other}))
        with pytest.raises(CheckpointError, match=text):
            init_from.recorded(tmp_path)
        file.write_text(json.dumps(good))


def test_its_encoder_and_statistics_are_taken_without_its_predictor(tmp_path):
    config = config_of(stored(tmp_path), **{"objective.predictor.depth": 1})
    config.unlock().optim.freeze = ("encoder",)
    weights, lines = init_from.prepare(config.lock(), tmp_path / "run")
    assert lines[-1] == "predictor: fresh, because objective.predictor.depth = 1 (Point-JEPA: 2)"
    run = experiment.assemble(config)
    state = init_from.start(config, run.init(run.example()), weights)
    equal(jax.device_get(state.extra), weights.world.extra)
    equal(jax.device_get(state.target), weights.params["encoder"]["trunk"])  # of a frozen encoder


def test_it_is_evaluated_and_is_for_point_clouds_alone(tmp_path):
    path = stored(tmp_path)
    model = Restored.of(config_of("", **{"data.workers": 0}), str(path)).trained(4)
    clouds = np.random.default_rng(0).normal(size=(4, 1, 8, 5, 3)).astype(np.float32)
    features = model.encode(clouds)
    assert features.shape == (4, 8, 24) and np.isfinite(features).all()
    loaded = Network.of_weights(read.read(path), "float32").functions(4)
    np.testing.assert_array_equal(loaded.encode(clouds), features)
    with pytest.raises(CheckpointError, match="frames: not for Point-JEPA"):
        read.read(path, frames=4)
    config = clips.get_config().unlock()
    config.init_from = str(path)
    with pytest.raises(ConfigError, match="init_from: objective.type = '.*Jepa' has no encoder that weights can start"):
        init_from.prepare(config.lock(), tmp_path)


@pytest.mark.parametrize("hidden", [(1, 2), ("a", "b", "c"), (0, 4, 3), (4, 4, 131072)])
def test_sizes_that_cannot_be_are_refused_before_anything_is_built(hidden):
    with pytest.raises(ConfigError, match=r"objective.encoder.hidden = .*: must be 3 numbers within 1 and 8192"):
        PointJepa(encoder=ENCODER | {"hidden": hidden}, predictor=PREDICTOR, steps=1)
