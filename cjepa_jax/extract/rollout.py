"""Rolls slots of whole videos out into their future, with a run or a published state dict of the slot predictor.

    python -m cjepa_jax.extract.rollout --checkpoint=runs/clevrer --slots=data/clevrer_slots --out=data/rollouts
    python -m cjepa_jax.extract.rollout --checkpoint=clevrer_savi_2_epoch_30_object.ckpt --slots=DIR --score

As published, the videos' slots are kept and --frames are appended, by --skip interleaved sequences: 128 frames become
160. --skip is that of the run's data, and CLEVRER's for a state dict, which does not say --history and --heads either.
--score writes nothing: it predicts the last --frames of each video from those before them, and prints the error beside
copying and constant velocity. Slots that are given or scored must be finite. Killed, or stopped by a signal (exit code
75), the command keeps the finished videos in --out, and the same command resumes.
"""

if __name__ == "__main__":
    from cjepa_jax.runtime import preemption

    preemption.leave_at_once()

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax import cli
from cjepa_jax.data.formats.files import read_json
from cjepa_jax.data.sources.slot_files import INDEX, SlotFiles, opened, own_name
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.runtime import run_manifest

LIMITS = {  # flag -> default, least, help
    "frames": (32, 1, "frames that are predicted"),
    "skip": (0, 0, "of a state dict: frames from one of a sequence to the next (0: 2)"),
    "history": (0, 0, "of a state dict: frames that are given (0: 6)"),
    "heads": (0, 0, "of a state dict (0: 16)"),
    "batch": (64, 1, "videos that are rolled out together"),
}


def parser() -> cli.Parser:
    """The command line."""
    flags = cli.Parser(prog="python -m cjepa_jax.extract.rollout", description=__doc__.split("\n")[0])
    flags.add_argument("--checkpoint", type=cli.path_argument, required=True, help="a run, or a published state dict")
    flags.add_argument("--slots", type=cli.path_argument, required=True, help="a folder of slots")
    flags.add_argument("--out", type=cli.path_argument, help="the folder to write")
    flags.add_argument("--score", action="store_true", help="print errors instead of writing")
    flags.add_argument("--split", default="", help="only this split (default: all)")
    flags.add_argument("--trust", default="", metavar="PACKAGES", help=cli.TRUST)
    for name, (default, _, text) in LIMITS.items():
        flags.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    return flags


def main(argv: list[str]) -> int:
    """Runs the command. Raises ConfigError, DataError or CheckpointError, one line each."""
    chosen = parser().parse_args(argv)
    for name, (_, least, _) in LIMITS.items():
        if getattr(chosen, name) < least:
            raise ConfigError(f"--{name}={getattr(chosen, name)}: must be at least {least}")
    if bool(chosen.out) == chosen.score:
        raise ConfigError("--out or --score: give one of them")
    cli.set_up_logging("warning")
    cli.keep_compiled_code()
    from cjepa_jax.extract import checkpoint, predictors  # JAX, after the settings above

    root = Path(chosen.slots)
    slots = opened(str(root), "slots")
    flags = {name: getattr(chosen, name) for name in ("history", "heads", "skip", "trust")}
    with checkpoint.unchanged(chosen.checkpoint) as digests:
        found = predictors.of(chosen.checkpoint, slots.shape[1:], **flags)
    videos = of_folder(root, chosen.split)
    given = found.history * found.skip
    needed, why = given, f"history x skip = {given}"
    if chosen.score:
        needed, why = given + chosen.frames, f"{why}, and --frames = {chosen.frames} to score"
    if short := next((name for _, name, _, count in videos if count < needed), ""):
        raise DataError(f"{root}: {short} has fewer than {needed} frames: {why}")
    if chosen.score:
        print(scores(found, slots, videos, chosen))
        return 0
    return _write(found, digests[0], slots, videos, chosen)


def _write(found: Any, digest: str, slots: np.ndarray, videos: list[tuple[str, str, int, int]], chosen: Any) -> int:
    """Writes the videos with their futures. digest: of the checkpoint. Returns the exit code."""
    from cjepa_jax.extract import work

    root, given = Path(chosen.slots), found.history * found.skip
    with work.on(Path(chosen.out), made_with(root, found, digest, chosen), len(videos)) as doing:
        if doing.writer.finished:
            return doing.already()

        def rolled_out(part: list[tuple[str, str, int, int]]) -> np.ndarray:
            return roll(found, np.stack([last(root, slots, video, given) for video in part]), chosen)

        for part in _parts(videos, chosen.batch):  # the same ones on resuming, so that the bits are the same
            left = [i for i, (split, name, _, _) in enumerate(part) if not doing.writer.has(split, name)]
            made = doing.unless_stopped(functools.partial(rolled_out, part)) if left else np.zeros(0)
            if made is None:
                return doing.stopped()
            for i in left:
                split, name, first, count = part[i]
                doing.write(split, name, np.concatenate([slots[first : first + count], made[i]]))
            doing.writer.sync()
            doing.saw(len(left) * chosen.frames)
        doing.writer.finish()
    print(f"{chosen.out}: {len(videos)} videos, {chosen.frames} frames more in each")
    return 0


def made_with(root: Path, found: Any, digest: str, chosen: Any) -> dict[str, Any]:
    """What the rollouts depend on, by the names of SlotWriter's messages. The slots' array is not read for it."""
    array = (root / "slots.npy").stat()
    return {
        "--checkpoint of SHA-256": digest,
        f"--slots' {INDEX} of SHA-256": run_manifest.sha256(root / INDEX)[:16],
        "--slots' slots.npy of": [f"{array.st_size} bytes", f"time {array.st_mtime_ns}"],
        **{f"--{name}": getattr(chosen, name) for name in ("split", "frames", "batch", "heads")},
        "history and skip": [found.history, found.skip],
    }


def of_folder(root: Path, split: str) -> list[tuple[str, str, int, int]]:
    """(split, name, first frame, frames) of every video. Raises DataError for a folder that does not fit together."""
    index, found = read_json(root / INDEX), []
    if not isinstance(index, dict) or not index:
        raise DataError(f"{root / INDEX}: must be an object of splits")
    for own in [own_name(index, split)] if split else list(index):
        source = SlotFiles(own, str(root), frames=1)  # checks the folder
        names, counts = index[own].get("names"), index[own]["frames"]
        if not isinstance(names, list) or len(names) != len(counts) or not all(isinstance(n, str) for n in names):
            raise DataError(f"{root / INDEX}: {own!r} must have names, one for each of the starts")
        found += list(zip([own] * len(names), names, source.starts.tolist(), counts, strict=True))
    return found


def last(root: Path, slots: np.ndarray, video: tuple[str, str, int, int], frames: int) -> np.ndarray:
    """The last frames of a video of `of_folder`, [frames, K, D]. Raises DataError for slots that are not finite."""
    _, name, first, count = video
    found = np.array(slots[first + count - frames : first + count])
    bad = np.flatnonzero(~np.isfinite(found).all((1, 2))) + count - frames
    if len(bad):
        which = f"frame {bad[0]} has" if len(bad) == 1 else f"{len(bad)} frames from {bad[0]} to {bad[-1]} have"
        raise DataError(f"{root / 'slots.npy'}: {name}: {which} slots that are not finite")
    return found


def roll(found: Any, ends: np.ndarray, chosen: Any) -> np.ndarray:
    """The next frames after `ends` [B, history x skip, K, D]. The batch is filled up, so that one size is compiled."""
    from cjepa_jax.evals.rollout import rolled

    count = len(ends)
    filled = np.concatenate([ends, np.repeat(ends[:1], chosen.batch - count, 0)])
    return rolled(found.predict, filled, chosen.frames, found.history, found.skip)[:count]


def scores(found: Any, slots: np.ndarray, videos: list[tuple[str, str, int, int]], chosen: Any) -> str:
    """A line for each row: the root mean squared error of the last frames, with half of its 95 % interval."""
    from cjepa_jax.evals import rollout

    rows: dict[str, list[np.ndarray]] = {"model": [], rollout.COPY: [], rollout.VELOCITY: []}
    for part in _parts(videos, chosen.batch):
        whole = np.stack([last(Path(chosen.slots), slots, video, length(found, chosen)) for video in part])
        given, truth = whole[:, : -chosen.frames], whole[:, -chosen.frames :]
        made = {"model": roll(found, given, chosen)}
        made |= {rollout.COPY: rollout.copied(given, chosen.frames)}
        made |= {rollout.VELOCITY: rollout.continued(given, chosen.frames)}
        for row, guess in made.items():
            rows[row].append(np.square(guess - truth, dtype=np.float64).mean(-1))
    lines = [f"{len(videos)} videos, frames 1 to {chosen.frames} after the last one that is given"]
    for row, parts in rows.items():
        squares = np.concatenate(parts)
        value, half = rollout.measured(squares, np.ones(squares.shape, bool))
        lines.append(f"{row:20} rmse/slots {value:.4f} ± {half:.4f}")
    return "\n".join(lines)


def length(found: Any, chosen: Any) -> int:
    """Frames of a video that are scored, and those that are given."""
    return found.history * found.skip + chosen.frames


def _parts(videos: list, count: int) -> list[list]:
    return [videos[i : i + count] for i in range(0, len(videos), count)]


if __name__ == "__main__":
    raise SystemExit(preemption.ended(cli.guard(lambda: main(sys.argv[1:]))))
