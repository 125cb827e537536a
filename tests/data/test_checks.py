"""A malformed scene of a user's source is refused in one line that names the scene, the field and the limit."""

import dataclasses
import re
import time

import numpy as np
import pytest

from cjepa_jax.data import checks, pipeline
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import DataError
from tests.scenes import SIZE, scene_map


def without(field):
    return lambda scene: {name: value for name, value in scene.items() if name != field}


LIMIT = r"must be uint8 \[2, H, W, 3\] \(data.frames = 2\)"
MASKS = r"must be bool \[K, 2, 32, 32\], as the video"
WRONG = {
    "nothing": (lambda scene: None, "is of type NoneType: must be a dict of video, masks and labels"),
    "a tuple": (lambda scene: tuple(scene.values()), "is of type tuple: must be a dict of video, masks and labels"),
    "no video": (without("video"), "has no video: must have video, masks and labels"),
    "no masks": (without("masks"), "has no masks: must have video, masks and labels"),
    "no labels": (without("labels"), "has no labels: must have video, masks and labels"),
    "float": ({"video": lambda v: v / 255}, rf": video is float64 \[2, 32, 32, 3\]: {LIMIT}"),
    "NaN": ({"video": lambda v: np.full(v.shape, np.nan, np.float32)}, rf": video is float32 .*: {LIMIT}"),
    "gray": ({"video": lambda v: v[..., 0]}, rf": video is uint8 \[2, 32, 32\]: {LIMIT}"),
    "one channel": ({"video": lambda v: v[..., :1]}, rf": video is uint8 \[2, 32, 32, 1\]: {LIMIT}"),
    "RGBA": ({"video": lambda v: np.concatenate([v, v[..., :1]], -1)}, rf": video is uint8 \[2, 32, 32, 4\]: {LIMIT}"),
    "CHW": ({"video": lambda v: v.transpose(0, 3, 1, 2)}, rf": video is uint8 \[2, 3, 32, 32\]: {LIMIT}"),
    "one image": ({"video": lambda v: v[0]}, rf": video is uint8 \[32, 32, 3\]: {LIMIT}"),
    "more frames": ({"video": lambda v: np.concatenate([v, v])}, rf": video is uint8 \[4, 32, 32, 3\]: {LIMIT}"),
    "empty": ({"video": lambda v: v[:, :0]}, rf": video is uint8 \[2, 0, 32, 3\]: {LIMIT}"),
    "a list": ({"video": lambda v: v.tolist()}, rf": video is of type list: {LIMIT}"),
    "masks of numbers": ({"masks": lambda m: m.astype(np.uint8)}, rf": masks are uint8 \[\d, 2, 32, 32\]: {MASKS}"),
    "smaller masks": ({"masks": lambda m: m[:, :, ::2]}, rf": masks are bool \[\d, 2, 16, 32\]: {MASKS}"),
    "masks of an image": ({"masks": lambda m: m[:, 0]}, rf": masks are bool \[\d, 32, 32\]: {MASKS}"),
    "masks of None": ({"masks": lambda m: None}, rf": masks are of type NoneType: {MASKS}"),
    "fewer labels": ({"labels": lambda x: x[1:]}, r": labels are float32 \[\d+\]: .*, as label_names"),
    "labels in a row": ({"labels": lambda x: x[None]}, r": labels are float32 \[1, \d+\]: must be float32"),
    "labels of text": ({"labels": lambda x: ["red"] * len(x)}, r": labels are <U3 \[\d\]: must be float32"),
    "ragged labels": ({"labels": lambda x: [[1], [1, 2]]}, r": labels are object \[2\]: must be float32"),
    "a NaN label": ({"labels": lambda x: np.where(np.arange(len(x)) == 1, np.nan, x)}, ": label '.+' is nan: must be"),
    "states of others": ({"states": lambda s: s[:, :0]}, r": states are .* \[2, 0, \d+\]: must be .*, S\]"),
    "states of text": ({"states": lambda s: s.astype(str)}, r": states are <U\d+ .*: must be float32 .*, S\]"),
    "one state": ({"states": lambda s: s[..., 0]}, r": states are float32 \[2, \d\]: must be float32 .*, S\]"),
    "ragged states": ({"states": lambda s: [[[1.0], [2.0, 3.0]]]}, r": states are object \[1\]: must be float32"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Malformed(Balls):
    """Balls, of which every fourth is changed: by a function of the dict, or by functions of its fields."""

    name: str = ""

    def __getitem__(self, i):
        scene, (how, _) = super().__getitem__(i), WRONG[self.name]
        if i % 4 != 1:
            return scene
        if isinstance(how, dict):
            return scene | {field: change(scene[field]) for field, change in how.items()}
        return how(scene)


def malformed(name):
    return dataclasses.replace(scene_map(2), source=Malformed(size=SIZE, frames=2, count=16, name=name))


@pytest.mark.parametrize("name", WRONG)
def test_a_malformed_scene_is_refused_by_name(name):
    scenes, (_, text) = malformed(name), WRONG[name]
    assert not scenes(0, 0)["replaced"]
    with pytest.raises(DataError) as refused:
        scenes(5, 0)
    assert re.fullmatch(f"scene 5 of Malformed ?{text}.*", str(refused.value)), refused.value


def test_it_ends_the_run_and_no_other_scene_stands_in():
    loader = pipeline.Loader(malformed("gray"), 16, 0, shards=1, shapes=[(16, 16)])
    with pytest.raises(DataError, match="scene (1|5|9|13) of Malformed: video is uint8"):
        next(loader.iterate(0, 1))


def test_a_counterfactual_of_another_kind_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Gray(Balls):
        def intervene(self, i, removed):
            return super().intervene(i, removed)[..., 0]

    scenes = dataclasses.replace(scene_map(2, "rerender"), source=Gray(size=SIZE, frames=2, count=16))
    with pytest.raises(DataError, match=rf"scene 0 of Gray without objects: video is uint8 \[2, 32, 32\]: {LIMIT}"):
        scenes(0, 0)


def test_what_the_contract_allows_is_not_refused():
    scene = Balls(size=SIZE, frames=2, count=16)[0]
    allowed = [
        scene | {"masks": scene["masks"][:0], "states": scene["states"][:, :0], "graph": scene["graph"][:0, :0]},
        scene | {"labels": scene["labels"].astype(np.float64)},
        scene | {"labels": [1] * len(scene["labels"]), "more": "text"},
        scene | {"video": scene["video"][:, ::-1], "masks": scene["masks"][:, :, ::-1]},
        {name: scene[name] for name in ("video", "masks", "labels")},
    ]
    for one in allowed:
        checks.scene(one, 2, Balls.label_names, "scene 0")


def test_the_check_costs_next_to_nothing():
    """It never looks at the pixels: here one pass over them would take tens of seconds of processor time."""
    shape = (2, 60_000, 60_000)
    video = np.broadcast_to(np.zeros(1, np.uint8), (*shape, 3))
    scene = {"video": video, "masks": np.broadcast_to(False, (4, *shape)), "labels": np.zeros(1, np.float32)}
    began = time.process_time()
    for _ in range(100):
        checks.scene(scene, 2, ["count"], "scene 0")
    assert time.process_time() - began < 1
