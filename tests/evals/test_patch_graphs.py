"""Graphs of influence of models of patches: planted answers, and the protocol on a simulated world."""

import dataclasses

import numpy as np
import pytest

from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import influence, patch_graphs
from cjepa_jax.evals.base import RANDOM, TRAINED, Inside, Seen
from cjepa_jax.evals.influence import Influence
from tests.evals import benches


def inside_of(weights):
    return Inside(2, None, None, None, {}, None, None, attention=lambda video, groups: weights(video, groups))


def planted(graph, head=True):
    """A model whose tokens of object i change by graph[b, i, j] without object j. Scenes are known by a pixel."""

    def hide(hidden):
        number, own = hidden.video[:, 0, 0, 0, 0].astype(int), hidden.object_patches
        size = np.zeros(own.shape[::2], np.float32)
        for b, removed in enumerate(hidden.removed):
            for j in np.flatnonzero(removed):
                assert not (hidden.context[b] & own[b, j]).any() and (hidden.context[b] | own[b, j]).all()
                for i in range(own.shape[1]):
                    size[b, own[b, i]] += graph[number[b], i, j]
        tokens = np.stack([np.ones_like(size), 3 * size, 4 * size], -1) * hidden.context[..., None]
        return Seen(tokens, tokens, 2 * np.stack([size, 0 * size], -1) if head else None)

    return dataclasses.replace(benches.colours(), hide=hide)


def scenes(count=3):
    """Video of which the first pixel is the scene's number, and three objects of two tokens each, one shared."""
    video = np.zeros((count, 2, 8, 8, 3), np.uint8)
    video[:, 0, 0, 0, 0] = np.arange(count)
    own = np.zeros((count, 3, 8), bool)
    own[:, 0, :2], own[:, 1, 2:4], own[:, 2, 3:5] = True, True, True
    own[1, 2] = False  # the second scene has two objects
    return video, own


def test_the_graphs_are_means_over_an_objects_tokens_that_the_other_does_not_touch():
    video, own = scenes()
    graph = np.random.default_rng(0).uniform(0.1, 1, (3, 3, 3)) * ~np.eye(3, dtype=bool)
    graph[:, 1:, 0] = 0.5  # so that the token that two objects share changes by 1
    found = patch_graphs.of(planted(graph), video, own)
    assert set(found) == {patch_graphs.DROPPING, patch_graphs.RESIDUAL}
    for b, i, j in ((0, 0, 1), (0, 0, 2), (2, 0, 1), (1, 0, 1), (1, 1, 0)):
        np.testing.assert_allclose(found["dropping"][b, i, j], 5 * graph[b, i, j], rtol=1e-5)
        np.testing.assert_allclose(found["residual norm"][b, i, j], 2 * graph[b, i, j], rtol=1e-5)
    # Without object 0: one token of object 1 changes by 0.5, the one that objects 1 and 2 share by 1.
    np.testing.assert_allclose(found["dropping"][0, 1, 0], 5 * 0.75, rtol=1e-5)
    # Without object 2, which touches the shared token, the other one counts.
    np.testing.assert_allclose(found["dropping"][0, 1, 2], 5 * graph[0, 1, 2], rtol=1e-5)
    assert (found["dropping"][1, 2] == 0).all() and (found["dropping"][1, :, 2] == 0).all()
    assert set(patch_graphs.of(planted(graph, head=False), video, own)) == {patch_graphs.DROPPING}


def test_attention_alone_is_enough_and_a_model_without_anything_is_refused():
    video, own = scenes()
    weights = np.random.default_rng(0).random((3, 2, 3, 3))
    model = dataclasses.replace(benches.blind(), inside=inside_of(lambda video, groups: weights))
    found = patch_graphs.of(model, video, own)
    np.testing.assert_array_equal(found[patch_graphs.LAST], weights[:, 1])
    np.testing.assert_allclose(found[patch_graphs.ATTENTION], weights.mean(1))
    with pytest.raises(ConfigError, match="Influence needs a model whose encoder's attention is known"):
        patch_graphs.of(benches.blind(), video, own)


WORLD = Balls("test", size=32, frames=4, count=12, objects=(3, 4), dt=0.08)


def bench_of(answer):
    """A bench whose model attends by `answer` (scene's number, world's graph of effects), in the scenes' rows."""
    known = [WORLD[i]["video"] for i in range(len(WORLD))]

    def attention(video, groups):
        rows = [next(i for i, other in enumerate(known) if np.array_equal(other, one)) for one in video]
        found = np.zeros((len(video), 1, groups.shape[1], groups.shape[1]), np.float32)
        for b, i in enumerate(rows):
            graph = answer(WORLD.influence(i, 1)[0])
            found[b, 0, : len(graph), : len(graph)] = graph
        return found

    rng = np.random.default_rng(0)
    random = inside_of(lambda video, groups: rng.random((len(video), 1, groups.shape[1], groups.shape[1])))
    model = dataclasses.replace(benches.blind("trained"), inside=inside_of(attention))
    made = benches.bench(lambda split, count: WORLD, 32, 4, test=12, model=model,
                         randoms=(dataclasses.replace(benches.blind(), inside=random),), max_objects=6)  # fmt: skip
    return made


def test_a_model_of_patches_that_knows_the_effects_is_perfect():
    result = Influence(2, 2, strata=2).run(bench_of(lambda graph: graph))
    scores = {(score.metric, score.row): score.value for score in result.scores}
    assert scores["auroc/effect/attention", TRAINED] == 1
    assert 0.3 < scores["auroc/effect/attention", RANDOM] < 0.7
    assert scores["auroc/effect/attention", influence.DISTANCE] < 1
    opposite = Influence(2, 2, strata=2).run(bench_of(lambda graph: -graph))
    assert {s.row: s.value for s in opposite.scores if s.metric == "auroc/effect/attention"}[TRAINED] < 0.1
    with pytest.raises(ConfigError, match=r"influence.history \+ influence.future = 5: must be data.frames = 4"):
        Influence(2, 3).run(bench_of(lambda graph: graph))
