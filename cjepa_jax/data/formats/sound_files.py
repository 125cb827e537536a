"""Reads sounds: PCM .wav with Python alone, .flac and .ogg by soundfile (pip install 'cjepa_jax[sound]')."""

import io
import os
import wave
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.signal import resample_poly

from cjepa_jax.data.formats import files
from cjepa_jax.errors import DataError
from cjepa_jax.host import optional

SUFFIXES = (".flac", ".ogg", ".wav")
MOST = 2**30  # bytes of a file, and of its sound in memory
RATES = 1000, 1_000_000  # Hz. With others a short file would be a sound of hours at the rate that is asked for


def read(path: str | os.PathLike, rate: int, samples: int) -> Float[np.ndarray, " {samples}"]:
    """The middle `samples` of a file at `rate` Hz, float32 in -1..1, channels averaged. Short sounds are padded with 0.

    Raises: DataError, one line with the file, for one that cannot be read. ConfigError where soundfile is needed.
    """
    path = Path(path)
    data = files.contents(path, MOST)
    try:
        sound, own = _wav(data) if path.suffix.lower() == ".wav" else _soundfile(data, path)
    except (
        wave.Error,
        EOFError,
        ValueError,
        RuntimeError,
        MemoryError,
    ) as error:  # soundfile's errors are RuntimeErrors
        raise DataError(f"{path}: not a readable {path.suffix} file: {str(error) or 'it is cut off'}") from error
    if not sound.size or not np.isfinite(sound).all():
        raise DataError(f"{path}: has {'no sound' if not sound.size else 'values that are not finite'}")
    if not RATES[0] <= own <= RATES[1]:
        raise DataError(f"{path}: {own} Hz: must be from {RATES[0]} to {RATES[1]} Hz")
    sound = _middle(sound.mean(1), samples, own / rate)
    if own != rate:
        divisor = int(np.gcd(own, rate))
        sound = resample_poly(sound, rate // divisor, own // divisor)
    left = (len(sound) - samples) // 2
    sound = sound[left : left + samples] if left > 0 else sound[:samples]
    missing = samples - len(sound)
    return np.pad(sound, (missing // 2, missing - missing // 2)).astype(np.float32)


def _middle(sound: np.ndarray, samples: int, ratio: float) -> np.ndarray:
    """The input, at `ratio` times the rate, of the `samples` in the middle, and what the resampling filter reaches."""
    kept = int(np.ceil(samples * ratio)) + 2 * int(np.ceil(20 * max(1.0, ratio)))
    kept += (len(sound) - kept) % 2  # so that the middle stays the middle
    left = (len(sound) - kept) // 2
    return sound[left : left + kept] if left > 0 else sound


def _wav(data: bytes) -> tuple[np.ndarray, int]:
    """[S, channels] in -1..1, and the sampling rate."""
    with wave.open(io.BytesIO(data)) as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        if 8 * channels * min(file.getnframes(), len(data)) > MOST:
            raise ValueError(f"{file.getnframes()} samples of {channels} channels")
        raw = file.readframes(file.getnframes())
    if not 1 <= width <= 4 or not rate:
        raise ValueError(f"samples of {width} bytes at {rate} Hz")
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 1:  # unsigned
        values = np.frombuffer(raw, np.uint8).astype(np.float64) - 128
    elif width == 3:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = np.pad(parts, ((0, 0), (1, 0))).view("<i4")[:, 0].astype(np.float64) / 256
    else:
        values = np.frombuffer(raw, f"<i{width}").astype(np.float64)
    return (values / 2.0 ** (8 * width - 1)).reshape(-1, channels), rate


def _soundfile(data: bytes, path: Path) -> tuple[np.ndarray, int]:
    soundfile = optional.need("soundfile", "sound", f"{path}: reading {path.suffix}")
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.frames * file.channels * 8 > MOST:  # silence takes a thousandth of its size in a file
            raise ValueError(f"{file.frames} samples of {file.channels} channels")
        return file.read(dtype="float64", always_2d=True), file.samplerate
