"""SIGReg as LeJEPA has it: the sliced Epps-Pulley statistic (arXiv 2511.08544).

    python -m cjepa_jax.train --config=configs/ablations/tiny/epps_pulley.py

No row of the document's table. Of the same pooled context features as the KL of their singular values in full.py;
unlike that it sees their scale and mean, and wants N(0, I). Mu stays 0.01: of collapsed features the statistic is 0.40
B = 13 (the KL is log D = 4.6), of normal ones about 1. All else is that of full.py.
"""

from cjepa_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.objective.sigreg_kind = "epps_pulley"
    return config
