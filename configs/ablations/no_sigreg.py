"""No SIGReg: mu = 0.

    python -m cjepa_jax.train --config=configs/ablations/no_sigreg.py

The ablation "No SIGReg" of the description. The term is still computed and logged. Everything else is as in full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.sigreg_weight = 0.0
    return config
