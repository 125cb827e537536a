"""Rollouts of world models: known scores of models that are plain functions, and of a network."""

import dataclasses
import functools

import numpy as np
import pytest

from cjepa_jax.data.kinds.episodes import EpisodeMap
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import Bench, Model
from cjepa_jax.evals.rollouts import Rollouts
from cjepa_jax.evaluate import make_bench
from cjepa_jax.loading.model import Restored
from cjepa_jax.masks import objects
from tests.data.test_kinds import Walk, config
from tests.evals.benches import blind, by_row


@dataclasses.dataclass(frozen=True)
class Seen(Walk):
    """Walk with the square's mask and state."""

    state_names = ("position/y", "position/x")

    def __getitem__(self, i):
        raw = super().__getitem__(i)
        masks = np.zeros((2, self.frames, self.size, self.size), bool)
        masks[1] = raw["video"][..., 0] > 0  # number 0 is never seen, so its row goes
        return {**raw, "masks": masks, "states": np.stack([0 * raw["proprio"], raw["proprio"]], axis=1)}


def places(video):
    """The square's first row and column: exactly its state."""
    lit = video[..., 0] > 0
    return np.stack([lit.any(3).argmax(2), lit.any(2).argmax(2)], -1).astype(np.float32)


def bench(advance, latents=places, source=Seen):
    draw = functools.partial(objects.draw, max_objects=1, area=(0.01, 0.6))

    def prepare(made):
        return EpisodeMap(made, draw, 8, 2, 16, 4, "none", 0, made.frames, with_objects=True)

    def make(split, count):
        return source(split, count=count, frames=4)

    none = {"encode": blind().encode, "hide": blind().hide}
    models = [
        Model("trained", **none, latents=latents, advance=advance),
        *(
            Model(f"random init {i}", **none, latents=lambda v: 0 * places(v), advance=lambda z, *_: z[:, -1])
            for i in (0, 1)
        ),
    ]
    return Bench(models[0], tuple(models[1:]), make, prepare, "train", 12, "eval", 10, 5, 7, 1e-3)


def test_the_true_motion_has_no_error_and_copying_has_that_of_copying():
    protocol = Rollouts(targets=("position/x", "position/y"), object=1, frames=8, given=2, steps=(1, 5))
    true = protocol.run(bench(lambda z, actions, proprio: np.clip(z[:, -1] + actions[:, -1], 0, 13)))
    copied = protocol.run(bench(lambda z, *_: z[:, -1]))
    for step in (1, 5):
        assert by_row(true, f"rollout/{step}")["trained"] < 1e-12
        rows = by_row(copied, f"rollout/{step}")
        np.testing.assert_allclose(rows["trained"], 1.0, rtol=1e-6)
        assert rows["copying"] == 1.0 and "random init" in rows
    for name in ("x", "y"):
        rows = by_row(true, f"R2/position/{name}")
        assert rows["trained"] > 0.999 and rows["random init"] < 0.1 and "pixels" in rows


@dataclasses.dataclass(frozen=True)
class Two(Seen):
    """Two squares' states: the seen one's, and one that is 3 farther. Their mean is 1.5 farther than the seen one."""

    def __getitem__(self, i):
        raw = super().__getitem__(i)
        raw["masks"][0] = raw["masks"][1]
        far = raw["states"][:, 1] + 3
        return {**raw, "states": np.stack([far, raw["states"][:, 1]], axis=1)}


def test_object_minus_one_is_the_mean_over_the_objects():
    advance = lambda z, *_: z[:, -1]  # noqa: E731
    mean = Rollouts(object=-1, frames=8, given=2, steps=(1,))
    for source, shift in ((Seen, 0.0), (Two, 1.5)):
        episodes = mean._episodes(bench(advance, source=source), "eval", 5)
        one = dataclasses.replace(mean, object=1)._episodes(bench(advance, source=source), "eval", 5)
        np.testing.assert_allclose(episodes["states"], one["states"] + shift)
    assert by_row(mean.run(bench(advance, source=Two)), "R2/position/x")["trained"] > 0.999


def test_what_it_needs_is_refused_in_one_line():
    for options, text in (
        (dict(steps=(11,)), "Rollouts needs steps of at most frames - given = 10"),
        (dict(given=0), "Rollouts needs whole numbers of frames, given and steps, at least 1"),
    ):
        with pytest.raises(ConfigError, match=f"^evals.protocols: {text}$"):
            Rollouts(**options)
    protocol, advance = (
        Rollouts(object=1, frames=8, given=2, steps=(1,), targets=("position/z",)),
        lambda z, *_: z[:, -1],
    )
    with pytest.raises(ConfigError, match="needs data with the state 'position/z'"):
        protocol.run(bench(advance))
    with pytest.raises(ConfigError, match="needs data with states"):
        protocol.run(bench(advance, source=Walk))
    with pytest.raises(ConfigError, match="needs a world model"):
        protocol.run(bench(advance, latents=None))


@pytest.mark.parametrize("value", [-7, 1.5, "x", True, None])
def test_an_object_is_an_integer(value):
    with pytest.raises(ConfigError, match=f"Rollouts.object = {value!r}: must be an integer of at least -1$"):
        Rollouts(object=value)


@pytest.mark.parametrize("value", [0, 2, 99])
def test_an_object_that_is_not_there_is_refused(value):
    """Number 0 of Seen is never visible, so no row of the episodes has its states."""
    message = f"Rollouts.object = {value}: the scenes of 'train' show up to 2 objects, .*12 of 12 do not show this one$"
    with pytest.raises(ConfigError, match=message):
        Rollouts(object=value, frames=8, given=2, steps=(1,)).run(bench(lambda z, *_: z[:, -1]))


@pytest.mark.slow
def test_a_network_is_scored_in_batches_of_any_size():
    evals = {"evals.test_split": "eval", "evals.fit": 8, "evals.test": 8, "evals.batch": 3, "evals.random_inits": 1}
    c = config(
        base="family.lewm",
        **{key: value for key, value in evals.items()} | {"objective.encoder.variant": "12x1x2x16/4"},
    )
    c.data.source, c.objective.encoder.depth, c.objective.predictor.depth = f"{__name__}:Seen", 1, 1
    model = Restored.of(c, "random")
    made = make_bench(c, model)
    video = np.stack([Seen("eval")[i]["video"] for i in range(5)])
    z = made.model.latents(video)
    wanted = model.objective.latents(model.state.params | model.state.extra, video)
    np.testing.assert_allclose(z, wanted, atol=1e-5)
    actions = np.stack([Seen("eval")[i]["actions"] for i in range(5)])
    following = made.model.advance(z, actions)
    wanted = model.objective.predict(model.state.params, model.state.extra, z[:, 1:], actions[:, 1:])
    np.testing.assert_allclose(following, wanted, atol=1e-5)
    result = Rollouts(object=1, frames=6, given=3, steps=(1, 3)).run(made)
    assert {"R2/position/x", "rollout/3"} <= {score.metric for score in result.scores}
