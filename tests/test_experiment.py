"""From a config to the parts of a run: length, rates, splits, seeds, microbatches. On an objective of one weight."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from cjepa_jax import experiment
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.base import PerExample
from configs import clips
from tests import running


@dataclasses.dataclass(frozen=True)
class Weight(PerExample):
    """One weight, squared. It tells what it was built with and in how many slices a batch comes."""

    encoder: dict
    steps: int
    dtype: str

    patch, tubelet, max_removed = 8, 2, 0

    def init(self, key, batch):
        return {"kernel": jnp.ones((8, 8))}, {}, {}

    def per_example_terms(self, params, target, extra, batch, key):
        return {"part": params["kernel"].sum() ** 2 + 0.0 * batch.scene}, {"slice": jnp.ones(1)}

    def reduce(self, terms, stats, extra, key, step):
        loss = terms["part"].mean()
        return loss, ({"loss": loss, "slices": stats["slice"].sum(), "steps": self.steps}, extra)

    def next_target(self, params, target, step):
        return target

    def encode(self, params, video):
        return jnp.zeros((len(video), 1, 1))


def assemble(**values):
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.objective = ConfigDict(dict(type="tests.test_experiment:Weight", encoder=dict(variant="Mu/8", tubelet=2)))
    small = {key: value for key, value in running.SMALL.items() if not key.startswith("objective.")}
    config.update_from_flattened_dict(small | {key.replace("__", "."): value for key, value in values.items()})
    return experiment.assemble(config)


def at(run, *steps):
    """The metrics of each of these steps, counted from 0."""
    batch, found = run.example(), []
    for step in steps:
        state = dataclasses.replace(run.init(batch), step=jnp.int32(step))
        found.append(jax.device_get(run.step(state, batch)[1]))
    return found


def test_rates_follow_the_batch_and_the_epochs():
    """64 scenes in batches of 8 for 3 epochs, one of them of warm-up: 24 steps, the peak after 8."""
    by_rule = dict(optim__peak=0.0, optim__base=0.128, optim__warmup_epochs=1.0, optim__warmup_share=0.0)
    run = assemble(train__steps=0, train__epochs=3, **by_rule)
    assert run.steps == 24
    found = at(run, 0, 2, 8, 12, 20, 24)
    peak = 0.128 * 8 / 256
    expected = [0, peak / 4, *(peak * (1 + math.cos(math.pi * share)) / 2 for share in (0, 0.25, 0.75, 1))]
    assert [float(metrics["learning_rate"]) for metrics in found] == pytest.approx(expected, abs=1e-9)
    assert {int(metrics["steps"]) for metrics in found} == {24}


def test_explicit_steps_peaks_and_shares_come_first():
    run = assemble(train__steps=10, train__epochs=3, optim__peak=0.5, optim__warmup_share=0.2)
    found = at(run, 1, 2, 10)
    assert [float(metrics["learning_rate"]) for metrics in found] == pytest.approx([0.25, 0.5, 0], abs=1e-7)
    assert int(found[0]["steps"]) == 10


def test_the_parts_are_the_configs():
    run = assemble(train__steps=0, train__epochs=2, data__count=60, data__crop=True, seed=3, data__eval_split="test")
    assert run.steps == 15  # 7.5 batches an epoch
    assert (run.source.split, run.held_out.split, len(run.source), len(run.held_out)) == ("train", "test", 60, 32)
    assert run.source.seed == run.held_out.seed == run.loader.seed == run.scenes.seed == 3
    assert run.scenes.crop and not run.held_out_scenes.crop and run.scenes.intervened == "rerender"
    assert run.loader.batch == 8 and run.loader.shards == 8 and run.loader.scenes is run.scenes


def test_accumulated_steps_take_microbatches():
    run = assemble(train__batch=16, train__accumulate=2)
    (metrics,) = at(run, 1)
    assert run.loader.shards == 16 and int(metrics["slices"]) == 2
    assert int(at(assemble(), 1)[0]["slices"]) == 1


def test_a_wrong_switch_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setenv("CJEPA_SVD", "polar")
    with pytest.raises(ConfigError, match="^CJEPA_SVD = 'polar': must be auto or one of default, qr on a cpu$"):
        assemble()
