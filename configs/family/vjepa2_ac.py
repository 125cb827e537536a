"""V-JEPA 2-AC (arXiv 2506.09985) in a small size, on Push: an action-conditioned predictor on a frozen encoder.

    python -m cjepa_jax.train --config=configs/family/vjepa2_ac.py --config.init_from=runs/clips

As published: each frame is encoded alone, tokens are normalised, [action, state, tokens] of each frame are one sequence
that is causal by frame, with the rotary positions of the released code. The loss is L1, teacher-forced plus rolled out
over two frames with true actions and states. Different: the sizes (there 24 blocks of 1024, 256 tokens per frame, 7
numbers of action and state), no cool-down of the rate.

`init_from` names a run, an export or public weights, such as V-JEPA 2's. Without it the encoder is random, and the
numbers are those of a control. Expected: docs/WORLD_MODELS.md.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.data.source, config.data.options = "cjepa_jax.data.worlds.acting:Push", ConfigDict()
    config.data.frames = 8
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    config.mask.anchor = 0
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.world:World",
            encoder=config.objective.encoder,
            predictor=ConfigDict(
                dict(type="cjepa_jax.models.dynamics:Interleaved", history=7, depth=3, width=96, heads=4)
            ),
            latent="tokens",
            target="frozen",
            target_norm="layer_norm",
            distance="l1",
            rollout=2,
            rollout_weight=1.0,
            proprio=True,
        )
    )
    config.optim.freeze = ("encoder",)
    config.optim.clip = 1.0
    return config.lock()
