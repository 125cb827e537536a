"""A slot predictor with actions: true states of Push-T, 3 frames given and 1 predicted, to plan with.

    python -m cjepa_jax.train --config=configs/slots/push.py --workdir=runs/slots_push
    python -m cjepa_jax.planning --checkpoint=runs/slots_push --episodes=30 --steps=40 --planner=icem --samples=64 \
        --elites=8 --iterations=4 --horizon=8 --receding=2

Agent and block are two slots of three, in another order in each scene. Each frame has a token of the action that leads
to the next one. Planning compares the slots after each planned action with those of the goal, by the assignment that
fits best (--over=last: after the last one).

    --config.objective.auxiliary="('proprio', 'action')"     with a token of the agent's place and velocity too
    --config.mask.most=1                                     with M uniform over 0 and 1
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.slots import balls


def get_config():
    config = balls.get_config().copy_and_resolve_references().unlock()
    config.data.frames = 4
    config.data.count = 8192
    config.data.options.of = "cjepa_jax.data.worlds.acting:Push"
    config.data.options.of_options = ConfigDict(dict(policy="mixed"))
    config.data.options.slots = 3
    config.data.options.width = 48
    config.data.options.clip = 0
    config.mask.most = 0
    config.objective.future = 1
    config.objective.auxiliary = ("action",)
    return config.lock()
