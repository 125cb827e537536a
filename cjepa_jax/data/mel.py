"""Log-mel spectrograms as Kaldi computes them (torchaudio.compliance.kaldi.fbank without dither), in NumPy."""

import functools

import numpy as np
from jaxtyping import Float

PREEMPHASIS = 0.97
LOWEST = 20.0  # Hz, where the first filter begins. The last ends at half of the sampling rate
LEAST = float(np.finfo(np.float32).eps)  # power below it counts as this much
OVERLAP = 2.5  # hops of a window


def log_mel(waveform: Float[np.ndarray, " S"], rate: int, frames: int, bands: int) -> Float[np.ndarray, "T M"]:
    """`frames` x `bands` of a sound, float32, as Audio-JEPA's front end (arXiv 2507.02915).

    The waveform minus its mean is cut into windows of 2.5 hops, where a hop is the `frames`-th part of it. Each window
    loses its mean, is pre-emphasised and multiplied by a Hann window. The powers of its spectrum, whose length is the
    next power of two, are weighted by triangles of equal width in mel = 1127 ln(1 + Hz / 700), and the logarithm is
    taken. No window reaches past the end, so the last frames are missing. They are filled with 0, as published.

    Raises: ValueError for a sound of fewer samples than frames.
    """
    waveform = np.asarray(waveform, np.float32)
    if len(waveform) < frames:
        raise ValueError(f"{len(waveform)} samples: must be at least the {frames} frames")
    hop_ms = len(waveform) / rate / frames * 1000
    hop, size = int(rate * hop_ms * 0.001 + 1e-9), int(rate * OVERLAP * hop_ms * 0.001 + 1e-9)
    starts = np.arange(0, len(waveform) - size + 1, hop)[:frames]
    cut = (waveform - waveform.mean())[starts[:, None] + np.arange(size)]
    cut = cut - cut.mean(1, keepdims=True)
    cut = cut - PREEMPHASIS * np.concatenate([cut[:, :1], cut[:, :-1]], axis=1)
    length = 1 << (size - 1).bit_length()
    power = np.square(np.abs(np.fft.rfft(cut * _hann(size), length)))
    mel = np.log(np.maximum(power @ filters(bands, length, rate).T, LEAST))
    return np.pad(mel, ((0, frames - len(mel)), (0, 0))).astype(np.float32)


@functools.cache
def _hann(size: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))


@functools.cache
def filters(bands: int, length: int, rate: int) -> Float[np.ndarray, "M F"]:
    """Weights of `bands` triangles over the length / 2 + 1 frequencies of a spectrum, of which the last has none."""
    mel = lambda hertz: 1127.0 * np.log(1.0 + hertz / 700.0)  # noqa: E731
    low, high = mel(LOWEST), mel(rate / 2)
    edges = low + (high - low) / (bands + 1) * np.arange(bands + 2)
    place = mel(rate / length * np.arange(length // 2))
    rising = (place - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - place) / (edges[2:] - edges[1:-1])[:, None]
    return np.pad(np.maximum(0, np.minimum(rising, falling)), ((0, 0), (0, 1)))
