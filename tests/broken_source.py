"""A user's source, going wrong."""

import dataclasses
import os
import signal
import sys
import time

from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Faulty(Balls):
    """Balls with training scenes that are unreadable (`broken`), raise something else (`buggy`), kill the reader
    (`deadly`), end it politely (`leaving`) or never come (`endless`)."""

    broken: tuple = ()
    buggy: tuple = ()
    deadly: tuple = ()
    leaving: tuple = ()
    endless: tuple = ()

    def __getitem__(self, i):
        if self.split == "train":
            if i in self.broken:
                raise DataError(f"scene {i} is cut short")
            if i in self.buggy:
                return 1 // (i - i)
            if i in self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if i in self.leaving:
                sys.exit(0)
            if i in self.endless:
                time.sleep(1000)
        return super().__getitem__(i)
