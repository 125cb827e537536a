"""Causal-JEPA on slots: true states of colliding balls, 3 frames given and 5 predicted, in a few minutes.

    python -m cjepa_jax.train --config=configs/slots/balls.py --workdir=runs/slots
    python -m cjepa_jax.evaluate --config=configs/evals/rollout.py --checkpoint=runs/slots

M objects, uniform over 0 .. 3, are hidden in the history of each scene. Expected: docs/SLOTS.md.

    --config.mask.most=0                        no object is hidden, only the future
    --config.mask.most=2 --config.mask.constant=42 --config.objective.slot_predictor.norm_attention=False \
        --config.objective.anchor_in_loss=True     as in the published code
    --config.mask.kind=token                    or tube: other shapes of the same size
    --config.data.options.noise=0.1             or merge=0.2, shuffle=frame: faults of slot encoders
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.train.batch = 32
    config.train.steps = 2000
    config.data.source = "cjepa_jax.data.sources.true_slots:TrueSlots"
    config.data.frames = 8
    config.data.count = 4096
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    with config.unlocked():
        config.data.options = ConfigDict(
            dict(
                of="cjepa_jax.data.worlds:Balls",
                of_options=ConfigDict(dict(objects=(4, 6), dt=0.04)),
                slots=7,
                width=48,
                noise=0.0,
                shuffle="scene",
                merge=0.0,
            )
        )
        config.mask = ConfigDict(
            dict(
                type="cjepa_jax.masks.slots:draw",
                history=3,  # frames that are given
                most=3,  # M is uniform over least .. most
                least=0,
                kind="object",  # or token, tube
                share=0.25,  # of the history, hidden with token and tube
                span=2,  # frames of a tube
                constant=-1,  # seed of a fixed set (42: the published one)
            )
        )
        config.objective = ConfigDict(
            dict(
                type="cjepa_jax.objectives.slots:Slots",
                slot_predictor=ConfigDict(dict(depth=2, heads=4, units=192, norm_attention=True, dropout=0.0)),
                history=config.mask.get_ref("history"),
                future=5,
                anchor_in_loss=False,
                auxiliary=(),
            )
        )
    config.optim.peak = 2e-3
    config.optim.weight_decay = 0.01
    config.probe.every = 0
    config.checkpoint.every = 500
    config.checkpoint.best = ""
    config.log.every = 50
    return config.lock()
