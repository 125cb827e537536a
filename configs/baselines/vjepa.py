"""V-JEPA (arXiv 2404.08471, section 3) on small clips: tube masks, the encoder, predictor and budget of clips.py.

    python -m cjepa_jax.train --config=configs/baselines/vjepa.py

As published: short-range (8 tubes of 0.15) and long-range (2 of 0.7) masks, layer-normed targets, l1, linear EMA from
0.998. Different: a clip has one of the two masks, drawn with equal chances (published: it is predicted once with each,
with a mask token each: vjepa_both.py). The EMA reaches 1 (published: 0.9996, because its schedule is cut off). Masks
are not cut to the batch's shortest, and 0.73 of the tokens are hidden on average. The rest is clips.py's.

    --config.mask.batch=24     as published with 24 clips a GPU: 0.14 are seen, 0.60 hidden, the rest is neither
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().unlock()
    config.data.intervened = "none"
    config.data.row_lengths = (0.6, 1.0)
    config.mask = ConfigDict(
        dict(
            type="cjepa_jax.masks.tubes:draw",
            kinds=((8, 0.15), (2, 0.7)),  # (tubes, share of the plane)
            aspect=(0.75, 1.5),  # height / width
            batch=1,  # k: hidden tokens and contexts cut to the fewest of k clips
            both=False,  # True: a clip is predicted with both masks, and the loss is their mean
        )
    )
    config.objective.prediction_loss = "l1"
    config.objective.target_norm = "layer_norm"
    config.objective.causal_weight = config.objective.sigreg_weight = 0.0
    config.objective.ema, config.objective.ema_kind = (0.998, 1.0), "linear"
    return config.lock()
