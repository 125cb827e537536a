"""No SIGReg: mu = 0.

    python -m cjepa_jax.train --config=configs/ablations/clips/no_sigreg.py

The ablation "No SIGReg" of the description. The term is still computed and logged. Everything else is as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.sigreg_weight = 0.0
    return config
