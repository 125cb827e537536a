"""FG-ARI and mBO of slots, beside k-means of colour and place and a fixed grid.

    python -m cjepa_jax.train --config=configs/slots/savi.py --workdir=runs/savi
    python -m cjepa_jax.evaluate --config=configs/evals/segments.py --checkpoint=runs/savi

For runs of configs/slots/savi.py, videosaur.py and slotcontrast.py. `slots` are those of the run.
"""

from ml_collections import ConfigDict


def get_config():
    protocol = dict(type="cjepa_jax.evals.segments:Segments", slots=7, place=1.0)
    return ConfigDict(dict(evals=dict(test=256, protocols=dict(segments=protocol)))).lock()
