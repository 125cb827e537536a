"""eb_jepa's video example in a small size: multi-step prediction of two drifting digits, as in Moving MNIST.

    python -m cjepa_jax.train --config=configs/family/eb_jepa_video.py --workdir=runs/eb_jepa_video
    python -m cjepa_jax.evaluate --config=configs/evals/digits.py --checkpoint=runs/eb_jepa_video

As in the example (Apache-2.0): each frame is encoded alone into a map of features, a predictor gives the next frame's
map from those of earlier frames, predictions of several steps are made from predictions, and both networks learn from
squared errors with gradients on both sides plus variance and covariance terms. No action, no target network.

Different: a ViT encoder and a predictor of frame-causal blocks that sees up to five frames (there a ResNet, and a U-Net
that sees two), no projector before the terms against collapse, digits of a bitmap font that code draws (no download),
32 x 32. The weights of the terms are those of eb_jepa's other example (configs/family/pldm.py), since those of this one
were not obtained. Expected: docs/WORLD_MODELS.md.

    --config.objective.variance_weight=0 --config.objective.covariance_weight=0     a control that collapses
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import lewm


def get_config():
    config = lewm.get_config().copy_and_resolve_references().unlock()
    config.data.source = "cjepa_jax.data.worlds.digits:Digits"
    config.data.options = ConfigDict()
    config.data.frames = 6
    config.train.batch = 32
    config.train.steps = 300
    config.checkpoint.best = "probe/position_r2"
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.world:World",
            encoder=config.objective.encoder,
            predictor=ConfigDict(
                dict(
                    type="cjepa_jax.models.dynamics:Interleaved",
                    history=5,
                    depth=2,
                    width=96,
                    heads=4,
                    positions="rope",
                )
            ),
            latent="tokens",
            given=2,
            rollout=4,
            rollout_weight=1.0,
            samples="space",
            covariance_weight=8.0,
            variance_weight=16.0,
        )
    )
    return config.lock()
