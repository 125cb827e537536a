"""How many clips or pictures data sets have as published, by split, and whether a folder has as many.

Sources: CLEVRER (Yi et al., 2020; its page), CoPhy (Baradel et al., 2020; dataloaders/splits of its repository), CRAFT
(Ates et al., 2022), MOVi (Kubric's page, TFDS), ImageNet, CIFAR-10, Imagenette, ModelNet and ESC-50 (their pages). Some
are known only as rounded numbers, such as 9.7 k.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cjepa_jax.data.base import Source


class Count(NamedTuple):
    """number: of the split, or of the whole data set. slack: half of the last digit of a rounded number."""

    number: int
    slack: int = 0
    what: str = "clips"


CLEVRER = {"train": 10_000, "validation": 5_000, "test": 5_000}
BALLS = {"train": 7_000, "val": 2_000, "test": 1_000}  # for each number of balls
TOWERS = {
    (3, "normal"): {"train": 28_300, "val": 8_000, "test": 4_000},
    (3, "generalization"): {"train": 17_300, "val": 3_000, "test": 2_000},
    (4, "normal"): {"train": 23_400, "val": 6_600, "test": 3_300},
    (4, "generalization"): {"train": 14_500, "val": 2_500, "test": 2_000},
}
COLLISIONS = {
    "normal": {"train": 14_000, "val": 4_000, "test": 2_000},
    "moving_sphere": {"train": 8_000, "val": 1_800, "test": 2_000},
    "moving_cylinder": {"train": 8_000, "val": 2_100, "test": 2_000},
}
CRAFT = 10_000  # videos of all splits together
MOVI = {"train": (9_700, 50), "validation": (250, 0), "test": (250, 0)}
PICTURES = {
    "ImageNet": {"train": 1_281_167, "eval": 50_000, "validation": 50_000, "test": 100_000},
    "Cifar10": {"train": 50_000, "eval": 10_000},
}
MODELNET = {10: {"train": 3_991, "eval": 908}, 40: {"train": 9_843, "eval": 2_468}}  # by the number of classes
ESC_50 = {"train": 1_600, "eval": 400}
IMAGENETTE = {"train": 9_469, "eval": 3_925}
TEN = (  # Imagenette's classes
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
)


def of(source: Source) -> Count | None:
    """The published count of a source's split with its options. None for a source that is not a published data set."""
    name, split = type(source).__name__, getattr(source, "split", "")
    theirs: str = getattr(source, "splits", {}).get(split, split)
    if name == "Clevrer":
        return Count(CLEVRER[theirs])
    if name == "CoPhy":
        tables: dict[str, Mapping[str, int]] = {
            "ballsCF": BALLS,
            "blocktowerCF": TOWERS.get((getattr(source, "objects", 0), getattr(source, "setting", "")), {}),
            "collisionCF": COLLISIONS.get(getattr(source, "setting", ""), {}),
        }
        known = tables[getattr(source, "scenario", "")].get(theirs)
        each = 2 if getattr(source, "video", "") == "both" else 1  # AB and CD count separately
        return None if known is None else Count(each * known, each * 50)
    if name == "Movi":
        return Count(*MOVI[theirs])
    if name in PICTURES:
        return Count(PICTURES[name][split], 0, "pictures")
    if name == "PointClouds" and modelnet(source):
        return Count(MODELNET[len(getattr(source, "classes", ()))][split], 0, "meshes")
    if name == "SoundFiles" and getattr(source, "names", ("",))[0].startswith("audio/"):  # ESC-50's own folder
        return Count(ESC_50[split], 0, "sounds")
    if name == "ClassFolders" and getattr(source, "classes", ()) == TEN:
        return Count(IMAGENETTE[split], 0, "pictures")
    return None


def modelnet(source: Any) -> bool:
    """Whether a source of point clouds has ModelNet's layout CLASS/train/NAME.off, and 10 or 40 classes."""
    places = {tuple(name.split("/")[1:2]) for name in source.names}
    meshes = all(name.endswith(".off") for name in source.names)
    return meshes and places <= {("train",), ("test",)} and len(source.classes) in MODELNET


def craft(sources: Mapping[str, Any]) -> Count | None:
    """The published count of CRAFT's videos in all splits, which no page gives by split. None for other sources."""
    named = {type(source).__name__ for source in sources.values()}
    return (
        Count(CRAFT, 500, "videos in all splits")
        if named == {"Craft"} and {"train", "eval", "test"} <= set(sources)
        else None
    )


def compare(sources: Mapping[str, Any]) -> list[str]:
    """A line for each split that has fewer or more than published. sources: by split, each with all its scenes."""
    lines = []
    for split, source in sources.items():
        known = of(source)
        if known is not None and not source.count:
            lines += _line(type(source).__name__, f"{split}: ", found(source), known)
    whole = craft(sources)
    if whole is not None and not any(source.count for source in sources.values()):
        videos = {clip for source in sources.values() for clip in source.clips}
        lines += _line("Craft", "", len(videos), whole)
    return lines


def found(source: Any) -> int:
    """The clips or pictures of a source."""
    return len(source.clips) if hasattr(source, "clips") else len(source)


def _line(name: str, where: str, have: int, known: Count) -> list[str]:
    about = "about " * bool(known.slack)
    if abs(have - known.number) <= known.slack:
        return []
    more = have > known.number
    hint = "files of other data are among them" if more else "a part is missing, unless on purpose"
    return [f"{where}{name} has {have:,} {known.what}, published are {about}{known.number:,}: {hint}"]
