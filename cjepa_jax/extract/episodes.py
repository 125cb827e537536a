"""Episodes as videos whose slots are extracted: of an HDF5 file in stable-worldmodel's layout, or of a world."""

import contextlib
import functools
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.data import slot_writer
from cjepa_jax.data.formats import episode_file
from cjepa_jax.data.formats.resize import resize
from cjepa_jax.data.slot_writer import Videos
from cjepa_jax.data.sources.episode_file import splits_of
from cjepa_jax.data.sources.true_slots import AGENT, small
from cjepa_jax.data.worlds.acting.base import Acting
from cjepa_jax.extract.work import Work
from cjepa_jax.host import door

HELD = 0.1  # the last episodes, which the splits eval and test divide, as in data/sources/episode_file.py
READ = 16  # frames that are read at a time


class Episode(NamedTuple):
    """Where an episode is: its split and name, its first frame in the file, and its number of frames."""

    split: str
    name: str
    first: int
    length: int


def of_file(path: Path) -> list[Episode]:
    """The file's episodes, split by split. Raises DataError for another file, ConfigError without h5py."""
    index = episode_file.index(path)
    return [
        Episode(split, str(e), int(index.offsets[e]), int(index.lengths[e]))
        for split, own in splits_of(len(index.lengths), HELD).items()
        for e in own
    ]


def frames(path: Path, episode: Episode, size: int) -> Iterator[np.ndarray]:
    """The frames one by one, uint8 [size, size, 3], without regard to their shape. Raises DataError."""
    for start in range(0, episode.length, READ):
        count = min(READ, episode.length - start)
        found = episode_file.read(path, episode.first + start, count, 1, ())
        yield from (resize(frame, (size, size)) for frame in found[episode_file.PIXELS])


def write_agent(path: Path, out: Path, videos: Videos) -> None:
    """Writes actions.npy, and proprio.npy if the file has that column, for the videos of a folder of slots.

    Frame by frame as the slots, with the numbers of the file: the action of an episode's last frame, which leads
    nowhere, is NaN there. Raises DataError for the file, and OSError where nothing can be written.
    """
    columns = {"actions": episode_file.ACTION}
    columns |= {"proprio": "proprio"} if "proprio" in episode_file.index(path).columns else {}
    known = {(episode.split, episode.name): episode for episode in of_file(path)}
    order = sorted((start, known[split, name]) for split, own in videos.items() for name, (start, _) in own.items())
    total = sum(one.length for _, one in order)
    for name, column in columns.items():
        with (
            contextlib.closing(_pieces(path, column, [one for _, one in order])) as pieces,
            door.replacing(out / f"{name}.npy") as to,
        ):
            for number, rows in enumerate(pieces):
                if not number:
                    to.write(slot_writer.head([total, rows.shape[1]]))
                to.write(rows.tobytes())


def _pieces(path: Path, column: str, episodes: list[Episode]) -> Generator[np.ndarray, None, None]:
    """The rows of the episodes one after the other, float32 [n, A]. The caller's errors are not those of the file, as
    they would be inside `opened`. Raises DataError."""
    with episode_file.opened(path) as file:
        for one in episodes:
            for rows in episode_file.pieces(file, column, path, range(one.first, one.first + one.length)):
                yield np.ascontiguousarray(rows, np.float32)


def pixels(path: Path) -> int:
    """The side of the file's square frames. 0 for other frames, and for a folder. Raises DataError."""
    if not path.is_file():
        return 0
    with episode_file.opened(path) as file:
        height, width = episode_file.column(file, episode_file.PIXELS, path).shape[1:3]
    return int(height) if height == width else 0


def acts(source: Any) -> bool:
    """Whether a source is a world with actions, or one that was written to disk."""
    return isinstance(getattr(source, "simulator", source), Acting)


def drawn(source: Any) -> int:
    """The side of the pictures that a world with actions draws, before they are reduced. 0 for other sources."""
    return int(getattr(source, "stored_size", source.size)) if acts(source) else 0


def played(sources: Mapping[str, Any]) -> dict[str, Any]:
    """The sources of `write_played`: {} unless they have actions. A world draws its least pictures there, which do not
    count. Raises ConfigError for a world that refuses them."""
    if not all(acts(source) for source in sources.values()):
        return {}
    return {k: small(s) if isinstance(s, Acting) else s for k, s in sources.items()}


def write_played(sources: Mapping[str, Any], out: Path, videos: Videos, doing: Work) -> bool:
    """Writes actions.npy, and proprio.npy if the world has it, for a folder of slots whose videos are scenes of these
    sources, by their splits and numbers. Returns whether it is done: False if a signal has stopped it.

    Scenes of a world are simulated once more for it: nothing else than their slots is kept while they are encoded.
    Raises DataError for a scene, and OSError where nothing can be written.
    """
    order = sorted((start, split, name) for split, own in videos.items() for name, (start, _) in own.items())
    found = []
    doing.begin("actions", len(order))
    for _, split, name in order:
        agent = doing.unless_stopped(functools.partial(_agent, sources[split], int(name)))
        if agent is None:
            return False
        found.append(agent)
        doing.done()
    for name in AGENT:
        if found and name in found[0]:
            rows = np.concatenate([agent[name] for agent in found]).astype(np.float32)
            with door.replacing(out / f"{name}.npy") as to:
                to.write(slot_writer.head(list(rows.shape)))
                to.write(np.ascontiguousarray(rows).tobytes())
    return True


def _agent(source: Any, number: int) -> dict[str, np.ndarray]:
    """The agent's arrays of a scene alone, which are small."""
    scene = source[number]
    return {name: scene[name] for name in AGENT if name in scene}
