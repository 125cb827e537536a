"""Classes of sounds: linear probe and neighbours, next to a random network and to the spectrogram's components.

python -m cjepa_jax.evaluate --config=configs/evals/sounds.py --checkpoint=runs/audio_jepa

"pixel PCA" is of the spectrogram. ESC-50: configs/evals/esc50.py.
"""

from cjepa_jax.configs.evals import points


def get_config():
    return points.get_config()
