"""The action-conditioned example of eb_jepa (PLDM, arXiv 2502.14819) in a small size, on Rooms.

    python -m cjepa_jax.train --config=configs/family/pldm.py

As published there: a GRU whose input is the action and whose hidden state is the latent, unrolled over 8 steps from the
first frame, squared error with gradients on both sides, and four terms against collapse with the example's weights:
covariance 8 and variance 16 of the first latents over the batch, similarity 12 of neighbours in time, inverse dynamics
1. Different: a ViT whose tokens are flattened and projected (there a convolutional Impala encoder), RGB frames of 32 x
32
(there two channels of 65 x 65), a batch of 64 (there 384).

    --config.objective.inverse_weight=0     a control: there, planning fails without it
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import lewm


def get_config():
    config = lewm.get_config().copy_and_resolve_references().unlock()
    config.data.frames = 9
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.world:World",
            encoder=config.objective.encoder,
            predictor=ConfigDict(dict(type="cjepa_jax.models.dynamics:Recurrent")),
            latent="flat",
            projection=128,
            projector=ConfigDict(dict(hidden=(256,), norm="layer", activation="gelu")),
            teacher_weight=0.0,
            rollout=8,
            rollout_weight=1.0,
            samples="first",
            covariance_weight=8.0,
            variance_weight=16.0,
            similarity_weight=12.0,
            inverse_weight=1.0,
        )
    )
    return config.lock()
