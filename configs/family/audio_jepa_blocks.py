"""Audio-JEPA with multi-block masks, another config of the published code: three targets, a context of 0.8 to 1.

    python -m cjepa_jax.train --config=configs/family/audio_jepa_blocks.py

The rest is audio_jepa.py. A target's share of the plane is I-JEPA's (0.15 to 0.2), as that of the published config was
not obtained. configs/suites/family_sounds.py compares the two.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import audio_jepa


def get_config():
    config = audio_jepa.get_config().copy_and_resolve_references().unlock()
    config.mask = ConfigDict(
        dict(
            type="cjepa_jax.masks.multiblock:draw",
            targets=3,
            target_scale=(0.15, 0.2),
            aspect=(0.5, 2.0),
            context_scale=(0.8, 1.0),
            min_keep=10,
            tied=False,
            corner=False,
            batch=1,
        )
    )
    return config.lock()
