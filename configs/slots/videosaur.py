"""VideoSAUR (arXiv 2306.04829) at a small size, on pixels of patches instead of DINOv2's features.

    python -m cjepa_jax.train --config=configs/slots/videosaur.py --workdir=runs/videosaur
    python -m cjepa_jax.evaluate --config=configs/evals/segments.py --checkpoint=runs/videosaur

Published: DINOv2 ViT-S/14 features of 14 x 14 patches, 7 slots of 128, a slot mixer with MLPs of 1024, 100,000 steps.
Features of DINOv2 say where they are (placed=False). Their variance is taken to be 1, and that of these pixels is about
.03. So the weight of the features is 30 here, and 1 there. See docs/SLOTS.md.

    --config.objective.similarity=0.0             features alone
    --config.objective.videosaur.decoder=mixer    the published decoder
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.slots import savi


def get_config():
    config = savi.get_config().unlock()
    config.train.steps = 6000
    config.optim.peak = 4e-3
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.videosaur:VideoSaurLoss",
            videosaur=ConfigDict(
                dict(
                    slots=7,
                    width=32,
                    fixed=False,
                    embed=64,
                    hidden=0,
                    first=3,
                    iterations=2,
                    heads=4,
                    blocks=2,
                    units=(64, 64),
                    decoder="mlp",
                    placed=True,
                )
            ),
            patch=4,
            features=30.0,
            similarity=0.3,
            contrast=0.0,
            texture=0.3,
            temperature=0.15,
            contrast_temperature=0.1,
        )
    )
    return config.lock()
