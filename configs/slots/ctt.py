"""Causal-JEPA on slots with the terms of Causal Transformation Theory, on a graph that the model measures on itself.

    python -m cjepa_jax.train --config=configs/slots/ctt.py --workdir=runs/ctt
    python -m cjepa_jax.evaluate --config=configs/evals/rollout.py --checkpoint=runs/ctt

`start_epoch` is a third of the training, as in the public code (10 of 30 epochs). See docs/SLOTS.md.

    --config.objective.graph=attention      or published, gates, true
    --config.objective.quantile_of=unlinked of effects: above those of pairs of slots that no contacts link
    --config.objective.graph=intervened --config.data.intervened=rerender
    --config.objective.invariance=0.02 --config.objective.sufficiency=0.01     weaker, or 0.002 and 0.001
"""

from cjepa_jax.configs.slots import balls


def get_config():
    config = balls.get_config()
    with config.unlocked():
        config.objective.type = "cjepa_jax.objectives.ctt:Ctt"
        config.objective.graph = "effects"
        config.objective.threshold = -1.0  # the graph's own
        config.objective.quantile_of = "all"
        config.objective.invariance = 0.2
        config.objective.sufficiency = 0.1
        config.objective.consistency = 0.0
        config.objective.gates = 0.1
        config.objective.start_epoch = 5
    return config.lock()
