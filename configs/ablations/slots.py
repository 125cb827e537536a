"""Objects that are learned together with the model: slots, fitted to the target encoder's tokens.

    python -m cjepa_jax.train --config=configs/ablations/slots.py

The ablation "Joint segmentation learning" of the description. Slot attention (arXiv 2006.15055) with the MLP decoder of
DINOSAUR (arXiv 2209.14860; there 3 hidden layers of 1024 and more, and a frozen encoder). The patches of removed slots
are set to zero. The removed slots are drawn inside the step. The objects of the data are only used for `slots/mbo`,
pictures and probes. Everything else is as in full.py.

    --config.objective.slots.count=5     fewer slots
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config().unlock()
    config.data.row_lengths = (1.0,)  # the draw is made inside the step, where a row holds the whole grid
    config.objective.type = "cjepa_jax.objectives.joint:Joint"
    config.objective.slots = ConfigDict(dict(count=7, width=64, iterations=3, hidden=128, layers=3))
    config.objective.slots_weight = 1.0  # of the slots' reconstruction error
    config.objective.area = config.mask.get_ref("area")
    config.objective.anchor = config.mask.get_ref("anchor")
    config.objective.fallback = 0.5  # share of the tokens that are hidden where no slot is eligible
    return config.lock()
