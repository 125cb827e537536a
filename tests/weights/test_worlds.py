"""Published world models: V-JEPA 2-AC's predictor and LeWorldModel, from their stored names."""

import dataclasses
import importlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from cjepa_jax import experiment
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.loading import init_from
from cjepa_jax.models.dynamics import Causal
from cjepa_jax.weights import name_maps, read, worlds
from cjepa_jax.weights.files import Tensors
from configs import clips
from configs.family import lewm as lewm_py
from configs.family import vjepa2_ac as ac_py
from tests.objectives import family
from tests.objectives.test_world import AC, LEWM, ac, batch_of, lewm

RUNNING = ("running_mean", "running_var")


def tensors(arrays, source="weights.pt"):
    return Tensors(source, {name: array.shape for name, array in arrays.items()}, lambda name: arrays[name])


def lewm_arrays():
    """What weights.pt of LeWorldModel holds, at the size of the stored numbers."""
    numbers, arrays = family.stored("lewm")
    found = family.parameters(numbers["parameters"], numbers["seed"])
    for part in ("projector", "pred_proj"):
        found |= {f"{part}.net.1.{name}": arrays[f"{part}/net/1/{name}"] for name in RUNNING}
        found[f"{part}.net.1.num_batches_tracked"] = np.array(1)
    assert set(found) == set(numbers["state_dict_keys"])
    return found


def before_5(arrays):
    """The same under the names of transformers 4."""
    old = {new.rstrip("."): name.rstrip(".") for new, name in worlds.SINCE_5.items()}
    found = {}
    for name, array in arrays.items():
        if name.startswith("encoder.layers."):
            name = name.replace("encoder.layers.", "encoder.encoder.layer.")
            for new, older in old.items():
                name = name.replace(new, older)
        found[name] = array
    return found


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def ac_arrays():
    numbers, _ = family.stored("vjepa2_ac")
    return family.parameters(numbers["parameters"], numbers["seed"])


@pytest.mark.parametrize("names", [lambda x: x, before_5], ids=["transformers 5", "transformers 4"])
def test_lewm_is_read_under_both_namings(names):
    arrays = names(lewm_arrays())
    assert worlds.is_lewm(tensors(arrays))
    encoder, params, found = worlds.lewm(tensors(arrays), (0.0,) * 3, (1 / 255,) * 3, heads=2, head=8)
    _, _, objective, wanted, _, extra = lewm()
    equal({"encoder": params, **found.params}, wanted)
    assert jax.tree.map(np.shape, found.extra) == jax.tree.map(np.shape, extra)
    mean = found.extra["batch_stats"]["predictor_projector"]["norm0"]["BatchNorm_0"]["mean"]
    equal(mean, arrays["pred_proj.net.1.running_mean"])
    assert {key: objective.setting(key) for key in found.settings} == found.settings
    assert encoder == dict(LEWM["encoder"], gelu="exact", depth=0)


def test_the_predictor_of_vjepa2_ac_is_read(monkeypatch):
    arrays = {f"predictor.module.backbone.{name}": array for name, array in ac_arrays().items()}
    monkeypatch.setattr(worlds, "AC_HEADS", {48: 3})
    found, notes = worlds.action_conditioned(name_maps.raw(tensors(arrays | encoder_arrays()))["predictor"])
    assert notes == ["its predictor is for cjepa_jax.objectives.world:World alone"]
    _, _, objective, wanted = ac()
    equal(found.params, {"predictor": wanted})
    assert found.extra == {} and {key: objective.setting(key) for key in found.settings} == found.settings
    assert AC["predictor"]["depth"] == found.settings["predictor.depth"]


def encoder_arrays():
    """One of V-JEPA 2's encoders, as small as can be."""
    width, shapes = 24, {"patch_embed.proj.weight": (24, 3, 2, 8, 8), "patch_embed.proj.bias": (24,)}
    shapes |= worlds.shapes.stack(width, 1, 48)
    return {f"encoder.module.backbone.{name}": family.draw(1, *shape) for name, shape in shapes.items()}


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


@pytest.mark.parametrize(("change", "text"), [
    (lambda a: without(a, "predictor.transformer.norm.bias"), "1 missing: predictor.transformer.norm.bias"),
    (lambda a: a | {"decoder.weight": np.ones(2)}, "1 not in the model: decoder.weight"),
    (lambda a: a | {"projector.net.1.running_var": np.ones(3)}, "running_var is .3., must be .40."),
    (lambda a: a | {"encoder.embeddings.position_embeddings": np.ones((5, 24))}, "position_embeddings|pos_embed"),
    (lambda a: a | {"predictor.pos_embedding": np.ones(3)}, "of another shape"),
    (lambda a: without(a, "encoder.layers.1.mlp.fc1.bias"), "1 missing: blocks.1.mlp.fc1.bias"),
])  # fmt: skip
def test_other_arrays_are_refused_in_one_line(change, text):
    with pytest.raises(CheckpointError, match=text) as error:
        worlds.lewm(tensors(change(lewm_arrays())), (0.0,) * 3, (1.0,) * 3, heads=2, head=8)
    assert "\n" not in str(error.value)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(CheckpointError, match="which heads of 64 do not divide"):
        worlds.lewm(tensors(lewm_arrays()), (0.0,) * 3, (1.0,) * 3, heads=2)


def test_a_predictor_of_another_form_is_left_out_with_the_reason():
    arrays = {f"predictor.{name}": array for name, array in ac_arrays().items()}
    view = name_maps.raw(tensors(arrays | encoder_arrays()))["predictor"]
    for found, reason in (
        (view, "the heads of a width of 48 are not in the weights, only those of 1024 are known"),
        (name_maps.derived(view, ["state_encoder.bias"]), "is not this model: 1 missing: state_encoder.bias"),
    ):
        assert worlds.action_conditioned(found) == (None, [f"the predictor that takes actions is left out: {reason}"])


@pytest.mark.needs("torch")
def test_a_folder_of_lewm_is_read_beside_its_config(tmp_path):
    """As downloaded: weights.pt, and a config.json that names stable-worldmodel's classes."""
    torch = pytest.importorskip("torch")
    arrays = {name: torch.tensor(array) for name, array in published_lewm(tmp_path / "x").items()}
    (tmp_path / "lewm").mkdir()
    torch.save(arrays, tmp_path / "lewm/weights.pt")
    (tmp_path / "lewm/config.json").write_text('{"_target_": "stable_worldmodel.wm.lewm.LeWM", "history_size": 3}')
    found = read.read(tmp_path / "lewm", heads=2)
    alone = read.read(tmp_path / "lewm/weights.pt", heads=2)
    assert (found.layout, found.digest) == ("lewm", alone.digest)
    equal(found.params, alone.params)


def test_options_for_other_weights_are_refused_for_lewm(tmp_path):
    path = tmp_path / "weights.safetensors"
    published_lewm(path)
    for name, value in (("frames", 4), ("part", "target_encoder"), ("mask_token", 0)):
        with pytest.raises(CheckpointError, match=f"{name}: not for LeWorldModel"):
            read.read(path, heads=2, **{name: value})


def test_any_array_of_another_rank_or_without_numbers_is_refused_in_one_line():
    arrays = lewm_arrays()
    for name, array in arrays.items():
        if name.endswith("num_batches_tracked"):
            continue
        for other in (np.float32(1), np.ones((0, *array.shape[1:]), np.float32), array[..., None]):
            with pytest.raises(CheckpointError):
                worlds.lewm(tensors(arrays | {name: np.asarray(other)}), (0.0,) * 3, (1.0,) * 3, heads=2, head=8)
    given = ac_arrays()
    for name, array in given.items():
        for other in (np.float32(1), np.ones((0, *array.shape[1:]), np.float32), array[..., None]):
            changed = {f"predictor.{key}": value for key, value in (given | {name: np.asarray(other)}).items()}
            found = worlds.action_conditioned(name_maps.raw(tensors(changed | encoder_arrays()))["predictor"])
            assert found[0] is None or name.startswith("extrinsics")


@pytest.mark.parametrize(("change", "text"), [
    (lambda a: {"projector.net.1.running_var": -a["projector.net.1.running_var"]}, "running_var has -.*: must be 0 or"),
    (lambda a: {"encoder.encoder.layer.0.layernorm_before.bias": np.ones(24)}, "have one name without their pre"),
    (lambda a: {"encoder.vjepa2.layernorm.bias": np.ones(24)}, "have one name without their prefixes"),
    (lambda a: {"encoder.layer.0.layernorm_before.bias": np.ones(24)}, "are one array under two names"),
    (lambda a: {"encoder.embeddings.position_embeddings": np.ones((1, 7, 24))}, "has 7 positions: must be"),
    (lambda a: {"encoder.layers.0.attention.q_proj.weight": np.ones((20, 24)),
                "encoder.layers.0.attention.k_proj.weight": np.ones((28, 24))}, "has another shape than"),
])  # fmt: skip
def test_arrays_that_would_give_other_results_are_refused(change, text):
    arrays = lewm_arrays()
    with pytest.raises(CheckpointError, match=text):
        worlds.lewm(tensors(arrays | change(arrays)), (0.0,) * 3, (1.0,) * 3, heads=2, head=8)


def test_actions_may_be_mixed_to_another_number_of_values():
    arrays = lewm_arrays() | {"action_encoder.patch_embed.weight": family.draw(1, 10, 25, 1)}
    _, _, found = worlds.lewm(tensors(arrays), (0.0,) * 3, (1.0,) * 3, heads=2, head=8)
    assert found.settings["predictor.mixed"] == 10
    predictor = Causal(depth=1, heads=1, head=8, hidden=32, mixed=10)
    made = jax.eval_shape(predictor.init, jax.random.key(0), np.zeros((1, 2, 24)), np.zeros((1, 2, 25)))
    assert made["params"]["action"]["mix"]["kernel"].shape == (25, 10)
    assert made["params"]["action"]["up"]["kernel"].shape == (10, 96)


WIDER = {24: 64, 72: 192, 144: 384, 96: 256}  # sizes of the stored numbers -> those of a head of 64


def published_lewm(path):
    """A file as weights.pt, of heads as wide as published."""
    arrays = {}
    for name, array in lewm_arrays().items():
        shape = tuple(WIDER.get(size, size) for size in array.shape)
        arrays[name] = np.asarray(np.abs(family.draw(len(name), *shape)) * 0.1 + 0.01, np.float32)
    arrays["projector.net.1.num_batches_tracked"] = np.array(7)
    safetensors.numpy.save_file(arrays, path)
    return arrays


def lewm_config(path, **changes):
    """lewm.py with the sizes of `published_lewm`."""
    config = lewm_py.get_config().unlock()
    sizes = {
        "data.size": 28, "data.frames": 4, "data.count": 16, "train.batch": 8, "train.steps": 2, "data.workers": 0,
        "objective.latent": "first", "objective.projection": 64, "objective.predictor.heads": 1,
        "objective.predictor.head": 64, "objective.predictor.hidden": 32, "objective.projector.hidden": (40,),
        "objective.predictor_projector.hidden": (40,),
    }  # fmt: skip
    config.update_from_flattened_dict(sizes | changes)
    config.init_from = str(path)
    return config.lock()


def test_a_run_starts_from_lewm(tmp_path):
    path = tmp_path / "weights.safetensors"
    arrays = published_lewm(path)
    config = lewm_config(path)
    found, lines = init_from.prepare(config, tmp_path / "run", reading=init_from.Reading(heads=2))
    assert lines[0] == (
        f"{path}: lewm, 64x2x2x48/14, 0.1 M parameters (encoder, LeWorldModel's predictor, LeWorldModel's projector, "
        "LeWorldModel's predictor_projector), licence unknown"
    )
    assert lines[-1] == "predictor: taken, LeWorldModel's"
    assert config.objective.encoder.variant == "64x2x2x48/14" and config.objective.encoder.tokenizer.patch == 14
    run = experiment.assemble(config)
    batch = run.example()
    # The world's actions have two components, the file's ten.
    with pytest.raises(CheckpointError, match=r"the predictor: .*action.down|the predictor: .*action.mix"):
        init_from.start(config, run.init(batch), found)
    arrays |= {
        "action_encoder.patch_embed.weight": np.ones((2, 2, 1), np.float32),
        "action_encoder.patch_embed.bias": np.ones(2, np.float32),
        "action_encoder.embed.0.weight": np.ones((256, 2), np.float32),
    }
    safetensors.numpy.save_file(arrays, path)
    found = read.read(path, heads=2)
    state = init_from.start(config, run.init(batch), found, tmp_path)
    ours = {name: state.params[name] for name in ("encoder", "predictor", "projector", "predictor_projector")}
    equal(jax.device_get(ours), {"encoder": found.params["encoder"], **found.world.params})
    equal(jax.device_get(state.extra), found.world.extra)
    assert init_from.recorded(tmp_path)["predictor"] == "taken, LeWorldModel's"
    _, metrics = run.step(state, batch)
    assert np.isfinite(metrics["loss"])


def test_a_predictor_of_other_settings_is_fresh_with_the_reason(tmp_path):
    path = tmp_path / "weights.safetensors"
    published_lewm(path)
    config = lewm_config(path, **{"objective.predictor.depth": 3, "objective.projector.norm": "layer"})
    _, lines = init_from.prepare(config, tmp_path / "run", reading=init_from.Reading(heads=2))
    assert lines[-1] == (
        "predictor: fresh, because objective.projector.norm = 'layer' (LeWorldModel: 'batch'), "
        "objective.predictor.depth = 3 (LeWorldModel: 2); the projectors too"
    )


def test_the_published_config_has_the_published_sizes():
    config = importlib.import_module("configs.family.lewm_published").get_config()
    objective = experiment.make_objective(config, 1)
    batch = jax.eval_shape(lambda: batch_of(np.zeros((1, 4, 224, 224, 3), np.uint8), np.zeros((1, 4, 10), np.float32)))
    params, _, extra = jax.eval_shape(objective.init, jax.random.key(0), batch)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    assert 14e6 < count < 19e6  # about 15 million are published
    assert extra["batch_stats"]["projector"]["norm0"]["BatchNorm_0"]["mean"].shape == (2048,)
    assert objective.setting("predictor.heads") * objective.setting("predictor.head") == 1024


def test_lewm_starts_world_models_alone(tmp_path):
    path = tmp_path / "weights.safetensors"
    published_lewm(path)
    config = clips.get_config().unlock()
    config.init_from, config.data.size = str(path), 28
    with pytest.raises(ConfigError, match="objective.type = '.*Jepa' takes no encoder with a class token"):
        init_from.prepare(config.lock(), tmp_path, reading=init_from.Reading(heads=2))


def test_a_moving_average_starts_from_the_encoder_and_the_projector(tmp_path):
    path = tmp_path / "weights.safetensors"
    published_lewm(path)
    config = lewm_config(path, **{"objective.target": "ema", "data.frames": 4})
    found, _ = init_from.prepare(config, tmp_path / "run", reading=init_from.Reading(heads=2))
    world = found.world.params
    action = {
        "mix": {"kernel": np.ones((2, 10)), "bias": np.ones(10)},
        **{k: world["predictor"]["action"][k] for k in ("up", "down")},
    }
    found = dataclasses.replace(
        found,
        world=dataclasses.replace(found.world, params={**world, "predictor": {**world["predictor"], "action": action}}),
    )
    config.unlock().objective.predictor.mixed = 10
    run = experiment.assemble(config)
    settings = {**found.world.settings, "predictor.mixed": 10}
    found = dataclasses.replace(found, world=dataclasses.replace(found.world, settings=settings))
    state = init_from.start(config, run.init(run.example()), found)
    equal(jax.device_get(state.target), {"encoder": found.params["encoder"], "projector": world["projector"]})


def test_a_run_starts_from_vjepa2_ac(tmp_path, monkeypatch):
    monkeypatch.setattr(worlds, "AC_HEADS", {48: 3})
    path, given = tmp_path / "vitg.safetensors", {}
    for name, array in ac_arrays().items():  # a push has two components of action, and the agent four of state
        taken = {"action_encoder.weight": 2, "state_encoder.weight": 4}.get(name)
        given[f"predictor.module.backbone.{name}"] = np.ascontiguousarray(array[:, :taken] if taken else array)
    safetensors.numpy.save_file(given | encoder_arrays(), path)
    config = ac_py.get_config().unlock()
    sizes = {
        "data.size": 32, "data.frames": 4, "data.count": 16, "train.batch": 8, "data.workers": 0, "train.steps": 2,
        "objective.predictor.depth": 2, "objective.predictor.width": 48, "objective.predictor.heads": 3,
        "objective.predictor.history": 3,
    }  # fmt: skip
    config.update_from_flattened_dict(sizes)
    config.init_from = str(path)
    found, lines = init_from.prepare(config.lock(), tmp_path / "run", reading=init_from.Reading(heads=2))
    assert lines[0].endswith("(encoder, V-JEPA 2-AC's predictor), licence MIT")
    assert "  its predictor is for cjepa_jax.objectives.world:World alone" in lines
    assert lines[-1] == "predictor: taken, V-JEPA 2-AC's" and found.predictor is None
    run = experiment.assemble(config)
    batch = run.example()
    state = init_from.start(config, run.init(batch), found, tmp_path)
    equal(jax.device_get(state.params["predictor"]), found.world.params["predictor"])
    equal(state.params["predictor"]["action"]["kernel"], given["predictor.module.backbone.action_encoder.weight"].T)
    _, metrics = run.step(state, batch)
    assert np.isfinite(metrics["loss"])
