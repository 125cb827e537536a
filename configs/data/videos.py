"""Your own videos without masks: V-JEPA's tubes, ViT-S/16 on clips of 16 frames at 224 x 224, 4 frames a second.

    python -m cjepa_jax.train --config=configs/data/videos.py --config.data.path=DIR

DIR holds videos, or ends in .csv or .jsonl and lists them (docs/DATA.md, "Your own videos"). Begin with

    python -m cjepa_jax.data.inspect --config=configs/data/videos.py --config.data.path=DIR --out=inspected

Causal training needs masks: configs/vitl_video.py with this source.

16 held-out clips are a beginning. More: data.eval_count, probe.train and probe.test. On a laptop add

    --config.data.size=64 --config.data.frames=4 --config.objective.encoder.variant=Mu/8 --config.train.batch=8 \
        --config.objective.predictor.depth=2 --config.objective.predictor.width=48 \
        --config.objective.predictor.heads=4 --config.train.steps=100 --config.optim.warmup_share=0.1 \
        --config.probe.batch=8 --config.data.workers=0

Run on a laptop's settings only.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import vitl_video


def get_config():
    config = vitl_video.get_config().unlock()
    config.objective.encoder.variant = "S/16"
    config.data.source = "cjepa_jax.data.sources.videos:Videos"
    config.data.path = "data/videos"
    config.data.count = 0
    config.data.eval_count = 16
    config.probe.train = config.probe.test = 8
    config.checkpoint.best = "probe/rankme"  # videos without masks have no probe targets
    config.data.crop = True
    config.data.intervened = "none"
    config.data.row_lengths = (0.6, 1.0)
    config.data.options = ConfigDict(dict(fps=4.0, clips=4, masks="", rotation="", reader="opencv", missing=""))
    config.mask = ConfigDict(
        dict(type="cjepa_jax.masks.tubes:draw", kinds=((8, 0.15), (2, 0.7)), aspect=(0.75, 1.5), batch=1, both=False)
    )
    config.objective.prediction_loss = "l1"
    config.objective.target_norm = "layer_norm"
    config.objective.causal_weight = config.objective.sigreg_weight = 0.0
    config.objective.ema, config.objective.ema_kind = (0.998, 1.0), "linear"
    return config.lock()
