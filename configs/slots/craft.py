"""Causal-JEPA on slots of the world of launchers and baskets: true states, 3 frames given and 5 predicted.

    python -m cjepa_jax.train --config=configs/slots/craft.py --workdir=runs/craft_slots
    python -m cjepa_jax.evaluate --config=configs/evals/aloe_craft.py --checkpoint=runs/craft_slots

The 8 frames are anywhere in a clip of 32, to whose end rollouts go. The world's questions are answered from its slots
(configs/evals/aloe_craft.py). 4 or 5 objects move, the others are fixtures. See docs/SLOTS.md.

    --config.mask.most=0     no object is hidden, only the future
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.slots import balls


def get_config():
    config = balls.get_config().unlock()
    config.data.options.of = "cjepa_jax.data.worlds:Craft"
    config.data.options.of_options = ConfigDict()
    config.data.options.clip = 32  # data.frames successive ones of these: objects reach the basket late in a clip
    config.data.options.slots = 9  # 7 to 9 objects
    config.data.options.one_hot = True  # shapes, colours and roles are classes
    config.data.max_objects = 9
    return config.lock()
