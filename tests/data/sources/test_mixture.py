"""Mixtures: each source in its proportion, its own scenes, still images beside clips, and what is refused."""

import collections
import pickle

import numpy as np
import pytest

from cjepa_jax.configs.data import mixture
from cjepa_jax.data import assemble, pipeline
from cjepa_jax.data.sources.mixture import Mixture
from cjepa_jax.data.worlds import Balls, Shadows
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import objects

WORLDS = "cjepa_jax.data.worlds"
SMALL = dict(size=32, frames=4, seed=1)


class Counted:
    """`count` scenes, the i-th with the label i."""

    label_names, can_rerender = ("position/number", "extra/only"), False

    def __init__(self, count, first=0, frames=4, **_):
        self.count, self.first, self.frames = count, first, frames

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if not 0 <= i < self.count:
            raise IndexError(i)
        if self.first + i == 13:
            raise DataError("scene 13 is damaged")
        labels = np.array([self.first + i, 7], np.float32)
        video = np.full((self.frames, 8, 8, 3), i, np.uint8)
        return {"video": video, "masks": np.zeros((1, self.frames, 8, 8), bool), "labels": labels, "states": 3}


class Other(Counted):
    label_names = ("another/one", "position/number")

    def __getitem__(self, i):
        found = super().__getitem__(i)
        return found | {"labels": found["labels"][::-1]}


def counted(name="Counted", **options):
    return {"type": f"{__name__}:{name}"} | options


def numbers(source, count):
    return [int(source[i]["labels"][0]) for i in range(count)]


@pytest.mark.parametrize("weights", [(2, 1, 1), (0.5, 0.3, 0.2), (1, 1, 0.01), (3,)])
def test_every_stretch_from_the_beginning_has_the_proportions(weights):
    parts = {f"s{k}": counted(count=10_000, first=10_000 * k + 100, weight=w) for k, w in enumerate(weights)}
    source = Mixture(**SMALL, sources=parts, count=1000)
    seen = collections.Counter()
    for n in range(1, 1001):
        seen[source.find(n - 1)[0]] += 1
        for k, weight in enumerate(weights):
            assert abs(seen[k] - n * weight / sum(weights)) < len(weights)
    for k in range(len(weights)):  # each source's scenes come in order, none left out
        mine = [scene for number, scene in map(source.find, range(1000)) if number == k]
        assert mine == list(range(len(mine)))


def test_it_is_as_long_as_it_takes_to_see_every_scene():
    parts = {"long": counted(count=30, first=100), "short": counted(count=4, first=200)}
    source = Mixture(**SMALL, sources=parts)
    assert len(source) == 60
    found = collections.Counter(numbers(source, 60))
    assert set(found) == {*range(100, 130), *range(200, 204)} and all(found[i] == 1 for i in range(100, 130))
    assert [found[i] for i in range(200, 204)] == [8, 8, 7, 7]  # repeated
    assert len(Mixture(**SMALL, sources=parts, count=7)) == 7
    for i in (-1, 60):
        with pytest.raises(IndexError):
            source[i]


def test_scenes_are_those_of_the_sources_and_stills_are_repeated():
    source = Mixture(
        **SMALL,
        count=8,
        sources={"balls": {"type": f"{WORLDS}:Balls"}, "still": {"type": f"{WORLDS}:Shadows", "frames": 1}},
    )
    assert source.find(0)[0] != source.find(1)[0] and source.can_rerender
    alone = (Balls(**SMALL), Shadows(**SMALL | {"frames": 1}))
    for i in range(8):
        number, scene = source.find(i)
        wanted, found = alone[number][scene], source[i]
        assert set(found) == {"video", "masks", "labels"} and found["video"].shape == (4, 32, 32, 3)
        assert (found["video"] == wanted["video"]).all() and (found["masks"] == wanted["masks"]).all()
        removed = np.arange(len(wanted["masks"])) == 0
        assert (source.intervene(i, removed) == alone[number].intervene(scene, removed)).all()
        assert source.intervene(i, removed).shape == (4, 32, 32, 3)
    assert pickle.loads(pickle.dumps(source))[3]["video"].tobytes() == source[3]["video"].tobytes()


def test_labels_are_those_that_all_have():
    source = Mixture(**SMALL, count=4, sources={"a": counted(count=9), "b": counted("Other", count=9, first=100)})
    assert source.label_names == ("position/number",) and not source.can_rerender
    assert sorted(numbers(source, 4)) == [0, 1, 100, 101]
    worlds = {name: {"type": f"{WORLDS}:{name}"} for name in ("Balls", "Shadows")}
    names = Mixture(**SMALL, sources=worlds).label_names
    assert names and set(names) <= set(Balls().label_names) & set(Shadows().label_names)


def test_the_pipeline_draws_from_it_and_replaces_damaged_scenes():
    source = Mixture(**SMALL, sources={"a": counted(count=20), "b": counted(count=20, first=50)})
    scenes = pipeline.SceneMap(source, objects.draw, 8, 2, 16, 2, "zero_pixels", seed=0, frames=4)
    damaged = [i for i in range(len(source)) if source.find(i) == (0, 13) or source.find(i) == (1, 13)]
    replaced = [i for i in range(len(source)) if scenes(i, 0)["replaced"]]
    assert [source.find(i)[0] for i in damaged] and replaced == [i for i in damaged if source.find(i)[0] == 0]
    one, two = scenes(3, 0), scenes(3, 0)
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_the_shipped_config_mixes_three_worlds():
    config = mixture.get_config()
    source = assemble.make_source(config, "train")
    assert collections.Counter(source.find(i)[0] for i in range(400)) == {0: 200, 1: 100, 2: 100}
    scenes = assemble.make_scenes(config, source, 8, 2)
    found = [scenes(i, 0) for i in range(4)]
    assert {scene["video"].shape for scene in found} == {(4, 64, 64, 3)}
    assert len(assemble.make_source(config, "eval")) == config.data.eval_count


@pytest.mark.parametrize("sources, message", [
    ({}, "data.options.sources: must name at least one source"),
    (3, "data.options.sources: must name at least one source"),
    ({"a": {"typ": "x:Y"}}, "data.options.sources.a: must have a type, 'module:Class'"),
    ({"a": 3}, "data.options.sources.a: must have a type"),
    ({"a": counted(count=3, weight=0)}, r"data.options.sources.a.weight = 0: must be a number from 0.0001 to 1e9"),
    ({"a": counted(count=3, weight=-1.0)}, "a.weight = -1.0: must be"),
    ({"a": counted(count=3, weight=float("nan"))}, "a.weight = nan: must be"),
    ({"a": counted(count=3, weight=float("inf"))}, "a.weight = inf: must be"),
    ({"a": counted(count=3, weight=1e-9)}, "a.weight = 1e-09: must be"),
    ({"a": counted(count=3, weight=True)}, "a.weight = True: must be"),
    ({"a": counted(count=3, weight="2")}, "a.weight = '2': must be"),
    ({"a": counted(count=3, frames=2)}, "data.options.sources.a.frames = 2: must be 1 or data.frames = 4"),
    ({"a": counted(cuont=3)}, "missing a required argument: 'count'"),
    ({"a": counted("Cuonted", count=3)}, "did you mean 'Counted'"),
    ({"a": counted(count=0)}, "data.options.sources.a: has no scene in the split 'train'"),
])  # fmt: skip
def test_what_cannot_work_is_refused(sources, message):
    with pytest.raises((ConfigError, DataError), match=message):
        Mixture(**SMALL, sources=sources)
