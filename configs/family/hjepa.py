"""H-JEPA (github.com/jonwiggins/H-JEPA, 2025), our reading: prediction at three scales, and VICReg, on small clips.

    python -m cjepa_jax.train --config=configs/family/hjepa.py

Taken from it: three levels by average pooling with the weights 1, 0.5 and 0.25, I-JEPA's masks, prediction plus VICReg.
Different: squares of the plane are averaged (there runs of the token sequence), without a projection for each level,
VICReg's variance and covariance are those of each scene's mean visible token. No paper and no weights of H-JEPA exist.
LeCun's H-JEPA (2022), a hierarchy of time scales, is another method.

    --config.objective.weights="(1.0,)" --config.objective.variance=0 --config.objective.covariance=0     I-JEPA
"""

from cjepa_jax.configs.baselines import ijepa


def get_config():
    config = ijepa.get_config().copy_and_resolve_references().unlock()
    config.objective.type = "cjepa_jax.objectives.pyramid:Pyramid"
    config.objective.weights = (1.0, 0.5, 0.25)
    config.objective.variance = 0.1
    config.objective.covariance = 0.01
    return config.lock()
