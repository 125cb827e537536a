"""Object masks for a folder of images, by a frozen segmenter; `cjepa_jax.data.sources.coco:Coco` reads them.

    python -m cjepa_jax.data.segment --images=DIR/images --out=DIR/segments --backend=sam --weights=WEIGHTS
    python -m cjepa_jax.data.segment --images=DIR/images --out=DIR/segments --backend=slic

Each image NAME below --images gets a file NAME.json below --out with its size and its masks as COCO run lengths. A run
that was ended at any moment, even by kill -9, resumes where it stopped. Existing files are not made again. --out also
holds the settings. A run with different settings is refused. An image that cannot be read is named and left out, up to
the share --max-broken of all images.
"""

import importlib
import json
import logging
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cjepa_jax import cli
from cjepa_jax.data.formats import files, image_files, rle
from cjepa_jax.data.sources import annotations, folder
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door
from cjepa_jax.runtime.workdir import Workdir, write_atomically

BACKENDS = ("sam", "slic")


def number(kind: type, low: float, high: float = float("inf")) -> Callable[[str], Any]:
    """Returns a parser of numbers within low..high."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r}: must be a number") from None
        if not low <= value <= high:
            raise ArgumentTypeError(
                f"{text}: must be {f'{low} to {high}' if high < float('inf') else f'{low} or more'}"
            )
        return value

    return parse


def shares(text: str) -> tuple[float, float]:
    """Parses "0.05,0.40" as (0.05, 0.4)."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r}: must be two numbers, such as 0.05,0.40") from None
    if not 0 <= low < high <= 1:
        raise ArgumentTypeError(f"{text}: must be two shares of the image, 0 <= least < largest <= 1")
    return low, high


def parse(argv: list[str] | None = None) -> Namespace:
    """Parses the command line. A backend's setting that was not given is None. Raises ConfigError."""
    parser = cli.Parser("python -m cjepa_jax.data.segment", description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--images", type=cli.path_argument, required=True, help="folder of the images, with any folders in it")
    add(
        "--out",
        type=cli.path_argument,
        required=True,
        help="folder of the masks. DIR/segments beside DIR/images suits Coco",
    )
    add("--backend", choices=BACKENDS, required=True, help="Segment Anything, or superpixels")
    add("--max-broken", type=number(float, 0, 1), default=0.001, help="share of images that may be unreadable")
    add("--white", type=number(int, 0, 65535), default=0, help="the value that is white in 16-bit images (65535)")
    add("--limit", type=number(int, 1), help="use only the first N images, for a try")
    add("--log", choices=cli.LEVELS, default="info", help="how much to print")
    sam, slic = parser.add_argument_group("sam"), parser.add_argument_group("slic")
    add = sam.add_argument
    add("--weights", type=cli.path_argument, help="local folder of SAM or SAM 2, as transformers saves it (required)")
    add("--points-per-side", type=number(int, 1, 256), help="points of the grid each way (32)")
    add("--score", type=number(float, -float("inf")), help="least IoU that the model predicts for a mask (0.88)")
    add("--stability", type=number(float, 0, 1), help="least stability of a mask (0.95)")
    add("--area", type=shares, help="least and largest share of the image (0.05,0.40)")
    add("--top", type=number(int, 1), help="masks kept of each image, the largest (20)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")
    add("--batch", type=number(int, 1), default=64, help="points decoded at a time (64)")
    add = slic.add_argument
    add("--segments", type=number(int, 2, 1000), help="seeds. Small pieces are merged, so fewer are left (16)")
    add("--compactness", type=number(float, 1e-6), help="weight of place against colour (10)")
    return parser.parse_args(argv)


def settings_of(options: Namespace) -> tuple[dict[str, Any], Callable]:
    """The settings that the masks depend on, and the segmenter. Raises ConfigError for settings of another backend."""
    modules = {name: importlib.import_module(f"cjepa_jax.data.segmenters.{name}") for name in BACKENDS}
    for name, module in modules.items():
        for key in {**module.SETTINGS, **({"weights": 0} if name == "sam" else {})}:
            if name != options.backend and getattr(options, key) is not None:
                raise ConfigError(f"{flag(key)}: is for --backend={name}, not {options.backend}")
    module = modules[options.backend]
    given = {key: getattr(options, key) for key in module.SETTINGS if getattr(options, key) is not None}
    settings = module.SETTINGS | given
    if options.backend == "sam" and options.weights is None:
        raise ConfigError("--weights is missing: name the local folder of SAM's weights (docs/DATA.md)")
    segment, identity = module.make(settings | {"weights": options.weights}, options.device, options.batch)
    settings = {"backend": options.backend, "images": str(options.images.resolve())} | settings | identity
    if options.white:
        settings["white"] = options.white
    return json.loads(json.dumps(settings)), segment


def flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings into --out, or checks that they are the same. Raises ConfigError."""
    file = out / annotations.SETTINGS
    if not file.exists():
        if any(not other.name.startswith(".") for other in out.iterdir()):
            raise ConfigError(f"--out={out}: holds other files. Name a new folder, or one that this command made")
        write_atomically(file, json.dumps(settings, indent=2) + "\n")
        return
    try:
        before = files.read_json(file)
    except DataError as error:
        raise ConfigError(f"--out={out}: {error}") from error
    for key in {**settings, **before} if isinstance(before, dict) else settings:
        old = before.get(key) if isinstance(before, dict) else None
        if old != settings.get(key):
            raise ConfigError(
                f"--out={out}: was made with {flag(key)}={shown(old)}, not {shown(settings.get(key))}: "
                f"name another folder"
            )


def shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def record(name: str, image: np.ndarray, found: list[tuple[np.ndarray, dict[str, float]]]) -> dict[str, Any]:
    """The stored record of an image, in the format of COCO and of SA-1B."""
    entries = []
    for mask, scores in found:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        entry = {"segmentation": rle.encode(mask), "area": int(mask.sum()), "bbox": [int(side) for side in box]}
        entries.append(entry | {key: round(value, 4) for key, value in scores.items()})
    height, width = image.shape[:2]
    return {"image": {"file_name": name, "height": height, "width": width}, "annotations": entries}


def run(options: Namespace) -> None:
    """Segments the images that have no masks yet. Raises DataError when more images than allowed are unreadable."""
    started = time.monotonic()
    names = folder.pictures(options.images)[: options.limit]
    if not names:
        raise DataError(f"--images={options.images}: no images ({', '.join(folder.SUFFIXES)})")
    settings, segment = settings_of(options)
    with Workdir(options.out, setting="--out="):  # for its lock
        claim(options.out, settings)
        there = set(annotations.tree(options.out, (".json",)))
        todo = [name for name in names if f"{name}.json" not in there]
        masks, broken = write(options, names, todo, segment)
    made, seconds = len(todo) - broken, time.monotonic() - started
    print(
        f"{options.out}: {len(names)} images, {len(names) - len(todo)} were there, {made} segmented in {seconds:.0f} s "
        f"({masks / max(made, 1):.1f} masks each), {broken} unreadable"
    )


def write(options: Namespace, names: list[str], todo: list[str], segment: Callable) -> tuple[int, int]:
    """Segments the images `todo` of `names`. Returns (masks written, images that could not be read)."""
    masks = broken = 0
    with logging_redirect_tqdm():
        for name in tqdm(todo, initial=len(names) - len(todo), total=len(names), unit="image", smoothing=0.05):
            try:
                image, _ = image_files.read(files.inside(options.images, name), white=options.white)
            except DataError as error:
                broken += 1
                if broken > options.max_broken * len(names):
                    raise DataError(
                        f"{error}; {broken} of {len(names)} images cannot be read, above --max-broken="
                        f"{options.max_broken:g}; all masks made so far are kept"
                    ) from error
                logging.warning("left out: %s", error)
                continue
            found = segment(image)
            masks += len(found)
            target = options.out / f"{name}.json"
            door.require_own(options.out)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, json.dumps(record(name, image, found)) + "\n")
    return masks, broken


def main(argv: list[str] | None = None) -> int:
    """Runs the command, for `cli.guard`. `argv` has no program name and defaults to the process's arguments."""
    options = parse(argv)
    cli.set_up_logging(options.log)
    run(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.guard(main))
