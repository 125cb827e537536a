"""Checks that a source's scene has the form that data/base.py describes. An error is one line.

Only types, shapes and labels are checked, which takes microseconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cjepa_jax.errors import DataError, described


def scene(
    raw: Any, frames: int, label_names: Sequence[str], name: str, channels: int = 3, pixels: str = "uint8"
) -> None:
    """Checks scene `name` as returned by its source. `frames` is T. There must be one label for each of `label_names`.
    `channels` and `pixels` are as in `video`.

    Raises: DataError for the first field that is missing or wrong, with the required form.
    """
    if not isinstance(raw, Mapping):
        raise DataError(f"{name} is {described(raw)}: must be a dict of video, masks and labels")
    for field in ("video", "masks", "labels"):
        if field not in raw:
            raise DataError(f"{name} has no {field}: must have video, masks and labels")
    video(raw["video"], frames, name, channels, pixels)
    shape, masks = raw["video"].shape[:3], raw["masks"]
    if _type(masks) != np.bool_ or masks.ndim != 4 or masks.shape[1:] != shape:
        raise DataError(
            f"{name}: masks are {described(masks)}: must be bool [K, {', '.join(map(str, shape))}], as the video"
        )
    labels = _array(raw["labels"])
    if labels.dtype.kind not in "fiub" or labels.shape != (len(label_names),):
        raise DataError(f"{name}: labels are {described(labels)}: must be float32 [{len(label_names)}], as label_names")
    if not np.isfinite(labels).all():
        worst = int(np.isfinite(labels).argmin())
        raise DataError(f"{name}: label {label_names[worst]!r} is {labels[worst]}: must be finite")
    if "states" in raw:
        states = _array(raw["states"])
        if states.dtype.kind not in "fiub" or states.ndim != 3 or states.shape[:2] != (frames, len(masks)):
            raise DataError(f"{name}: states are {described(states)}: must be float32 [{frames}, {len(masks)}, S]")
    if "embedding" in raw:
        array = _array(raw["embedding"])
        if array.dtype.kind != "f" or array.ndim != 2 or not array.size or not np.isfinite(array).all():
            raise DataError(f"{name}: embedding is {described(array)}: must be float32 [S, E], all finite")
    if "graph" in raw and (_type(raw["graph"]) != np.bool_ or raw["graph"].shape != (len(masks),) * 2):
        raise DataError(f"{name}: graph is {described(raw['graph'])}: must be bool [{len(masks)}, {len(masks)}]")


def episode(raw: Any, frames: int, name: str, channels: int = 3, pixels: str = "uint8") -> None:
    """Checks what scene `name` of a source of episodes has: video, actions and perhaps proprio. `channels` and `pixels`
    are as in `video`. Raises DataError."""
    if not isinstance(raw, Mapping) or "video" not in raw or "actions" not in raw:
        raise DataError(f"{name}: must be a dict of video and actions, as a source of episodes gives")
    video(raw["video"], frames, name, channels, pixels)
    agent(raw, frames, name)


def slots(raw: Any, shape: tuple[int, ...], name: str) -> None:
    """Checks what scene `name` of a source of slots has: video of this shape [T, 1, K, D]. Raises DataError."""
    if not isinstance(raw, Mapping) or "video" not in raw:
        raise DataError(f"{name}: must be a dict of video, as a source of slots gives")
    array = raw["video"]
    if _type(array) != np.float32 or array.shape != shape:
        raise DataError(
            f"{name}: video is {described(array)}: must be float32 {list(shape)} (data.frames = {shape[0]})"
        )
    if not np.isfinite(array).all():
        frame, _, slot = np.argwhere(~np.isfinite(array).all(-1))[0]
        raise DataError(f"{name}: slot {slot} at frame {frame}: must be finite")
    if "present" in raw and (_type(raw["present"]) != np.bool_ or raw["present"].shape != shape[2:3]):
        raise DataError(f"{name}: present is {described(raw['present'])}: must be bool [{shape[2]}]")
    agent(raw, shape[0], name)


def points(raw: Any, count: int, name: str) -> None:
    """Checks what scene `name` of a source of points has: points float32 [count, 3]. Raises DataError."""
    if not isinstance(raw, Mapping) or "points" not in raw:
        raise DataError(f"{name}: must be a dict of points, as a source of points gives")
    array = raw["points"]
    if _type(array) != np.float32 or array.shape != (count, 3):
        raise DataError(f"{name}: points are {described(array)}: must be float32 [{count}, 3]")
    if not np.isfinite(array).all():
        raise DataError(f"{name}: point {int(np.argwhere(~np.isfinite(array))[0, 0])}: must be finite")


def waveform(raw: Any, samples: int, name: str) -> None:
    """Checks what scene `name` of a source of sounds has: waveform float32 [samples]. Raises DataError."""
    if not isinstance(raw, Mapping) or "waveform" not in raw:
        raise DataError(f"{name}: must be a dict of waveform, as a source of sounds gives")
    array = raw["waveform"]
    if _type(array) != np.float32 or array.shape != (samples,):
        raise DataError(f"{name}: waveform is {described(array)}: must be float32 [{samples}]")
    if not np.isfinite(array).all():
        raise DataError(f"{name}: sample {int(np.argwhere(~np.isfinite(array))[0, 0])}: must be finite")


def agent(raw: Mapping, frames: int, name: str) -> None:
    """Checks the arrays of an agent that a scene may have: actions and proprio. Raises DataError."""
    for field in ("actions", "proprio"):
        values = _array(raw[field]) if field in raw else None
        if values is None:
            continue
        if values.dtype.kind not in "fiub" or values.ndim != 2 or len(values) != frames or not values.size:
            raise DataError(f"{name}: {field} are {described(values)}: must be float32 [{frames}, any]")
        if not np.isfinite(values).all():
            raise DataError(f"{name}: {field} at frame {int(np.argwhere(~np.isfinite(values))[0, 0])}: must be finite")


RGB = (3, "uint8")  # of a source that does not say


def channels_of(source: Any) -> tuple[int, str]:
    """(channels, type) of a source's videos, as data/base.py describes them."""
    return getattr(source, "channels", RGB[0]), getattr(source, "pixels", RGB[1])


def video(array: Any, frames: int, name: str, channels: int = 3, pixels: str = "uint8") -> None:
    """Checks a scene's video: its type `pixels`, uint8 or float32, and its shape. Raises DataError."""
    right = _type(array) == np.dtype(pixels) and array.ndim == 4 and array.size
    if not right or (array.shape[0], array.shape[3]) != (frames, channels):
        wanted = f"must be {pixels} [{frames}, H, W, {channels}] (data.frames = {frames})"
        raise DataError(f"{name}: video is {described(array)}: {wanted}")
    if pixels == "float32" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise DataError(f"{name}: {bad} of {array.size} values of the video are not finite: replace them, as by 0")


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:  # rows of different lengths
        return np.empty(len(value), object)


def _type(value: Any) -> np.dtype | None:
    return value.dtype if isinstance(value, np.ndarray) else None
