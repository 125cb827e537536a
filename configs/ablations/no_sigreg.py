"""No SIGReg: mu = 0.

    python -m cjepa_jax.train --config=configs/ablations/no_sigreg.py

The row "No SIGReg" of the document's ablation table (section 9). The term is still computed and logged. All else is
that of full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.sigreg_weight = 0.0
    return config
