"""Training and evaluation that start from weights: what they fix, what starts from them, what stays unchanged."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cjepa_jax import experiment, optim, train_step
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.data import assemble
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.loading import init_from, pretrained
from cjepa_jax.loading.model import Restored
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.runtime import run_manifest, trees
from configs import clips, vitl
from configs.baselines import byol, lejepa, mae, supervised
from tests import running
from tests.pretrained import VARIANT, export, published, weights


def config(base=clips, **values):
    """Of running.SMALL as far as the base has its keys. Keys have __ for the dot."""
    made = base.get_config()
    known = dict(config_lib.flatten(made))
    small = {key: value for key, value in running.SMALL.items() if key in known}
    return config_lib.override(made, small | {key.replace("__", "."): value for key, value in values.items()})


def blank(made):
    """The state of a config's model, all zeros, and its objective."""
    objective = experiment.make_objective(made, 10)
    source = assemble.make_source(made, "train")
    scenes = assemble.make_scenes(made, source, objective.patch, objective.tubelet, objective.max_removed)
    init = lambda batch: train_step.init_state(objective, optim.make(made.optim), 0, batch)  # noqa: E731
    abstract = jax.eval_shape(init, experiment.shapes(scenes, 1))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# ---------------------------------------------------------------------- what is fixed


def test_the_encoder_is_set_to_the_weights_own_with_a_line_for_each_key(tmp_path):
    made = config(init_from=export(tmp_path / "export", weights()))
    found, lines = init_from.prepare(made, tmp_path / "run")
    encoder = made.objective.encoder
    assert (encoder.variant, encoder.tubelet, encoder.gelu, encoder.epsilon) == (VARIANT, 2, "tanh", 1e-5)
    assert f"objective.encoder.variant = {VARIANT!r} (was 'Mu/8'): the weights' own" in lines
    assert "objective.encoder.depth = 0 (was 1): the weights' own" in lines
    assert not any(".tubelet" in line or ".remat" in line for line in lines)
    assert "licence CC-BY-NC-4.0" in lines[0] and lines[-1] == "predictor: taken"
    assert made.is_locked and found.licence == "CC-BY-NC-4.0"
    assert init_from.prepare(config(), tmp_path) == (None, [])


def test_data_must_fit_the_weights(tmp_path):
    path = export(tmp_path / "export", weights("24x2x3x40/16"))
    made = config(init_from=path, data__size=40)
    with pytest.raises(ConfigError, match="data.size = 40: must be a multiple of the patch size 16"):
        init_from.prepare(made, tmp_path)
    three = export(tmp_path / "three", weights(frames=3, tubelet=3))
    with pytest.raises(ConfigError, match="data.frames = 2: must be 1 or a multiple of objective.encoder.tubelet = 3"):
        init_from.prepare(config(init_from=three), tmp_path)
    with pytest.raises(ConfigError, match="objective.type = '.*Supervised' has no encoder that weights can start"):
        init_from.prepare(config(supervised, init_from=path), tmp_path)
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        init_from.prepare(config(init_from=str(tmp_path / "nothing")), tmp_path)


@pytest.mark.parametrize(
    "values,line",
    [
        ({}, "predictor: taken"),
        ({"objective__predictor__depth": 2}, "predictor: fresh, because objective.predictor.depth = 2 (theirs: 1)"),
        (
            {"objective__predictor__heads": 2, "mask__max_objects": 2},
            "predictor: fresh, because objective.predictor.heads = 2 (theirs: 4), "
            "objective.predictor.max_objects = 2 (theirs: 3)",
        ),
    ],
)
def test_the_predictor_is_taken_if_the_config_has_its_size(values, line):
    made, found = config(**values), weights()
    assert init_from.use(made, found)[-1] == line
    predictor = init_from.start(made, blank(made), found).params["predictor"]
    if line.endswith("taken"):
        equal(predictor, found.params["predictor"])
    else:
        assert not any(leaf.any() for leaf in jax.tree.leaves(predictor))
    assert init_from.predictor_line(made, weights(predictor=None)) == "predictor: fresh, because the weights have none"


def test_a_key_that_the_config_leaves_out_has_its_default():
    """A run's weights say every key of their predictor, a config need not."""
    made, found = config(), weights()
    assert "name_context" not in made.objective.predictor
    for value, line in (
        (False, "predictor: taken"),
        (True, "predictor: fresh, because objective.predictor.name_context"),
    ):
        found = dataclasses.replace(found, predictor=found.predictor | {"name_context": value})
        assert init_from.predictor_line(made, found).startswith(line)


# ---------------------------------------------------------------------- what starts from them


@pytest.mark.parametrize("target", [True, False])
def test_parameters_and_target_are_the_weights(target):
    made, found = config(), weights(target=target)
    init_from.use(made, found)
    state = init_from.start(made, blank(made), found)
    equal(state.params["encoder"], found.params["encoder"])
    equal(state.target, found.params["target" if target else "encoder"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.opt_state)) and not state.step


@pytest.mark.parametrize("base", [mae, byol, lejepa])
def test_other_objectives_with_an_encoder_of_patches_start_too(base):
    made, found = config(base), weights()
    lines = init_from.use(made, found)
    assert ("predictor" in made.objective) == any("predictor: fresh" in line for line in lines)
    state = init_from.start(made, blank(made), found)
    equal(state.params["encoder"], found.params["encoder"])
    if base is byol:
        equal(state.target["encoder"], found.params["target"])
        assert not any(leaf.any() for leaf in jax.tree.leaves(state.target["projector"]))


def test_weights_that_do_not_fit_are_listed():
    made, found = config(), weights()
    state = blank(made)  # before the config is set to them
    with pytest.raises(CheckpointError, match="the encoder: is not this model: .* of another shape: ") as caught:
        init_from.start(made, state, found)
    assert "tokenizer/projection/kernel is [384, 24], must be [384, " in str(caught.value)


def test_an_image_is_to_a_clips_encoder_the_clip_of_its_repetition():
    made, found = config(data__frames=1), weights()
    init_from.use(made, found)
    assert made.objective.encoder.tubelet == 2
    state = init_from.start(made, blank(made), found)
    image = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 3)).astype(np.uint8)
    encode = jax.jit(Encoder(**found.encoder).apply)
    of_clip = encode({"params": found.params["encoder"]}, image.repeat(2, 1))
    of_image = encode({"params": state.params["encoder"]}, image)
    np.testing.assert_allclose(of_image, of_clip, atol=2e-5)
    equal(state.target["stack"], found.params["target"]["stack"])


def test_an_images_encoder_takes_the_frames_of_a_clip_one_by_one():
    made, found = config(), weights(frames=1)
    assert "objective.encoder.tubelet = 1 (was 2): the weights' own" in init_from.use(made, found)
    equal(init_from.start(made, blank(made), found).params["encoder"], found.params["encoder"])


def test_a_run_knows_its_weights_however_their_path_is_written(tmp_path, monkeypatch):
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    made = config(init_from="export")
    init_from.use(made, weights())
    (tmp_path / "run" / "init_from.json").write_text(json.dumps(init_from.record(made, weights())))
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path in ("export", "../export/", str(tmp_path / "export")):  # which is gone
        made = config(init_from=path)
        found, lines = init_from.prepare(made, tmp_path / "run")
        assert found is None and made.init_from == "export" and made.objective.encoder.variant == VARIANT
        assert f"objective.encoder.variant = {VARIANT!r} (was 'Mu/8'): the weights' own" in lines
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        init_from.prepare(config(init_from="../other"), tmp_path / "run")


def test_a_damaged_record_is_one_line(tmp_path):
    for text, match in (("{", "not JSON"), ("{}", "encoder: must be an object")):
        (tmp_path / "init_from.json").write_text(text)
        with pytest.raises(CheckpointError, match=match):
            init_from.recorded(tmp_path)
    for encoder, match in (
        ({"other": 1}, "'other' is not a key of objective.encoder"),
        ({"variant": 3}, "cannot be 3"),
    ):
        with pytest.raises((CheckpointError, ConfigError), match=match):
            init_from.adopt(config(), encoder)


# ---------------------------------------------------------------------- what is frozen


def test_frozen_parts_keep_their_bits_and_the_others_learn_as_ever():
    settings = vitl.get_config().optim.copy_and_resolve_references().unlock()
    settings.clip = 0.5
    rng = np.random.default_rng(0)
    params = {name: {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)} for name in ("encoder", "predictor")}
    settings.freeze = ["encoder"]  # as JSON has it
    frozen, alone = optim.make(settings), vitl.get_config().optim.copy_and_resolve_references().unlock()
    alone.clip = 0.5
    alone = optim.make(alone)
    now, state = params, frozen.init(params)
    other = {"predictor": params["predictor"]}
    other_state = alone.init(other)
    for step in range(3):
        gradient = jax.tree.map(lambda x, step=step: jnp.sin(x + step), now)
        updates, state = frozen.update(gradient | {"encoder": {"kernel": jnp.full((4, 3), jnp.nan)}}, state, now)
        expected, other_state = alone.update({"predictor": gradient["predictor"]}, other_state, other)
        equal(updates["predictor"], expected["predictor"])
        assert not updates["encoder"]["kernel"].any()
        now = optax.apply_updates(now, jax.tree.map(lambda x: -0.1 * x, updates))
        other = optax.apply_updates(other, jax.tree.map(lambda x: -0.1 * x, expected))
    equal(now["encoder"], params["encoder"])
    assert (now["predictor"]["kernel"] != params["predictor"]["kernel"]).all()
    assert len(jax.tree.leaves(state)) == 3  # a count and two moments of the predictor


def test_parts_that_there_are_not_are_refused():
    settings = vitl.get_config().optim.copy_and_resolve_references().unlock()
    params = {"encoder": jnp.zeros(2), "predictor": jnp.zeros(2)}
    for freeze, match in (
        (("encodr",), r"optim.freeze = \('encodr',\): 'encodr' is not part of the model: encoder, predictor"),
        (("encoder", "predictor"), "nothing is left to train of encoder, predictor"),
    ):
        settings.freeze = freeze
        with pytest.raises(ConfigError, match=match):
            optim.make(settings).init(params)


# ---------------------------------------------------------------------- evaluation


SCORED = {"evals__fit": 16, "evals__test": 8, "evals__batch": 4, "evals__random_inits": 1}


@pytest.mark.slow
def test_an_export_is_evaluated_beside_random_networks_of_its_size(tmp_path):
    made, found = config(**SCORED), weights()
    model = Restored.of(made, export(tmp_path / "export", found))
    assert made.objective.encoder.variant == VARIANT and model.run is None and model.names_objects
    assert "licence CC-BY-NC-4.0" in model.notes[0] and model.notes[-1] == "predictor: taken"
    assert model.about["weights"]["licence"] == "CC-BY-NC-4.0"
    assert (model.about["step"], model.about["seed"]) == (7, 5)
    equal(model.state.params, {name: found.params[name] for name in ("encoder", "predictor")})
    video = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3)).astype(np.uint8)
    direct = jax.jit(Encoder(**found.encoder).apply)({"params": found.params["encoder"]}, video)
    np.testing.assert_allclose(model.trained(4).encode(video), direct, atol=2e-5)
    other = model.random(0, 4).encode(video)
    assert other.shape == direct.shape and not np.allclose(other, direct, atol=0.1)


# ---------------------------------------------------------------------- from end to end

STARTED = {"objective__predictor__heads": 4, "optim__freeze": "('encoder',)", "train__steps": 2}
STARTED |= {"probe__every": 0, "checkpoint__every": 1, "data__count": 32}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps from an export that is gone afterwards, encoder frozen: (folder, argv, stdout, weights)."""
    folder, found = tmp_path_factory.mktemp("started"), weights()
    path = export(folder / "export", found)
    argv = running.command(folder / "run", init_from=path, **STARTED)
    out, _ = running.run(argv)
    shutil.rmtree(path)
    return folder / "run", argv, out, found


def checkpointed(folder, step, root):
    """The arrays of a checkpoint below params, target, ... as (name below, array)."""
    found = running.arrays(folder, step)
    names = {name: [part.strip("[]'") for part in name.split("][")] for name in found}
    return {"/".join(parts[2:]): found[name] for name, parts in names.items() if parts[1:2] == [root]}


@pytest.mark.slow
def test_a_run_starts_from_an_export_and_says_so(run):
    folder, argv, out, found = run
    for text in ("licence CC-BY-NC-4.0", f"objective.encoder.variant = {VARIANT!r} (was 'Mu/8')", "predictor: taken"):
        assert text in out
    kept = json.loads((folder / "init_from.json").read_text())
    assert (kept["licence"], kept["predictor"], kept["layout"]) == ("CC-BY-NC-4.0", "taken", "cjepa_jax")
    assert json.loads((folder / "config.json").read_text())["objective"]["encoder"]["variant"] == VARIANT
    assert run_manifest.latest(run_manifest.read(folder))["init_from"] == kept
    for root in ("params", "target"):
        now = checkpointed(folder, 2, root)
        encoder = {name.removeprefix("encoder/"): array for name, array in now.items() if "predictor" not in name}
        for path, leaf in jax.tree_util.tree_flatten_with_path(found.params["encoder"])[0]:
            np.testing.assert_array_equal(encoder[trees.name_of(path)], leaf)  # the target stays equal to the encoder
    predictor = checkpointed(folder, 2, "params")["predictor/stack/blocks/mlp/up/kernel"]
    assert (predictor != found.params["predictor"]["stack"]["blocks"]["mlp"]["up"]["kernel"]).all()
    assert not any("encoder" in name for name in checkpointed(folder, 2, "opt_state"))


@pytest.mark.slow
def test_it_goes_on_and_is_evaluated_and_opened_without_the_weights(run, tmp_path):
    folder, argv, _, found = run
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    (tmp_path / "run" / "result.json").unlink()
    out, _ = running.run([f"--workdir={tmp_path / 'run'}" if "--workdir=" in word else word for word in argv])
    assert "resumed at 1" in out and "licence" not in out
    assert running.digest(tmp_path / "run", 2) == running.digest(folder, 2)
    assert running.run(argv)[0].startswith("finished already")
    assert "init_from: " in running.error([word for word in argv if "init_from" not in word], 2)

    made = config(objective__predictor__heads=4, **SCORED)
    model = Restored.of(made, str(folder))
    assert made.objective.encoder.variant == VARIANT and model.predicts
    opened_again = pretrained.load_weights(folder)
    assert opened_again.licence == "CC-BY-NC-4.0"
    equal(opened_again.params["encoder"], found.params["encoder"])


@pytest.mark.slow
def test_a_probe_and_fine_tuning_of_public_weights(tmp_path):
    table = {"positions": "table", "position_grid": (1, 4, 4)}
    found = weights("192x1x3x768/8", frames=1, predictor=None, target=False, **table)
    file = published(tmp_path / "vit.safetensors", found)
    protocols = """
from ml_collections import ConfigDict
from configs import clips
def get_config():
    config = clips.get_config()
    with config.unlocked():
        config.evals.protocols = ConfigDict({
            "states": dict(type="cjepa_jax.evals.states:States"),
            "finetune": dict(type="cjepa_jax.evals.finetune:Finetune", steps=2, batch=4),
        })
    return config
"""
    (tmp_path / "asked.py").write_text(protocols)
    argv = running.command(tmp_path / "scores", tmp_path / "asked.py", "cjepa_jax.evaluate", data__frames=1, **SCORED)
    out, _ = running.run([*argv, f"--checkpoint={file}"])
    assert "objective.encoder.variant = '192x1x3x768/8' (was 'Mu/8')" in out and "predictor: fresh" in out
    assert "objective.encoder.position_grid = (1, 4, 4) (was ())" in out
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert set(results["protocols"]) == {"states", "finetune"}
    assert results["about"]["checkpoint"]["weights"]["layout"] == "timm"
