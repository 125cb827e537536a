"""SIGReg as in LeJEPA: the sliced Epps-Pulley statistic (arXiv 2511.08544).

    python -m cjepa_jax.train --config=configs/ablations/clips/epps_pulley.py

Not an ablation of the description. It uses the same pooled context features as full.py does for the KL of their
singular values. Unlike the KL it depends on their scale and mean, and is smallest for N(0, I). mu stays 0.01. The
statistic is 0.40 B = 13 for collapsed features (the KL is log D = 4.6) and about 1 for normal ones. Everything else is
as in full.py.
"""

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.objective.sigreg_kind = "epps_pulley"
    return config
