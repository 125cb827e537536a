"""Point-JEPA in its published size: 64 groups of 32 of 1,024 points, S/1, a predictor of 6 blocks of 192.

    python -m cjepa_jax.train --config=family/point_jepa_published --config.init_from=pointjepa.ckpt
    python -m cjepa_jax.evaluate --config=configs/evals/points.py --checkpoint=pointjepa.ckpt \
        --training=family/point_jepa_published

The authors' weights are in docs/FAMILY.md. 500 epochs at a peak of 1e-3, of which 30 warm up, as published. Different:
neither dropout nor drop path. Not run here: this size is for a GPU. On ModelNet40 instead of the surfaces made on the
fly (its training gets no labels, so the best checkpoint is chosen by rank):

    --config.data.source=cjepa_jax.data.sources.point_clouds:PointClouds --config.data.path=ModelNet40 \
        --config.data.count=0 --config.checkpoint.best=probe/rankme
"""

from cjepa_jax.configs.family import point_jepa


def get_config():
    config = point_jepa.get_config()
    config.data.options.points = 1024
    config.train.batch = 512
    config.train.steps, config.train.epochs = 0, 500
    config.optim.peak, config.optim.clip = 1e-3, 0.0
    config.optim.warmup_epochs, config.optim.warmup_share = 30.0, 0.0
    config.probe.every = 1000
    encoder, predictor = config.objective.encoder, config.objective.predictor
    encoder.variant, encoder.groups, encoder.neighbours, encoder.hidden = "S/1", 64, 32, (128, 256, 512)
    predictor.depth, predictor.width, predictor.heads = 6, 192, 6
    config.objective.ema = (0.9995, 0.99999)
    return config
