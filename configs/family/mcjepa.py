"""MC-JEPA (arXiv 2307.12698) in a small size: optical flow without labels and VICReg by one encoder, on Balls. Our
reading: no code or weights of it were found, and not all of its weights.

    python -m cjepa_jax.train --config=configs/family/mcjepa.py
    python -m cjepa_jax.evaluate --config=configs/evals/flow.py --checkpoint=runs/mcjepa

Taken from it: one pyramid of ConvNeXt blocks for both tasks, flow from coarse to fine by correlations (PWC-Net), norms
after its convolutions, clipped flows, no target network and no masks, reconstruction by l1, l2 and SSIM, regression of
warped maps, edge-aware smoothness, consistency of both directions, variance and covariance at every level, VICReg of
two views. Different: sizes of pyramid, projector and batch, the content's views are of the same frames (there of
ImageNet), both losses in every step (there batches alternate), motion from the first step (there from epoch 10), the
mean over levels instead of the sum, hidden pixels are not reconstructed, and these weights. docs/FAMILY.md has a table
of the differences. Expected: docs/RESULTS_FAMILY.md.

    --config.data.source=cjepa_jax.data.sources.videos:Videos --config.data.path=DIR --config.data.count=0 \
        --config.data.options="{'fps': 12.0}" --config.checkpoint.best=probe/rankme     your own videos
    --config.objective.content_weight=0     flow alone
    --config.objective.motion_weight=0      VICReg alone
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import baselines


def get_config():
    config = baselines.scenes_alone()
    config.train.batch = 16
    config.train.steps = 600
    config.data.frames = 2
    config.data.options = ConfigDict(dict(dt=0.04))  # objects move by 2 to 6 pixels
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.flow:MotionContent",
            encoder=ConfigDict(
                dict(type="cjepa_jax.models.pyramid:Pyramid", widths=(16, 32, 48, 64), blocks=(1, 1, 1, 1), kernel=3)
            ),
            head=ConfigDict(dict(type="cjepa_jax.models.pyramid:FlowHead", hidden=(48, 32), radius=3, limit=32.0)),
            projector=ConfigDict(dict(hidden=(256, 256), out=128, norm="batch")),
            views=ConfigDict(dict(count=2, **baselines.VIEWS, blur=(1.0, 0.1), solarise=(0.0, 0.2))),
            weights=ConfigDict(
                dict(
                    reconstruction=1.0,
                    regression=0.05,
                    smoothness=0.02,
                    cycle=0.02,
                    level_variance=0.05,
                    level_covariance=0.002,
                    invariance=25.0,
                    variance=25.0,
                    covariance=1.0,
                )
            ),
            pixels=(0.15, 0.15, 0.85),  # of l1, l2 and SSIM
            edge=10.0,
            occlusion=True,
            motion_weight=1.0,
            content_weight=0.01,
            motion_start=0,
        )
    )
    config.probe.every = 300
    return config.lock()
