"""Multi-step video prediction: the digits' mean place in the latents, and the error of rollouts beside copying.

    python -m cjepa_jax.train --config=configs/family/eb_jepa_video.py --workdir=runs/eb_jepa_video
    python -m cjepa_jax.evaluate --config=configs/evals/digits.py --checkpoint=runs/eb_jepa_video

Clips are longer than in training: 2 true frames, then 8 predictions. The two digits look alike to a linear probe, so
their mean place is asked for.
"""

from cjepa_jax.configs.evals import world_models


def get_config():
    config = world_models.get_config().copy_and_resolve_references().unlock()
    config.evals.protocols.rollouts.update(dict(object=-1, given=2, frames=10, steps=(1, 4, 8)))
    return config.lock()
