"""Parts of a protocol's result that take long, kept in a file as they finish, so that the same command resumes."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cjepa_jax.host import door

log = logging.getLogger(__name__)

NAME = "parts.json"


@dataclasses.dataclass(frozen=True)
class Parts:
    """JSON values by key in the folder of an evaluation. Each has a digest and is read again under the same setting.

    A value that was changed, or written under another setting, is treated as absent. So are files of another user, for
    a digest is not a signature. Changed files of data are not noticed.

    Attributes:
      folder: of the evaluation.
      setting: everything that all results depend on, as plain JSON values.
    """

    folder: Path
    setting: Mapping[str, Any]

    def get(self, key: Any) -> Any:
        """The value of a key, a plain JSON value. None if there is none."""
        found = self._read().get(self._name(key))
        if not isinstance(found, dict) or found.get("sha256") != self._mark(key, found.get("value")):
            return None
        return found["value"]

    def put(self, key: Any, value: Any) -> None:
        """Keeps the value of a key. Raises StorageError or OSError if it cannot be written."""
        whole = self._read() | {self._name(key): {"value": value, "sha256": self._mark(key, value)}}
        door.write_atomically(door.below(self.folder, NAME), json.dumps(whole) + "\n")

    def _read(self) -> dict[str, Any]:
        file = door.below(self.folder, NAME)
        if not file.exists() or os.stat(file).st_uid != os.geteuid():
            return {}
        try:
            found = door.read_json(file)
        except ValueError as error:
            log.warning("%s: is damaged (%s): everything in it is computed again", file, error)
            return {}
        return found if isinstance(found, dict) else {}

    def _name(self, key: Any) -> str:
        return hashlib.sha256(json.dumps([self.setting, key], sort_keys=True).encode()).hexdigest()

    def _mark(self, key: Any, value: Any) -> str:
        return hashlib.sha256(json.dumps([self.setting, key, value], sort_keys=True).encode()).hexdigest()
