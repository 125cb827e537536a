"""Twenty steps of the family's configs at almost no size, their probe, and commands that do not show such scenes."""

import importlib

import jax
import numpy as np
import pytest

import configs.evals.flow
from cjepa_jax import experiment
from cjepa_jax.configuration import build, check
from cjepa_jax.data import bench, inspect, show
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import flow
from cjepa_jax.evals.classify import Classify
from cjepa_jax.evals.probe import Probe
from cjepa_jax.evaluate import make_bench, require_kinds
from cjepa_jax.loading.model import Restored
from tests.running import SMALL

CONFIGS = {
    "family.vjepa2_1": {"objective.encoder.levels": (0,), "objective.ramp": (0, 4)},
    "family.hjepa": {},
    "family.mcjepa": {
        "objective.encoder.widths": (4, 6, 8),
        "objective.encoder.blocks": (1, 0, 1),
        "objective.head.hidden": (6,),
        "objective.head.radius": 1,
    },
    "family.mcjepa_factored": {"data.frames": 4},
    "family.point_jepa": {"data.options.points": 32, "objective.encoder.groups": 8, "objective.encoder.neighbours": 4},
    "family.threed_jepa": {"data.options.points": 32, "objective.encoder.groups": 8, "objective.encoder.neighbours": 4},
    "family.audio_jepa": {"data.options.times": 32, "data.options.bands": 16},
    "family.act_jepa": {"data.frames": 6, "objective.chunk": 2},
    "family.think_jepa": {"data.frames": 4},
    "baselines.simclr": {},
    "baselines.dino": {"objective.views.small_size": 16},
}


def config(name):
    c = importlib.import_module(f"configs.{name}").get_config().copy_and_resolve_references().unlock()
    own = dict(check.flatten(c))
    small = SMALL | {"objective.predictor.heads": 2, "objective.encoder.variant": "Mu/8", "data.row_lengths": (1.0,)}
    if c.objective.encoder.get("variant", "").endswith("/1"):
        small |= {"objective.encoder.variant": "Mu/1"}
    if c.data.frames == 1:
        small |= {"data.frames": 1}
    small |= {"probe.test": 12, "evals.fit": 32, "evals.test": 16, "evals.batch": 8, "evals.random_inits": 1}
    c.update_from_flattened_dict({key: value for key, value in (small | CONFIGS[name]).items() if key in own})
    return c


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_twenty_steps_lower_the_loss_or_keep_it_finite(name):
    run = experiment.assemble(config(name))
    state, losses = run.init(run.example()), []
    scenes = run.held_out_scenes, run.held_out.label_names
    probe = Probe(run.objective.encode, state.params | state.extra, *scenes, train=16, test=12, batch=8)
    first = jax.device_get(state.params)
    for arrays in run.loader.iterate(0, 20):
        state, metrics = run.step(state, experiment.sharding.put_batch(run.mesh, arrays))
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all() and int(state.skipped) == 0
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(jax.device_get(state.params)), strict=True)
    changed = [bool((one != other).any()) for one, other in pairs]
    assert sum(changed) > 0.8 * len(changed)
    scores = probe.run(state.params | state.extra)
    assert np.isfinite(scores["probe/rankme"]) and "probe/rankme_random" in scores


@pytest.mark.slow
def test_the_flow_that_is_scored_is_that_of_the_objective():
    c = config("family.mcjepa")
    restored = Restored.of(c, "random")
    made = make_bench(c, restored)
    protocol = build.build(configs.evals.flow.get_config().evals.protocols.flow)
    scores = {(score.metric, score.row): score.value for score in protocol.run(made).scores}
    true = flow.pairs(made.testing, protocol.least)
    wanted = np.asarray(jax.jit(restored.objective.flow)(restored.state.params, true.frames))
    assert wanted.shape == true.flow.shape and wanted.any()
    for metric in flow.METRICS:
        assert scores[metric, "trained"] == pytest.approx(flow.mean(true, wanted, metric), rel=1e-4)
        assert np.isfinite(scores[metric, "random init"])


@pytest.mark.parametrize("name, kind", [("family.point_jepa", "points"), ("family.audio_jepa", "spectrogram")])
def test_commands_that_do_not_show_such_scenes_refuse_them_in_one_line(name, kind, tmp_path):
    commands = {
        "data.show": lambda c: show.draw(c, str(tmp_path / "sheet.png"), count=2),
        "data.inspect": lambda c: inspect.inspect(c, str(tmp_path / "seen"), ["train"], 0),
        "data.bench": lambda c: list(bench.report(c, "train", 0.01)),
    }
    for command, call in commands.items():
        with pytest.raises(ConfigError) as error:
            call(config(name))
        assert f"gives scenes of kind {kind!r}: {command} takes " in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["family.point_jepa", "family.audio_jepa"])
def test_their_classes_are_scored(name):
    c = config(name)
    made = make_bench(c, Restored.of(c, "random"))
    protocol = Classify(classes=8, low_shot=0.0, neighbours=3, attentive=False, steps=5)
    require_kinds(made, {"classify": protocol})
    rows = {(score.metric, score.row) for score in protocol.run(made).scores}
    assert ("accuracy/linear", "trained") in rows and ("accuracy/linear", "pixel PCA") in rows
