"""Objects that are learned with the rest: slots, fitted to the target encoder's tokens.

    python -m cjepa_jax.train --config=configs/ablations/clips/slots.py

The ablation "Joint segmentation learning" of the description. Slot attention (arXiv 2006.15055) with the MLP decoder of
DINOSAUR (arXiv 2209.14860; there 3 hidden layers of 1024 and more, and a frozen encoder). No world can be simulated
again without a slot, so its patches are painted black: compare with zero_pixels.py. Which slots are removed is drawn
inside the step; the data's own objects serve `slots/mbo`, pictures and probes only.

    --config.objective.slots.count=5     fewer slots
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().unlock()
    config.data.intervened = "zero_pixels"
    config.data.row_lengths = (1.0,)  # the draw is made inside the step, where a row holds the whole grid
    config.objective.type = "cjepa_jax.objectives.joint:Joint"
    config.objective.slots = ConfigDict(dict(count=7, width=64, iterations=3, hidden=128, layers=3))
    config.objective.slots_weight = 1.0  # of the slots' reconstruction error
    config.objective.area = config.mask.get_ref("area")
    config.objective.anchor = config.mask.get_ref("anchor")
    config.objective.fallback = 0.5  # share of the tokens that are hidden where no slot is eligible
    return config.lock()
