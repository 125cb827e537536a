"""The agent of "A path towards autonomous machine intelligence" (LeCun 2022) in a small size, on Rooms.

    python -m cjepa_jax.train --config=configs/family/jepa2022.py --workdir=runs/jepa2022
    python -m cjepa_jax.planning --checkpoint=runs/jepa2022 --agent

Training learns perception and world model: LeWorldModel (configs/family/lewm.py) with a short-term memory of the first
two frames. The second command fits the critic and the policy and plays (docs/PLANNING.md, "The agent").

The door's place is drawn per episode, and only the first two frames show it. Without memory the door's position is
unknown. Expected: docs/PLANNING.md.

    --config.objective.memory=0     a control that forgets
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import lewm


def get_config():
    config = lewm.get_config().copy_and_resolve_references().unlock()
    config.data.options = ConfigDict(dict(wall=(0.5, 0.5), door=(0.2, 0.8), shown=2))
    config.data.frames = 12
    config.objective.type = "cjepa_jax.objectives.remembering:Remembering"
    config.objective.memory = 2
    config.objective.window = 4
    config.objective.predictor.history = 5
    return config.lock()
