"""SimCLR (arXiv 2002.05709, section 2) on small clips: the encoder, scenes and budget of clips.py.

    python -m cjepa_jax.train --config=configs/baselines/simclr.py

As published: one hidden layer, NT-Xent over both views of all scenes of the batch with the temperature 0.1, half of
the views blurred. Different: a ViT whose tokens are averaged, AdamW instead of LARS, batches of 32 (there 4096, with as
many more negatives), crops of 0.3 and more of the frame instead of 0.08. All frames of a clip share a view.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import baselines


def get_config():
    config = baselines.scenes_alone()
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.contrast:SimClr",
            encoder=config.objective.encoder,
            projector=ConfigDict(dict(hidden=(512,), out=64, norm="batch")),
            views=ConfigDict(dict(count=2, **baselines.VIEWS, blur=(0.5,), solarise=(0.0,))),
            temperature=0.1,
        )
    )
    return config.lock()
