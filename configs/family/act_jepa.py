"""ACT-JEPA (arXiv 2501.14622), our reading: imitation with the latents of the next frames, on Rooms.

    python -m cjepa_jax.train --config=configs/family/act_jepa.py
    python -m cjepa_jax.planning --checkpoint=runs/act_jepa --task=any

No code of it was found, and its widths and loss weights were not obtained. Taken from the paper: a context encoder of
the observation (an image and the agent's state), a predictor from it and mask tokens to the latents of the next n
observations, their targets by a moving average of the encoder, a decoder to the next n actions, and the sum of both
errors. Different: a small ViT (there ResNet-18), and the clip's last frame as the goal. See docs/FAMILY.md.

Episodes are 200 of the world's scripted expert, with noise. 195 of them end at the expert's goal. In Push-T, in clips
of 24 frames, 60 of 100 do. A goal image is the clip's last frame in each case (hindsight).

    --config.objective.latent_weight=0 --config.train.steps=5163     a control of equal compute: the actions alone
    --config.data.source=cjepa_jax.data.worlds.acting:Push --config.data.options="{'policy': 'episode'}" \
        --config.data.frames=24 --config.objective.encoder.mean="(0.98,0.98,0.98)"     Push-T
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.train.batch = 32
    config.train.steps = 2000
    config.data.source = "cjepa_jax.data.worlds.acting:Rooms"
    config.data.options = ConfigDict(dict(policy="any", wall=(0.5, 0.5), door=(0.5, 0.5)))
    config.data.size = 32
    config.data.frames = 16
    config.data.count = 200
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    config.mask.anchor = 0
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.act:Act",
            encoder=ConfigDict(
                # The mean is the colour of the ground of Rooms, which becomes 0. Name another for other pictures.
                dict(variant="Mu/8", tubelet=1, depth=2, mean=(0.925, 0.918, 0.886), std=(0.25, 0.25, 0.25))
            ),
            context=ConfigDict(dict(depth=1)),
            predictor=ConfigDict(dict(depth=2, width=48, heads=4)),
            decoder=ConfigDict(dict(depth=2, width=48, heads=4)),
            chunk=6,  # actions and frames that are predicted
            latent_weight=1.0,
            goal="last",
            proprio=True,
            action_distance="l1",
            latent_distance="l1",
        )
    )
    config.optim.peak = 1e-3
    config.optim.clip = 1.0
    config.checkpoint.best = ""
    config.probe.every = 0
    config.probe.train = 128
    config.probe.test = 128
    return config.lock()
