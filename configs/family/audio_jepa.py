"""Audio-JEPA (arXiv 2507.02915) in a small size, on eight kinds of sounds.

    python -m cjepa_jax.train --config=configs/family/audio_jepa.py

As published: Kaldi's log-mel spectrogram as an image of one channel that is not normalised, random tokens as targets
(0.4 to 0.6), 2 - 2 cos of the standardised target. Different: the sizes (there 10 s at 32 kHz, 512 x 96, patches of 16,
B/16, a predictor of 6 blocks of 384), each scene has its own share of hidden tokens, the optimiser and schedule of
clips.py, and 1,000 steps (there 100,000).

At first the features become alike. Then they part again: a linear probe of seed 0 finds the kind with an R2 of 0.24,
0.30 and 0.34 after each 250 steps (random 0.28, spectrogram 0.20). An EMA from 0.9 has 0.21, 0.31 and 0.36.

The published size: audio_jepa_published.py. Your own sounds: docs/FAMILY.md.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.train.steps = 1000
    config.data.source = "cjepa_jax.data.sources.sounds:Sounds"
    config.data.options = ConfigDict(dict(rate=16_000, seconds=1.0, times=64, bands=64))
    config.data.frames = 1
    config.data.intervened = "none"
    config.data.row_lengths = (0.65, 1.0)
    config.mask = ConfigDict(dict(type="cjepa_jax.masks.random:share", ratio=(0.4, 0.6)))
    encoder = config.objective.encoder
    encoder.channels, encoder.scale, encoder.mean, encoder.std = 1, 1.0, (0.0,), (1.0,)
    config.objective.prediction_loss = "cjepa_jax.losses:normed_cosine"
    config.objective.target_norm = "none"
    config.objective.causal_weight = config.objective.sigreg_weight = 0.0
    config.checkpoint.best = "probe/class_r2"
    config.probe.every = 250
    config.monitors.place = ConfigDict(dict(type="cjepa_jax.monitors.place:Place", every=100))
    return config.lock()
