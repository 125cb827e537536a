"""Batch s is a pure function of (seed, s). Scenes become arrays as documented. Broken scenes are replaced."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from cjepa_jax.data import batching, pipeline
from cjepa_jax.data.pipeline import CONTROLS
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import multiblock, objects
from tests import scenes
from tests.scenes import PATCH, SIZE, scene_map


def loader(batch=4, seed=0, **options):
    scenes_options = {k: options.pop(k) for k in ("frames", "intervened", "count", "max_objects") if k in options}
    chosen = dict(shards=2, threads=1, prefetch=1) | options
    scenes = batch // chosen.get("processes", 1) // chosen["shards"]
    chosen = dict(shapes=[(scenes, 8), (scenes, 16)]) | chosen
    return pipeline.Loader(scene_map(seed=seed, **scenes_options), batch, seed, **chosen)


def same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            same(value, two[name])
        else:
            np.testing.assert_array_equal(value, two[name], err_msg=name)
            assert value.dtype == two[name].dtype


def batches(**options):
    start, stop = options.pop("start", 0), options.pop("stop", 3)
    return list(loader(**options).iterate(start, stop))


@functools.cache
def reference():
    return batches()


# ---------------------------------------------------------------------- batch s is a pure function of (seed, s)


@pytest.mark.parametrize("options", [{"threads": 4, "prefetch": 7}, {"workers": 1}, {"workers": 2}])
def test_threads_and_workers_change_no_bit(options):
    for one, two in zip(reference(), batches(**options), strict=True):
        same(one, two)


@pytest.mark.slow
def test_three_workers_change_no_bit():
    for one, two in zip(batches(stop=7), batches(stop=7, workers=3), strict=True):
        same(one, two)


def test_resume_at_any_step():
    for start in (1, 2):
        for one, two in zip(reference()[start:], batches(start=start), strict=True):
            same(one, two)
    assert batches(start=3, stop=3) == []


def test_seeds_differ():
    one, two = reference()[0], batches(seed=1, stop=1)[0]
    assert one["scene"].tolist() != two["scene"].tolist()


def test_every_scene_once_per_epoch_in_a_new_order():
    drawn = np.concatenate([np.stack([b["scene"], b["epoch"]], 1) for b in batches(stop=12)])  # 3 epochs of 16
    orders = []
    for epoch in range(3):
        order = drawn[drawn[:, 1] == epoch, 0].tolist()
        assert sorted(order) == list(range(16))
        orders.append(order)
    assert orders[0] != orders[1] != orders[2] and sorted(drawn[:, 1]) == drawn[:, 1].tolist()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97])
def test_permutations_of_any_count(count):
    for epoch in range(2):
        order = [pipeline.scene_at(epoch * count + i, count, 5) for i in range(count)]
        assert sorted(order) == [(i, epoch) for i in range(count)]


def test_batch_size_and_neighbours_leave_a_scenes_draw_bit_equal():
    small = {int(s): i for b in batches(stop=4) for i, s in enumerate(b["scene"])}
    found = {int(s): b for b in batches(stop=4) for s in b["scene"]}
    for large in batches(batch=8, stop=2):
        for row, scene in enumerate(large["scene"]):
            for name in large.keys() - {"rows"}:
                np.testing.assert_array_equal(
                    large[name][row], found[int(scene)][name][small[int(scene)]], err_msg=name
                )


def test_padding_objects_leaves_a_scenes_draw_bit_equal():
    few, many = scene_map(max_objects=6), scene_map(max_objects=11)
    for i in range(16):
        one, two = few(i, 3), many(i, 3)
        for name in one:
            value = two[name][:6] if name in ("object_patches", "object_valid", "removed") else two[name]
            value = value[:6, :6] if name == "graph" else value  # [K, K]
            np.testing.assert_array_equal(one[name], value, err_msg=name)
        assert not two["object_valid"][6:].any() and not two["removed"][6:].any()


def test_epochs_redraw_the_objects():
    removed = np.stack([scene_map()(0, epoch)["removed"] for epoch in range(30)])
    assert len(np.unique(removed, axis=0)) > 2


# ---------------------------------------------------------------------- a scene's arrays


def touched(masks):
    """The tokens that each object touches, bool [K, N], box by box. Two frames of a clip are one time."""
    objects, frames, *_ = masks.shape
    tubelet, side = min(frames, 2), SIZE // PATCH
    boxes = [
        masks[:, t * tubelet : (t + 1) * tubelet, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH]
        for t, r, c in np.ndindex(frames // tubelet, side, side)
    ]
    return np.stack([box.reshape(objects, -1).any(1) for box in boxes], axis=1)


@pytest.mark.parametrize("frames", [1, 4])
def test_a_scene_is_its_source_and_its_masks(frames):
    source, scene_of = Balls(size=SIZE, frames=frames, count=16), scene_map(frames)
    for i in range(6):
        raw, scene = source[i], scene_of(i, 0)
        np.testing.assert_array_equal(scene["video"], raw["video"])
        np.testing.assert_array_equal(scene["labels"], raw["labels"])
        count = len(raw["masks"])
        np.testing.assert_array_equal(scene["object_patches"][:count], touched(raw["masks"]))
        assert not scene["object_patches"][count:].any()
        np.testing.assert_array_equal(scene["object_valid"], scene["object_patches"].any(1))
        if scene["removed"].any():
            hidden = scene["object_patches"][scene["removed"]].any(0)
            np.testing.assert_array_equal(scene["context"], ~hidden)
        assert scene["valid"] and not scene["replaced"] and (scene["scene"], scene["epoch"]) == (i, 0)


@pytest.mark.parametrize("frames", [1, 4])
def test_zero_pixels_blanks_the_visible_masks_of_the_removed(frames):
    source, scene_of = Balls(size=SIZE, frames=frames, count=16), scene_map(frames)
    for i in range(8):
        scene = scene_of(i, 0)
        assert scene["removed"].any() and scene["intervened_valid"]
        gone = source[i]["masks"][scene["removed"][: len(source[i]["masks"])]].any(0)
        np.testing.assert_array_equal(scene["intervened"], np.where(gone[..., None], 0, scene["video"]))


def test_rerender_is_the_real_scene_without_them():
    source, scene_of = Balls(size=SIZE, frames=4, count=16), scene_map(4, "rerender")
    for i in range(4):
        scene, count = scene_of(i, 0), len(source[i]["masks"])
        assert scene["removed"].any() and scene["intervened_valid"]
        np.testing.assert_array_equal(scene["intervened"], source.intervene(i, scene["removed"][:count]))
        assert (scene["intervened"] != scene["video"]).any()


def test_the_controls_show_other_objects_away_or_nothing():
    source, scene_of = Balls(size=SIZE, frames=4, count=16), scene_map(4, "rerender_other")
    removals = set()
    for i in range(8):
        scene, count = scene_of(i, 0), len(source[i]["masks"])
        same, again = scene_map(4, "second_view")(i, 0), scene_map(4, "rerender")(i, 0)
        for name in ("video", "removed", "context"):  # what is drawn and hidden is the same in all of them
            assert np.array_equal(scene[name], same[name]) and np.array_equal(scene[name], again[name])
        removed, rest = scene["removed"][:count], (scene["object_valid"] & ~scene["removed"])[:count]
        assert np.array_equal(same["intervened"], scene["video"]) and same["intervened_valid"]
        few = min(removed.sum(), rest.sum())
        assert scene["intervened_valid"] == (few > 0)
        others = [np.isin(np.arange(count), of) for of in itertools.combinations(np.flatnonzero(rest), few) if of]
        shown = [of for of in others if np.array_equal(source.intervene(i, of), scene["intervened"])]
        assert len(shown) == bool(others)
        assert np.array_equal(scene_of(i, 0)["intervened"], scene["intervened"])
        removals |= {scene_of(i, epoch)["intervened"].tobytes() for epoch in range(6)}
    assert len(removals) > 16  # drawn again in every epoch


def test_without_another_object_there_is_no_control():
    mask = functools.partial(objects.draw, max_objects=6, area=(0.0, 1.0))
    source = Balls(size=SIZE, frames=1, count=16, objects=(1, 1))
    alone = dataclasses.replace(scene_map(intervened="rerender_other", mask=mask), source=source)
    assert alone(0, 0)["removed"].any() and not alone(0, 0)["intervened_valid"]


@pytest.mark.parametrize("intervened", ["drop_tokens", "none"])
def test_other_modes_bring_no_pixels(intervened):
    assert "intervened" not in scene_map(intervened=intervened)(0, 0)


@pytest.mark.parametrize("intervened", ["zero_pixels", "drop_tokens", "rerender", *CONTROLS])
def test_fallback_scenes(intervened):
    """No eligible object: zero_pixels blanks the drawn patches, rerender leaves the scene out of the causal term."""
    nothing = functools.partial(objects.draw, area=(0.99, 1.0))
    scene = scene_map(intervened=intervened, mask=nothing)(2, 0)
    assert not scene["removed"].any() and 0 < scene["context"].sum() < 16
    if intervened == "zero_pixels":
        blank = np.repeat(np.repeat(~scene["context"].reshape(1, 4, 4), PATCH, 1), PATCH, 2)
        np.testing.assert_array_equal(scene["intervened"], np.where(blank[..., None], 0, scene["video"]))
        assert scene["intervened_valid"]
    if intervened in ("rerender", *CONTROLS):
        assert not scene["intervened_valid"]


def test_tokens_that_a_mask_drops_are_neither_context_nor_hidden():
    """context, hidden and the dropped rest share the grid among them. Masks of two arrays bring no `hidden`."""
    grid, patches = (2, 4, 4), np.zeros((6, 32), bool)
    scene_of = scene_map(4, intervened="none", mask=multiblock.draw)
    for i in range(4):
        scene = scene_of(i, 0)
        rng = np.random.default_rng([0, pipeline.DRAW, i, 0])
        masked, _, dropped = multiblock.draw(rng, patches, patches[:, 0], grid=grid)
        np.testing.assert_array_equal(scene["hidden"], masked)
        np.testing.assert_array_equal(scene["context"], ~masked & ~dropped)
        assert scene["context"].any() and masked.any() and not scene["removed"].any()
    assert "hidden" in scenes.batch(frames=4, intervened="none", mask=multiblock.draw)
    assert "hidden" not in scene_map(4)(0, 0)


def test_an_anchor_keeps_the_first_tubelet_of_the_clip():
    anchored = functools.partial(objects.draw, area=(0.05, 0.6), anchor=1)
    for i in range(6):
        scene = scene_map(4, mask=anchored)(i, 0)
        assert scene["context"][:16].all() and not scene["context"][16:].all()
        np.testing.assert_array_equal(scene["intervened"][:2], scene["video"][:2])


def test_more_objects_than_k_keep_the_largest():
    source = Balls(size=SIZE, frames=1, count=16)
    for i in range(6):
        every = touched(source[i]["masks"])
        kept = np.sort(np.argsort(-every.sum(1), kind="stable")[:2])
        scene = scene_map(max_objects=2)(i, 0)
        np.testing.assert_array_equal(scene["object_patches"], every[kept])
        if scene["removed"].any():
            gone = source[i]["masks"][kept[scene["removed"]]].any(0)
            np.testing.assert_array_equal(scene["intervened"], np.where(gone[..., None], 0, scene["video"]))


# ---------------------------------------------------------------------- degenerate and broken scenes


@dataclasses.dataclass(frozen=True)
class Made:
    """Scenes of chosen masks. Those listed in `broken` cannot be read."""

    masks: np.ndarray  # [K, 32, 32] of every scene
    broken: tuple = ()
    label_names = ("count",)
    can_rerender = False

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i in self.broken:
            raise DataError(f"scene {i} is torn")
        video = np.random.default_rng(i).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
        return {"video": video, "masks": self.masks[:, None], "labels": np.float32([len(self.masks)])}


CORNER = np.zeros((SIZE, SIZE), bool)
CORNER[:12, :12] = True
DEGENERATE = {
    "no object": np.zeros((0, SIZE, SIZE), bool),
    "empty": np.zeros((3, SIZE, SIZE), bool),
    "full": np.ones((2, SIZE, SIZE), bool),
    "overlapping": np.stack([CORNER, CORNER, CORNER.T]),
    "one": CORNER[None],
    "more than K": np.stack([CORNER] * 9),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("intervened", ["zero_pixels", "drop_tokens"])
def test_degenerate_scenes_become_batches(name, intervened):
    scene_of = dataclasses.replace(scene_map(intervened=intervened), source=Made(DEGENERATE[name]))
    arrays = batching.collate([scene_of(i, 0) for i in range(4)], 2)
    assert arrays["object_patches"].shape == (4, 6, 16)
    np.testing.assert_array_equal(arrays["object_valid"], arrays["object_patches"].any(-1))
    hidden = (~arrays["context"]).sum(1)
    assert (hidden > 0).all() and (hidden < 16).all()
    if name in ("no object", "empty", "full"):
        assert not arrays["removed"].any()


def test_unreadable_scenes_are_replaced_by_the_next_and_flagged():
    broken = Made(np.stack([CORNER, CORNER[::-1], CORNER[:, ::-1]]), broken=(3, 4, 11))
    scene_of = dataclasses.replace(scene_map(), source=broken)
    found = [scene_of(i, 2) for i in range(12)]
    assert [int(s["scene"]) for s in found] == [0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 10, 0]
    assert [bool(s["replaced"]) for s in found] == [i in (3, 4, 11) for i in range(12)]
    for scene, substitute in ((3, 5), (4, 5), (11, 0)):  # drawn as it would be in its own place
        same(scene_of(substitute, 2) | {"replaced": np.bool_(True)}, scene_of(scene, 2))
    one, two = (
        list(dataclasses.replace(loader(), scenes=scene_of, threads=t).iterate(0, 3)) for t in (1, 3)
    )  # fmt: skip
    for a, b in zip(one, two, strict=True):
        same(a, b)
    assert sum(int(b["replaced"].sum()) for b in one) == 3  # an epoch of 12


def test_a_source_that_cannot_be_read_at_all_is_an_error():
    scene_of = dataclasses.replace(scene_map(), source=Made(CORNER[None], broken=tuple(range(12))))
    with pytest.raises(DataError, match="scene 7 is torn"):
        scene_of(7, 0)
    with pytest.raises(DataError, match="torn"):
        next(dataclasses.replace(loader(), scenes=scene_of).iterate(0, 1))


@pytest.mark.parametrize("size", [33, 20])
def test_sizes_that_do_not_divide_are_refused(size):
    scene_of = dataclasses.replace(scene_map(), size=size)
    with pytest.raises((ValueError, DataError), match="multiple"):
        scene_of(0, 0)


def test_scenes_of_any_size_are_brought_to_one():
    source = dataclasses.replace(Balls(size=48, frames=1, count=4))
    for crop in (False, True):
        scene = dataclasses.replace(scene_map(), source=source, crop=crop)(0, 0)
        assert scene["video"].shape == scene["intervened"].shape == (1, SIZE, SIZE, 3)
    drawn = {dataclasses.replace(scene_map(), source=source, crop=True)(0, e)["video"].tobytes() for e in range(4)}
    assert len(drawn) == 4


@pytest.mark.parametrize("crop", [False, True])
def test_a_crop_is_the_same_for_the_scene_without_its_objects(crop):
    @dataclasses.dataclass(frozen=True)
    class Unmoved(Balls):
        """Nothing in a scene is of any consequence."""

        def intervene(self, i, removed):
            return self[i]["video"]

    scene_of = dataclasses.replace(scene_map(intervened="rerender"), source=Unmoved(size=48, frames=1), crop=crop)
    for epoch in range(4):
        scene = scene_of(0, epoch)
        assert scene["intervened_valid"] and scene["video"].shape == (1, SIZE, SIZE, 3)
        np.testing.assert_array_equal(scene["intervened"], scene["video"])


def test_held_out_scenes_are_the_first_ones_in_order():
    held = pipeline.held_out(scene_map(), 2, 3)
    assert [int(s["scene"]) for s in held] == [2, 3, 4]
    same(held[0], scene_map()(2, 0))
    assert len(pipeline.held_out(scene_map(), 14, 9)) == 2
    assert scenes.batch((2, 3))["scene"].tolist() == [2, 3]


def test_a_mask_that_removes_more_than_the_model_can_tell_apart_is_refused():
    def remove_all(rng, object_patches, object_valid, grid):
        return object_patches.any(0), object_valid

    with pytest.raises(ConfigError, match="removed [2-6] objects of scene 0, objective.predictor.max_objects = 1"):
        scene_map(mask=remove_all, max_removed=1)(0, 0)


def test_unreadable_held_out_scenes_are_left_out_rather_than_replaced():
    @dataclasses.dataclass(frozen=True)
    class Holes(Balls):
        def __getitem__(self, i):
            if i == 2:
                raise DataError("scene 2 is torn")
            return super().__getitem__(i)

    scene_of = dataclasses.replace(scene_map(), source=Holes(size=SIZE, frames=1, count=16))
    assert [int(scene["scene"]) for scene in pipeline.held_out(scene_of, 0, 4)] == [0, 1, 3]
