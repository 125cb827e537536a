"""The embedded default: the whole method on simulated clips, in minutes on a laptop CPU.

python -m cjepa_jax.train --config=configs/tiny.py
"""

from configs import vitl


def get_config():
    config = vitl.get_config()
    config.train.batch = 32
    config.train.steps = 1000
    config.data.size = 64
    config.data.frames = 4
    config.data.count = 10_000
    config.data.eval_count = 2048
    config.data.intervened = "rerender"
    config.data.workers = 1
    config.data.threads = 2
    config.objective.encoder.variant = "Mu/8"
    config.objective.predictor.depth = 2
    config.objective.predictor.width = 48
    config.objective.predictor.heads = 4
    config.optim.peak = 1e-3
    config.optim.warmup_share = 0.06
    config.checkpoint.every = 100
    config.probe.every = 250
    config.log.every = 10
    return config
