"""ESC-50 by frozen features: linear and attentive probe and neighbours, beside a random network and the spectrogram.

    python -m cjepa_jax.evaluate --config=configs/evals/esc50.py --config.data.path=ESC-50-master \
        --checkpoint=runs/audio_jepa_published

Sounds of 5 s in a window of 10 s, as family/audio_jepa_published.py was trained. The published score is the mean over
all five folds, of which this holds out the fifth:

    --config.data.options.fold=1     and so on

ESC-50: github.com/karolpiczak/ESC-50 (CC-BY-NC). Not run on the real data by us.
"""

from ml_collections import ConfigDict


def get_config():
    data = dict(
        source="cjepa_jax.data.sources.sound_files:SoundFiles",
        path="",
        options=dict(rate=32_000, seconds=10.0, times=512, bands=96, fold=5),
    )
    classify = dict(
        type="cjepa_jax.evals.classify:Classify", classes=50, low_shot=0.0, neighbours=20, attentive=True, steps=2000,
        pooling="mean",
    )  # fmt: skip
    evals = dict(fit=0, test=0, test_split="eval", random_inits=3, protocols=dict(classify=classify))
    return ConfigDict(dict(data=data, evals=evals)).lock()
