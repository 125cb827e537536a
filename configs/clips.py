"""Small clips: the whole method on 4 frames of 64 pixels, in about ten minutes on two laptop cores.

    python -m cjepa_jax.train --config=configs/clips.py

The base of configs/worlds, configs/baselines and configs/ablations. Expected: docs/RESULTS_MICRO.md, "clips". Settings
that differ from METHOD's were chosen on seed 0, so score other seeds. `mask.anchor` shows a removed object once, so
that its features can be inferred. An elementwise loss on normed targets bounds the scale of the three terms, and lambda
is adapted to it (the causal term is summed over D = 96).

    --config.seed=1
    --config.mask.anchor=0 --config.objective.prediction_loss=smooth_l1 --config.objective.target_norm=none \
        --config.objective.causal_weight=0.5     METHOD (10) unchanged
    --config.data.source=cjepa_jax.data.worlds:Shadows     another world
"""

from cjepa_jax.configs import vitl


def get_config():
    config = vitl.get_config()
    config.train.batch = 32
    config.train.steps = 750
    config.data.size = 64
    config.data.frames = 4
    config.data.count = 10_000
    config.data.intervened = "rerender"
    config.data.row_lengths = (0.8, 1.0)
    config.data.workers = 1
    config.data.threads = 2
    config.mask.anchor = 1
    config.objective.encoder.variant = "Mu/8"
    config.objective.predictor.depth = 2
    config.objective.predictor.width = 48
    config.objective.predictor.heads = 4
    config.objective.prediction_loss = "elementwise"
    config.objective.target_norm = "layer_norm"
    config.objective.causal_weight = 0.005
    config.optim.peak = 1e-3
    config.optim.warmup_share = 0.06
    config.checkpoint.every = 100
    config.probe.every = 150
    config.log.every = 10
    return config
