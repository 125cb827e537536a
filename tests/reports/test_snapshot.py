"""What the report is given of an objective without a target or a residual: MAE's paintings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.masks import random
from cjepa_jax.objectives.mae import Mae
from cjepa_jax.reports import pictures, snapshot
from cjepa_jax.types import Batch, Rows, TrainState
from tests import scenes


def test_a_painter_shows_scenes_features_and_paintings(tmp_path):
    mask = functools.partial(random.draw, ratio=0.75)
    of = scenes.scene_map(frames=4, intervened="none", mask=mask, with_masks=True)
    encoder = {"variant": f"Mu/{scenes.PATCH}", "depth": 1}
    objective = Mae(encoder, {"depth": 1, "width": 16, "heads": 2}, steps=10)
    arrays = scenes.batch(frames=4, intervened="none", mask=mask)
    batch = jax.tree.map(jnp.asarray, Batch(**arrays | {"rows": Rows(**arrays["rows"])}))
    params, target, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    zero = jnp.zeros((), jnp.int32)
    taken = snapshot.take(objective, TrainState(zero, params, target, extra, {}, zero), params, of, 4)
    assert not {"predicted_change", "true_change", "intervened"} & set(taken)
    assert taken["painted"].dtype == np.uint8 and (taken["painted"] != taken["video"]).any()
    np.testing.assert_array_equal(taken["masked"], ~arrays["context"])
    np.savez(tmp_path / "report.npz", **taken)
    page = pictures.paintings(pictures.Scenes.load(tmp_path / "report.npz"))
    assert page.count("<img") == 4 * 3 * 2  # scenes, rows, tubelets
    assert page.count("<b>painted</b>") == 4
