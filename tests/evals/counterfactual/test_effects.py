"""The protocol of two removals, on models whose answers are known and on a small world."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.worlds import Balls, Shadows
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Seen
from cjepa_jax.evals.counterfactual import cells, do_probe, effects, foresee, online, pairs
from cjepa_jax.evals.counterfactual.effect_scores import Scorer
from cjepa_jax.evals.counterfactual.effects import Effects
from cjepa_jax.masks import objects

SIZE, PATCH, GRID = 32, 8, (1, 4, 4)
FIT, TEST, SEED = 30, 16, 7
OPTIONS = dict(pairs_fit=FIT, pairs_test=TEST, area=(0.05, 0.6), probe_pairs=(), probe_steps=())


def source(split, count):
    return Shadows(split=split, size=SIZE, frames=1, count=count, seed=SEED, lights=(1, 1), height=(0.2, 0.6))


def prepare(source, frames=1):
    mask = functools.partial(objects.draw, max_objects=1, area=(0.05, 0.6))
    return pipeline.SceneMap(source, mask, PATCH, 2, SIZE, 6, "none", 0, frames=frames, with_objects=True)


def bench(model, randoms=(), source=source, prepare=prepare, **options):
    return Bench(model, tuple(randoms), source, prepare, "train", FIT, "test", TEST, 8, SEED, rate=1e-3, **options)


@functools.cache
def drawn(split):
    scenes = dataclasses.replace(prepare(source(split, 5000)), with_masks=True)
    return pairs.prepare(scenes, {"train": FIT, "test": TEST}[split], SEED, (0.05, 0.6))


@functools.cache
def known():
    """By video and the removed row: the scene without it, and without the other one."""
    found = {}
    for split in ("train", "test"):
        of = drawn(split)
        for i, video in enumerate(of.video):
            found[video.tobytes(), int(of.removed[i])] = of.without[i], of.without_other[i]
            found[video.tobytes(), int(of.other[i])] = of.without_other[i], of.without[i]
    return found


def encode(video):
    """Tokens that are their cells' colours: the decoder is exact."""
    return cells.colours(video, GRID)


def knower(says):
    """says(changes without the removed object and without the other one) is the predicted change."""

    def hide(hidden):
        rows = hidden.removed.argmax(1).tolist()
        both = [known()[video.tobytes(), row] for video, row in zip(hidden.video, rows, strict=True)]
        own, other = (encode(hidden.video) - encode(np.stack(videos)) for videos in zip(*both, strict=True))
        return Seen(encode(hidden.video) * hidden.context[..., None], None, says(own, other))

    return Model(TRAINED, encode, hide, encode, fresh_predictor=fresh)


def fresh(outputs):
    """A predictor that is linear in each context token, its distance from the removed object apart."""
    return _init, _apply


def _init(key, tokens, context, patches, removed, grid):
    return {"w": 0.01 * jax.random.normal(key, (tokens.shape[-1] + 1, 12))}


def _apply(params, tokens, context, patches, removed, grid):
    told = jax.numpy.concatenate([tokens, jax.numpy.broadcast_to(patches.mean(-1)[..., None], (*context.shape, 1))], -1)
    return None, told @ params["w"]


def table(result):
    return {(score.metric, score.row): score for score in result.scores}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@functools.cache
def scored(folder, says, **more):
    return table(Effects(**OPTIONS | more, cache=folder).run(bench(knower(says))))


def right(own, other):
    return own


def wrong(own, other):
    return other


def unspecific(own, other):
    return own + other


def half(own, other):
    return own / 2


def test_who_knows_gets_1_of_everything(cache):
    scores = scored(cache, right)
    for space in ("picture", "features"):
        for metric in ("contrast", "2afc", "effect"):
            assert scores[f"{metric}/{space}", TRAINED].value == pytest.approx(1, abs=2e-3), (metric, space)
        assert scores[f"effect/{space}", "wrong object"].value < 0.5
    assert scores["contrast/picture", "true change"].value == pytest.approx(1, abs=2e-3)
    assert scores["contrast/picture/near", TRAINED].value == pytest.approx(1, abs=2e-3)
    kinds = {row: score.kind for (metric, row), score in scores.items() if metric == "2afc/picture"}
    assert kinds == {
        TRAINED: "result",
        "chance": "floor",
        "place": "floor",
        "place + local pixels": "floor",
        "true change": "ceiling",
    }


def test_who_does_not_care_which_object_it_is_gets_0_and_half(cache):
    scores = scored(cache, unspecific)
    for space in ("picture", "features"):
        assert scores[f"contrast/{space}", TRAINED].value == pytest.approx(0, abs=1e-6)
        assert scores[f"contrast/{space}, scaled", TRAINED].value == pytest.approx(0, abs=1e-6)
    effect = scores["effect/picture", TRAINED].value, scores["effect/picture", "wrong object"].value
    assert effect[0] == pytest.approx(effect[1], abs=1e-5)


def test_who_takes_the_other_object_is_below_0(cache):
    scores = scored(cache, wrong)
    assert scores["contrast/picture", TRAINED].value == pytest.approx(-3, abs=0.02)
    assert scores["2afc/picture", TRAINED].value < 0.1
    assert scores["contrast/picture, scaled", TRAINED].value == 0  # no factor below 0


def test_half_of_the_truth_is_mended_by_one_scale(cache):
    scores = scored(cache, half)
    assert scores["contrast/picture", TRAINED].value == pytest.approx(0.75, abs=2e-3)
    assert scores["contrast/picture, scaled", TRAINED].value == pytest.approx(1, abs=2e-3)
    assert scores["2afc/features", TRAINED].value == 1


def test_a_model_without_a_residual_head_has_the_rows_of_its_context(cache):
    def hide(hidden):
        return Seen(None, None, None)

    model = Model(TRAINED, encode, hide, fresh_predictor=fresh)
    random = Model("random init 0", lambda video: np.ones_like(encode(video)), hide, fresh_predictor=fresh)
    protocol = Effects(**OPTIONS | dict(probe_pairs=(12, FIT), probe_steps=(4, 8)), cache=cache)
    result = protocol.run(bench(model, [random, random]))
    scores = table(result)
    assert not result.images and not any(metric.startswith(("contrast/picture", "2afc")) for metric, _ in scores)
    rows = {row for metric, row in scores if metric == "contrast/encoder only"}
    assert rows == {TRAINED, RANDOM, "place", "place + local pixels"}
    assert scores["contrast/encoder only", RANDOM].value == pytest.approx(0, abs=1e-6)
    rows = {row for metric, row in scores if metric == "do-probe/contrast, n = 12"}
    assert rows == {TRAINED, RANDOM, "pixels"}
    assert ("do-probe/effect, n = 30", TRAINED) in scores


def test_a_page_of_pictures_and_what_is_decidable(cache):
    result = Effects(**OPTIONS, cache=cache).run(bench(knower(right)))
    (picture,) = result.images.values()
    assert picture.dtype == np.uint8 and picture.shape[1:] == (5 * (192 + 6), 3)
    assert result.notes[0].startswith("decidable: the ceiling of contrast/picture is 1.0")
    assert effects.Effects()._notes({"true change: contrast/picture": [0.5], "strength": [1]})[0].startswith("not dec")


def test_questions_are_asked_with_the_trainings_anchor():
    seen = []

    def world(split, count):
        return Shadows(split=split, size=SIZE, frames=4, count=count, seed=SEED)

    def hide(hidden):
        seen.append(~hidden.context)
        return Seen(None, None, None)

    def tokens(video):
        return cells.colours(video, (2, 4, 4))

    few = OPTIONS | dict(pairs_fit=10, pairs_test=4)
    for anchor, asked in ((1, -1), (0, -1), (0, 1)):
        seen.clear()
        made = bench(Model(TRAINED, tokens, hide), source=world, prepare=lambda s: prepare(s, 4), anchor=anchor)
        Effects(**few, anchor=asked).run(made)
        first = np.concatenate(seen)[:, :16]
        assert first.any() == (max(anchor, asked) == 0) and np.concatenate(seen).any()
    with pytest.raises(ConfigError, match="effects.anchor = 2: must be below the clip's 2 times"):
        Effects(**few, anchor=2).run(made)


def test_pairs_are_two_eligible_objects_and_their_removals():
    world, of = source("test", 5000), drawn("test")
    scenes = prepare(world)
    share = of.object_patches.mean(-1)
    for i, number in enumerate(of.scene.tolist()):
        rows = scenes(number, 0)["objects"]
        for row, video in ((of.removed, of.without), (of.other, of.without_other), (of.third, of.without_third)):
            if row[i] >= 0:
                gone = np.arange(len(world[number]["masks"])) == rows[row[i]]
                assert np.array_equal(video[i], world.intervene(number, gone))
        assert len({of.removed[i], of.other[i], of.third[i]}) == 3
        assert all(0.05 <= share[i, row[i]] <= 0.6 for row in (of.removed, of.other))
    assert not of.linked.any() and (of.third >= 0).any() and (np.diff(of.scene) > 0).all()
    k, o = (of.object_patches[np.arange(TEST), row] for row in (of.removed, of.other))
    assert np.array_equal(of.rest(), ~(k | o)) and not of.touched(np.full(TEST, -1)).any()


def test_chains_of_contacts_link_tokens_and_where_there_is_no_chain_nothing_changes():
    world = Balls(split="test", size=SIZE, frames=8, count=200, seed=SEED, speed=(1.5, 2.0), foreground=0.0)
    scenes = dataclasses.replace(prepare(world, 8), with_masks=True)
    of = pairs.prepare(scenes, 24, SEED, (0.05, 0.6))
    rest = ~of.touched(of.removed)
    grid = (4, 4, 4)
    change = np.abs(cells.colours(of.without, grid) - cells.colours(of.video, grid)).max(-1)
    covered = of.object_patches.any(1)
    others = (of.object_patches & (np.arange(of.object_patches.shape[1]) != of.removed[:, None])[..., None]).any(1)
    assert (of.linked & rest).any() and of.linked_other.any() and not (of.linked & ~covered).any()
    assert change[of.linked & rest].mean() > 10 * change[rest & others & ~of.linked].mean()


def test_links_pass_through_what_moves_otherwise():
    """0 is removed. It touched 1, and 1 touched 2 later; 3 touched 2, but its states are the same in both."""
    contacts = np.array([[1, 1, 0, 1], [2, 3, 1, 2], [4, 4, 2, 3], [5, 5, 3, 4]], np.float32)
    states = np.zeros((6, 5, 2), np.float32)
    without = states.copy()
    without[2:, [1, 2]] = 1
    removed = np.arange(5) == 0
    scene, other = dict(contacts=contacts, states=states), dict(contacts=contacts[2:], states=without)
    assert pairs.links(scene, other, removed).tolist() == [0, 1, 2, np.inf, np.inf]


def test_eligible_objects_are_there_at_the_end():
    patches = np.zeros((3, 16), bool)
    patches[0, [0, 9]] = patches[1, [0, 1]] = patches[2, 8:] = True
    assert pairs.eligible(patches, 2, (0.125, 0.5)).tolist() == [0, 2]
    assert pairs.eligible(patches, 2, (0.13, 0.5)).tolist() == [2]
    assert pairs.eligible(patches, 2, (0.125, 0.49)).tolist() == [0]


@pytest.mark.parametrize("patch", [8, 7])
def test_cells_are_means_of_pixels(patch):
    video = np.random.default_rng(0).integers(0, 256, (2, 4, 3 * patch, 3 * patch, 3), np.uint8)
    found = cells.colours(video, (2, 3, 3))
    assert found.shape == (2, 18, 12) and found.dtype == np.float32
    corner = video[0, :2, : patch // 2, : patch // 2] / 255.0
    token = video[:, 2:, patch : 2 * patch, :patch] / 255.0  # at time 1, row 1, col 0
    assert found[:, 9 + 3].reshape(2, 4, 3).mean(1) == pytest.approx(token.mean((1, 2, 3)), abs=1e-5)
    if patch % 2 == 0:
        assert found[0, 0, :3] == pytest.approx(corner.mean((0, 1, 2)), abs=1e-5)
    drawing = cells.pictures(found, (2, 3, 3))
    assert np.array_equal(drawing[1, 0, 2:4, 2:4].reshape(-1), found[1, 4])


def test_places_are_distances_and_offsets_from_the_object():
    touched = np.zeros((1, 32), bool)
    touched[0, [0, 17]] = True  # (0, 0) at time 0, (0, 1) at time 1
    away, offset = cells.distances(touched, (2, 4, 4))
    assert away[0, 5] == 1 and away[0, 16 + 15] == pytest.approx(np.hypot(3, 2)) and away[0, 1] == 0
    assert offset[0, 6] == pytest.approx([1 / 4, 1.5 / 4])
    place = cells.place_features(touched, (2, 4, 4))
    assert place.shape == (1, 32, 12) and (place.sum(-1) == 1).all() and place[0, 5, 1] == place[0, 21, 7] == 1
    local = cells.local_features(np.random.default_rng(0).random((1, 32, 12), np.float32), touched, (2, 4, 4))
    assert local.shape == (1, 32, 12 + 9 * 12 + 2 + 6 * 14)
    assert cells.raw_pixels(np.zeros((1, 4, 8, 8, 3), np.uint8), (2, 4, 4)).shape == (1, 32, 2 * 4 * 3 + 2 + 2)


def test_the_decoder_sees_no_scene_without_k_or_o_and_chooses_by_the_third():
    of = drawn("train")
    seen = []

    def spying(video):
        seen.append(video)
        return encode(video)

    model = Model(TRAINED, spying, None, spying)
    found, strength = foresee.decoder(model, of, GRID, 8)
    videos = {video.tobytes() for video in np.concatenate(seen)}
    assert videos == {video.tobytes() for video in np.concatenate([of.video, of.without_third])}
    assert strength == 1e-4 and found(encode(of.without)) == pytest.approx(encode(of.without), abs=1e-2)
    alone = of._replace(third=np.full_like(of.third, -1), without_third=of.video)
    assert foresee.decoder(model, alone, GRID, 8)[1] == 1e-4


def test_the_ridges_are_fitted_where_k_is_not():
    scorer = Scorer(drawn("train"), drawn("test"), GRID, 0, SEED)

    def truth(side, other, rows):  # nonsense at k's tokens of the fitting pairs
        change = (side.change_other if other else side.change)[rows]
        return np.where((side.touched[rows] & (not other))[..., None], np.float32(9), change)

    k, o = scorer.ridge(truth)(scorer.test)
    rest = scorer.test.rest
    assert k[rest] == pytest.approx(scorer.test.change[rest], abs=2e-2)
    assert o[rest] == pytest.approx(scorer.test.change_other[rest], abs=2e-2)


def test_the_do_probe_learns_at_the_tokens_that_the_object_does_not_touch():
    rng = np.random.default_rng(0)
    tokens = rng.normal(2, 3, (40, 16, 5)).astype(np.float32)
    touched = rng.random((40, 16)) < 0.3
    weights = rng.normal(size=(5, 12))
    change = np.where(touched[..., None], 1e3, 0.01 * (tokens - 2) @ weights).astype(np.float32)
    asked = do_probe.Asked(tokens, ~touched, touched)
    predict = do_probe.fit(fresh(12), asked, change, GRID, 1500, 0)
    found = predict(asked)
    assert found.shape == change.shape
    assert np.square(found - change)[~touched].sum() < 0.05 * np.square(change)[~touched].sum()
    few = do_probe.Asked(*(values[:7] for values in asked))
    np.testing.assert_allclose(predict(few), found[:7], atol=1e-6)


def test_a_cache_gives_the_same_numbers(tmp_path):
    few = OPTIONS | dict(pairs_fit=12, pairs_test=8, probe_pairs=(12,), probe_steps=(4,))
    model = Model(TRAINED, encode, lambda hidden: Seen(None, None, None), fresh_predictor=fresh)
    made = bench(model, [model])
    plain = Effects(**few).run(made)
    first = Effects(**few, cache=str(tmp_path)).run(made)
    names = {file.name for file in tmp_path.iterdir()}
    again = Effects(**few, cache=str(tmp_path)).run(made)
    assert repr(plain.scores) == repr(first.scores) == repr(again.scores)
    assert names == {file.name for file in tmp_path.iterdir()} and len(names) == 5
    for file in tmp_path.glob("pairs-*"):
        file.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="cannot be read, delete it"):
        Effects(**few, cache=str(tmp_path)).run(made)


def test_other_draws_have_another_name():
    scenes = prepare(source("test", 100))
    names = [pairs.fingerprint(scenes, *of) for of in ((9, 7, (0.1, 0.4)), (8, 7, (0.1, 0.4)), (9, 6, (0.1, 0.4)))]
    names += [
        pairs.fingerprint(scenes, 9, 7, (0.1, 0.5)),
        pairs.fingerprint(prepare(source("train", 100)), 9, 7, (1, 1)),
    ]
    assert len(set(names)) == len(names) and names[0] == pairs.fingerprint(scenes, 9, 7, (0.1, 0.4))


class NoWorld(Shadows):
    can_rerender = False


def test_what_cannot_be_asked_is_refused():
    model = knower(right)
    with pytest.raises(ConfigError, match="effects needs a source that can remove objects .* NoWorld is not"):
        Effects(**OPTIONS).run(bench(model, source=lambda s, n: NoWorld(split=s, size=SIZE, frames=1)))
    with pytest.raises(DataError, match="Shadows: .* of its 12 scenes have two objects of 0.05 to 0.6 of the tokens"):
        Effects(**OPTIONS, limit=12).run(bench(model))
    with pytest.raises(ConfigError, match="effects needs two splits, not 'test' twice"):
        Effects(**OPTIONS).run(dataclasses.replace(bench(model), fit_split="test"))


@pytest.mark.parametrize(
    "values, text",
    [
        (dict(pairs_fit=9), "effects.pairs_fit = 9: must be an integer of at least 10"),
        (dict(anchor=-2), "effects.anchor = -2: must be an integer of at least -1"),
        (dict(area=(0.5, 0.1)), "effects.area = (0.5, 0.1): must be two numbers"),
        (dict(probe_pairs=(2000,)), "effects.probe_pairs = (2000,): must be integers of at least 4, at most 1500"),
        (dict(probe_steps=(9,)), "effects.probe_steps = (9,): must be as many as probe_pairs, 2"),
        (dict(cache=3), "effects.cache = 3: must be a folder"),
    ],
)
def test_options_outside_their_limits_are_refused(values, text):
    with pytest.raises(ConfigError) as caught:
        Effects(**values)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@functools.cache
def few_removals():
    return online.Removals(prepare(source("test", 5000)), 8, 8, anchor=0, seed=SEED, batch=8, area=(0.05, 0.6))


@pytest.mark.parametrize(
    ("says", "contrasts", "matched"), [(right, 1, 1), (half, 0.75, 1), (unspecific, 0, None), (wrong, -3, 0)]
)
def test_a_few_pairs_during_training_have_the_protocols_scores(says, contrasts, matched):
    found = few_removals().score(knower(says))
    assert found["do_contrast"] == pytest.approx(contrasts, abs=0.02)
    assert found["do_contrast_ceiling"] == pytest.approx(1, abs=2e-3) and found["do_contrast_interval"] < 0.1
    if matched is not None:
        assert found["matched"] == matched
        own, other = found["explained"], found["explained_wrong_object"]
        assert own > other + 0.2 if matched else other == pytest.approx(1, abs=1e-6)
    picture = few_removals().picture(knower(says))
    assert picture.dtype == np.uint8 and picture.shape[1:] == (5 * (192 + 6), 3)


def test_a_model_without_a_residual_head_has_no_score_during_training():
    model = Model(TRAINED, encode, lambda hidden: Seen(None, None, None))
    assert few_removals().score(model) == {} and few_removals().picture(model) is None
