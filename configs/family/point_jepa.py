"""Point-JEPA (arXiv 2404.16432) in a small size, on eight kinds of surfaces.

    python -m cjepa_jax.train --config=configs/family/point_jepa.py

As published: farthest points, nearest neighbours and a small PointNet for each group, groups in the order of their
nearest neighbours, runs of them as targets (4 of 0.15 to 0.2) and as context (0.4 to 0.75 of the rest), codes of the
centres added before every block of the encoder, layer-normed last blocks of an EMA as targets, smooth l1 with beta 2.
Different: the sizes (there 64 groups of 32 of 1024 points, S/1, a predictor of 6 blocks of 192), the four targets are
predicted together and differ from scene to scene, no dropout, an EMA from 0.998 (there 0.9995, for 100 times as many
steps).

The published size: point_jepa_published.py. Your own clouds: docs/FAMILY.md.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.train.batch = 64
    config.train.steps = 300
    config.data.source = "cjepa_jax.data.sources.shapes:Shapes"
    config.data.options = ConfigDict(dict(points=512))
    config.data.frames = 1
    config.data.crop = True  # turned, scaled, another first centre
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    config.mask = ConfigDict(dict(type="cjepa_jax.masks.runs:draw", targets=4, target=(0.15, 0.2), context=(0.4, 0.75)))
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.points:PointJepa",
            encoder=ConfigDict(
                dict(
                    type="cjepa_jax.models.points:PointEncoder",
                    variant="Mu/1",
                    groups=32,
                    neighbours=16,
                    hidden=(64, 96, 128),
                )
            ),
            predictor=ConfigDict(dict(type="cjepa_jax.models.points:PointPredictor", depth=2, width=48, heads=4)),
            prediction_loss="elementwise",
            beta=2.0,
            ema=(0.998, 0.9999),
            ema_kind="linear",
        )
    )
    config.optim.peak = 5e-4
    config.optim.clip = 1.0
    config.checkpoint.best = "probe/class_r2"
    config.probe.every = 150
    return config.lock()
