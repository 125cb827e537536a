"""SlotContrast (arXiv 2412.14295) at a small size, on pixels of patches instead of DINOv2's features.

    python -m cjepa_jax.train --config=configs/slots/slotcontrast.py --workdir=runs/slotcontrast
    python -m cjepa_jax.evaluate --config=configs/evals/segments.py --checkpoint=runs/slotcontrast

The first slots are learned, slot attention has an MLP, and slots are contrasted with those of the frame before. See
docs/SLOTS.md.

    --config.objective.contrast=0.0     features alone
"""

from cjepa_jax.configs.slots import videosaur


def get_config():
    config = videosaur.get_config().unlock()
    config.objective.videosaur.fixed = True
    config.objective.videosaur.hidden = 64
    config.objective.similarity = 0.0
    config.objective.contrast = 0.5
    return config.lock()
