"""Two predictors on one encoder, for hidden times and for hidden places: MC-JEPA as some lists of JEPA describe it.

    python -m cjepa_jax.train --config=configs/family/mcjepa_factored.py

The published MC-JEPA (arXiv 2307.12698) has neither masks nor predictors: configs/family/mcjepa.py. Here each clip
hides half of its times or half of its places, with equal chances. The loss is the squared error of layer-normed targets
plus SIGReg with the weight 0.01. Encoder and budget are those of clips.py.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import baselines


def get_config():
    config = baselines.scenes_alone()
    config.data.row_lengths = (0.6, 1.0)
    config.mask = ConfigDict(dict(type="cjepa_jax.masks.factored:draw", motion=0.5, times=0.5, places=0.5))
    config.objective.type = "cjepa_jax.objectives.factored:Factored"
    config.objective.prediction_loss = "mse"
    config.objective.causal_weight = 0.0
    return config.lock()
