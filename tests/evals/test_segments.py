"""FG-ARI and mBO by hand, their floors, and models whose answers are known."""

import functools

import numpy as np
import pytest

from cjepa_jax.data import pipeline
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import segments
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Scenes, Seen
from cjepa_jax.evals.segments import COLOURS, GRID, Segments
from cjepa_jax.masks import objects


def test_the_index_is_the_definitions_by_hand():
    """scikit-learn's documentation: [0, 0, 1, 1] and [0, 0, 1, 2] agree with 0.57..."""
    truth = np.array([0, 0, 1, 1])
    assert segments.fg_ari(truth, np.array([0, 0, 1, 2])) == pytest.approx(0.5714285714)
    assert segments.fg_ari(truth, np.array([7, 7, 3, 3])) == 1  # numbers have no meaning
    assert segments.fg_ari(truth, np.array([0, 1, 0, 1])) == pytest.approx(-0.5)
    assert segments.fg_ari(np.append(truth, [-1] * 9), np.array([7, 7, 3, 3, *range(9)])) == 1  # no background
    assert segments.fg_ari(truth, np.zeros(4, int)) == 0
    rng = np.random.default_rng(0)
    draws = [segments.fg_ari(rng.integers(0, 4, 500), rng.integers(0, 5, 500)) for _ in range(50)]
    assert abs(np.mean(draws)) < 0.005  # chance


def test_the_best_overlap_counts_the_background_in_a_segment():
    truth = np.array([-1, -1, 0, 0, 0, 1, 1, 1])
    found = np.array([2, 3, 3, 3, 3, 5, 5, 3])
    assert segments.mbo(truth, found) == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert segments.mbo(truth, np.where(truth < 0, 9, truth)) == 1


def test_a_grid_has_rectangles_of_equal_area_as_many_as_there_are_slots():
    np.testing.assert_array_equal(segments.grid(7, 2, 6), [[0, 0, 1, 1, 2, 2], [3, 3, 4, 5, 5, 6]])
    for count in range(1, 13):
        areas = np.bincount(segments.grid(count, 240, 240).ravel())
        assert len(areas) == count and areas.min() > 0.9 * areas.max(), count


def test_colours_are_clustered_with_their_place_and_the_best_start_counts(monkeypatch):
    clips = np.zeros((1, 2, 8, 8, 3), np.uint8)
    clips[:, :, :, 4:] = 255
    found = Segments().colours(1.0, 2, clips, 0)
    assert found.shape == clips.shape[:4]
    assert segments.fg_ari((clips[..., 0] > 0).astype(int).ravel(), found.ravel()) == 1
    np.testing.assert_array_equal(found, Segments().colours(1.0, 2, clips, 0))
    assert len(np.unique(Segments().colours(9.0, 2, clips[:, :, :, :4], 0))) == 2  # one colour: only places differ

    monkeypatch.setattr(segments, "SAMPLED", 64)  # of 128: all pixels have a cluster
    sampled = Segments().colours(1.0, 2, clips, 0)
    assert segments.fg_ari(found.ravel(), sampled.ravel()) == 1

    rng = np.random.default_rng(0)  # k-means of eight groups depends on its start
    points = np.concatenate([rng.normal(centre, 0.05, (20, 2)) for centre in rng.uniform(0, 4, (8, 2))])

    def squares(labels):
        return sum(points[labels == k].var(0).sum() * (labels == k).sum() for k in np.unique(labels))

    one, several = (
        [squares(segments.clusters(points, 8, np.random.default_rng(n), starts)) for n in range(8)] for starts in (1, 8)
    )
    assert max(several) < np.mean(one) < max(one)


def test_a_scene_without_objects_has_no_labels():
    np.testing.assert_array_equal(segments.objects(np.zeros((0, 2, 3, 3), bool)), np.full((2, 3, 3), -1))


def bench_of(answer):
    """Balls on four scenes, a model that answers by a function of the video, and one that says one segment."""
    source = Balls(split="test", size=32, frames=2, count=6, seed=3)
    draw = functools.partial(objects.draw, max_objects=1, area=(0.01, 0.6))

    def prepare(of):
        return pipeline.SceneMap(of, draw, 8, 2, 32, 8, "none", 0, 2, with_objects=True)

    def model(name, segment):
        return Model(name, lambda video: video, lambda hidden: Seen(None, None, None), segment=segment, segments=7)

    models = model(TRAINED, answer), model(f"{RANDOM} 0", lambda video: np.zeros(video.shape[:4], int))
    return Bench(models[0], models[1:], lambda split, count: source, prepare, "train", 6, "test", 6, 4, 3, 1)


def test_who_knows_the_masks_is_perfect_and_one_segment_is_chance():
    source = Balls(split="test", size=32, frames=2, count=6, seed=3)
    scenes = [source[i] for i in range(6)]

    def knows(video):
        (own,) = np.array([[np.array_equal(clip, scene["video"]) for scene in scenes] for clip in video]).nonzero()[1:]
        return np.stack([segments.objects(scenes[i]["masks"]) for i in own])

    found = Segments().run(bench_of(knows))
    rows = {(score.metric, score.row): score for score in found.scores}
    assert rows["fg-ari", TRAINED].value == rows["mbo", TRAINED].value == 1
    assert rows["fg-ari", RANDOM].value == 0 and rows["mbo", RANDOM].value < 0.5
    for floor in (*(f"{COLOURS} x {place}" for place in (0.1, 0.3, 1)), GRID):
        assert -0.1 < rows["fg-ari", floor].value < 1 and 0 < rows["mbo", floor].value < 1
        assert rows["mbo", floor].kind == "floor"
    with pytest.raises(ConfigError, match="Segments needs a model that assigns each pixel to a slot"):
        Segments().run(bench_of(None))


class Masked(list):
    """Scenes with the masks that it holds."""

    def __getitem__(self, i):
        return {} if list.__getitem__(self, i) is None else {"masks": list.__getitem__(self, i)}


def scenes_with(*masks):
    arrays = {"scene": np.arange(len(masks)), "video": np.zeros((len(masks), 2, 4, 4, 3), np.uint8)}
    return Scenes(Masked(masks), None, arrays)


def test_scenes_of_other_sizes_and_without_masks_are_refused_and_scenes_without_objects_are_not():
    mask = np.zeros((1, 2, 4, 4), bool)
    assert (segments.true_labels(scenes_with(mask, mask[:0])) == -1).all()
    for masks, message in ((np.zeros((1, 2, 6, 4), bool), "scenes of data.size"), (None, "scenes with masks")):
        with pytest.raises(ConfigError, match=message):
            segments.true_labels(scenes_with(mask, masks))


@pytest.mark.parametrize(
    "options", [dict(starts=0), dict(starts=True), dict(places=()), dict(places=(0.0,)), dict(places=(float("nan"),))]
)
def test_options_outside_their_limits_are_refused_in_one_line(options):
    with pytest.raises(ConfigError, match="evals.protocols: segments") as caught:
        Segments(**options)
    assert "\n" not in str(caught.value)
