"""clips.py on a mixture: clips of two simulated worlds and still images of a third, in the proportions 2 : 1 : 1.

    python -m cjepa_jax.train --config=configs/data/mixture.py

Any sources can be mixed (docs/DATA.md, "Mixtures"): data sets, your own folders, worlds. All three worlds can simulate
a scene without an object, so `data.intervened = "rerender"` works. A source that cannot needs "zero_pixels".
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.source = "cjepa_jax.data.sources.mixture:Mixture"
    with config.unlocked():
        config.data.options.sources = {
            "balls": {"type": "cjepa_jax.data.worlds:Balls", "weight": 2},
            "blocks": {"type": "cjepa_jax.data.worlds:Blocks", "weight": 1},
            "shadows": {"type": "cjepa_jax.data.worlds:Shadows", "weight": 1, "frames": 1},
        }
    return config
