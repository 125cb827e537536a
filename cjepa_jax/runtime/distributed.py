"""Several processes as one run: they find each other, agree, and end together.

JAX's client ends a process by SIGABRT as soon as the coordinator (process 0) is gone, before Python can react, and
takes minutes to detect a frozen peer. So the processes watch each other (watchdog.Heartbeat).
"""

import atexit
import contextlib
import ctypes
import functools
import logging
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from cjepa_jax.errors import PREEMPTED, CjepaError, ConfigError, PeerError
from cjepa_jax.runtime import watchdog

BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PATIENCE = 10  # times train.heartbeat: how long processes wait for each other at the start
VERDICT = 3.0  # seconds for the heartbeat to find a missing peer after a failure

_several = False
_heartbeat: watchdog.Heartbeat | None = None


def start(config: Any) -> None:
    """Joins the run's other processes, if the environment names any. Before anything touches a device.

    They are named by JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, or by
    JAX's detection: SLURM inside srun, TPU pods and slices, Open MPI, Kubernetes. JAX's handler of SIGTERM is not
    installed, so that ours, installed before or after, is the only one.

    Args:
      config: train.heartbeat, seconds of silence after which a peer counts as dead.
    Raises:
      ConfigError: the environment describes the processes only in part.
      PeerError: the others cannot be reached.
    """
    global _several
    seconds = config.train.heartbeat
    named = _by_hand(os.environ)
    if not named and not _detected():
        return
    named = named or _whole_node(os.environ)
    _several = True
    _keep_out_of_the_way()
    atexit.register(_leave_in_error)
    try:
        with _own_ending():
            jax.distributed.initialize(
                **named,
                initialization_timeout=round(PATIENCE * seconds),
                # Ours (watchdog.Heartbeat) reports more, and handles suspensions. JAX's continues while a run is
                # stopped.
                heartbeat_timeout_seconds=24 * 3600,
                shutdown_timeout_seconds=24 * 3600,  # the others wait while process 0 writes the report
            )
        if jax.process_count() > 1:
            _watch_peers(seconds)
    except (RuntimeError, OSError, ValueError) as error:
        where = named.get("coordinator_address", "as JAX detects it")
        why = str(error).partition("\n")[0]
        raise PeerError(
            f"the run's other processes cannot be reached within {PATIENCE * seconds:g} s (coordinator {where})"
            + ("" if why in ("", "std::bad_cast") else f": {why}")  # the latter is what _own_ending makes of any reason
        ) from error


def first() -> bool:
    """Whether this is the process that writes the run folder."""
    return jax.process_index() == 0


def agree(*numbers: int) -> list[int]:
    """The elementwise maximum over all processes, each of which must call it. With one process, `numbers`."""
    if jax.process_count() == 1:
        return [int(number) for number in numbers]
    return [int(number) for number in multihost_utils.process_allgather(np.array(numbers, np.int32)).max(0)]


def local(tree: Any) -> Any:
    """A pytree of global arrays in a form that this process can use alone: unchanged in one process, else NumPy
    copies."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


class blame(contextlib.AbstractContextManager):
    """An error inside may be caused by a dead peer. It is only raised if the heartbeat finds no dead peer."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        foreign = kind is not None and issubclass(kind, Exception) and not issubclass(kind, CjepaError)
        if foreign and _heartbeat:
            time.sleep(VERDICT)  # in which the heartbeat ends this process if a peer is dead


def leave(code: int) -> int:
    """Ends this process's part in the run. Returns the exit code if the process is to end normally.

    After a success the processes wait for each other. After an error this one ends at once, which the others detect. At
    Python's normal exit JAX would wait for them.
    """
    if not _several:
        return code
    atexit.unregister(_leave_in_error)
    if code not in (0, PREEMPTED):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    if _heartbeat:
        _heartbeat.bye()
    jax.distributed.shutdown()
    return code


def _by_hand(environment: Mapping[str, str]) -> dict[str, Any]:
    """jax.distributed.initialize's arguments from the variables set by hand, {} without them."""
    given = [name for name in BY_HAND if environment.get(name)]
    # The address alone is a variable of JAX: it overrides JAX's detection.
    if given in ([], [BY_HAND[0]]):
        return {}
    for name in BY_HAND:
        if name not in given:
            raise ConfigError(f"{name} is not set: several processes need {', '.join(BY_HAND)}")
    address, count, rank = (environment[name] for name in BY_HAND)
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"JAX_NUM_PROCESSES = {count!r}: must be a whole number above 0")
    if not rank.isdecimal() or int(rank) >= int(count):
        raise ConfigError(f"JAX_PROCESS_ID = {rank!r}: must be a whole number from 0 to {int(count) - 1}")
    if not address.rpartition(":")[2].isdecimal():
        raise ConfigError(f"JAX_COORDINATOR_ADDRESS = {address!r}: must be host:port")
    if int(count) == 1:
        return {}
    by_hand = {"coordinator_address": address, "num_processes": int(count), "process_id": int(rank)}
    return by_hand | {"cluster_detection_method": "deactivate"}


def _detected() -> bool:
    """Whether JAX would detect several processes. There is no public function for it. If it is missing, there is one
    process."""
    try:
        from jax._src.clusters import ClusterEnv

        kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method]
    except (ImportError, AttributeError):
        kinds = []
    found = next((kind for kind in kinds if kind.is_env_present()), None)
    if found is not None:
        return found.get_process_count() > 1
    if int(os.environ.get("SLURM_NTASKS") or 1) > 1:
        logging.warning("SLURM_NTASKS = %s, but not inside srun: one process", os.environ["SLURM_NTASKS"])
    return False


def _whole_node(environment: Mapping[str, str]) -> dict[str, Any]:
    """In SLURM, for one process per machine: all of its GPUs. JAX would only use the first."""
    alone = re.fullmatch(r"1(\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    gpus = environment.get("SLURM_GPUS_ON_NODE", "0")
    if not alone or not gpus.isdecimal() or gpus == "0" or "JAX_LOCAL_DEVICE_IDS" in environment:
        return {}
    return {"local_device_ids": list(range(int(gpus)))}


def _keep_out_of_the_way() -> None:
    """Options of JAX: no SIGTERM handler, and on CPUs collectives that work across processes."""
    for option, value in (("jax_enable_preemption_service", False), ("jax_cpu_collectives_implementation", "gloo")):
        try:
            jax.config.update(option, value)
        except AttributeError:  # an option that this version of JAX does not have
            logging.warning("%s: unknown to JAX %s", option, jax.__version__)


@contextlib.contextmanager
def _own_ending() -> Iterator[None]:
    """Inside, JAX's client is created so that it calls `_coordinator_lost` when the coordinator is gone.

    Without a callback it aborts with a dump. With one it fails to pass its C++ status to Python, which calls the same
    function through C++'s terminate handler. None of this is public. If it is missing, JAX's abort (exit code 134) may
    come before our message.
    """
    try:
        from jax._src.lib import _jax

        make = _jax.get_distributed_runtime_client
        set_terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt13set_terminatePFvvE"]
    except (ImportError, AttributeError, OSError):
        yield
        return
    set_terminate(_terminate)
    _jax.get_distributed_runtime_client = functools.partial(make, missed_heartbeat_callback=_coordinator_lost)
    try:
        yield
    finally:
        _jax.get_distributed_runtime_client = make


def _coordinator_lost(*status: Any) -> NoReturn:
    time.sleep(VERDICT)  # the heartbeat reports more, and ends the process first
    watchdog.end("another process of the run has ended (as JAX's coordination service says)")


_terminate = ctypes.CFUNCTYPE(None)(_coordinator_lost)  # must stay alive, because C++ has only its address


def _watch_peers(seconds: float) -> None:
    """Connects every process with process 0, at a port that is exchanged through JAX's coordination service."""
    global _heartbeat
    try:
        from jax._src.distributed import global_state  # what multihost_utils uses; nothing public gives the address

        client, address = global_state.client, global_state.coordinator_address
    except (ImportError, AttributeError):
        logging.warning("this JAX does not tell its coordinator: a peer that is gone is noticed late")
        return
    key, patience = "cjepa_jax/heartbeat", PATIENCE * seconds
    if first():
        dual = socket.has_dualstack_ipv6()
        server = socket.create_server(
            ("", 0), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual, backlog=1024
        )
        token = secrets.token_hex(16)
        client.key_value_set(key, f"{server.getsockname()[1]} {token}")
        with server:
            links = watchdog.gather(server, jax.process_count() - 1, token, patience)
    else:
        port, token = client.blocking_key_value_get(key, round(1000 * patience)).split()
        links = watchdog.reach(address.rpartition(":")[0].strip("[]"), int(port), token, jax.process_index(), patience)
    _heartbeat = watchdog.Heartbeat(links, seconds)


def _leave_in_error() -> None:
    """Exit without `leave`: JAX would wait for the others, which wait for this process."""
    leave(1)
