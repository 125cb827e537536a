"""Sounds: the log-mel spectrogram of the public code, files, folders, synthetic sounds, the map of scenes."""

import importlib
import itertools
import struct
import wave

import numpy as np
import pytest

from cjepa_jax.data import assemble, mel
from cjepa_jax.data.formats import point_files, sound_files
from cjepa_jax.data.inspection import published
from cjepa_jax.data.sources import sounds
from cjepa_jax.data.sources.sound_files import SoundFiles
from cjepa_jax.errors import ConfigError, DataError
from tests.objectives import family

RATE = 32_000


def clip(seconds):
    """tests/golden/family/audio_jepa.json, clip_rule."""
    time = np.arange(seconds * RATE) / RATE
    chirp = np.sin(2 * np.pi * (200 * time + (8000 - 200) / (2 * seconds) * time**2))
    noise = np.random.RandomState(9).standard_normal(len(time))
    return (chirp * (1 + 0.5 * np.sin(2 * np.pi * 4 * time)) * 0.2 + 0.01 * noise).astype(np.float32)


def test_spectrograms_are_those_of_the_public_code():
    numbers, arrays = family.stored("audio_jepa")
    for seconds, frames, name, every in ((1, 64, "fbank_1s", 1), (10, 512, "fbank_10s_every16", 16)):
        found = mel.log_mel(clip(seconds), RATE, frames, 96)
        wanted = arrays[name]
        # There the spectrum is computed in float32, which shows where a band holds almost nothing.
        np.testing.assert_allclose(found[::every], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
        assert (np.abs(found[::every] - wanted) < 1e-4).mean() > 0.99
    assert (found != 0).any(1).sum() == numbers["frames_of_10_s_before_padding"] == 510
    np.testing.assert_allclose(found[-4:], arrays["fbank_10s_tail"], atol=1e-3)
    filters = mel.filters(96, 2048, RATE)
    np.testing.assert_array_equal(filters.argmax(1), arrays["mel_bank_peak"])
    np.testing.assert_allclose(filters.sum(1), arrays["mel_bank_sum"], rtol=1e-4)


def test_a_tone_is_in_its_band_and_a_short_sound_is_refused():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    found = mel.log_mel(tone, 16_000, 64, 64)
    edges = 1127 * np.log(1 + np.array([20.0, 8000.0, 1000.0]) / 700)
    assert abs(found[10].argmax() - ((edges[2] - edges[0]) / (edges[1] - edges[0]) * 65 - 1)) <= 1
    with pytest.raises(ValueError, match="63 samples: must be at least the 64 frames"):
        mel.log_mel(tone[:63], 16_000, 64, 64)


def save(path, values, width=2, rate=8000):
    """A .wav of integers [S, channels]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        flat = values.ravel().tolist()
        packed = (struct.pack("<i", v)[:width] if width > 1 else struct.pack("B", v + 128) for v in flat)
        file.writeframes(b"".join(packed))
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_of_samples_is_read(tmp_path, width):
    top = 2 ** (8 * width - 1)
    values = np.array([[0, 0], [top // 2, top // 2], [-top, -top], [top // 4, -top // 4]])
    found = sound_files.read(save(tmp_path / "a.wav", values, width), 8000, 4)
    np.testing.assert_allclose(found, [0, 0.5, -1, 0], atol=1e-7)


def test_sounds_are_resampled_cut_to_the_middle_and_padded(tmp_path):
    time = np.arange(8000) / 8000
    path = save(tmp_path / "a.wav", np.round(20_000 * np.sin(2 * np.pi * 440 * time)).astype(int)[:, None])
    twice = sound_files.read(path, 16_000, 16_000)
    assert np.abs(np.fft.rfft(twice)).argmax() == 440
    np.testing.assert_allclose(sound_files.read(path, 8000, 100), sound_files.read(path, 8000, 8000)[3950:4050])
    padded = sound_files.read(path, 8000, 8010)
    assert not padded[:5].any() and not padded[-5:].any() and len(padded) == 8010


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x03\0\x01\0" + bytes(60)])
def test_damaged_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError) as error:
        sound_files.read(tmp_path / "a.wav", 8000, 10)
    assert str(error.value).startswith(f"{tmp_path}/a.wav") and "\n" not in str(error.value)


def test_folders_of_classes_and_esc_50(tmp_path):
    own, rng = tmp_path / "own", np.random.default_rng(0)
    for name in ("train/dog/a", "train/cat/b", "train/cat/c", "eval/dog/d"):
        save(own / f"{name}.wav", rng.integers(-9000, 9000, (80, 1)))
    options = dict(rate=8000, seconds=0.01, times=8, bands=4)
    train, held = (SoundFiles(split=split, path=str(own), **options) for split in ("train", "eval"))
    assert train.classes == ("cat", "dog") and [int(train[i]["class"]) for i in range(3)] == [0, 0, 1]
    assert [int(held[0]["class"]), len(held), train[0]["waveform"].shape] == [1, 1, (80,)]
    assert len(SoundFiles(path=str(own), count=2, **options).names) == 2
    esc = tmp_path / "ESC-50-master"
    pairs = itertools.product(range(1, 6), enumerate(("dog", "rain")))
    rows = [(f"{fold}-1-A-{target}.wav", fold, target, name) for fold, (target, name) in pairs]
    for name, *_ in rows:
        save(esc / "audio" / name, rng.integers(-9000, 9000, (80, 1)))
    (esc / "meta").mkdir()
    head = "filename,fold,target,category,esc10,src_file,take\n"
    text = head + "".join(f"{name},{fold},{target},{category},True,1,A\n" for name, fold, target, category in rows)
    (esc / "meta/esc50.csv").write_text(text)
    train, held = (SoundFiles(split=split, path=str(esc), **options) for split in ("train", "eval"))
    assert (len(train), len(held), train.classes) == (8, 2, ("dog", "rain")) and int(held[1]["class"]) == 1
    (esc / "meta/esc50.csv").write_text(text.replace("1-1-A-0.wav", "../../own/x.wav"))
    with pytest.raises(DataError, match="must be the name of a file in audio/"):
        SoundFiles(path=str(esc), **options)
    for table, wrong in ((head + "x" * 200_000, "must have the columns"), (text * 100_000, "are read")):
        (esc / "meta/esc50.csv").write_text(table)
        with pytest.raises(DataError, match=wrong):
            SoundFiles(path=str(esc), **options)
    for name, value in (("rate", 40), ("seconds", "a")):
        with pytest.raises(ConfigError, match=f"data.options.{name}"):
            SoundFiles(path=str(own), **options | {name: value})
    for value in (5.0, ("a", "b"), (3, 1)):
        with pytest.raises(ConfigError, match="data.options.decibels"):
            sounds.Sounds(decibels=value)


def test_a_table_with_esc_50s_published_numbers_of_sounds(tmp_path):
    """2,000 sounds of 50 classes in five folds of 400, of which the last is held out. No sound is read."""
    (tmp_path / "meta").mkdir()
    rows = [
        f"{fold}-{take}-A-{target}.wav,{fold},{target},class {target},False,{take},A\n"
        for target in range(50) for fold in range(1, 6) for take in range(8)
    ]  # fmt: skip
    (tmp_path / "meta/esc50.csv").write_text("filename,fold,target,category,esc10,src_file,take\n" + "".join(rows))
    train, held = (SoundFiles(split=split, path=str(tmp_path)) for split in ("train", "eval"))
    assert (len(train), len(held), len(train.classes)) == (1600, 400, 50)
    assert np.bincount(train.of).tolist() == [32] * 50 and np.bincount(held.of).tolist() == [8] * 50
    assert published.compare({"train": train, "eval": held}) == []
    folds = [SoundFiles(split="eval", path=str(tmp_path), fold=fold) for fold in range(1, 6)]
    assert len({name for fold in folds for name in fold.names}) == 2000  # no sound twice
    assert folds[4].names == held.names and folds[0].names[0].startswith("audio/1-")
    with pytest.raises(ConfigError, match="data.options.fold is 6: must be at most 5"):
        SoundFiles(path=str(tmp_path), fold=6)
    (tmp_path / "meta/esc50.csv").write_text("filename,fold,target,category,esc10,src_file,take\n" + "".join(rows[1:]))
    (line,) = published.compare({"train": SoundFiles(path=str(tmp_path))})
    assert line.startswith("train: SoundFiles has 1,599 sounds, published are 1,600: a part is missing")


def test_synthetic_sounds_are_the_same_each_time_and_of_every_kind():
    source = sounds.Sounds(count=64)
    scene = source[3]
    np.testing.assert_array_equal(scene["waveform"], sounds.Sounds(count=64)[3]["waveform"])
    assert scene["waveform"].shape == (16_000,) and np.isfinite(scene["waveform"]).all()
    assert {int(source[i]["class"]) for i in range(64)} == set(range(8))
    assert scene["labels"][:8].argmax() == scene["class"] and len(source.label_names) == 9
    time = np.arange(16_000) / 16_000
    for name in sounds.KINDS:
        sound = sounds.make(np.random.default_rng(1), name, 500.0, time)
        assert sound.shape == time.shape and np.isfinite(sound).all() and sound.std() > 0.01, name
    loud = mel.log_mel(sounds.make(np.random.default_rng(1), "rising", 500.0, time), 16_000, 64, 64)[:60].argmax(1)
    assert (np.diff(loud) >= 0).all() and loud[-1] > loud[0] + 5


def config(**changes):
    c = importlib.import_module("configs.family.audio_jepa").get_config().copy_and_resolve_references().unlock()
    c.update_from_flattened_dict({"data.options.times": 32, "data.options.bands": 16} | changes)
    return c


def made(**changes):
    c = config(**changes)
    source = assemble.make_source(c, "train")
    return source, assemble.make_scenes(c, source, 8, 1)


def test_a_scene_is_the_spectrogram_of_its_sound():
    source, scenes = made()
    scene = scenes(3, 0)
    np.testing.assert_array_equal(scene["video"][0, ..., 0], mel.log_mel(source[3]["waveform"], 16_000, 32, 16))
    assert scenes.grid == (1, 4, 2) and scene["context"].shape == (8,)
    assert 3 <= scene["context"].sum() <= 4  # int(8 (1 - 0.4..0.6))


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"data.options.times": 36}, "data.options.times = 36: must be a multiple of the model's patches, 8"),
        ({"data.crop": True}, "data.crop = True: must be False for sounds"),
        ({"data.intervened": "zero_pixels"}, "data.intervened = 'zero_pixels': must be none for sounds"),
    ],
)
def test_settings_that_sounds_do_not_have_are_refused(changes, text):
    with pytest.raises(ConfigError) as error:
        made(**changes)
    assert str(error.value).startswith(text)


def test_broken_sounds_are_refused(monkeypatch):
    _, scenes = made()
    for waveform, text in (
        (np.zeros(9, np.float32), "waveform is float32 [9]: must be float32 [16000]"),
        (np.full(16_000, np.inf, np.float32), "sample 0: must be finite"),
    ):
        monkeypatch.setattr(sounds.Sounds, "__getitem__", lambda self, i, w=waveform: {"waveform": w})
        with pytest.raises(DataError, match=r"^scene 0 of Sounds") as error:
            scenes(0, 0)
        assert str(error.value).endswith(text)


def test_a_missing_file_is_a_fault_of_the_data(tmp_path):
    with pytest.raises(DataError, match="gone.wav: No such file"):
        sound_files.read(tmp_path / "gone.wav", 8000, 100)
    with pytest.raises(DataError, match="gone.off: No such file"):
        point_files.read(tmp_path / "gone.off", 8, np.random.default_rng(0))


def test_of_a_long_sound_only_the_middle_is_resampled(tmp_path):
    time = np.arange(100_000) / 8000
    save(tmp_path / "long.wav", np.round(20_000 * np.sin(2 * np.pi * 500 * time)).astype(np.int16)[:, None])
    found = sound_files.read(tmp_path / "long.wav", 16_000, 1600)
    spectrum = np.abs(np.fft.rfft(found))
    assert spectrum.argmax() == 500 * 1600 // 16_000 and np.abs(found).max() == pytest.approx(20_000 / 2**15, rel=0.01)
    assert len(sound_files._middle(np.zeros(100_000), 1600, 0.5)) <= 842
    short = sound_files._middle(np.arange(101.0), 11, 1.0)
    assert len(short) == 51 and short[25] == 50


def test_a_rate_that_lies_is_refused(tmp_path):
    save(tmp_path / "slow.wav", np.ones((100, 1), np.int16), rate=1)
    with pytest.raises(DataError, match="slow.wav: 1 Hz: must be from 1000 to 1000000 Hz"):
        sound_files.read(tmp_path / "slow.wav", 8000, 100)


@pytest.mark.needs("soundfile")
def test_a_flac_file_is_its_samples_and_one_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    import soundfile

    values = np.random.default_rng(0).integers(-30_000, 30_000, (500, 2), np.int16)
    soundfile.write(tmp_path / "a.flac", values, 8000)
    save(tmp_path / "a.wav", values)
    read = [sound_files.read(tmp_path / name, 8000, 500) for name in ("a.flac", "a.wav")]
    np.testing.assert_array_equal(*read)
    np.testing.assert_allclose(read[0], values.mean(1) / 2**15, atol=1e-7)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:50])
    with pytest.raises(DataError, match="cut.flac: not a readable .flac file"):
        sound_files.read(tmp_path / "cut.flac", 8000, 500)
    monkeypatch.setattr(sound_files, "MOST", 7000)
    soundfile.write(tmp_path / "silence.flac", np.zeros((1000, 2), np.int16), 8000)
    with pytest.raises(DataError, match="silence.flac: not a readable .flac file: 1000 samples of 2 channels"):
        sound_files.read(tmp_path / "silence.flac", 8000, 500)
