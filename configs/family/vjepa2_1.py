"""V-JEPA 2.1 (arXiv 2603.14482) on small clips: dense prediction at four levels, clips and images together.

    python -m cjepa_jax.train --config=configs/family/vjepa2_1.py

As published: visible tokens are predicted too, with the weight 0.5 / sqrt(distance to the nearest hidden one), which
rises from 0 between two steps, four levels with a norm each, true rotations scaled to a grid of 16, a tokeniser for
clips and another for images. Different: the sizes, images are frames of the same clips with the clip's mask (there
other pictures, on half of the GPUs, with 10 blocks of 0.15), one mask a clip, an EMA of 0.996 (there 0.99925), the
optimiser and schedule of clips.py.

    --config.init_from=vjepa2_1_vitg_384.pt     public weights, all levels (docs/FAMILY.md)
    --config.objective.context_weight=0     hidden tokens only, as V-JEPA 2

    --config.mask.both=True     both masks for every clip, as published
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import vjepa2


def get_config():
    config = vjepa2.get_config().copy_and_resolve_references().unlock()
    objective = config.objective
    objective.type = "cjepa_jax.objectives.dense:Dense"
    objective.encoder.levels = (0, 1, 2, 3)
    objective.encoder.tokenizer = ConfigDict(
        dict(type="cjepa_jax.models.tokenizers:ClipsAndImages", patch=8, tubelet=2)
    )
    for part in (objective.encoder, objective.predictor):
        part.positions, part.position_grid = "rope", (1, 16, 16)
    objective.predictor.embed_units = 96
    objective.predictor.scene_code = True
    objective.context_weight = 0.5
    objective.ramp = (100, 200)
    objective.images = 0.5
    return config.lock()
