"""LeWorldModel (arXiv 2603.19312) in a small size, on Rooms.

    python -m cjepa_jax.train --config=configs/family/lewm.py

As published: windows of 4 frames, a projector with batch norm behind the encoder and another behind the predictor, a
causal predictor that the action modulates (AdaLN-zero), squared error with gradients on both sides plus 0.09 times the
Epps-Pulley statistic of each time's latents, no target network. Different: frames of 32 x 32, no skipped frames, an
encoder of 3 blocks whose tokens are flattened (the paper: ViT-Ti with a class token), 256 slices, a higher rate.

SIGReg starts near 0.4 x 64, its value for latents that are all equal, and falls. So the alarm for collapse waits for
`objective.grace` steps. Expected: docs/WORLD_MODELS.md.

The wall and the door stay in one place. If each episode has its own, latents of this size hold these places, which do
not change and so are easy to predict, and not the dot's. Inverse dynamics mend most of it (docs/WORLD_MODELS.md).

    --config.objective.sigreg_weight=0     a control that collapses
    --config.data.options.wall="(0.35, 0.65)" --config.data.options.door="(0.2, 0.8)"     drawn per episode
    --config.objective.inverse_weight=1                                                   inverse dynamics
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.train.batch = 64
    config.train.steps = 800
    config.data.source = "cjepa_jax.data.worlds.acting:Rooms"
    config.data.options = ConfigDict(dict(wall=(0.5, 0.5), door=(0.5, 0.5)))
    config.data.size = 32
    config.data.frames = 4
    config.data.count = 20_000
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    config.mask.anchor = 0
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.world:World",
            encoder=ConfigDict(dict(variant="Mu/8", tubelet=1, depth=3)),
            predictor=ConfigDict(
                dict(type="cjepa_jax.models.dynamics:Causal", history=3, depth=2, heads=4, head=16, hidden=128)
            ),
            latent="flat",
            projection=32,
            projector=ConfigDict(dict(hidden=(256,), norm="batch", activation="gelu")),
            predictor_projector=ConfigDict(dict(hidden=(256,), norm="batch", activation="gelu")),
            sigreg_weight=0.09,  # the one hyper-parameter
            inverse_weight=0.0,  # PLDM's terms. See the docstring
            variance_weight=0.0,
            covariance_weight=0.0,
            similarity_weight=0.0,
            slices=256,
            samples="times",
            grace=400,
        )
    )
    config.optim.peak = 1e-3
    config.optim.weight_decay = 1e-3
    config.optim.clip = 1.0
    config.probe.every = 400
    return config.lock()
