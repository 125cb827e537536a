"""H-JEPA (github.com/jonwiggins/H-JEPA, 2025), our reading: prediction at three scales of a pyramid, and VICReg.

    python -m cjepa_jax.train --config=configs/family/hjepa.py

Taken from it: three levels by average pooling with the weights 1, 0.5 and 0.25, a feature pyramid of dense layers and
LayerNorms from coarse to fine, I-JEPA's masks, prediction plus VICReg. Different: squares of the plane are averaged
(there runs of the token sequence), a square takes its parent's vector (there linear interpolation), and VICReg's terms
are of each scene's mean vectors (there of all predicted vectors, with a distance between different scenes). No paper
and no weights of H-JEPA exist. LeCun's H-JEPA (2022), a hierarchy of time scales, is another method.

    --config.objective.fusion=project     a layer for each level, no pyramid (the repository's default)
    --config.objective.fusion=none     averages of the tokens themselves
    --config.objective.weights="(1.0,)" --config.objective.variance=0 --config.objective.covariance=0 \
        --config.objective.fusion=none     I-JEPA
"""

from cjepa_jax.configs.baselines import ijepa


def get_config():
    config = ijepa.get_config().copy_and_resolve_references().unlock()
    config.objective.type = "cjepa_jax.objectives.pyramid:Pyramid"
    config.objective.weights = (1.0, 0.5, 0.25)
    config.objective.variance = 0.1
    config.objective.covariance = 0.01
    config.objective.fusion = "add"  # or concat, project, none
    return config.lock()
