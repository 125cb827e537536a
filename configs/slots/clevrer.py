"""Causal-JEPA on slots of CLEVRER, at the published size: 6 frames given, 10 predicted, every second frame.

    python -m cjepa_jax.data.slot_files --slots=clevrer_videosaur_slots.pkl --out=data/clevrer_slots
    python -m cjepa_jax.train --config=configs/slots/clevrer.py --workdir=runs/clevrer

The pickle is on the Hugging Face hub (HazelNam/CJEPA). 970,000 windows, 30 epochs, on a GPU. The fixed set of hidden
slots, the block, the loss and dropout are those of the published code (docs/SLOTS.md). It has not been trained by us.

    --config.mask.most=2                       0 to 4 were published
    --config.mask.constant=-1 --config.objective.anchor_in_loss=False     slots drawn for each window
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.slots import balls


def get_config():
    config = balls.get_config().copy_and_resolve_references().unlock()
    config.train.batch = 256
    config.train.steps = 113_670  # 30 epochs
    config.data.source = "cjepa_jax.data.sources.slot_files:SlotFiles"
    config.data.path = "data/clevrer_slots"
    config.data.frames = 16
    config.data.count = 0
    config.data.options = ConfigDict(dict(skip=2, stride=1))
    config.mask.history = 6
    config.mask.most = 4
    config.mask.constant = 42
    config.objective.history = 6
    config.objective.future = 10
    config.objective.anchor_in_loss = True
    config.objective.slot_predictor = ConfigDict(dict(depth=6, heads=16, units=2048, norm_attention=False, dropout=0.1))
    config.optim.peak = 5e-4
    return config.lock()
