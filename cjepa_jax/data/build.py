"""Writes a simulated world to disk: ArrayRecord files that data/sources/records.py reads with random access.

python -m cjepa_jax.data.build --world=balls --split=train --count=10000 --out=DIR [--size=64 --frames=16 --seed=0]
python -m cjepa_jax.data.build --world=pendulum:Pendulum ...     a custom world, in pendulum.py
python -m cjepa_jax.data.build --out=DIR --verify

Splits of one world share a folder. A build that was stopped, by any cause, resumes when the same command is run again,
and ends with the same bytes. Everything else that would change them is refused: another option, seed, size or version
of a package. A file that is missing or truncated is written again.
"""

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cjepa_jax import cli
from cjepa_jax.data.formats.files import inside
from cjepa_jax.data.materialise import dataset_spec
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door, paths
from cjepa_jax.runtime.workdir import Workdir, write_atomically

PROBE = 32  # scenes written to estimate the size of the rest


def parser() -> cli.Parser:
    """The command line."""
    flags = cli.Parser(prog="python -m cjepa_jax.data.build", description=__doc__.split("\n")[0], allow_abbrev=False)
    flags.add_argument("--out", type=cli.path_argument, required=True, help="the folder, made if need be")
    flags.add_argument("--world", help="balls, shadows, ..., nudge, push, rooms, or module:Class of your own world")
    flags.add_argument("--split", default="train", help="which scenes. Default: train")
    flags.add_argument("--count", type=int, help="how many scenes")
    flags.add_argument("--size", type=int, default=64, help="pixels, height = width. Default: 64")
    flags.add_argument("--frames", type=int, default=16, help="frames per clip. Default: 16")
    flags.add_argument("--seed", type=int, default=0, help="as `seed` of the config. Default: 0")
    flags.add_argument("--options", default="{}", help="the world's own options, as JSON")
    flags.add_argument("--shard", type=int, default=256, help="scenes per file. Default: 256")
    flags.add_argument("--workers", type=int, default=os.cpu_count(), help="processes. Default: one per core")
    flags.add_argument("--beam", help="run on Apache Beam, with these pipeline options. --out is a shared folder")
    flags.add_argument("--verify", action="store_true", help="only compare what is there with its checksums")
    flags.add_argument("--log", choices=cli.LEVELS, default="info", help="how much to print")
    return flags


def main(argv: list[str] | None = None) -> int:
    """Runs the command. `argv` defaults to the process's arguments. Raises ConfigError, DataError or StorageError."""
    flags = parser().parse_args(argv)
    if argv is None:
        cli.set_up_logging(flags.log)
    root = Path(flags.out)
    if flags.verify:
        return verify(root)
    spec = make_spec(flags)
    with Workdir(root, setting="--out=") as workdir:
        dataset_spec.check_claim(root, spec)
        claim = dataset_spec.path_of(root, spec["split"])
        done = present(root, spec)
        missing = [shard for shard in range(dataset_spec.shard_count(spec)) if shard not in done]
        if missing or not claim.exists() or not dataset_spec.read(root, spec["split"])["files"]:
            prepare(root, spec, done, workdir, missing)
            write_missing(root, spec, missing, flags)
            finish(root, spec)
        dataset_spec.clear_parts(root, spec["split"], entries=True)
        with contextlib.suppress(OSError):  # missing, or it holds files that no build made
            dataset_spec.parts_of(root, spec["split"]).rmdir()
    total = sum(entry["bytes"] for entry in dataset_spec.check_sizes(root, spec["split"])["files"])
    print(f"{root}: split {spec['split']}, {spec['count']} scenes in {total / 1e6:.1f} MB")
    return 0


def make_spec(flags: Any) -> dict[str, Any]:
    """The spec that the command line asks for. Raises ConfigError."""
    from cjepa_jax.data.materialise import builders  # late: wrong options fail before TFDS loads

    for name in ("world", "count"):
        if getattr(flags, name) is None:
            raise ConfigError(f"--{name} is missing")
    for name, most in (("shard", 10**6), ("workers", 1024)):
        if not 1 <= getattr(flags, name) <= most:
            raise ConfigError(f"--{name}={getattr(flags, name)}: must be within 1 and {most}")
    try:
        options = json.loads(flags.options)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--options={paths.shown(flags.options)}: not JSON ({error})") from error
    if not isinstance(options, dict):
        raise ConfigError(f"--options={flags.options}: must be a JSON object, such as '{{\"boxes\": 0.4}}'")
    base = {name: getattr(flags, name) for name in ("split", "count", "size", "frames", "seed")}
    spec = builders.spec_of(builders.make_world(flags.world, options, **base), flags.shard)
    try:
        dataset_spec.check_spec(spec)
    except ValueError as error:
        raise ConfigError(f"--world={flags.world} --shard={flags.shard}: {error}") from error
    return spec


def present(root: Path, spec: dict[str, Any]) -> dict[int, dict]:
    """Entries, by number, of the files that a finished or a stopped build has already written."""
    done = dataset_spec.parts(root, spec)
    if dataset_spec.path_of(root, spec["split"]).exists():
        for shard, entry in enumerate(dataset_spec.read(root, spec["split"])["files"]):
            file = inside(root, entry["name"])
            if file.is_file() and file.stat().st_size == entry["bytes"]:
                done.setdefault(shard, entry)
    return done


def prepare(root: Path, spec: dict[str, Any], done: dict[int, dict], workdir: Workdir, missing: list[int]) -> None:
    """Claims the split, deletes unfinished files of a killed build, and checks that there is space for the rest."""
    from cjepa_jax.data.materialise import builders

    parts = dataset_spec.parts_of(root, spec["split"])
    parts.mkdir(exist_ok=True)
    dataset_spec.clear_parts(root, spec["split"], entries=False)
    mark = dataset_spec.fingerprint(spec)
    for entry in done.values():
        write_atomically(parts / f"{entry['name']}.json", json.dumps(entry | {"fingerprint": mark}))
    write_atomically(dataset_spec.path_of(root, spec["split"]), dataset_spec.text(spec, []))
    if missing:
        probe = range(min(PROBE, spec["count"]))
        features, world = builders.features_of(spec["fields"]), builders.world_of(spec, spec["world"])
        file = parts / f"probe.{uuid.uuid4().hex}"
        size = builders.write_records(file, features, spec["fields"], world, probe) / len(probe)
        file.unlink()
        scenes = sum(len(dataset_spec.scenes_of(spec, shard)) for shard in missing)
        workdir.require_space(int(1.1 * size * scenes) + 2**20)


def write_missing(root: Path, spec: dict[str, Any], missing: list[int], flags: Any) -> None:
    """Writes the missing files in this process, in a pool of processes, or on Apache Beam."""
    if flags.beam is not None:
        write_on_beam(root, spec, missing, flags.beam)
        return
    have = spec["count"] - sum(len(dataset_spec.scenes_of(spec, shard)) for shard in missing)
    with tqdm(
        total=spec["count"], initial=have, unit="scene", desc=spec["split"], disable=flags.log == "warning"
    ) as bar:
        for scenes in write_in_pool(root, spec, missing, flags.workers):
            bar.update(scenes)
            door.require_own(root)


def write_in_pool(root: Path, spec: dict[str, Any], missing: list[int], workers: int) -> Iterator[int]:
    """Yields the number of scenes of each file when it is finished. Raises DataError if a process dies."""
    from cjepa_jax.data.materialise.builders import write_shard

    if workers == 1 or len(missing) < 2:
        for shard in missing:
            yield write_shard(str(root), spec, shard)
        return
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(missing)), context, _end_with_parent, (os.getpid(),))
    try:
        tasks = [pool.submit(write_shard, str(root), spec, shard) for shard in missing]
        for task in concurrent.futures.as_completed(tasks):
            yield task.result()
    except concurrent.futures.BrokenExecutor as error:
        raise DataError(f"{root}: a process that wrote scenes died: run the command again to resume") from error
    finally:
        pool.shutdown(cancel_futures=True)


def write_on_beam(root: Path, spec: dict[str, Any], missing: list[int], arguments: str) -> None:
    """Writes files on Apache Beam. One element is one file, so no scene is shuffled and a failed file is retried."""
    from cjepa_jax.data.materialise import builders

    beam = builders.import_beam()
    options = beam.options.pipeline_options.PipelineOptions(shlex.split(arguments))
    with beam.Pipeline(options=options) as pipeline:
        numbers = pipeline | beam.Create(missing) | beam.Reshuffle()
        _ = numbers | beam.Map(lambda shard: builders.write_shard(str(root), spec, shard))


def finish(root: Path, spec: dict[str, Any]) -> None:
    """Writes TFDS's metadata, then the manifest. Raises DataError if files are missing."""
    done = dataset_spec.parts(root, spec)
    if len(done) < dataset_spec.shard_count(spec):
        raise DataError(
            f"{root}: {len(done)} of {dataset_spec.shard_count(spec)} files were written: run the command again"
        )
    files = [done[shard] for shard in sorted(done)]
    others = {split: dataset_spec.read(root, split)["files"] for split in dataset_spec.splits(root)}
    write_tfds_metadata(root, spec, others | {spec["split"]: files})
    write_atomically(dataset_spec.path_of(root, spec["split"]), dataset_spec.text(spec, files))


def write_tfds_metadata(root: Path, spec: dict[str, Any], files: dict[str, list[dict]]) -> None:
    """Writes features.json and dataset_info.json, so that tfds.builder_from_directory can read the folder."""
    import tensorflow_datasets as tfds

    from cjepa_jax.data.materialise import builders

    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[entry["scenes"] for entry in entries],
            num_bytes=sum(entry["bytes"] for entry in entries),
        )
        for split, entries in sorted(files.items())
        if entries
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=root,
        features=builders.features_of(spec["fields"]),
        split_infos=infos,
        check_data=False,
        disable_shuffling=True,
        description=f"Scenes of the simulated world {spec['world']!r}, made by cjepa_jax.",
    )


def verify(root: Path) -> int:
    """Compares every file of every split with its checksum. Raises DataError naming the first that differs."""
    found = dataset_spec.splits(root)
    if not found:
        raise DataError(f"{root}: no materialised scenes here (no manifest-SPLIT.json)")
    for split in found:
        files = dataset_spec.check_sizes(root, split)["files"]
        damaged = [
            entry["name"]
            for entry in tqdm(files, unit="file", desc=split, leave=False)
            if dataset_spec.sha256(inside(root, entry["name"])) != entry["sha256"]
        ]
        if damaged:
            others = f" (and {len(damaged) - 1} others)" if damaged[1:] else ""
            why = "its SHA-256 is not the manifest's: delete it and run the build command again"
            raise DataError(f"{root / damaged[0]}{others}: {why}")
        print(
            f"{root}: split {split}, {sum(entry['scenes'] for entry in files)} scenes in {len(files)} files: as written"
        )
    return 0


def _end_with_parent(parent: int) -> None:
    """Makes a worker exit with its parent: a killed build cannot stop its workers. Only the build takes Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(cli.guard(main))
