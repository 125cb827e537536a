"""LeWorldModel (arXiv 2603.19312) at its published size, on recorded episodes of Push-T.

    python -m cjepa_jax.train --config=family/lewm_published --config.data.path=FILE
    python -m cjepa_jax.train --config=family/lewm_published --config.data.path=FILE --config.init_from=weights.pt

Frames of 224 x 224, every 5th one, windows of 4, ViT-Ti/14 with a class token, a predictor of 6 blocks. The second
command starts from published weights (encoder, predictor, projectors and their running statistics). `data.path` is an
HDF5 file of stable-worldmodel, whose actions are standardised. Not run here: this size is for a GPU, and the files
cannot be downloaded.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import lewm


def get_config():
    config = lewm.get_config().unlock()
    config.data.source = "cjepa_jax.data.sources.episode_file:EpisodeFile"
    config.data.options = ConfigDict(dict(stride=5, hop=1, standardise=True))
    config.data.size = 224
    config.data.count = 0
    tokenizer = dict(
        type="cjepa_jax.models.tokenizers:ClassToken", patch=14, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    config.objective.encoder = ConfigDict(
        dict(variant="Ti/14", tubelet=1, depth=0, epsilon=1e-12, tokenizer=ConfigDict(tokenizer))
    )
    config.objective.latent = "first"
    config.objective.predictor.update(dict(depth=6, heads=16, head=64, hidden=2048))
    config.objective.projection = 192
    for name in ("projector", "predictor_projector"):
        config.objective[name].hidden = (2048,)
    config.objective.slices = 1024
    config.train.batch = 128
    config.train.steps = 0
    config.train.epochs = 100
    config.optim.peak = 5e-5
    config.optim.b2 = 0.999
    config.optim.warmup_share = 0.01
    return config.lock()
