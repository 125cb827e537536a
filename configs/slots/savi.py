"""SAVi as in SlotFormer (arXiv 2210.05861) at a small size: slots of colliding balls from 32 x 32 pixels.

    python -m cjepa_jax.train --config=configs/slots/savi.py --workdir=runs/savi

`slots/mbo` in the log says how well slots match the objects. Published: 64 x 64 pixels, clips of 6 frames, 7 slots of
128 that are drawn, 64 channels, Adam 1e-4 for 8 epochs. See docs/SLOTS.md.

    --config.objective.savi.noise=True --config.objective.kl_weight=1e-4     slots that are drawn, as published
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.train.batch = 16
    config.train.steps = 3000
    config.data.size = 32
    config.data.frames = 3
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.savi:SaviLoss",
            savi=ConfigDict(
                dict(
                    slots=7,
                    width=32,
                    channels=(16, 16, 16, 16),
                    embed=32,
                    hidden=64,
                    units=64,
                    iterations=2,
                    decoder=(16, 16),
                    strides=(2, 2),
                    noise=False,
                )
            ),
            patch=4,
            kl_weight=0.0,
        )
    )
    config.optim.peak = 1e-3
    config.probe.every = 0
    config.checkpoint.best = ""
    return config.lock()
