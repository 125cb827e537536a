"""FG-ARI and mBO of slots, beside k-means of colour and place and a fixed grid.

    python -m cjepa_jax.train --config=configs/slots/savi.py --workdir=runs/savi
    python -m cjepa_jax.evaluate --config=configs/evals/segments.py --checkpoint=runs/savi

For runs of configs/slots/savi.py, videosaur.py and slotcontrast.py. The floors have as many segments as the run slots.
"""

from ml_collections import ConfigDict


def get_config():
    protocol = dict(type="cjepa_jax.evals.segments:Segments", places=(0.1, 0.3, 1.0), starts=3)
    return ConfigDict(dict(evals=dict(test=256, protocols=dict(segments=protocol)))).lock()
