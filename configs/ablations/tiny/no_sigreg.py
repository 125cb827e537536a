"""No SIGReg: mu = 0.

    python -m cjepa_jax.train --config=configs/ablations/tiny/no_sigreg.py

The ablation "No SIGReg" of the description. The term is still computed and logged. Everything else is as in full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.sigreg_weight = 0.0
    return config
