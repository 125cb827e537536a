"""Runs a slot encoder over videos and writes a folder of slots.

    python -m cjepa_jax.extract --checkpoint=runs/savi --out=data/balls_slots                 scenes of the run's data
    python -m cjepa_jax.extract --checkpoint=runs/savi --videos=DIR --out=DIR                 video files
    python -m cjepa_jax.extract --checkpoint=stosavi_clevrer_params.pth --videos=DIR --out=DIR
    python -m cjepa_jax.extract --checkpoint=videosaur.ckpt --videos=DIR --out=DIR            also SlotContrast's
    python -m cjepa_jax.extract --checkpoint=videosaur.ckpt --videos=pusht.h5 --out=DIR       episodes, with actions
    python -m cjepa_jax.extract --checkpoint=dinov2-small --videos=DIR --out=DIR              its features, no slots

--checkpoint is a run of objectives.savi or objectives.videosaur, published weights, or a folder of transformers'
Dinov2Model. Videos of DIR/SPLIT/ are of the split SPLIT, those of a DIR without such folders of "train". --videos may
also be an HDF5 file in stable-worldmodel's layout (data/sources/episode_file.py). Then its actions and its "proprio"
are written too, and the last tenth of its episodes are the splits eval and test. Without --videos a run's own data are
encoded, with the actions and "proprio" of a world that has them, in clips of the run's length or of --frames. Every
frame is encoded, resized to the encoder's size without regard to its shape. --out is read by
cjepa_jax.data.sources.slot_files:SlotFiles (configs/slots/clevrer.py, pusht.py), features by
...feature_files:FeatureFiles.

A command that is killed, stopped by a signal (exit code 75) or ended by a damaged video keeps the finished videos in
--out. The same command resumes, and after the end it says that it is done. One with other weights, flags or videos is
refused. --skip-damaged leaves out damaged videos and lists them in damaged.txt.
"""

if __name__ == "__main__":
    from cjepa_jax.runtime import preemption

    preemption.leave_at_once()

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax import cli
from cjepa_jax.data import assemble, slot_writer, transforms
from cjepa_jax.data.formats import video
from cjepa_jax.data.sources import video_list
from cjepa_jax.errors import ConfigError, DataError, printable
from cjepa_jax.extract import episodes
from cjepa_jax.runtime.workdir import write_atomically

SPLITS = ("train", "eval")  # of a run's source
DAMAGED = "damaged.txt"  # in the folder of slots: the videos that were left out
VIDEOS = "a folder of video files, or an HDF5 file of episodes; without it a run's own data"


class Video(NamedTuple):
    """A video that is to be encoded. number: its place in the split. bytes: of the file, 0 for a scene of a source.

    frames: a function that opens it. It gives frames uint8 [H, W, 3], and raises DataError.
    """

    split: str
    name: str
    number: int
    bytes: int
    frames: Callable[[], Iterator[np.ndarray]]


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
    flags.add_argument("--frames", type=int, default=0, help="of a clip of the run's own data (0: as in the run)")
    flags.add_argument("--skip-damaged", "--skip_damaged", action="store_true", help="leave damaged videos out")
    flags.add_argument("--trust", default="", metavar="PACKAGES", help=cli.TRUST)
    return flags


def main(argv: list[str]) -> int:
    """Runs the command. Raises ConfigError, DataError or CheckpointError, one line each."""
    chosen = parser().parse_args(argv)
    for name in ("size", "seed", "count", "frames"):
        if getattr(chosen, name) < 0:
            raise ConfigError(f"--{name}={getattr(chosen, name)}: must be at least 0")
    if chosen.frames and chosen.videos:
        raise ConfigError(f"--frames={chosen.frames}: is for a run's own data, not for --videos, which are whole")
    cli.set_up_logging("warning")
    cli.keep_compiled_code()
    from cjepa_jax.extract import checkpoint, encoders, work  # JAX, after the settings above

    given = dict(size=chosen.size, seed=chosen.seed, noise=chosen.noise, backbone=chosen.backbone or "")
    with checkpoint.unchanged(chosen.checkpoint, chosen.backbone or "") as digests:
        found, config = encoders.of(chosen.checkpoint, **given, trust=chosen.trust)
    if not chosen.videos and config is None:
        raise ConfigError("--videos is missing: only a run has data")
    most = chosen.count or None
    sources = {} if chosen.videos else sources_of(config, chosen.frames)
    videos = of_files(Path(chosen.videos), found.size, most) if chosen.videos else of_scenes(sources, found.size, most)
    played = episodes.played(sources)  # refused before hours of work, if they are
    seen = episodes.pixels(Path(chosen.videos)) if chosen.videos else episodes.drawn(sources[SPLITS[0]])
    with work.on(Path(chosen.out), made_with(chosen, digests, videos, seen), len(videos)) as doing:
        if doing.writer.finished:
            return doing.already()
        damaged = encoded(doing, found, videos, skip=chosen.skip_damaged)
        if damaged is None:
            return doing.stopped()
        lines = [printable(f"{one.split}/{one.name}: {why}") for one, why in damaged]
        if lines and doing.writer.videos:
            write_atomically(doing.writer.out / DAMAGED, "\n".join(lines) + "\n")
        else:  # of a command that was killed as it finished
            (doing.writer.out / DAMAGED).unlink(missing_ok=True)
        if chosen.videos and Path(chosen.videos).is_file() and doing.writer.videos:
            episodes.write_agent(Path(chosen.videos), doing.writer.out, doing.writer.videos)
        if played and not episodes.write_played(played, doing.writer.out, doing.writer.videos, doing):
            return doing.stopped()
        doing.writer.finish()
    print(f"{chosen.checkpoint}: {found.about}")
    for split, kept in doing.writer.videos.items():
        print(f"{chosen.out}: split {split}, {len(kept)} videos")
    for line in lines:
        print(f"left out: {line}")
    return 0


def made_with(chosen: Any, digests: list[str], videos: list[Video], seen: int) -> dict[str, Any]:
    """What the slots depend on, by the names of SlotWriter's messages. digests: of --checkpoint and --backbone. seen:
    the side of a frame of episodes before it is reduced, 0 for other videos."""
    return {
        slot_writer.ENCODER: digests[0],
        slot_writer.BACKBONE: digests[1],
        **{f"--{name}": getattr(chosen, name) for name in ("size", "seed", "noise")},
        **({"--frames": chosen.frames} if chosen.frames else {}),
        **({slot_writer.PIXELS: seen} if seen else {}),
        "videos": [[f"{one.split}/{one.name}", f"{one.bytes} bytes"] for one in videos],
    }


def encoded(doing: Any, found: Any, videos: list[Video], skip: bool) -> list[tuple[Video, str]] | None:
    """Encodes and writes the videos that are not written. Returns the damaged ones with the reasons, None if a signal
    has stopped it. Without `skip` a damaged video raises DataError, and so does one that the storage does not give."""
    damaged = []
    for one in videos:
        if doing.writer.has(one.split, one.name):
            continue
        try:
            slots = doing.unless_stopped(lambda one=one: found.encode(doing.counted(one.frames()), one.number))
        except DataError as error:
            storage = isinstance(error.__cause__, OSError)  # the video may be a good one
            if storage or not skip:
                text = f"{doing.writer.count} videos are kept. The same command resumes"
                text += "" if storage else ", --skip-damaged leaves it out"
                raise DataError(f"{error}. {text}") from error
            damaged.append((one, str(error)))
            doing.done()
            continue
        if slots is None:
            return None
        doing.write(one.split, one.name, slots)
        doing.writer.sync()
    return damaged


def of_files(root: Path, size: int, most: int | None) -> list[Video]:
    """The first `most` videos of each split in a folder, or episodes of a file, or all. Frames are [size, size, 3].

    Raises ConfigError for a folder without videos, and for one with videos and folders of them. DataError for another
    file.
    """
    if root.is_file():
        return of_episodes(root, size, most)
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
    return [
        Video(split, path.name, number, path.stat().st_size, functools.partial(video.every, path, size, "--videos"))
        for split, videos in splits.items()
        for number, path in enumerate(videos[:most])
    ]


def of_episodes(file: Path, size: int, most: int | None) -> list[Video]:
    """As `of_files`, of an HDF5 file of episodes."""
    numbers: dict[str, int] = {}
    found = []
    for one in episodes.of_file(file):
        number = numbers[one.split] = numbers.get(one.split, -1) + 1
        if most is None or number < most:
            frames = functools.partial(episodes.frames, file, one, size)
            found.append(Video(one.split, one.name, number, file.stat().st_size, frames))
    return found


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in video_list.SUFFIXES)


def sources_of(config: Any, frames: int) -> dict[str, Any]:
    """The sources of the splits that a run of this config was trained and probed on, with clips of another length if
    `frames` is given. Raises ConfigError, DataError."""
    if frames:
        config = config.copy_and_resolve_references().unlock()
        config.data.frames = frames
    return {split: assemble.make_source(config, split) for split in SPLITS}


def of_scenes(sources: Mapping[str, Any], size: int, most: int | None) -> list[Video]:
    """As `of_files`, of the scenes of sources by their splits."""
    videos = []
    for split, source in sources.items():

        def frames(i: int, source=source) -> Iterator[np.ndarray]:
            raw = source[i]["video"]
            return iter(transforms.centre_square(*raw.shape[1:3]).frames(raw, size))

        videos += [Video(split, str(i), i, 0, functools.partial(frames, i)) for i in range(len(source))[:most]]
    return videos


if __name__ == "__main__":
    raise SystemExit(preemption.ended(cli.guard(lambda: main(sys.argv[1:]))))
