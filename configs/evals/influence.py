"""Graphs of influence between objects, scored against contacts and simulated effects, beside geometry.

    python -m cjepa_jax.train --config=configs/slots/balls.py --workdir=runs/slots
    python -m cjepa_jax.evaluate --config=configs/evals/influence.py --checkpoint=runs/slots

`history` and `future` are those of the run. See docs/SLOTS.md.

    --config.evals.protocols.influence.history=2 --config.evals.protocols.influence.future=2
        a model of patches and clips of 4 frames: their sum is data.frames
    --config.evals.protocols.influence.least=0.05     an effect is a larger change of the path
"""

from ml_collections import ConfigDict


def get_config():
    protocol = dict(type="cjepa_jax.evals.influence:Influence", history=3, future=5, least=0.01, strata=4)
    return ConfigDict(dict(evals=dict(protocols=dict(influence=protocol)))).lock()
