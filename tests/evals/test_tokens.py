"""The dense probe on encoders whose tokens say everything, or nothing."""

import dataclasses

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import Bench, Model, Scenes
from cjepa_jax.evals.tokens import ALL, PLACE, Tokens, _pairs, overlap

GRID = (2, 4, 4)


class Map:
    grid = GRID


def scenes(seed, objects=0.3):
    """Scenes whose `video` [n, N, 1] says which tokens touch an object."""
    rng = np.random.default_rng(seed)
    patches = rng.random((24, 2, 32)) < objects / 2
    return Scenes(None, Map(), {"video": patches.any(1)[..., None].astype(np.float32), "object_patches": patches})


def bench(encode, objects=0.3):
    rng = np.random.default_rng(5)
    blind = Model("random init 0", lambda v: rng.normal(size=(len(v), 32, 6)).astype(np.float32), None)
    made = Bench(Model("trained", encode, None), (blind,), None, None, "train", 24, "test", 24, 8, 0, 0.0)
    made.__dict__.update(fitting=scenes(0, objects), testing=scenes(1, objects))
    return made


def knowing(video):
    places = np.stack(np.unravel_index(np.arange(32), GRID), -1).astype(np.float32)
    mixed = np.random.default_rng(3).normal(size=(4, 6))
    return np.concatenate([np.broadcast_to(places, (len(video), 32, 3)), video], -1) @ mixed


def test_tokens_that_hold_their_place_and_object_score_1_and_noise_scores_0():
    scores = {(s.metric, s.row): s for s in Tokens(each=16).run(bench(knowing)).scores}
    for metric in ("token/time", "token/row", "token/column", "token/objects"):
        assert scores[metric, "trained"].value == pytest.approx(1, abs=1e-6)
        assert scores[metric, "random init"].value < 0.2
        assert scores[metric, "trained"].count == 24 * 16
    floor = scores["token/objects", ALL]
    assert floor.kind == "floor" and 0.15 < floor.value < 0.5


class Deep:
    state_names = ("present", "depth")


def stacked(seed, informed):
    """Scenes of two objects. In every other one they meet at one of the two times, and their depths are exchanged after
    half of the frames. `video` holds at each token the depth of its one object at its time, or noise.
    """
    rng = np.random.default_rng(seed)
    patches, depth = np.zeros((40, 2, 32), bool), rng.random((40, 2))
    grid = patches.reshape(40, 2, *GRID)
    grid[:, 0, :, :, :2] = grid[:, 1, :, :, 1:3] = True
    for rows, times in ((slice(0, None, 2), slice(2)), (slice(1, None, 4), 0), (slice(3, None, 4), 1)):
        grid[rows, 1, times, :, 1] = False  # the second begins beside the first: they do not meet
    later = np.where(np.arange(40)[:, None] % 2, depth[:, ::-1], depth)
    of_time = np.stack([depth, later], axis=1)
    states = np.stack([np.ones((40, 4, 2)), of_time.repeat(2, axis=1)], axis=-1)
    first, second = of_time.repeat(16, axis=1).transpose(2, 0, 1)  # at each of the 32 tokens
    seen = np.where(patches[:, 0] & ~patches[:, 1], first, np.where(patches[:, 1], second, 0))
    video = seen[..., None] if informed else rng.random((40, 32, 1))
    return Scenes(Deep(), Map(), {"video": video.astype(np.float32), "object_patches": patches, "states": states})


@pytest.mark.parametrize("informed", [True, False])
def test_depth_order_is_of_objects_that_meet(informed):
    protocol = Tokens(each=32)
    made = bench(lambda video: video)
    made.__dict__.update(fitting=stacked(0, informed), testing=stacked(1, informed))
    scores = {(s.metric, s.row): s for s in protocol.run(made).scores}
    own, floor = scores["token/depth order", "trained"], scores["token/depth order", PLACE]
    # In 20 scenes they meet at one time, when 4 tokens touch the first alone and 4 the second alone.
    assert own.count == floor.count == 20 * 4 * 4 and floor.kind == "floor"
    assert own.value == 1 if informed else abs(own.value - 0.5) < 0.1
    assert 0.1 < floor.value < 0.9
    shuffled = protocol._drawn(made.testing, "video", 0, 1)
    i, j = _pairs(shuffled).T
    assert (shuffled.owner[i] != shuffled.owner[j]).all() and (shuffled.places[i, 0] == shuffled.places[j, 0]).all()


def test_a_world_without_depth_has_no_such_score_and_points_have_their_centres():
    assert not [s for s in Tokens(each=4).run(bench(knowing)).scores if "depth" in s.metric]
    drawn = Tokens(each=4)._drawn(scenes(0), "video", 0, 0)
    assert drawn.depth is None and drawn.meet is None

    class Points:
        kind = "points"

    class Line:
        grid = (1, 8, 1)

    rng, parts = np.random.default_rng(0), []
    for _ in range(2):
        video = rng.normal(size=(30, 1, 8, 5, 3)).astype(np.float32)
        parts.append(Scenes(Points(), Line(), {"video": video, "object_patches": np.zeros((30, 0, 8), bool)}))
    made = bench(lambda video: video[:, 0, :, 0] @ np.eye(3, 6, dtype=np.float32))
    noise = Model("random init 0", lambda v: rng.normal(size=(len(v), 8, 6)).astype(np.float32), None)
    made = dataclasses.replace(made, randoms=(noise,))
    made.__dict__.update(fitting=parts[0], testing=parts[1])
    scores = {(s.metric, s.row): s.value for s in Tokens(each=8).run(made).scores}
    assert {metric for metric, _ in scores} == {"token/x", "token/y", "token/z"}
    assert all(value > 0.999 for (_, row), value in scores.items() if row == "trained")
    assert all(value < 0.2 for (_, row), value in scores.items() if row != "trained")


def test_overlaps():
    one = np.array([True, True, False, False])
    assert overlap(one, np.array([True, False, True, False])) == pytest.approx(1 / 3)
    assert overlap(~one & one, ~one & one) == 1


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ConfigError, match="Tokens"):
        Tokens().run(bench(knowing, objects=0.0))
    with pytest.raises(ConfigError, match=r"Tokens.each = 0: must be an integer of at least 1"):
        Tokens(each=0)
