"""The description's method at the size of clips: the reference of the ablations. Each of the others changes one thing.

    python -m cjepa_jax.train --config=configs/ablations/full.py

The ablation "Full Causal-JEPA" of the description. Objective, masks, intervention and momentum are those of METHOD, as
in configs/vitl.py: smooth l1 of each token's error norm, raw targets, lambda 0.5, mu 0.01, pixels of removed objects
set to zero, no anchor, 1 to 3 objects of 5 to 40 % of the tokens. Scenes, network, batch, steps and learning rate are
clips.py's. Compare an ablation with this one at the same seeds. configs/ablations/clips has the ablations of its own
settings. Not tuned for its scores, and not run to its end by us.
"""

from cjepa_jax.configs import clips, vitl


def get_config():
    config, document = clips.get_config(), vitl.get_config()
    config.data.intervened = document.data.intervened
    config.mask.anchor = document.mask.anchor
    config.objective.prediction_loss = document.objective.prediction_loss
    config.objective.target_norm = document.objective.target_norm
    config.objective.causal_weight = document.objective.causal_weight
    return config
