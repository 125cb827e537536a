"""DINO (arXiv 2104.14294, section 3) on small clips: the encoder, scenes and budget of clips.py.

    python -m cjepa_jax.train --config=configs/baselines/dino.py

As published: two large and small views, a head of three layers without batch norm, cosine similarities with learned
directions, temperatures 0.1 and 0.04, a centre with momentum 0.9, an EMA teacher from 0.996 to 1. Different: 256
directions of 64 (there 65,536 of 256), four small views (there 8), ReLU instead of GELU, a ViT whose tokens are
averaged, position codes that count tokens from the view's corner (there a resized table), the teacher's temperature and
the last layer are not warmed up. All frames of a clip share a view.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import baselines


def get_config():
    config = baselines.scenes_alone()
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.contrast:Dino",
            encoder=config.objective.encoder,
            projector=ConfigDict(dict(hidden=(512, 512), out=64, norm="none")),
            views=ConfigDict(
                dict(
                    count=2,
                    **baselines.VIEWS,
                    blur=(1.0, 0.1),
                    solarise=(0.0, 0.2),
                    small=4,
                    small_size=32,
                    small_scale=(0.1, 0.3),
                )
            ),
            prototypes=256,
            student=0.1,
            teacher=0.04,
            centre=0.9,
            ema=(0.996, 1.0),
        )
    )
    return config.lock()
