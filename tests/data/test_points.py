"""Point clouds: files, folders, shapes, groups and the map of scenes, against brute force."""

import dataclasses
import importlib
import itertools
import struct

import numpy as np
import pytest

from cjepa_jax.data import assemble, clouds
from cjepa_jax.data.formats import point_files
from cjepa_jax.data.inspection import published
from cjepa_jax.data.kinds import points as points_kind
from cjepa_jax.data.sources import shapes
from cjepa_jax.data.sources.point_clouds import PointClouds
from cjepa_jax.errors import ConfigError, DataError

CUBE = """OFF
8 6 0
0 0 0
1 0 0
1 1 0
0 1 0
0 0 1
1 0 1
1 1 1
0 1 1
4 0 1 2 3
4 4 5 6 7
4 0 1 5 4
4 2 3 7 6
4 1 2 6 5
4 0 3 7 4
"""
PLY = "ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\n"
PLY += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"


def rng(seed=0):
    return np.random.default_rng(seed)


def cloud(count=40, seed=0):
    return rng(seed).normal(size=(count, 3))


def test_farthest_points_neighbours_and_order_are_those_of_all_pairs():
    points = cloud()
    pairs = np.linalg.norm(points[:, None] - points, axis=-1)
    chosen = [7]
    while len(chosen) < 12:
        chosen.append(max(range(40), key=lambda i: min(pairs[i, j] for j in chosen)))
    assert clouds.farthest(points, 12, start=7).tolist() == chosen
    centres = points[chosen]
    for row, i in zip(clouds.nearest(points, centres, 5), chosen, strict=True):
        assert row.tolist() == sorted(range(40), key=lambda j: pairs[i, j])[:5]
    left = set(range(12)) - {int(centres.sum(1).argmin())}
    walk = [int(centres.sum(1).argmin())]
    while left:
        walk.append(min(left, key=lambda j: np.linalg.norm(centres[j] - centres[walk[-1]])))
        left.remove(walk[-1])
    assert clouds.order(centres).tolist() == walk
    corner = np.array([[0, 9, 9], [1, 0, 0], [5, 1, 1]], np.float32)  # the least sum is not the least x
    assert clouds.order(corner).tolist() == [1, 2, 0]


def test_groups_are_the_same_for_any_order_of_the_other_points_and_move_with_the_cloud():
    points = cloud()
    found = clouds.grouped(points, 8, 5)
    other = np.concatenate([points[:1], points[1:][rng(1).permutation(39)]])
    np.testing.assert_allclose(clouds.grouped(other, 8, 5), found, atol=1e-6)
    moved = clouds.grouped(points + 1.0, 8, 5)  # x + y + z keeps its order
    np.testing.assert_allclose(moved[:, 0], found[:, 0] + 1, atol=1e-5)
    np.testing.assert_allclose(moved[:, 1:], found[:, 1:], atol=1e-5)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-7)  # a centre is its own nearest neighbour


def test_points_of_files(tmp_path):
    points = cloud(6).astype(np.float32)
    np.save(tmp_path / "a.npy", np.concatenate([points, points], axis=1))  # with normals
    header = "ply\nformat {} 1.0\ncomment made here\nelement vertex 6\nproperty uchar red\n"
    header += "".join(f"property float {axis}\n" for axis in "zxy") + "element face 0\n"
    header += "property list uchar int vertex_index\nend_header\n"
    rows = [(i, z, x, y) for i, (x, y, z) in enumerate(points.tolist())]
    text = header.format("ascii") + "".join(" ".join(map(repr, row)) + "\n" for row in rows)
    (tmp_path / "b.ply").write_text(text)
    for name, order in (("c", "<"), ("d", ">")):
        kind = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
        packed = b"".join(struct.pack(order + "Bfff", *row) for row in rows)
        (tmp_path / f"{name}.ply").write_bytes(header.format(kind).encode() + packed)
    for name in ("a.npy", "b.ply", "c.ply", "d.ply"):
        np.testing.assert_array_equal(point_files.read(tmp_path / name, 6, rng()), points, err_msg=name)
        few = point_files.read(tmp_path / name, 4, rng())
        assert {tuple(p) for p in few} <= {tuple(p) for p in points} and len({tuple(p) for p in few}) == 4
    np.testing.assert_array_equal(point_files.read(tmp_path / "a.npy", 13, rng())[6:12], points)


@pytest.mark.parametrize("head", ["OFF\n8 6 0\n", "OFF8 6 0\n", "OFF # a cube\n\n8 6 0\n"])
def test_the_surface_of_a_mesh_is_sampled_uniformly(tmp_path, head):
    (tmp_path / "cube.off").write_text(head + CUBE.partition("8 6 0\n")[2])
    points = point_files.read(tmp_path / "cube.off", 6000, rng())
    on = np.isclose(np.abs(points - 0.5), 0.5, atol=1e-6)
    assert on.any(1).all() and (points >= 0).all() and (points <= 1).all()
    sides = [(on[:, axis] & (points[:, axis] > 0.5) == high).sum() for axis, high in itertools.product(range(3), (1,))]
    assert all(abs(count - 1000) < 150 for count in sides)
    np.testing.assert_allclose(points.mean(0), 0.5, atol=0.03)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n"),
        ("b.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"),
        ("c.ply", b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\n"),
        ("d.ply", PLY.encode()),
        ("e.npy", b"\x93NUMPY\x01\x00junk"),
        ("f.npy", b""),
        ("g.off", b"OFF\n99999999 1 0\n"),
        ("h.npy", b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': ('<f8', (".ljust(63) + b"\n"),
        ("i.npy", b"\x93NUMPY\x01\x00\x40\x00" + b"{1: 2, 'descr': 3}".ljust(63) + b"\n"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        point_files.read(tmp_path / name, 8, rng())
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def modelnet(root):
    for name, part, count in (("bed", "train", 2), ("bed", "test", 1), ("chair", "train", 3), ("chair", "test", 2)):
        (root / name / part).mkdir(parents=True)
        for i in range(count):
            (root / name / part / f"{name}_{i:04}.off").write_text(CUBE)
    return root


def test_modelnets_layout_and_an_own_one(tmp_path):
    root = modelnet(tmp_path / "ModelNet40")
    train, test = (PointClouds(split=split, path=str(root), points=64) for split in ("train", "eval"))
    assert (len(train), len(test), train.classes) == (5, 3, ("bed", "chair"))
    assert [int(test[i]["class"]) for i in range(3)] == [0, 1, 1]
    assert train[0]["points"].shape == (64, 3) and train[0]["points"].dtype == np.float32
    np.testing.assert_array_equal(train[4]["points"], train[4]["points"])
    assert [int(PointClouds(path=str(root), count=2)[i]["class"]) for i in range(2)] == [0, 1]
    own = tmp_path / "own"
    for part in ("train", "eval"):
        (own / part / "cup").mkdir(parents=True)
        np.save(own / part / "cup" / "x.npy", cloud(5))
    assert PointClouds(split="eval", path=str(own), points=5)[0]["points"].shape == (5, 3)
    with pytest.raises(DataError, match="no files in train/CLASS or CLASS/train"):
        PointClouds(path=str(own / "train"))


def test_a_folder_with_modelnet40s_published_numbers_of_meshes(tmp_path):
    """40 classes with 9,843 meshes to train on and 2,468 to test on. The names alone: no mesh is read."""
    classes = [f"class_{i:02}" for i in range(40)]
    for split, total in (("train", 9843), ("test", 2468)):
        for k, name in enumerate(classes):
            folder = tmp_path / name / split
            folder.mkdir(parents=True)
            for i in range(total // 40 + (k < total % 40)):
                (folder / f"{name}_{i:04}.off").touch()
    train, held = (PointClouds(split=split, path=str(tmp_path)) for split in ("train", "eval"))
    assert (len(train), len(held), len(train.classes)) == (9843, 2468, 40) and train.classes == held.classes
    assert np.bincount(train.of).tolist() == [247] * 3 + [246] * 37  # in the order of the layout
    assert published.compare({"train": train, "eval": held}) == []
    (tmp_path / "class_07/test/class_07_0003.off").unlink()
    (tmp_path / "class_07/train/class_07_9999.off").touch()
    sources = {split: PointClouds(split=split, path=str(tmp_path)) for split in ("train", "eval")}
    more, fewer = published.compare(sources)
    assert more == ("train: PointClouds has 9,844 meshes, published are 9,843: files of other data are among them")
    assert fewer.startswith("eval: PointClouds has 2,467 meshes, published are 2,468: a part is missing")
    assert published.compare({"train": PointClouds(path=str(tmp_path), count=8)}) == []  # asked for


def test_modelnet10_and_folders_of_ones_own_are_told_apart(tmp_path):
    for k in range(10):
        for split in ("train", "test"):
            folder = tmp_path / "ModelNet10" / f"class_{k}" / split
            folder.mkdir(parents=True)
            (folder / "a.off").touch()
            own = tmp_path / "own" / ("eval" if split == "test" else split) / f"class_{k}"
            own.mkdir(parents=True)
            (own / "a.off").touch()
    ten = {"eval": PointClouds(split="eval", path=str(tmp_path / "ModelNet10"))}
    assert "has 10 meshes, published are 908" in published.compare(ten)[0]
    assert published.compare({"eval": PointClouds(split="eval", path=str(tmp_path / "own"))}) == []


def test_shapes_are_cut_and_the_same_each_time():
    source = shapes.Shapes(count=64, points=128, noise=0.0)
    first = source[5]
    np.testing.assert_array_equal(first["points"], shapes.Shapes(count=64, points=128, noise=0.0)[5]["points"])
    assert {int(source[i]["class"]) for i in range(64)} == set(range(8))
    assert first["labels"].argmax() == first["class"] and len(source.label_names) == 8
    whole = shapes.surface(rng(), "sphere", 4000)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    turned = shapes.rotation(rng(3))
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turned) == pytest.approx(1)
    for name in shapes.KINDS:
        points = shapes.surface(rng(1), name, 500)
        assert points.shape == (500, 3) and np.isfinite(points).all() and np.abs(points).max() < 1.4, name


def config(**changes):
    c = importlib.import_module("configs.family.point_jepa").get_config().copy_and_resolve_references().unlock()
    small = {"data.options.points": 64, "objective.encoder.groups": 8, "objective.encoder.neighbours": 4}
    c.update_from_flattened_dict(small | changes)
    return c


def made(**changes):
    c = config(**changes)
    source = assemble.make_source(c, "train")
    return source, assemble.make_scenes(c, source, 1, 1)


def test_a_scene_is_groups_of_a_unit_cloud():
    source, scenes = made(**{"data.crop": False})
    scene = scenes(3, 0)
    points = clouds.unit(source[3]["points"].astype(np.float64))
    np.testing.assert_allclose(scene["video"][0], clouds.grouped(points, 8, 4), atol=1e-6)
    assert scenes.grid == (1, 8, 1) and not (scene["context"] & scene["hidden"]).any()
    np.testing.assert_array_equal(scenes(3, 1)["video"], scene["video"])  # nothing is drawn without crop


def test_training_turns_scales_and_groups_anew():
    source, scenes = made()
    one, other = scenes(3, 0)["video"][0], scenes(3, 1)["video"][0]
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_array_equal(one, scenes(3, 0)["video"][0])
    window = points_kind.Grouping(8, 4, turn=1.0)
    cloud = source[3]["points"].astype(np.float64)
    height, turned = clouds.unit(cloud)[:, 1], window.frames(cloud[None, None], 64)[0, :, 0]
    assert all(np.abs(height - y).min() < 1e-5 for y in turned[:, 1])  # about the y axis, in the unit sphere
    drawn = [scenes.window(np.random.default_rng(i), cloud[None, None]).scale for i in range(50)]
    assert np.shape(drawn) == (50, 3) and 0.8 < np.min(drawn) < 0.85 < 1.15 < np.max(drawn) < 1.2
    stretched = dataclasses.replace(window, turn=0.0, scale=(0.8, 1.0, 1.2)).frames(cloud[None, None], 64)
    wanted = clouds.grouped(clouds.unit(cloud * [0.8, 1.0, 1.2]), 8, 4)
    np.testing.assert_allclose(stretched[0], wanted, atol=1e-6)
    assert np.abs(stretched[0] - clouds.grouped(clouds.unit(cloud), 8, 4)).max() > 1e-2


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"objective.encoder.groups": 65}, "objective.encoder.groups = 65: must be from 2 to the 64 points of Shapes"),
        ({"data.frames": 2}, "data.frames = 2: must be 1 for points"),
        ({"data.intervened": "zero_pixels"}, "data.intervened = 'zero_pixels': must be none for points"),
    ],
)
def test_settings_that_points_do_not_have_are_refused(changes, text):
    with pytest.raises(ConfigError) as error:
        made(**changes)
    assert str(error.value).startswith(text)


def test_broken_points_are_refused(monkeypatch):
    _, scenes = made()
    for points, text in (
        (np.zeros((63, 3), np.float32), "points are float32 [63, 3]: must be float32 [64, 3]"),
        (np.full((64, 3), np.nan, np.float32), "point 0: must be finite"),
    ):
        monkeypatch.setattr(shapes.Shapes, "__getitem__", lambda self, i, points=points: {"points": points})
        with pytest.raises(DataError, match=r"^scene 0 of Shapes") as error:
            scenes(0, 0)
        assert str(error.value).endswith(text)
