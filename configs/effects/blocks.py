"""I-JEPA blocks are hidden, with the causal pairs of tiny: objects are drawn and re-simulated, but stay visible.

    python -m cjepa_jax.train --config=configs/effects/blocks.py
    --config.data.intervened=rerender_other     the same masks without the link to the objects

As many tokens as tiny hides, drawn independently of the objects. The predictor is told which objects are removed.
"""

from cjepa_jax.configs.effects import named


def get_config():
    config = named.get_config()
    config.mask.type = "cjepa_jax.masks.random:matched_blocks"
    with config.unlocked():
        config.mask.pair = "drawn"
    return config
