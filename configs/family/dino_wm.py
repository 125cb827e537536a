"""A world model of patch tokens on a frozen encoder, as DINO-WM (arXiv 2411.04983), in a small size, on Rooms.

    python -m cjepa_jax.train --config=configs/family/dino_wm.py --workdir=runs/dino_wm --config.init_from=tiny
    python -m cjepa_jax.planning --checkpoint=runs/dino_wm --task=room --over=last

As published: the encoder is pretrained and frozen, all patch tokens of a frame stand for it, a frame-causal predictor
sees three frames and their actions and is trained by teacher forcing with the squared error alone, no term against
collapse is needed, and planning compares the last predicted tokens with the goal's.

Different: the encoder is one of this package (`init_from`: a run, an export, or public weights; there DINOv2), the
action is a token of its frame (there its embedding is appended to each patch token). Latents and predictions are
layer-normed (`target_norm`, as in V-JEPA 2-AC), so that the loss and the distance to the goal do not depend on the
scale of the encoder's tokens. The agent's state is not predicted. Without `init_from` the encoder is random, and the
numbers are those of a control. Expected: docs/PLANNING.md.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import lewm


def get_config():
    config = lewm.get_config().copy_and_resolve_references().unlock()
    config.data.size = 48
    config.train.batch = 16
    config.train.steps = 200
    config.probe.every = 0
    config.checkpoint.best = ""
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.world:World",
            encoder=ConfigDict(dict(variant="64x3x2x256/6", tubelet=1)),
            predictor=ConfigDict(
                dict(
                    type="cjepa_jax.models.dynamics:Interleaved",
                    history=3,
                    depth=2,
                    width=96,
                    heads=4,
                    positions="rope",
                )
            ),
            latent="tokens",
            target="frozen",
            target_norm="layer_norm",
        )
    )
    config.optim.freeze = ("encoder",)
    return config.lock()
