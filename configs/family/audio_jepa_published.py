"""Audio-JEPA in its published size, on your own folders of sounds, such as AudioSet's clips of 10 s.

    python -m cjepa_jax.train --config=family/audio_jepa_published --config.data.path=DIR
    python -m cjepa_jax.evaluate --config=configs/evals/esc50.py --config.data.path=ESC-50-master \
        --checkpoint=runs/audio_jepa_published

DIR has train/CLASS/NAME and eval/CLASS/NAME. The classes are not learned from, so one folder may hold everything. As
published: 10 s at 32 kHz, a spectrogram of 512 times and 96 bands, patches of 16 (192 tokens), B/16, a predictor of 6
blocks of 384 with 12 heads, 0.4 to 0.6 of the tokens hidden, 100,000 steps of 4 x 64 sounds, a peak rate of 1e-3 after
1,000 steps, a weight decay of 1e-6 (its scheduler's, over the 0.05 that its optimiser names). The momentum stays at
0.996: the published schedule is spread over many more epochs, and hardly moves. Different: each scene has its own share
of hidden tokens. Not run here: this size is for a GPU, and AudioSet cannot be downloaded.
"""

from ml_collections import ConfigDict

from cjepa_jax.configs.family import audio_jepa


def get_config():
    config = audio_jepa.get_config().copy_and_resolve_references().unlock()
    config.train.batch, config.train.steps = 256, 100_000
    config.data.source = "cjepa_jax.data.sources.sound_files:SoundFiles"
    config.data.options = ConfigDict(dict(rate=32_000, seconds=10.0, times=512, bands=96))
    config.data.count = 0
    encoder, predictor = config.objective.encoder, config.objective.predictor
    encoder.variant, encoder.depth = "B/16", 0
    predictor.depth, predictor.width, predictor.heads = 6, 384, 12
    config.objective.ema = (0.996, 0.996)
    config.optim.peak, config.optim.weight_decay = 1e-3, 1e-6
    config.optim.warmup_share = 0.01
    config.checkpoint.best = "probe/rankme"
    config.checkpoint.every = config.probe.every = 2000
    config.monitors.place.every = 1000
    return config.lock()
