"""Masked autoencoder (arXiv 2111.06377, section 3; clips: arXiv 2205.09113) with the encoder and the budget of clips.

    python -m cjepa_jax.train --config=configs/baselines/mae.py

75 % of the tokens are hidden at random, as in the paper for images. The paper hides 90 % of clips
(--config.mask.ratio=0.9). The decoder has the width and depth of the predictor (the paper's: 8 blocks of 512 with 16
heads). There is no class token. A token reconstructs all of its frames.

    --config.objective.norm_pixels=False     pixels that are not normalised patch by patch
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.data.intervened = "none"
    config.data.row_lengths = (0.25, 1.0)
    config.mask = ConfigDict(dict(type="cjepa_jax.masks.random:draw", ratio=0.75))
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.mae:Mae",
            encoder=config.objective.encoder,
            decoder=ConfigDict(dict(depth=2, width=48, heads=4)),
            norm_pixels=True,  # each patch's pixels to zero mean and unit variance
        )
    )
    return config.lock()
