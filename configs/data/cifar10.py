"""LeJEPA, ViT-Ti/4 on CIFAR-10: two large and four small views of each picture, for one GPU.

    python -m cjepa_jax.train --config=configs/data/cifar10.py --config.data.path=DIR/cifar-10-batches-bin \
        --workdir=runs/cifar10
    python -m cjepa_jax.evaluate --config=configs/evals/classes.py --checkpoint=runs/cifar10

DIR/cifar-10-batches-bin comes from cifar-10-binary.tar.gz (docs/DATA.md, "CIFAR-10 and Imagenette"). The objective is
that of configs/data/imagenette.py. Sizes are ours: small views of 16 pixels show 0.1 to 0.4 of the picture, because
smaller crops of 32 pixels show little. On a laptop add

    --config.train.batch=32 --config.train.steps=200 --config.data.eval_count=64 --config.probe.train=32 \
        --config.probe.test=32

Not run to its end by us.
"""

from cjepa_jax.configs.data import imagenette


def get_config():
    config = imagenette.get_config().unlock()
    config.train.epochs = 300
    config.data.source = "cjepa_jax.data.sources.cifar10:Cifar10"
    config.data.path = "data/cifar-10-batches-bin"
    config.data.size = 32
    config.objective.encoder.variant = "Ti/4"
    config.objective.views.blur = (0.0,)
    config.objective.views.small = 4
    config.objective.views.small_size = 16
    config.objective.views.small_scale = (0.1, 0.4)
    return config.lock()
