"""Simulated scenes as records: the layout of a record, and the TFDS builder that writes them.

A record is a tf.train.Example of TFDS, written without tensorflow. It holds the whole scene without loss, its initial
state (so any do() can be simulated again on reading) and the answers to the world's question. Arrays are
plain bytes: ArrayRecord compresses each record with zstd, which makes clips smaller than PNG does, ten times as
fast. Masks are packed, eight pixels to a byte along the width.
"""

import dataclasses
import functools
import hashlib
import importlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, file_adapters

from cjepa_jax.configuration import build, catalogue
from cjepa_jax.data import worlds
from cjepa_jax.data.materialise import dataset_spec, import_closure
from cjepa_jax.data.worlds import acting
from cjepa_jax.data.worlds.base import World
from cjepa_jax.errors import ConfigError, did_you_mean, printable
from cjepa_jax.host import optional
from cjepa_jax.runtime.workdir import write_atomically

BITS = "bits"  # a bool array, stored with its last axis packed
BYTES = tfds.features.Encoding.BYTES
# The eight bytes of each packed byte: four times as fast as np.unpackbits.
UNPACKED = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).view(np.uint64).ravel()
Fields = dict[str, list]  # name -> [dtype, shape], None for a length that differs between scenes
SHORT = {name.lower(): f"{package.__name__}:{name}" for package in (worlds, acting) for name in package.__all__}


def make_world(name: str, options: dict[str, Any], **fields: Any) -> World:
    """The world of a short name ("balls", "rooms") or of a "module:Class".

    Such a module is imported, so callers must trust the name.
    Raises ConfigError for an unknown name, for a class that is not a world, and for bad options.
    """
    if ":" not in name and name not in SHORT:
        raise ConfigError(f"--world={printable(name)}: there is no such world{did_you_mean(name, SHORT)}")
    path = name if ":" in name else SHORT[name]
    kind = build.locate(path, "--world")
    own = isinstance(kind, type) and issubclass(kind, World)
    if not own or kind.setup is World.setup or kind.play is World.play:
        raise ConfigError(f"--world={name}: must be a class that derives from {World.__module__}:World, with its "
                          "own setup() and play()")  # fmt: skip
    taken = sorted(options.keys() & ({field.name for field in dataclasses.fields(World)} - {"hold_out"} | {"type"}))
    if taken:
        raise ConfigError(f"--options: {taken[0]} is not an option of a world")
    return build.build({**options, "type": path}, "--options", "--world", **fields)


def name_of(kind: type) -> str:
    """The name of a world's class for `make_world`: a short name, or "module:Class"."""
    name = kind.__name__.lower()
    own = any(getattr(package, kind.__name__, None) is kind for package in (worlds, acting)) and name in SHORT
    return name if own else f"{kind.__module__}:{kind.__qualname__}"


def spec_of(world: World, shard: int) -> dict[str, Any]:
    """Everything that determines the bytes of a split, as plain JSON (dataset_spec.py)."""
    base = {field.name for field in dataclasses.fields(World)} - {"hold_out"}
    options = {f.name: getattr(world, f.name) for f in dataclasses.fields(world) if f.name not in base and f.init}
    packages = {"numpy": np, "opencv": cv2, "pymunk": importlib.import_module("pymunk"), "tfds": tfds}
    spec = {
        "format": dataset_spec.FORMAT,
        "world": name_of(type(world)),
        "options": options,
        **{name: getattr(world, name) for name in ("seed", "size", "frames", "split", "count")},
        "shard": shard,
        "versions": {
            name: getattr(package, "__version__", None) or package.version for name, package in packages.items()
        },
        "code": code_of(world),
        "fields": fields_of(world),
    }
    return json.loads(json.dumps(spec))


def code_of(world: World) -> str:
    """A checksum of the source files that simulate and draw this world: its module and its imports."""
    found = import_closure.files(type(world))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in found)).hexdigest()[:16]


def world_of(spec: dict[str, Any], allowed: str = "", **changed: Any) -> World:
    """The world that a spec describes, with other base fields if given.

    allowed: the world of another package ("module:Class") that the user named. A spec from a file is data: only this
    world and worlds of this package are imported. Raises ConfigError for others.
    """
    name = spec["world"]
    if ":" in name and name != allowed and catalogue.keywords("world", name) is None:
        text = printable(name)[:80]
        if name.startswith("cjepa_jax."):
            raise ConfigError(f"{text}: this package has no such world")
        raise ConfigError(f"{text}: is code of another package: data.options.world = {text!r} if it is yours")
    base = {name: spec[name] for name in ("seed", "size", "frames", "split", "count")}
    return make_world(name, spec["options"], **(base | changed))


def arrays(world: World, i: int) -> dict[str, np.ndarray]:
    """All arrays of a record of scene i. Those of the outcomes are "outcomes/NAME"."""
    setup = world.setup(i)
    found = {name: np.asarray(value) for name, value in world.play(setup).items()}
    if type(world).outcome is not World.outcome:  # a world with a question
        found |= {f"outcomes/{name}": value for name, value in world.outcomes(i)._asdict().items()}
    return found | {"setup": np.frombuffer(world.pack(setup), np.uint8), "index": np.int64(i)}


def fields_of(world: World) -> Fields:
    """The layout of this world's records, from its first scene."""
    pixels = (world.frames, world.size, world.size)
    known = {
        "states": (world.frames, None, len(world.state_names)),
        "labels": (len(world.label_names),),
        "contacts": (None, 4),
    }
    fields = {}
    for name, value in arrays(world, 0).items():
        shape, dtype = known.get(name, (None,) * value.ndim), value.dtype.name
        if name == "video":
            shape = (*pixels, value.shape[-1])
        elif value.ndim == 4 and value.dtype == bool and value.shape[1:] == pixels:
            shape, dtype = (None, *pixels), BITS
        fields[name] = [dtype, list(shape)]
    return fields


def features_of(fields: Fields) -> tfds.features.FeaturesDict:
    """The TFDS features that store `fields`."""
    tree: dict[str, Any] = {}
    for name, (dtype, shape) in fields.items():
        if dtype == BITS:
            feature = _tensor((*shape[:-1], -(-shape[-1] // 8)), np.uint8)
        elif shape.count(None) > 1:  # TFDS fails to store short arrays of such a shape
            parts = {"value": _tensor((None,), np.dtype(dtype)), "shape": _tensor((len(shape),), np.int64)}
            feature = tfds.features.FeaturesDict(parts)
        else:
            feature = _tensor(shape, np.dtype(dtype))
        head, _, tail = name.partition("/")
        if tail:
            tree.setdefault(head, {})[tail] = feature
        else:
            tree[name] = feature
    return tfds.features.FeaturesDict(tree)


def _tensor(shape: Any, dtype: Any) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=tuple(shape), dtype=dtype, encoding=BYTES)


def encode(fields: Fields, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """`arrays` for `features_of`. Raises KeyError for a scene whose arrays differ from those of the first one."""
    if values.keys() != fields.keys():
        raise KeyError(f"scene {values.get('index')} holds {sorted(values)}, the first one {sorted(fields)}")
    tree: dict[str, Any] = {}
    for name, (dtype, shape) in fields.items():
        value = np.ascontiguousarray(values[name]).reshape(np.shape(values[name]))  # the former makes scalars 1-D
        if dtype == BITS:
            value = np.packbits(value, axis=-1)
        elif shape.count(None) > 1:
            value = {"value": value.ravel(), "shape": np.array(value.shape, np.int64)}
        head, _, tail = name.partition("/")
        (tree.setdefault(head, {}) if tail else tree)[tail or head] = value
    return tree


def decode(fields: Fields, tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `encode`. Raises KeyError, ValueError for a record that it did not write."""
    values = {}
    for name, (dtype, shape) in fields.items():
        head, _, tail = name.partition("/")
        value = tree[head][tail] if tail else tree[head]
        if dtype == BITS:
            value = np.take(UNPACKED, value).view(bool)[..., : shape[-1]]
        elif shape.count(None) > 1:
            value = value["value"].reshape(value["shape"])
        values[name] = value
    return values


def write_shard(root: str, spec: dict[str, Any], shard: int) -> int:
    """Writes file `shard` of a split atomically, and then its entry. Returns the number of its scenes.

    Processes share only the folder, so this runs in a pool or on a cluster.
    """
    world, features = _opened(json.dumps(spec))
    name, scenes = dataset_spec.shard_name(spec, shard), dataset_spec.scenes_of(spec, shard)
    parts = dataset_spec.parts_of(Path(root), spec["split"])
    beside = parts / f"{name}.{uuid.uuid4().hex}"
    try:
        size = write_records(beside, features, spec["fields"], world, scenes)
        entry = {"name": name, "scenes": len(scenes), "bytes": size, "sha256": dataset_spec.sha256(beside)}
        os.replace(beside, Path(root) / name)
        entry_beside = beside.with_name(f"{beside.name}.entry")  # on a cluster, two processes may write the same file
        write_atomically(entry_beside, json.dumps(entry | {"fingerprint": dataset_spec.fingerprint(spec)}))
        os.replace(entry_beside, parts / f"{name}.json")
    finally:
        beside.unlink(missing_ok=True)
    return len(scenes)


def write_records(file: Path, features: Any, fields: Fields, world: World, scenes: range) -> int:
    """Writes an ArrayRecord file of these scenes and syncs it. Returns its size in bytes."""
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())

    def record(i: int) -> tuple[int, bytes]:
        example = serializer.get_tf_example(features.encode_example(encode(fields, arrays(world, i))))
        return i, example.SerializeToString(deterministic=True)  # otherwise the order of entries is arbitrary

    records = map(record, scenes)
    file_adapters.ArrayRecordFileAdapter.write_examples(file, records)
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())
    return file.stat().st_size


@functools.lru_cache(maxsize=1)
def _opened(spec: str) -> tuple[World, Any]:
    """Cached, because a worker writes many files of one spec, and TFDS's features are slow to set up."""
    content = json.loads(spec)
    return world_of(content, content["world"]), features_of(content["fields"])


class Scenes(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of a world's splits: records in the order of their scenes.

        Scenes(specs={"train": spec_of(world, shard)}, data_dir=DIR).download_and_prepare(...)

    specs: spec of each split. beam: the scenes come from an Apache Beam pipeline (the extra "beam"), whose options are
    those of tfds.download.DownloadConfig. `python -m cjepa_jax.data.build` writes the same records file by file
    instead, so that it can resume where it was stopped.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # where TFDS would look for checksums of downloads, with a package that it does not install

    def __init__(self, *, specs: dict[str, dict], beam: bool = False, **options: Any):
        self.specs, self.beam = specs, beam
        super().__init__(file_format="array_record", **options)
        self._original_state |= {"specs": specs, "beam": beam}

    def _info(self) -> tfds.core.DatasetInfo:
        fields = next(iter(self.specs.values()))["fields"]
        return tfds.core.DatasetInfo(builder=self, features=features_of(fields), disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(spec) for split, spec in self.specs.items()}

    def _generate_examples(self, spec: dict[str, Any]) -> Any:
        make = functools.partial(keyed_example, json.dumps(spec))
        if not self.beam:
            return _generate(make, spec["count"])
        beam = import_beam()
        return beam.Create(range(spec["count"])) | beam.Reshuffle() | beam.Map(make)


def keyed_example(spec: str, i: int) -> tuple[int, dict[str, Any]]:
    """(i, the example of scene i), from the JSON of a spec."""
    world, _ = _opened(spec)
    return i, encode(json.loads(spec)["fields"], arrays(world, i))


def _generate(make: Any, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    yield from map(make, range(count))


def import_beam() -> Any:
    """The package apache_beam. Raises ConfigError if it is missing."""
    return optional.need("apache_beam", "beam", "Apache Beam")
