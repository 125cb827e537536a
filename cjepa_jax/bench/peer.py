"""PyTorch's side of a comparison, in a process that waits while this one computes."""

import contextlib
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from cjepa_jax.errors import CjepaError, PeerError
from cjepa_jax.host import memory

PEERS = ("torch", "torch-compile", "ijepa", "padded")  # see paired.compare
GONE = EOFError, BrokenPipeError, ConnectionResetError  # errors of a pipe whose other end is closed


@contextlib.contextmanager
def started(make: Callable[..., tuple[Any, Callable]], *arguments: Any) -> Iterator[tuple[Any, Callable]]:
    """A process that ends with the context, and has the user's settings of the allocator.

    It calls make(*arguments), which returns something to report and a function. Yields the report, and that function as
    one of this process: it returns (the result, its seconds, its processor seconds).
    Raises: the CjepaError of `make`, and PeerError if the process dies.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, make, arguments), daemon=True)
    with _usual_allocator():
        process.start()
    there.close()
    try:
        with _blamed(process):
            report = here.recv()
        if isinstance(report, CjepaError):
            raise report

        def ask(*asked: Any) -> tuple[Any, float, float]:
            with _blamed(process):
                _send(here, asked)
                return here.recv()

        yield report, ask
    finally:
        here.close()  # which tells the other process to end
        process.join()


def timed(function: Callable, *arguments: Any) -> tuple[Any, float, float]:
    """The result, the seconds, and the processor seconds that this process used in this time."""
    start, before = time.perf_counter(), time.process_time()
    return function(*arguments), time.perf_counter() - start, time.process_time() - before


def processors() -> int:
    """The cores that this process may run on. XLA:CPU has a thread for each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> dict[str, str]:
    """The load of the machine before the measurement."""
    now, count = os.getloadavg()[0], processors()
    report = {"load at the start": f"{now:.1f} on {count} processors"}
    if now > count:
        report["NOT VALID"] = "the ratio: more programs run than there are processors. Repeat it when they are done"
    return report


def threads(count: int) -> dict[str, str]:
    """A line about both sides' threads. `count`: PyTorch's."""
    waiting = ", ".join(f"{name}={os.environ.get(name, '')}" for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"))
    return {"threads": f"{processors()} here, {count} torch ({waiting})"}


@contextlib.contextmanager
def _blamed(process: Any) -> Iterator[None]:
    """Raises PeerError, one line, if the other process is gone."""
    try:
        yield
    except GONE as error:
        process.join()
        code = process.exitcode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise PeerError(f"--against=torch: PyTorch's process {how} before it was done") from error


def _serve(connection: Connection, make: Callable, arguments: tuple) -> None:
    """The other process. It reports, or an error. Then it computes on request, until the requesting process is gone."""
    with contextlib.suppress(*GONE):
        try:
            report, function = make(*arguments)
        except CjepaError as error:
            _send(connection, error)
            return
        _send(connection, report)
        while True:
            _send(connection, timed(function, *connection.recv()))


def _send(connection: Connection, answer: Any) -> None:
    """Sends bytes: if the other end is closed, `send` leaves a buffer whose collection crashes Python 3.12.1."""
    connection.send_bytes(pickle.dumps(answer))


@contextlib.contextmanager
def _usual_allocator() -> Iterator[None]:
    """Processes that start inside have the user's settings of the allocator, without those of our commands."""
    tunables = os.environ.get(memory.TUNABLES)
    if tunables is not None:
        os.environ[memory.TUNABLES] = tunables.replace(memory.ALLOCATOR, "").strip(":")
    try:
        yield
    finally:
        if tunables is not None:
            os.environ[memory.TUNABLES] = tunables
