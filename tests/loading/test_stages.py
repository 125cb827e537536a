"""V-JEPA 2's two stages by two commands: still images first, then clips with images, from the first run's weights."""

import json

import numpy as np
import pytest

from tests import running
from tests.loading.test_init_from import checkpointed

MIXTURE = "cjepa_jax.data.sources.mixture:Mixture"
IMAGES = {"type": "cjepa_jax.data.worlds:Shadows", "frames": 1}
CLIPS = {"type": "cjepa_jax.data.worlds:Balls", "weight": 3}
SAME = dict(config="configs/family/vjepa2.py", data__source=MIXTURE, data__frames=4, train__steps=4,
            checkpoint__every=4, probe__every=0, checkpoint__best="", mask__anchor=None, mask__area=None,
            mask__max_objects=None, mask__both=True, objective__predictor__heads=2)  # fmt: skip


@pytest.mark.slow
def test_images_first_and_clips_with_images_from_there(tmp_path):
    first, second = tmp_path / "images", tmp_path / "videos"
    running.run(running.command(first, data__options={"sources": {"images": IMAGES}}, **SAME))
    options = {"sources": {"clips": CLIPS, "images": IMAGES}}
    argv = running.command(second, data__options=options, init_from=first, optim__freeze="('encoder',)", **SAME)
    out, _ = running.run(argv)
    assert "predictor: taken" in out
    assert json.loads((second / "init_from.json").read_text())["predictor"] == "taken"
    before, after = checkpointed(first, 4, "params"), checkpointed(second, 4, "params")
    for name, array in after.items():
        if "predictor" not in name:
            np.testing.assert_array_equal(array, before[name], err_msg=name)  # frozen, so it is the first stage's
    moved = "predictor/stack/blocks/mlp/up/kernel"
    assert (after[moved] != before[moved]).any() and np.abs(after[moved] - before[moved]).max() < 0.05
