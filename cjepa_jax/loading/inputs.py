"""Users' inputs to a model: images, clips, masks and numbers of objects, checked and converted to one form.

Accepts array-likes (anything with `__array__`, PyTorch tensors on the CPU). Invalid arguments raise InputError, one
line that names the argument, its value and the limit.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from cjepa_jax.data.kinds.points import Grouping
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import objects

WHITE = 255.0
SMALL = 2.0  # floats that are all below are fractions of white


class InputError(ConfigError, ValueError):
    """An argument that a model cannot use: a ValueError for programs, an exit code 2 for commands."""


class Takes(NamedTuple):
    """What a model takes."""

    patch: int  # pixels: height and width are multiples of it
    frames: int  # per token. 1: images, and clips if `clips`
    clips: bool  # whether clips of more frames than one are taken
    channels: int = 3
    scale: float = WHITE  # by which values are divided. WHITE: they are pixels in 0..255
    side: int = 0  # the only height and width, 0 for any
    whole: bool = False  # whether a frame is one token

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(times, rows, cols) of scenes [B, T, H, W, C]."""
        if self.whole:
            return shape[1] // self.frames, 1, 1
        return shape[1] // self.frames, shape[2] // self.patch, shape[3] // self.patch


class Clouds(NamedTuple):
    """What a model of point clouds takes: clouds that become groups of points."""

    groups: int = 64
    neighbours: int = 32
    frames: int = 1

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """A token for each group, in a line."""
        return 1, self.groups, 1


def scenes(given: Any, takes: Takes | Clouds) -> np.ndarray:
    """Images or clips as `pixels`, clouds as `groups`."""
    return groups(given, takes) if isinstance(takes, Clouds) else pixels(given, takes)


def groups(points: Any, takes: Clouds) -> np.ndarray:
    """float32 [B, 1, G, 1 + k, 3], see data.kinds.points, of a cloud [P, 3] or clouds [B, P, 3].

    Each is centred and scaled to the unit sphere. The first centre is its first point, so the result depends on which
    point comes first. The order of the others decides only between equal distances.
    Raises: InputError for another shape, too few points, and values that are not finite.
    """
    array = as_array("points", points)
    least = max(takes.groups, takes.neighbours)
    if array.ndim not in (2, 3) or array.shape[-1] != 3 or array.shape[-2] < least:
        raise InputError(f"points: shape {array.shape}: must be [P, 3] or [B, P, 3] with P at least {least}")
    array = reals("points", array)
    clouds, make = array.reshape(-1, *array.shape[-2:]), Grouping(takes.groups, takes.neighbours)
    shape = (0, 1, takes.groups, 1 + takes.neighbours, 3)
    return np.concatenate([np.zeros(shape, np.float32), *(make.frames(cloud[None, None], 0)[None] for cloud in clouds)])


def pixels(images: Any, takes: Takes) -> np.ndarray:
    """uint8 or float32 [B, T, H, W, C], values in 0..255, of an image [H, W, C], images [B, H, W, C] or clips
    [B, T, H, W, C]. Other integers become uint8, other floats float32. For a model with another scale than WHITE, all
    but uint8 becomes float32, and any finite values are taken.

    Raises: InputError, also for floats below 2, which are pixels divided by 255 that this model divides again: resizing
      by cubic or Lanczos filters brings some of them above 1.
    """
    array = as_array("images", images)
    channels = takes.channels
    if array.ndim not in (3, 4, 5) or array.shape[-1] != channels:
        forms = f"[H, W, {channels}], [B, H, W, {channels}] or [B, T, H, W, {channels}]"
        raise InputError(f"images: shape {array.shape}: must be {forms}{_hint(array, channels)}")
    floats = np.issubdtype(array.dtype, np.floating) or array.dtype == ml_dtypes.bfloat16
    if not floats and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"images: dtype {array.dtype}: must be uint8 or float, values in 0..255")
    pictures = takes.scale == WHITE
    if floats or (not pictures and array.dtype != np.uint8):
        array, floats = array.astype(np.float32, copy=False), True
    if not pictures and not np.isfinite(array).all():
        raise InputError(f"images: {array.size - int(np.isfinite(array).sum())} values are not finite")
    if pictures and array.size and array.dtype != np.uint8:
        least, most = array.min(), array.max()
        if not (least >= 0 and most <= 255):  # also for NaN
            hint = ". Do not normalise: the model does" if floats and least < 0 else ""
            raise InputError(f"images: values from {least:g} to {most:g}: must be in 0..255{hint}")
        if floats and 0 < most < SMALL:
            raise InputError(f"images: floats up to {most:g}: pixels are 0..255 here. Multiply by 255")
    video = array if floats else array.astype(np.uint8, copy=False)
    video = video[None] if video.ndim == 3 else video
    video = video if array.ndim == 5 else video[:, None]
    _check_size(array.shape, video.shape, takes)
    return video


def _check_size(given: tuple[int, ...], shape: tuple[int, ...], takes: Takes) -> None:
    _, frames, height, width, _ = shape
    if frames == 1 and takes.frames > 1:
        clip = ""
        if len(given) == 4:
            clip = f". Frames of one clip: images[None]. Single pictures: np.repeat(images[:, None], {takes.frames}, 1)"
        text = (
            f"one frame each, the model takes clips [B, T, H, W, {shape[-1]}] with T a multiple of {takes.frames}{clip}"
        )
        raise InputError(f"images: shape {given}: {text}")
    if frames > 1 and not takes.clips:
        raise InputError(
            f"images: shape {given}: {frames} frames, the model takes images: images.reshape(-1, *images.shape[2:])"
        )
    sides = (("T", frames, takes.frames), ("H", height, takes.patch), ("W", width, takes.patch))
    for name, value, unit in sides:
        if value % unit or not value:
            raise InputError(f"images: shape {given}: {name} = {value} must be a multiple of {unit}")
        if takes.side and name != "T" and value != takes.side:
            raise InputError(f"images: shape {given}: {name} = {value}: must be {takes.side}, as its positions are")


def _hint(array: np.ndarray, channels: int) -> str:
    if channels != 3:
        first = [axis for axis, length in enumerate(array.shape[:-1]) if length == channels and axis >= array.ndim - 4]
        return f". Channels come last: np.moveaxis(images, {first[-1]}, -1)" if array.ndim > 2 and first else ""
    if array.ndim == 2 or (array.ndim and array.shape[-1] == 1):
        return ". Grey pictures need three equal channels"
    if array.shape[-1:] == (4,):
        return ". Without the fourth channel: images[..., :3]"
    first = [axis for axis, length in enumerate(array.shape[:-1]) if length == 3 and axis >= array.ndim - 4]
    return f". Channels come last: np.moveaxis(images, {first[-1]}, -1)" if array.ndim > 2 and first else ""


def objects_of(masks: Any, shape: tuple[int, ...], ndim: int) -> np.ndarray:
    """bool [B, K, T, H, W] for scenes [B, T, H, W, C] that were given as an array of `ndim` axes.

    Args:
      masks: bool (or 0 and 1), a mask per object: [K, H, W], [B, K, H, W] or [B, K, T, H, W], as the images were
        given. Or a label map with one axis less, whole numbers: 0 is the background and i + 1 object i.
    Raises: InputError.
    """
    batch, frames, height, width, _ = shape
    array = as_array("masks", masks)
    lead = {3: (), 4: (batch,), 5: (batch,)}[ndim]
    scene = (frames, height, width) if ndim == 5 else (height, width)
    whole = array.dtype == bool or np.issubdtype(array.dtype, np.integer)
    if array.shape == lead + scene and array.dtype != bool and whole:
        if array.size and array.min() < 0:
            raise InputError(f"masks: labels down to {array.min()}: must be 0 for the ground and 1, 2, ... for objects")
        most = int(array.max(initial=0))
        if most > 4096:
            raise InputError(f"masks: labels up to {most}: at most 4096 objects")
        labels = np.arange(1, most + 1).reshape((-1,) + (1,) * len(scene))
        array = np.expand_dims(array, len(lead)) == labels
    expected = f"[{', '.join([*map(str, lead), 'K', *map(str, scene)])}]"
    if array.ndim != ndim or array.shape[: len(lead)] != lead or array.shape[len(lead) + 1 :] != scene:
        raise InputError(f"masks: shape {array.shape}: must be {expected} for these images, a mask per object")
    if not whole or (array.dtype != bool and array.size and (array.min() < 0 or array.max() > 1)):
        raise InputError(f"masks: dtype {array.dtype}: must be bool, or 0 and 1")
    return array.astype(bool, copy=False).reshape(batch, array.shape[len(lead)], frames, height, width)


def chosen(remove: Any, scenes: int, count: int) -> list[list[int]]:
    """The objects to remove of each scene, in order, of `count` objects.

    Args:
      remove: an object's number, numbers for all scenes, or a list of numbers for each scene.
    Raises: InputError for a number that is out of range, none at all, and anything else.
    """
    remove = as_array("remove", remove).tolist() if hasattr(remove, "__array__") else remove
    nested = isinstance(remove, list | tuple) and any(isinstance(each, list | tuple | np.ndarray) for each in remove)
    lists = list(remove) if nested else [remove] * scenes
    if len(lists) != scenes:
        raise InputError(f"remove: {len(lists)} lists for {scenes} scenes: must be one for each")
    return [_numbers(each, count, f"remove[{i}]" if nested else "remove") for i, each in enumerate(lists)]


def _numbers(given: Any, count: int, name: str) -> list[int]:
    array = np.atleast_1d(as_array(name, given))
    if not array.size:
        raise InputError(f"{name}: names no object: give the number of at least one")
    if array.ndim > 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} = {_short(given)}: must be whole numbers, of objects in 0..{count - 1}")
    for value in array:
        if not 0 <= value < count:
            raise InputError(f"{name} = {_short(given)}: object {value} is not in masks, which has {count} (from 0)")
    numbers = sorted(map(int, array))
    again = [one for one, other in zip(numbers, numbers[1:], strict=False) if one == other]
    if again:
        raise InputError(f"{name} = {_short(given)}: object {again[0]} is named twice")
    return numbers


def taken_away(masks: np.ndarray, remove: list[list[int]], most: int, takes: Takes) -> np.ndarray:
    """The tokens that each removed object touches, bool [B, most, N]. Rows without an object are empty.

    Args:
      masks: bool [B, K, T, H, W].
      remove: see `chosen`.
      most: objects that can be removed together, 0 for any number.
    Raises: InputError for an object without a pixel, and for too many.
    """
    batch, _, frames = masks.shape[:3]
    grid = takes.grid((batch, frames, *masks.shape[3:]))
    found = np.zeros((batch, most or max(map(len, remove), default=1), int(np.prod(grid))), bool)
    for scene, numbers in enumerate(remove):
        if most and len(numbers) > most:
            text = f"{len(numbers)} objects of scene {scene}, the predictor was trained to remove {most} at most"
            raise InputError(f"remove: {text}")
        for number in numbers:
            if not masks[scene, number].any():
                raise InputError(f"masks: object {number} of scene {scene} has no pixel, so it cannot be removed")
        found[scene, : len(numbers)] = objects.patches(masks[scene, numbers], takes.patch, takes.frames)
    return found


def as_array(name: str, value: Any) -> np.ndarray:
    """The value as a NumPy array. Raises InputError where there is none in it."""
    try:
        array = np.asarray(value)
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # ragged lists, tensors with gradients
        raise InputError(f"{name}: cannot be made a NumPy array: {str(error).splitlines()[0]}") from error
    if array.dtype == object:
        raise InputError(f"{name}: {type(value).__name__} does not become a NumPy array of numbers")
    return array


def reals(name: str, value: Any) -> np.ndarray:
    """The value as float32. Raises InputError for other numbers than real and finite ones."""
    array = as_array(name, value)
    if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
        raise InputError(f"{name}: dtype {array.dtype}: must be real numbers")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{name}: {array.size - int(np.isfinite(array).sum())} values are not finite")
    return array


def _short(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:57]}..."
