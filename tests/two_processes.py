"""One of two processes that share a step: its loss and gradient, as an .npz file. Started by tests/test_parity.py.

python -m tests.two_processes PORT HOW FOLDER NUMBER
"""

import json
import os
import pathlib
import sys

from tests import QUICK

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=2 {QUICK}"

import jax
import numpy as np

from cjepa_jax.runtime import distributed
from tests import test_parity
from tests.objectives import test_jepa


def main(port: str, how: str, folder: str, number: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    step, state, batch = test_parity.step_on(4, **json.loads(how))
    state, metrics = step(state, batch)
    gradient = test_jepa.flat(distributed.local(state.opt_state.trace))
    np.savez(pathlib.Path(folder, number), loss=metrics["loss"], **gradient)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
