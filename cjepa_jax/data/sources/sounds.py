"""Eight kinds of sounds, made on the fly."""

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.worlds.base import check_integer
from cjepa_jax.errors import ConfigError

SPLITS = ("train", "eval", "test")
KINDS = ("tone", "rising", "falling", "vibrato", "tremolo", "harmonics", "clicks", "hiss")


@dataclass(frozen=True)
class Sounds:
    """Sounds of eight kinds at any pitch, under white noise: a source of kind "spectrogram".

    A scene has `waveform` float32 [S], `class`, int64 [], its number in KINDS, and labels: 1 for its kind, 0 for the
    others, and the logarithm of its pitch. Kinds differ in how the sound changes, not in its pitch.

    Args:
      split, path, count, seed, frames, size: as for every source. Sounds have one frame, and no size in pixels.
      rate: Hz. seconds: their length. times, bands: of the spectrogram.
      decibels: how much louder than the noise the sound is, uniform between the two.
    Raises: ConfigError for values out of their limits.
    """

    split: str = "train"
    path: str = ""
    size: int = 64
    frames: int = 1
    count: int = 10_000
    seed: int = 0
    rate: int = 16_000
    seconds: float = 1.0
    times: int = 64
    bands: int = 64
    decibels: tuple[float, float] = (0.0, 15.0)

    kind: ClassVar[str] = "spectrogram"
    channels: ClassVar[int] = 1
    pixels: ClassVar[str] = "float32"
    label_names: ClassVar[tuple[str, ...]] = (*(f"class/{name}" for name in KINDS), "pitch")
    classes: ClassVar[tuple[str, ...]] = KINDS
    can_rerender: ClassVar[bool] = False

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ConfigError(f"data.split is {self.split!r}: must be one of {', '.join(SPLITS)}")
        for name, least in (("rate", 8000), ("times", 1), ("bands", 1)):
            check_integer(f"data.options.{name}", getattr(self, name), least)
        check_integer("data.count", self.count, 1)
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not 0 < self.seconds <= 60:
            raise ConfigError(f"data.options.seconds is {self.seconds!r}: must be above 0 and at most 60")
        two = isinstance(self.decibels, tuple | list) and [isinstance(x, int | float) for x in self.decibels] == [
            True,
            True,
        ]
        if not two or not -100 <= self.decibels[0] <= self.decibels[1] <= 100:
            raise ConfigError(f"data.options.decibels is {self.decibels!r}: must be two numbers, the lower first")

    @property
    def samples(self) -> int:
        """S."""
        return round(self.rate * self.seconds)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Scene i. Raises IndexError."""
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"scene {i} is out of range: the {self.split} split has scenes 0 to {len(self) - 1}")
        rng = seeds.generator(self.seed, "synthetic sounds", SPLITS.index(self.split), i)
        number = int(rng.integers(len(KINDS)))
        pitch = float(np.exp(rng.uniform(np.log(300), np.log(2000))))
        sound = make(rng, KINDS[number], pitch, np.arange(self.samples) / self.rate)
        noise = rng.normal(size=self.samples)
        loudness = 10 ** (rng.uniform(*self.decibels) / 20) * noise.std() / max(sound.std(), 1e-9)
        waveform = (loudness * sound + noise) * 0.05
        labels = np.append(np.eye(len(KINDS))[number], np.log(pitch)).astype(np.float32)
        return {"waveform": waveform.astype(np.float32), "labels": labels, "class": np.array(number, np.int64)}


def make(rng: np.random.Generator, name: str, pitch: float, time: np.ndarray) -> np.ndarray:
    """A sound of a kind at `time` seconds, of any loudness. pitch: Hz."""
    length, speed = time[-1] + time[1], rng.uniform(4, 8)
    wave = 2 * np.pi * pitch * time + rng.uniform(0, 2 * np.pi)
    if name in ("rising", "falling"):
        sweep = time if name == "rising" else length - time
        return np.sin(2 * np.pi * pitch * (sweep + 0.5 * sweep**2 / length))
    if name == "vibrato":
        return np.sin(wave + 0.15 * pitch / speed * np.sin(2 * np.pi * speed * time))
    if name == "tremolo":
        return np.sin(wave) * (1 + np.sin(2 * np.pi * speed * time))
    if name == "harmonics":
        return np.sum([np.sin(k * wave / 2) / k for k in range(1, 7)], axis=0)
    if name == "clicks":
        return np.sin(wave) * np.exp(-60 * np.mod(time + rng.uniform(0, 1), 1 / speed))
    if name == "hiss":  # a band of noise about the pitch
        spectrum = np.fft.rfft(rng.normal(size=len(time)))
        octaves = np.log2(np.maximum(np.fft.rfftfreq(len(time), time[1]), 1.0) / pitch)
        return np.fft.irfft(spectrum * np.exp(-0.5 * np.square(octaves / 0.15)), len(time))
    return np.sin(wave)
