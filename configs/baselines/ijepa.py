"""I-JEPA (arXiv 2301.08243, section 3) on small clips: multi-block masks, the encoder, predictor and budget of clips.

    python -m cjepa_jax.train --config=configs/baselines/ijepa.py

As published: 4 targets and a context block, layer-normed targets, smooth l1 of each component, linear EMA 0.996 to 1.
Different: blocks span all times of a clip. The four targets are predicted together, so they see each other and a shared
token counts once (published: each in a separate forward pass). A target's area and shape are independent, blocks reach
the last row and column, and tokens are not cut to the batch's shortest, unless set as below. Predictor, optimiser and
schedule are clips.py's.

    --config.data.frames=1     images, as published
    --config.mask.tied=True --config.mask.corner=True --config.mask.batch=64     masks as published, 64 images a GPU
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().unlock()
    config.data.intervened = "none"
    config.data.row_lengths = (0.6, 1.0)
    config.mask = ConfigDict(
        dict(
            type="cjepa_jax.masks.multiblock:draw",
            targets=4,
            target_scale=(0.15, 0.2),  # of the plane
            aspect=(0.75, 1.5),  # height / width
            context_scale=(0.85, 1.0),
            min_keep=10,  # context tokens at least, on a plane of 14 x 14; fewer on a smaller
            tied=False,  # True: one number gives a target's area and its shape
            corner=False,  # True: the last row and column stay free
            batch=1,  # k: contexts cut to the fewest tokens of k scenes
        )
    )
    config.objective.prediction_loss = "elementwise"
    config.objective.target_norm = "layer_norm"
    config.objective.causal_weight = config.objective.sigreg_weight = 0.0
    config.objective.ema, config.objective.ema_kind = (0.996, 1.0), "linear"
    return config.lock()
