"""results.json of an evaluation: finished results, reused only if their digest matches the present request.

A digest detects damage, another setting, and results that were copied from another run. It is not a signature, because
the writer of the file can compute it. So results that another user of the machine has written are never reused.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cjepa_jax.configuration import check as config_lib
from cjepa_jax.errors import DataError
from cjepa_jax.evals.base import KINDS
from cjepa_jax.host import door

log = logging.getLogger(__name__)

SPEED = ("data.workers", "data.threads", "data.prefetch")  # keys on which no result depends
NAME = "results.json"
ASIDE = "results.unverified.json"
FIELDS = {"metric": str, "row": str, "kind": str, "of": str, "value": float, "interval": float, "count": int}


def digest(folder: Path, name: str, setting: Mapping[str, Any], section: Any, result: Mapping[str, Any]) -> str:
    """SHA-256 of a protocol's result with its pictures, its section and its setting, without the keys that only change
    the speed."""
    fixed = {key: value for key, value in config_lib.flatten(setting) if key not in SPEED}
    try:
        pictures = hashlib.sha256(door.read(door.below(folder, "pictures", f"{name}.npz"), 1 << 30)).hexdigest()
    except FileNotFoundError:
        pictures = ""
    text = json.dumps([name, fixed, section, result, pictures], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read(folder: Path, setting: Mapping[str, Any]) -> dict[str, Any]:
    """`about`, `protocols` and `made` (by what command each was made) of results under the same setting, or none.

    Results with another digest are left out, with a warning. The file with them is kept as ASIDE.

    Raises: DataError for a file that is not a results.json.
    """
    file, empty = folder / NAME, {"about": {}, "protocols": {}, "made": {}}
    if not file.exists():
        return empty
    try:
        text = door.read_text(file)
        saved = door.parsed(text)
        before = {key: saved["about"].get(key) for key in setting}
        protocols, made = dict(saved["protocols"]), dict(saved.get("made", {}))
        others = config_lib.differences(before, setting, ignore=SPEED)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is damaged ({type(error).__name__}: {error}). Delete it") from error
    if others:
        return empty
    mine = os.stat(file).st_uid == os.geteuid()
    kept = {name for name in protocols if mine and _is_whole(folder, name, setting, protocols[name], made.get(name))}
    if lost := sorted(protocols.keys() - kept):
        why = "are not what was written" if mine else "are another user's"
        log.warning("%s: the results of %s %s. Kept as %s", file, ", ".join(lost)[:200], why, ASIDE)
    found = {
        "about": saved["about"],
        "protocols": {name: protocols[name] for name in protocols if name in kept},
        "made": {name: made[name] for name in made if name in kept},
    }
    if lost:
        os.replace(file, folder / ASIDE)
        door.write_atomically(file, json.dumps(found, indent=1) + "\n")
    return found


def is_well_formed(result: Any) -> bool:
    """Whether this is a valid result of a protocol in results.json or a comparison's record, so that pages and tables
    can show it."""
    if not isinstance(result, dict) or not isinstance(result.get("scores"), list):
        return False
    notes, seconds = result.get("notes", []), result.get("seconds")
    texts = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    return texts and (seconds is None or is_number(seconds)) and all(map(_is_score, result["scores"]))


def _is_score(score: Any) -> bool:
    if not isinstance(score, dict) or not {"metric", "row", "value"} <= score.keys() <= FIELDS.keys():
        return False
    for key, value in score.items():
        if FIELDS[key] is str and not isinstance(value, str):
            return False
        if FIELDS[key] is float and not (value is None or is_number(value)):
            return False
    return type(score.get("count", 0)) is int and score.get("kind", "result") in KINDS


def is_number(value: Any) -> bool:
    """Whether this is a number that NumPy takes as one: no boolean, and no whole number that a float cannot hold."""
    return isinstance(value, float) or (type(value) is int and abs(value) <= 2**53)


def _is_whole(folder: Path, name: str, setting: Mapping[str, Any], result: Any, made: Any) -> bool:
    if not isinstance(made, dict) or not is_well_formed(result):
        return False
    if not all(isinstance(made.get(key, ""), str) for key in ("command", "devices", "version")):
        return False
    try:
        return made.get("sha256") == digest(folder, name, setting, made.get("section"), result)
    except (door.Refused, ValueError):
        return False
