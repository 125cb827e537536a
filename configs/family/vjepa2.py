"""V-JEPA 2 (arXiv 2506.09985) on small clips: the encoder, predictor and budget of clips.py, with rotary positions.

    python -m cjepa_jax.train --config=configs/family/vjepa2.py

As published: V-JEPA's masks, l1 of layer-normed targets, the released code's rotary positions ("rope_tile"), an EMA of
constant momentum. Different: the sizes, 0.996 instead of 0.99925 (which needs 100 times as many steps), clips.py's
optimiser and schedule, and a clip has one of the two masks instead of both.

    --config.mask.both=True     both masks for every clip, as published
    --config.objective.encoder.positions=rope --config.objective.predictor.positions=rope     true rotations
"""

from cjepa_jax.configs.baselines import vjepa


def get_config():
    config = vjepa.get_config().unlock()
    for part in (config.objective.encoder, config.objective.predictor):
        part.positions, part.position_grid = "rope_tile", ()
    config.objective.ema, config.objective.ema_kind = (0.996, 0.996), "linear"
    return config.lock()
