"""The reference of the ablations of clips.py's settings: configs/clips.py. Each of the others changes one thing.

    python -m cjepa_jax.train --config=configs/ablations/clips/full.py

The ablation "Full Causal-JEPA" of the description with clips.py's settings. The description's settings are in
configs/ablations/full.py. Compare an ablation with this one at the same seeds. The values that the others change are
written out here.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.data.intervened = "rerender"
    config.mask.type = "cjepa_jax.masks.objects:draw"
    config.mask.max_objects = 3
    config.objective.prediction_loss = "elementwise"
    config.objective.causal_weight = 0.005
    config.objective.sigreg_weight, config.objective.sigreg_kind = 0.01, "kl"
    config.objective.encoder_input = "context"
    config.objective.predictor.depth, config.objective.predictor.width = 2, 48
    config.objective.predictor.attention = "joint"
    config.objective.ema = (0.996, 1.0)
    return config
