"""The dense probe on encoders whose tokens say everything, or nothing."""

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import Bench, Model, Scenes
from cjepa_jax.evals.tokens import ALL, Tokens, overlap

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


def test_overlaps():
    one = np.array([True, True, False, False])
    assert overlap(one, np.array([True, False, True, False])) == pytest.approx(1 / 3)
    assert overlap(~one & one, ~one & one) == 1


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ConfigError, match="Tokens"):
        Tokens().run(bench(knowing, objects=0.0))
    with pytest.raises(ConfigError, match=r"Tokens.each = 0: must be an integer of at least 1"):
        Tokens(each=0)
