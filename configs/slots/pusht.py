"""Causal-JEPA on slots of Push-T, at the published size: 3 frames given, 1 predicted, every fifth frame.

    python -m cjepa_jax.data.slot_files --slots=pusht_videosaur_slots.pkl --actions=pusht_expert_action_meta.pkl \
        --proprio=pusht_expert_proprio_meta.pkl --out=data/pusht_slots
    python -m cjepa_jax.train --config=configs/slots/pusht.py --workdir=runs/pusht

Each frame has 4 slots, a token of the agent's state and one of the actions of its 5 frames. Both are standardised. The
pickle of slots is on the Hugging Face hub (HazelNam/CJEPA). Published: 30 epochs, which is 30 times the windows (the
log says how many) / 256 steps. The fixed hidden slot, the block, the loss and dropout are those of the published code,
which has a rate for each part (docs/SLOTS.md). It has not been trained by us.

    --config.mask.most=2                       1 and 2 were published
    --config.objective.auxiliary="('action',)" without the agent's state
    --config.mask.constant=-1 --config.objective.anchor_in_loss=False     slots drawn for each window
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.slots import clevrer


def get_config():
    config = clevrer.get_config().copy_and_resolve_references().unlock()
    config.train.steps = 200_000
    config.data.path = "data/pusht_slots"
    config.data.frames = 4
    config.data.options = ConfigDict(dict(skip=5, stride=1, standardise=True))
    config.mask.history = 3
    config.mask.most = 1
    config.objective.history = 3
    config.objective.future = 1
    config.objective.auxiliary = ("proprio", "action")
    return config.lock()
