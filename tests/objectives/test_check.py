"""An objective of the user's that breaks the contract ends in one line that names objective.type."""

import jax.numpy as jnp
import pytest

from cjepa_jax import experiment
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives import check
from tests.scenes import scene_map
from tests.test_experiment import Weight

SCENES = experiment.shapes(scene_map(), 4)


class Plain(Weight):
    """A loss of its own instead of terms."""

    def loss(self, params, target, extra, batch, key, step):
        total = params["kernel"].sum()
        return total, ({"loss": total, "per_scene": jnp.ones(4)}, extra)


class TwoInit(Weight):
    def init(self, key, batch):
        return super().init(key, batch)[:2]


class SharedInit(Weight):
    def init(self, key, batch):
        return {"kernel": jnp.ones(8)}, {}, {"kernel": jnp.ones(8)}


class RaisingInit(Weight):
    def init(self, key, batch):
        return {"kernel": jnp.ones(8) + jnp.ones(7)}, {}, {}


class NoExtra(Plain):
    def loss(self, *arguments):
        total, (diagnostics, _) = super().loss(*arguments)
        return total, diagnostics


class NoLoss(Plain):
    def loss(self, *arguments):
        total, (_, extra) = super().loss(*arguments)
        return total, ({"loss/mine": total}, extra)


class Vector(Plain):
    def loss(self, params, *rest):
        _, aux = super().loss(params, *rest)
        return params["kernel"].sum(0), aux


class WideDiagnostic(Plain):
    def loss(self, params, *rest):
        total, (diagnostics, extra) = super().loss(params, *rest)
        return total, (diagnostics | {"kernel": params["kernel"]}, extra)


class GrowingExtra(Plain):
    def loss(self, *arguments):
        total, (diagnostics, _) = super().loss(*arguments)
        return total, (diagnostics, {"count": total})


class OtherTarget(Weight):
    def next_target(self, params, target, step):
        return params


class Pooled(Weight):
    def encode(self, params, video):
        return jnp.zeros((len(video), 8))


def results(kind):
    check.results(kind(encoder={}, steps=1, dtype="float32"), f"mine:{kind.__name__}", SCENES)


@pytest.mark.parametrize("kind", [Weight, Plain])
def test_what_keeps_the_contract_is_accepted(kind):
    results(kind)


@pytest.mark.parametrize(
    "kind, text",
    [
        (TwoInit, "init returned 2 values: must return (params, target, extra)"),
        (SharedInit, "init: params and extra both have kernel"),
        (RaisingInit, "init raised TypeError: "),
        (NoExtra, "loss returned 2 values: must return (loss, (diagnostics, extra))"),
        (NoLoss, "loss: the diagnostics have no 'loss', only loss/mine"),
        (Vector, "loss returned a loss of float32 [8]: must be a float scalar"),
        (WideDiagnostic, "loss: the diagnostic 'kernel' is float32 [8, 8]: must be []"),
        (GrowingExtra, "loss: extra: must keep the structure and the shapes that init gave"),
        (OtherTarget, "next_target: must keep the structure"),
        (Pooled, "encode returned float32 [4, 8]: must be [B, N, D], here [4, N, D]"),
    ],
)
def test_a_broken_one_is_refused_in_one_line(kind, text):
    with pytest.raises(ConfigError) as error:
        results(kind)
    assert str(error.value).startswith(f"objective.type = 'mine:{kind.__name__}': {text}"), error.value
    if "raised" in text:
        assert "(test_check.py, line " in str(error.value)


@pytest.mark.parametrize("name", ["patch", "tubelet", "max_removed", "init", "loss", "next_target", "encode"])
def test_a_missing_member_is_named(name):
    have = {key: getattr(Plain, key) for key in (*check.NUMBERS, *check.FUNCTIONS) if key != name}
    check.members(type("Whole", (), have | {name: getattr(Plain, name)})(), "mine:Whole")
    with pytest.raises(ConfigError, match=f"^objective.type = 'mine:Part': has no {name}: an objective has patch"):
        check.members(type("Part", (), have)(), "mine:Part")


def test_terms_without_their_reduction_are_refused():
    kind = type("Half", (Weight,), {"reduce": check.PerExample.reduce})
    with pytest.raises(ConfigError, match="has no reduce"):
        check.members(kind(encoder={}, steps=1, dtype="float32"), "mine:Half")
