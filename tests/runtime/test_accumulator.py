"""What a log line says about its steps, and what a run may not survive."""

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import DataError, NumericsError
from cjepa_jax.runtime.accumulator import Window
from cjepa_jax.types import TrainState
from configs import clips


def window(scenes=100, skipped=0, **values):
    config = clips.get_config()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in values.items()})
    return Window(config, scenes, TrainState(jnp.int32(0), {}, {}, {}, (), jnp.int32(skipped)))


def batch(first=0, replaced=0, size=4):
    return {"scene": np.arange(first, first + size, dtype=np.int32), "replaced": np.arange(size) < replaced}


def metrics(loss=1.0, skipped=0, bad=()):
    per_scene = np.where(np.isin(np.arange(4), bad), np.nan, 1.0)
    return {"loss": loss, "grad_norm": 2.0, "learning_rate": 0.1, "skipped": skipped, "per_scene": per_scene} | {
        "fallback_scenes": 1
    }


def test_means_leave_out_skipped_steps_and_counts_add_up():
    steps = window(skipped=3)
    steps.add(1, batch(), metrics(1.0))
    steps.add(2, batch(replaced=2), metrics(np.nan, skipped=1))
    steps.add(3, batch(replaced=1), metrics(3.0))
    logged = steps.flush()
    assert (logged["loss"], logged["skipped"], logged["skipped_total"]) == (2.0, 1.0, 4)
    assert (logged["fallback_scenes"], logged["replaced_scenes"]) == (3.0, 3)
    assert "per_scene" not in logged


def test_the_scenes_of_a_skipped_step_are_named_though_the_loader_reuses_their_memory(caplog):
    steps, arrays = window(), batch(first=40)
    steps.add(7, arrays, metrics(np.nan, skipped=1, bad=(1, 3)))
    arrays["scene"][:] = -1
    steps.flush()
    assert "step 7: loss nan, gradient norm 2.0. Scenes 41, 43" in caplog.text


def test_budgets():
    steps = window(train__nonfinite_budget=1)
    for step in (1, 2):
        steps.check_budgets()
        steps.add(step, batch(), metrics(np.nan, skipped=1))
        steps.flush()
    with pytest.raises(NumericsError, match="2 non-finite steps, train.nonfinite_budget = 1: step 2: loss nan"):
        steps.check_budgets()

    steps = window(scenes=100, data__max_replaced=0.02)
    steps.add(1, batch(replaced=2), metrics())
    steps.flush()
    steps.check_budgets()  # 2 of 100 scenes
    steps.add(2, batch(replaced=1), metrics())
    steps.flush()
    with pytest.raises(DataError, match="3 of 8 scenes could not be read: more than data.max_replaced = 0.02"):
        steps.check_budgets()
