"""LeJEPA (arXiv 2511.08544), ViT-S/8 on Imagenette at 128 pixels: multi-crop, for one GPU.

    python -m cjepa_jax.train --config=configs/data/imagenette.py --config.data.path=DIR/imagenette2-160 \
        --workdir=runs/imagenette
    python -m cjepa_jax.evaluate --config=configs/evals/classes.py --checkpoint=runs/imagenette

Views are those of the paper's main recipe: two large (0.3 to 1 of the picture) and six small ones (0.05 to 0.3), of 56
pixels here for 98 of 224 there. Model, projector, batch and epochs are those of its minimal listing. Different: the
ViT's tokens are averaged, and the rate falls to 0. On a laptop add

    --config.data.size=64 --config.objective.encoder.variant=Ti/8 --config.objective.views.small_size=24 \
        --config.train.batch=16 --config.train.steps=200 --config.data.eval_count=64 --config.probe.train=32 \
        --config.probe.test=32

Not run to its end by us.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import vitl


def get_config():
    config = vitl.get_config().copy_and_resolve_references().unlock()
    config.train.batch, config.train.epochs = 256, 800
    config.data.source = "cjepa_jax.data.sources.class_folders:ClassFolders"
    config.data.path = "data/imagenette2-160"
    config.data.size, config.data.count = 128, 0
    config.data.intervened, config.data.row_lengths, config.data.max_objects = "none", (1.0,), 1
    config.objective.encoder.variant = "S/8"
    views = dict(count=2, scale=(0.3, 1.0), small=6, small_size=56, small_scale=(0.05, 0.3), aspect=(0.75, 4 / 3))
    colours = dict(flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_share=0.8, grey=0.2, blur=(0.5,), solarise=(0.2,))
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.siamese:LeJepa",
            encoder=config.objective.encoder,
            projector=ConfigDict(dict(hidden=(2048, 2048), out=16, norm="batch")),
            views=ConfigDict(views | colours),
            **dict(weight=0.02, slices=256, knots=17, t_max=3.0),
        )
    )
    config.optim.peak, config.optim.warmup_epochs = 2e-3, 10.0
    config.checkpoint.best = "probe/rankme"  # pictures without masks have no probe targets
    return config.lock()
