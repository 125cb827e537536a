"""A predictor twice as wide.

    python -m cjepa_jax.train --config=configs/ablations/predictor_wide.py

The row "D_pred = 768" of the document's ablation table (section 9). There the full model has 384; here it has tiny's
48, so the same factor gives 96. The heads stay 4. All else is that of full.py.
"""

from cjepa_jax.configs.ablations import full


def get_config():
    config = full.get_config()
    config.objective.predictor.width = 96
    return config
