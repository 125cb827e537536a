"""BYOL (arXiv 2006.07733, section 3) on small clips: the encoder, scenes and budget of clips.py.

    python -m cjepa_jax.train --config=configs/baselines/byol.py

As published: projector and predictor of one hidden layer with batch norm (narrower than 4096 and 256), an EMA target
from 0.996 to 1, the loss 2 - 2 cos in both directions, and the second view's rarer blur and its solarisation.
Different: a ViT whose tokens are averaged, AdamW instead of LARS, crops of 0.3 and more of the frame instead of
0.08. All frames of a clip share a view.

    --config.objective.predict=False --config.objective.stop_gradient=False     a control that collapses
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import baselines


def get_config():
    config = baselines.scenes_alone()
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.siamese:Byol",
            encoder=config.objective.encoder,
            projector=ConfigDict(dict(hidden=(512,), out=64, norm="batch")),
            predictor=ConfigDict(dict(hidden=(512,), norm="batch")),
            views=ConfigDict(dict(count=2, **baselines.VIEWS, blur=(1.0, 0.1), solarise=(0.0, 0.2))),
            predict=True,
            stop_gradient=True,
            ema=(0.996, 1.0),
        )
    )
    return config.lock()
