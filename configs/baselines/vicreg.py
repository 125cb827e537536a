"""VICReg (arXiv 2105.04906, section 4) on small clips: the encoder, scenes and budget of clips.py.

    python -m cjepa_jax.train --config=configs/baselines/vicreg.py

As published: two hidden layers with batch norm (narrower than 8192), weights 25, 25 and 1, BYOL's views. Different: a
ViT whose tokens are averaged, AdamW instead of LARS, batches of 32 (there 2048), crops of 0.3 and more of the frame
instead of 0.08. All frames of a clip share a view.

    --config.objective.variance=0     a control that collapses
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import baselines


def get_config():
    config = baselines.scenes_alone()
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.contrast:VicReg",
            encoder=config.objective.encoder,
            projector=ConfigDict(dict(hidden=(512, 512), out=128, norm="batch")),
            views=ConfigDict(dict(count=2, **baselines.VIEWS, blur=(1.0, 0.1), solarise=(0.0, 0.2))),
            invariance=25.0,
            variance=25.0,
            covariance=1.0,
        )
    )
    return config.lock()
