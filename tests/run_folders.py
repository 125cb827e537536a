"""Folders as a run leaves them, without the training: its config and checkpoints of made-up parameters."""

import functools
import json

import jax
import numpy as np
from ml_collections import ConfigDict

from cjepa_jax import optim, train_step
from cjepa_jax.configuration import build
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.runtime.checkpoint import Checkpoints
from cjepa_jax.runtime.workdir import tuples
from configs import clips
from tests.running import SMALL
from tests.test_configs import abstract_batch


def config(base=clips, **values):
    """A config of almost no size. Keys have __ for the dot."""
    c = base.get_config()
    known = dict(config_lib.flatten(c))
    values = SMALL | {"data.max_objects": 4} | {key.replace("__", "."): value for key, value in values.items()}
    return config_lib.override(c, {key: value for key, value in values.items() if key in known})


@functools.cache
def _shapes(config_as_json):
    c = ConfigDict(tuples(json.loads(config_as_json)))  # JSON has no tuples
    objective = build.build(c.objective, steps=1, dtype="float32")
    init = functools.partial(train_step.init_state, objective, optim.make(c.optim), 0)
    return jax.eval_shape(init, abstract_batch(c, objective))


def state_of(c, seed=0):
    """A state of the config's shapes with random numbers in it."""
    shapes = _shapes(c.to_json())
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if leaf.dtype == np.float32:
            return jax.numpy.asarray(rng.normal(0, 0.1, leaf.shape).astype(np.float32))
        return jax.numpy.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(fill, shapes)


def write(folder, c=None, steps=(2, 4)):
    """A run's folder. The checkpoint of step s is state_of(c, s)."""
    c = c or config()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_lib.resolve(c)))
    checkpoints = Checkpoints(folder / "checkpoints", keep=len(steps))
    for step in steps:
        checkpoints.save(step, state_of(c, step))
    checkpoints.close()
    return folder
