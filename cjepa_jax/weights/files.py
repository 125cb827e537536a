"""Weights and settings from untrusted files: nothing in them is run or followed, and every claim is checked.

    found = tensors("model.safetensors")     also a Hugging Face folder, or PyTorch's .pth, .pt, .pth.tar, .bin
    found.shapes["blocks.0.norm1.bias"]      known before arrays are read found["blocks.0.norm1.bias"]
    float32, read and converted now

A file's claims are checked against its size before memory is allocated, so the arrays are never more than a few times
as large as the file. Every problem is a CheckpointError of one line.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import safetensors_file, torch_pickle
from cjepa_jax.weights.safety import contents, json, member, regular, short

MOST_SHARDS = 1000
MOST_NAME = 256  # letters of a tensor's name
__all__ = ["Tensors", "json", "member", "tensors"]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"  # of folders from before safetensors
LEWM = "weights.pt"  # of LeWorldModel's folders
DISTRIBUTED = (  # a folder of torch.distributed.checkpoint
    ". Convert this one: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pt"
)
LFS = b"version https://"
ZIP, OLD_PICKLE, TAR = b"PK\3\4", b"\x80", b"ustar"


class Tensors(Mapping[str, np.ndarray]):
    """Arrays by name, float32. Each access reads the array again. Only accessed arrays are converted and checked.

    Attributes: source, the file or folder. shapes, of all arrays by name. Raises (on reading): CheckpointError for an
    array that is not floating-point or has non-finite numbers.
    """

    def __init__(self, source: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray]):
        self.source, self.shapes, self._read = source, dict(shapes), read
        for name in self.shapes:
            if not 0 < len(name) <= MOST_NAME:
                raise CheckpointError(
                    f"{source}: {short(name)}: a name has at least one and at most {MOST_NAME} letters"
                )

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        array = self._read(name)
        if not np.isfinite(array).all():
            raise CheckpointError(f"{self.source}: {short(name)}: has numbers that are not finite: take an earlier one")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def tensors(path: str | os.PathLike) -> Tensors:
    """The arrays of a file, recognised by its first bytes, or of a folder with model.safetensors or its index.

    Nested dicts of a pickled checkpoint are flattened: "encoder.module.norm.weight". Integers, optimiser state and
    other contents are listed but not read.

    Raises: CheckpointError, one line, for a file that is missing, damaged, too large or of another kind.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    with regular(path) as file:
        start = contents(file, 16, path)
        file.seek(257)
        tar = file.read(5) == TAR
    if start == LFS:
        raise CheckpointError(f"{path}: is a pointer of Git LFS, not the file itself: fetch it with git lfs pull")
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return Tensors(path, *safetensors_file.read(path))
    if start[:4] == ZIP:
        return Tensors(path, *torch_pickle.read(path))
    if tar or start[:1] == OLD_PICKLE:
        text = "PyTorch's format from before 1.6, which is not read: save it again with torch.save"
        raise CheckpointError(f"{path}: is in {text}")
    hint = ". It is a web page: download the file itself" if start.lstrip()[:1] == b"<" else ""
    raise CheckpointError(f"{path}: is neither safetensors nor a checkpoint of PyTorch{hint}")


def pickled(path: Path) -> str:
    """The name of the file of PyTorch's that is read in a folder, "" if safetensors are."""
    if (path / SINGLE).exists() or (path / INDEX).exists():
        return ""
    return next((name for name in (PICKLED, LEWM) if (path / name).exists()), "")


def _folder(path: Path) -> Tensors:
    if (path / SINGLE).exists():
        return Tensors(path, *safetensors_file.read(member(path, SINGLE)))
    if name := pickled(path):
        return Tensors(path, *torch_pickle.read(member(path, name)))
    if not (path / INDEX).exists():
        hint = DISTRIBUTED if (path / ".metadata").is_file() and any(path.glob("*.distcp")) else ""
        raise CheckpointError(f"{path}: has none of {SINGLE}, {INDEX}, {PICKLED} and {LEWM}{hint}")
    where = json(member(path, INDEX), links=True).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{path / INDEX}: weight_map must give each array's file")
    shards = sorted(set(where.values()))
    if len(shards) > MOST_SHARDS:
        raise CheckpointError(f"{path / INDEX}: weight_map names {len(shards)} files, at most {MOST_SHARDS} are read")
    read = {shard: safetensors_file.read(member(path, shard)) for shard in shards}
    shapes = {}
    for name, shard in where.items():
        if name not in read[shard][0]:
            raise CheckpointError(f"{path / shard}: has no {short(name)}, which {INDEX} says it has")
        shapes[name] = read[shard][0][name]
    return Tensors(path, shapes, lambda name: read[where[name]][1](name))
