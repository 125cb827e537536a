"""configs/family/jepa2022.py on episodes in which a memory of the door is needed more often.

    python -m cjepa_jax.train --config=configs/family/jepa2022_press.py --workdir=runs/jepa2022_press
    python docs/figures/door_memory.py runs/jepa2022_press

The policy "press" pushes at the wall, half of the time in front of the door. In the episodes of jepa2022.py the expert
pushes at the wall only where the door is, so its actions tell where it is, and the memory is needed less. How
the data differ, and one training run: docs/PLANNING.md, "The agent".
"""

from cjepa_jax.configs.family import jepa2022


def get_config():
    config = jepa2022.get_config().copy_and_resolve_references().unlock()
    config.data.options.mix = (("press", 0.6), ("walk", 0.2), ("expert", 0.2))
    return config.lock()
