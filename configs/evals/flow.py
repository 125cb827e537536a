"""Motion and content of one encoder: end-point errors of its flow, and probes of its features.

    python -m cjepa_jax.train --config=configs/family/mcjepa.py
    python -m cjepa_jax.evaluate --config=configs/evals/flow.py --checkpoint=runs/mcjepa

Errors of flow need a world with true flow: Balls, Blocks or Ramps.
"""

from ml_collections import ConfigDict


def get_config():
    protocols = dict(
        flow=dict(type="cjepa_jax.evals.flow:Flow", least=0.5),
        states=dict(type="cjepa_jax.evals.states:States"),
        count=dict(type="cjepa_jax.evals.classify:Classify", label="count", low_shot=0.0, attentive=False),
        collapse=dict(type="cjepa_jax.evals.collapse:Collapse"),
    )
    return ConfigDict(dict(evals=dict(fit=512, test=512, random_inits=3, protocols=protocols))).lock()
