"""LeJEPA (arXiv 2511.08544) on small clips: the encoder, scenes and budget of clips.py.

    python -m cjepa_jax.train --config=configs/baselines/lejepa.py

As in the paper's minimal listing: four views of one size, a projector of two hidden layers with batch norm (2048 wide
there) to 16 numbers, lambda 0.02, 17 knots up to 3, 256 slices drawn in each step, one statistic per view. Different: a
ViT whose tokens are averaged, clips.py's optimiser and schedule, crops of 0.3 and more of the frame. The paper's main
recipe has two large and six small views. All frames of a clip share a view.

    --config.objective.weight=0     a control that collapses
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import baselines


def get_config():
    config = baselines.scenes_alone()
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.siamese:LeJepa",
            encoder=config.objective.encoder,
            projector=ConfigDict(dict(hidden=(512, 512), out=16, norm="batch")),
            views=ConfigDict(dict(count=4, **baselines.VIEWS, blur=(0.5,), solarise=(0.2,))),
            weight=0.02,
            slices=256,
            knots=17,
            t_max=3.0,
        )
    )
    return config.lock()
