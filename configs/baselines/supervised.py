"""Supervised ResNet-50 (arXiv 1512.03385) on small clips, frame by frame: the scenes and budget of clips.py.

    python -m cjepa_jax.train --config=configs/baselines/supervised.py

It learns the labels that the probe asks for (number of objects, mean position, velocity, area) by squared error on
standardised labels: a ceiling for the probe, with labels of all training scenes and ten times its operations.
The features are the last map of each frame, and a clip's features are their mean. AdamW, schedule: clips.py.
The random initialisation has batch norms without statistics (mean 0, variance 1).

Slow on a CPU: a step of 32 clips took about 18 s of processor time, on two cores shared with ten other processes (54 s
of wall time there, not measured alone). All 750 steps are for a GPU.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.supervised:Supervised",
            backbone=ConfigDict(
                dict(type="cjepa_jax.models.resnet:ResNet", blocks=(3, 4, 6, 3), width=64, zero_last=True)
            ),
            classes=0,  # 0: regression of all labels, otherwise the number of classes of the first label
        )
    )
    return config.lock()
