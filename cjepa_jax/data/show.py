"""Draws scenes of a config's source, whichever it is, beside their counterfactuals.

python -m cjepa_jax.data.show --config=configs/worlds/balls.py --out=balls.png [--config.data.seed=1 ...]

A .png file is a contact sheet with some frames of every clip. A .gif file is an animation. Objects are outlined, each
in the same colour on both sides. The hidden patches are those that the config's mask draws for the scene in the first
epoch. Rings mark contacts in the frame nearest to their beginning. A contact with a wall or the ground is marked at the
object's side nearest to the border. The counterfactual is simulated again if the source supports it. Otherwise it is
the scene with the removed objects' hidden pixels blanked, as training sees it.
The centred square is shown, without a random crop. The same command draws the same bits.
"""


def _flags():
    from absl import flags

    flags.DEFINE_string("out", None, "the picture to write, .png or .gif")
    flags.DEFINE_string("split", "train", "the split that the scenes are from")
    flags.DEFINE_integer("first", 0, "the first scene", lower_bound=0)
    flags.DEFINE_integer("scenes", 4, "how many scenes", lower_bound=1, upper_bound=64)
    flags.DEFINE_integer("remove", None, "remove this object of every scene, not those that the mask draws")
    flags.DEFINE_integer("scale", 0, "enlargement of the frames. 0: to about 192 pixels", lower_bound=0, upper_bound=16)


if __name__ == "__main__":
    from cjepa_jax import cli

    raise SystemExit(cli.run("cjepa_jax.data.show", _flags))

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from cjepa_jax.data import assemble, batching, kinds, pipeline, transforms
from cjepa_jax.data.drawing import marks, sheet
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import paths
from cjepa_jax.masks import objects
from cjepa_jax.runtime.ending import storage_error

NO_CONTACTS = np.zeros((0, 4), np.float32)
SIDE = 192  # pixels, the displayed width of a small frame


def main(config, _) -> int:
    """Writes the picture that the flags describe. No run folder is made."""
    given = flags.FLAGS
    which = dict(split=given.split, first=given.first, count=given.scenes, remove=given.remove)
    print(draw(config, given.out, **which, scale=given.scale))
    return 0


def draw(config, out: str | None, split="train", first=0, count=4, remove: int | None = None, scale=0) -> str:
    """Writes scenes first .. first + count - 1 to `out`. Returns one line that says what was written.

    Raises ConfigError if the scenes cannot be drawn or the file cannot be written, DataError for an unreadable scene.
    """
    path = target(out)
    source = assemble.make_source(config, split)
    if first >= len(source):
        raise ConfigError(f"--first={first}: the {split} split has scenes 0 to {len(source) - 1}")
    scene_of = make_scenes(config, source)
    chosen = range(first, min(first + count, len(source)))
    scenes = [read(scene_of, index, remove) for index in chosen]
    side = scene_of.size * (scale or max(1, round(SIDE / scene_of.size)))
    frames = f", {scene_of.frames} frames" if scene_of.frames > 1 else ""
    heading = f"{type(source).__name__}, {split} split, {scene_of.size} × {scene_of.size}{frames}"
    if path.suffix == ".png":
        data = sheet.png(sheet.sheet(scenes, heading, side))
    else:
        data = sheet.gif(sheet.animation(scenes, heading, side))
    write(path, data)
    return f"{path}: scenes {chosen[0]} to {chosen[-1]}, {len(data) / 1000:.0f} kB"


def target(out: str | None) -> Path:
    """The file to write. Raises ConfigError for a name that ends in neither .png nor .gif."""
    if not out or Path(out).suffix not in (".png", ".gif"):
        raise ConfigError(f"--out={out or ''}: name a file that ends in .png or .gif")
    return paths.given(out, "--out")


def write(path: Path, data: bytes) -> None:
    """Writes the file. Raises ConfigError if this is not permitted. For a full disk the system's error is raised."""
    try:
        path.write_bytes(data)
    except OSError as error:
        if storage_error(error):
            raise
        raise ConfigError(f"--out={path}: cannot be written ({error.strerror})") from error


def make_scenes(config, source) -> pipeline.SceneMap:
    """Scenes as training sees them, without the random crop, and simulated again if the source supports it."""
    kinds.require(source, kinds.FILMED, "data.show")
    patch, tubelet = assemble.patch_and_tubelet(config)
    config = config.copy_and_resolve_references()
    config.data.intervened = "rerender" if source.can_rerender else "zero_pixels"
    return dataclasses.replace(assemble.make_scenes(config, source, patch, tubelet), crop=False)


def read(scenes: pipeline.SceneMap, index: int, remove: int | None = None) -> sheet.Scene:
    """Scene `index` as `scenes` draws it in the first epoch, or with object `remove` (the source's number) removed.

    Raises ConfigError if the scene has no such object, DataError for an unreadable scene.
    """
    raw = scenes.complete(scenes.source[index], f"scene {index} of {type(scenes.source).__name__}")
    window = transforms.centre_square(*raw["video"].shape[1:3])
    masks = window.masks(raw["masks"], scenes.size)
    if remove is not None:
        if not 0 <= remove < len(masks):
            has = f"objects 0 to {len(masks) - 1}" if len(masks) else "no objects"
            raise ConfigError(f"--remove={remove}: scene {index} has {has}")
        scenes = dataclasses.replace(scenes, mask=functools.partial(hide, remove), max_objects=len(masks))
    drawn = scenes(index, 0)
    if drawn["replaced"]:
        raise DataError(f"scene {index}: unreadable")
    kept = batching.keep_largest(
        objects.patches(masks, scenes.patch, scenes.frames // scenes.grid[0]), scenes.max_objects
    )
    removed = np.zeros(len(masks), bool)
    removed[kept] = drawn["removed"][: len(kept)]
    video, intervened = (marks.rgb(drawn[name], drawn["video"]) for name in ("video", "intervened"))
    factual = sheet.Clip(video, masks, raw.get("contacts", NO_CONTACTS))
    return sheet.Scene(
        index=index,
        factual=factual,
        other=changed(scenes, index, factual, video=intervened, removed=removed, window=window),
        removed=removed,
        hidden=~drawn["context"].reshape(scenes.grid),
        rerendered=scenes.intervened == "rerender",
        notes=tuple(questions(scenes.source, index, removed)),
    )


def hide(k: int, rng, object_patches: np.ndarray, object_valid: np.ndarray, grid) -> tuple[np.ndarray, np.ndarray]:
    """A mask with the interface of masks/ that hides object k, even a very small one."""
    return object_patches[k], np.arange(len(object_patches)) == k


def changed(scenes, index, factual: sheet.Clip, video, removed, window) -> sheet.Clip:
    """The counterfactual clip. Its masks are known if the source has `rollout`, or if nothing moved differently."""
    if scenes.intervened == "rerender" and removed.any():
        if not hasattr(scenes.source, "rollout"):
            return sheet.Clip(video, factual.masks[:0])
        other = scenes.source.rollout(index, removed)
        return sheet.Clip(video, window.masks(other["masks"], scenes.size), other.get("contacts", NO_CONTACTS))
    gone = np.append(removed, False)  # the last entry represents a wall, -1
    pairs = factual.contacts[:, 2:].astype(int)
    return sheet.Clip(video, factual.masks & ~removed[:, None, None, None], factual.contacts[~gone[pairs].any(1)])


def questions(source, index: int, removed: np.ndarray) -> Iterator[str]:
    """Yields one question that the source asks about a scene, with its answer. Yields nothing if it asks none.

    For a data set it is the first counterfactual question, or the first of any type. For a world it is about an object
    that stays, if possible one whose answer a removal changes. The answers are those of the factual scene and of the
    scene without each removed object alone.
    """
    asked = source.questions(index) if hasattr(source, "questions") else []
    if asked:
        one = next((each for each in asked if str(each.get("question_type")).lower() == "counterfactual"), asked[0])
        yield f"{one['question']} {one['answer']}"
        return
    text = getattr(source, "question", "")
    if text and hasattr(source, "outcomes"):
        outcomes, gone = source.outcomes(index), np.flatnonzero(removed)
        differs = (outcomes.happens[1 + gone] != outcomes.happens[0]).any(0)
        stay = outcomes.asked & ~removed
        if stay.any():
            j = int(np.argmax(2 * (stay & differs) + stay))
            factual, *others = ("yes" if row[j] else "no" for row in outcomes.happens[[0, *(1 + gone)]])
            do = getattr(source, "do", "remove")
            what = "without" if do == "remove" else f"do({do})"
            answers = [f"{what} {k}: {answer}" for k, answer in zip(gone.tolist(), others, strict=True)]
            yield " ".join((re.sub(r"\bj\b", str(j), text), ", ".join([factual, *answers])))
