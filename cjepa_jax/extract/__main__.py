"""Runs a slot encoder over videos and writes a folder of slots.

    python -m cjepa_jax.extract --checkpoint=runs/savi --out=data/balls_slots                 scenes of the run's data
    python -m cjepa_jax.extract --checkpoint=runs/savi --videos=DIR --out=DIR                 video files
    python -m cjepa_jax.extract --checkpoint=stosavi_clevrer_params.pth --videos=DIR --out=DIR
    python -m cjepa_jax.extract --checkpoint=videosaur.ckpt --videos=DIR --out=DIR            also SlotContrast's
    python -m cjepa_jax.extract --checkpoint=dinov2-small --videos=DIR --out=DIR              its features, no slots

--checkpoint is a run of objectives.savi or objectives.videosaur, published weights, or a folder of transformers'
Dinov2Model. Videos of DIR/SPLIT/ are of the split SPLIT, those of a DIR without such folders of "train". Every frame is
encoded, resized to the encoder's size without regard to its shape. A damaged video ends the command, which names it and
writes nothing. --out is read by cjepa_jax.data.sources.slot_files:SlotFiles (configs/slots/clevrer.py), features by
...feature_files:FeatureFiles.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cjepa_jax import cli
from cjepa_jax.data import assemble, slot_files, transforms
from cjepa_jax.data.formats import video
from cjepa_jax.data.sources import video_list
from cjepa_jax.errors import ConfigError

SPLITS = ("train", "eval")  # of a run's source
VIDEOS = "a folder of video files; without it a run's own data. A damaged video ends the command, which names it"


def parser() -> cli.Parser:
    """The command line."""
    flags = cli.Parser(prog="python -m cjepa_jax.extract", description=__doc__.split("\n")[0], allow_abbrev=False)
    flags.add_argument("--checkpoint", type=cli.path_argument, required=True, help="a run, weights, or DINOv2's folder")
    flags.add_argument("--videos", type=cli.path_argument, help=VIDEOS)
    flags.add_argument("--out", type=cli.path_argument, required=True, help="the folder to write; made if need be")
    flags.add_argument("--backbone", type=cli.path_argument, help="DINOv2's folder, for weights that do not hold it")
    flags.add_argument("--size", type=int, default=0, help="pixels of a frame's side, for DINOv2 alone (0: 14 patches)")
    flags.add_argument("--seed", type=int, default=0, help="of drawn slots: VideoSAUR's first ones, and --noise")
    flags.add_argument("--noise", action="store_true", help="draw SAVi's slots, as the public code does")
    flags.add_argument("--count", type=int, default=0, help="most videos of a split (0: all)")
    flags.add_argument("--trust", default="", metavar="PACKAGES", help=cli.TRUST)
    return flags


def main(argv: list[str]) -> int:
    """Runs the command. Raises ConfigError, DataError or CheckpointError, one line each."""
    chosen = parser().parse_args(argv)
    for name in ("size", "seed", "count"):
        if getattr(chosen, name) < 0:
            raise ConfigError(f"--{name}={getattr(chosen, name)}: must be at least 0")
    cli.set_up_logging("warning")
    cli.keep_compiled_code()
    from cjepa_jax.extract import encoders  # JAX, after the settings above

    given = dict(size=chosen.size, seed=chosen.seed, noise=chosen.noise, backbone=chosen.backbone or "")
    found, config = encoders.of(chosen.checkpoint, **given, trust=chosen.trust)
    if not chosen.videos and config is None:
        raise ConfigError("--videos is missing: only a run has data")
    most = chosen.count or None
    videos = of_files(Path(chosen.videos), found.size, most) if chosen.videos else of_source(config, most)
    counts: dict[str, int] = {}
    with slot_files.writing(Path(chosen.out)) as write:
        for split, name, frames in videos:
            number = counts.get(split, 0)
            write(split, name, found.encode(frames, number))
            counts[split] = number + 1
    print(f"{chosen.checkpoint}: {found.about}")
    for split, count in counts.items():
        print(f"{chosen.out}: split {split}, {count} videos")
    return 0


def of_files(root: Path, size: int, most: int | None) -> Iterator[tuple[str, str, Iterator[np.ndarray]]]:
    """(split, name, frames uint8 [H, W, 3]) of the first `most` videos of each split in a folder, or of all.

    Raises DataError, and ConfigError for a folder without videos, and for one with videos and folders of them.
    """
    if not root.is_dir():
        raise ConfigError(f"--videos={root}: there is no such folder")
    folders = (each for each in sorted(root.iterdir()) if each.is_dir() and not each.name.startswith("."))
    splits = {folder.name: videos for folder in folders if (videos := _videos(folder))}
    if beside := _videos(root):
        if splits:
            text = f"holds the video {beside[0].name} beside folders of videos, {', '.join(splits)[:80]}"
            raise ConfigError(f"--videos={root}: {text}: must hold one of the two")
        splits = {"train": beside}
    if not splits:
        raise ConfigError(f"--videos={root}: holds no video ({', '.join(video_list.SUFFIXES)})")
    for split, videos in splits.items():
        for path in videos[:most]:
            yield split, path.name, video.every(path, size, "--videos")


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in video_list.SUFFIXES)


def of_source(config, most: int | None) -> Iterator[tuple[str, str, Iterator[np.ndarray]]]:
    """As `of_files`, of the scenes that the run of this config was trained and probed on."""
    for split in SPLITS:
        source = assemble.make_source(config, split)
        for i in range(len(source))[:most]:
            raw = source[i]["video"]
            square = transforms.centre_square(*raw.shape[1:3])
            yield split, str(i), iter(square.frames(raw, config.data.size))


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
