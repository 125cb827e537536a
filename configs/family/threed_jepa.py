"""3D-JEPA (arXiv 2409.15803), our reading: Point-JEPA with a context-aware decoder and a cosine loss.

    python -m cjepa_jax.train --config=configs/family/threed_jepa.py

No code or weights of it were found, and its mask ratios and widths were not obtained. Taken from the paper: several
target blocks and a large context block, a decoder whose hidden tokens attend to the context in every block, the cosine
of predictions and an EMA's tokens. The tokens, their order, the networks and the data are those of point_jepa.py.

    --config.objective.predictor.attention=joint     the decoder of Point-JEPA
"""

from cjepa_jax.configs.family import point_jepa


def get_config():
    config = point_jepa.get_config().copy_and_resolve_references().unlock()
    config.mask.context = (0.85, 1.0)
    config.objective.predictor.attention = "cross"
    config.objective.prediction_loss = "cjepa_jax.losses:normed_cosine"
    return config.lock()
