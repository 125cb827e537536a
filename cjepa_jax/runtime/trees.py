"""Trees of arrays by name, as in a checkpoint, and their differences."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

# The config key that decides an axis of an array (None: whether it exists), by its name. The first match counts.
CAUSES = (
    (r"/(encoder|backbone)/stack/blocks/", 0, r"objective.\1.depth"),
    (r"/(encoder|backbone)/tokenizer/.*kernel$", 0, r"objective.\1.tubelet, objective.\1.variant's patch"),
    (r"/(encoder|backbone)/", "any", r"objective.\1.variant"),
    (r"/predictor/object_embedding$", 0, "objective.predictor.max_objects"),
    (r"/predictor/stack/blocks/(norm_)?cross/", None, "objective.predictor.attention"),
    (r"/(predictor|decoder)/stack/blocks/", 0, r"objective.\1.depth"),
    (r"/(predictor|decoder)/embed/kernel$", 0, "objective.encoder.variant"),
    (r"/predictor/(prediction|residual)/kernel$", 1, "objective.encoder.variant"),
    (r"/predictor/(prediction|residual)/bias$", 0, "objective.encoder.variant"),
    (
        r"/(predictor|decoder)/(embed|stack|mask_token|object_embedding|prediction|residual|pixels)",
        "any",
        r"objective.\1.width",
    ),
    (r"/(predictor|projector|decoder|slots|head)/", "any", r"objective.\1"),
)
ROOT = r"^(params|target|opt_state/\d+(/(mu|nu))?)/"  # the same arrays again
SHOWN = 3  # arrays of a cause that are described in full


def name_of(path: tuple) -> str:
    """ "params/encoder/norm/bias" for a path of keys."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def nested(state: Any) -> dict[str, Any]:
    """The state as nested dicts with text keys: independent of the classes of its nodes."""
    tree: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        *folders, last = name_of(path).split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def digest(tree: Any) -> str:
    """sha256, in hexadecimal digits, over the arrays of a tree: their places, kinds, shapes and bits."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype}{array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Differences of two trees of arrays by name: a text per cause, which names the config's key and every array."""
    groups: dict[str, dict[str, str]] = {}
    for name in [*wanted, *(name for name in saved if name not in wanted)]:
        have, want = (
            f"{np.dtype(a.dtype)}{list(a.shape)}" if a is not None else "" for a in (saved.get(name), wanted.get(name))
        )
        if have == want:
            continue
        if have and want:
            text, axes = f"{name} is {have}, the model has {want}", _changed(saved[name].shape, wanted[name].shape)
            keys = (
                ", ".join(sorted({_cause(name, axis) for axis in axes}))
                if axes
                else "the kind of number, which is never cast"
            )
        else:
            text, keys = f"{name} is not in the model" if have else f"{name} is missing", _cause(name, None)
        groups.setdefault(keys, {})[name] = text
    return [f"{keys}: {_listed(texts)}" for keys, texts in groups.items()]


def require_small_chunks(saved: Mapping[str, Any]) -> None:
    """Raises ValueError if an array of a checkpoint (Orbax's metadata, by name) is stored in chunks that are larger
    than itself. A reader allocates whole chunks, so a small file could fill the memory."""
    for name, array in saved.items():
        chunk = array.storage.chunk_shape if array.storage else None
        if chunk and any(part > max(1, whole) for part, whole in zip(chunk, array.shape, strict=True)):
            raise ValueError(f"{name} of the shape {array.shape} is stored in chunks of {chunk}"[:300])


def _changed(have: tuple[int, ...], want: tuple[int, ...]) -> list[int | None]:
    """The axes in which two shapes differ. [None] if their numbers of axes differ. [] for none."""
    if len(have) != len(want):
        return [None]
    return [axis for axis, lengths in enumerate(zip(have, want, strict=True)) if lengths[0] != lengths[1]]


def _cause(name: str, axis: int | None) -> str:
    """The config's key that decides an axis of an array (None: whether the array exists)."""
    for pattern, which, key in CAUSES:
        found = re.search(pattern, name)
        if found and which in ("any", axis):
            return found.expand(key)
    return "objective"


def _listed(texts: Mapping[str, str]) -> str:
    """The first few in full, then the others by name, those of the optimiser and the target with the parameters'."""
    full, rest = list(texts.values())[:SHOWN], dict.fromkeys(re.sub(ROOT, "", name) for name in list(texts)[SHOWN:])
    return ", ".join(full) + (f", and so on in {len(texts)} arrays: {', '.join(rest)}" if rest else "")
