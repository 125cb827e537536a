"""Pictures and clips of several channels: the stored values, in every format that can hold them."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from cjepa_jax.data.formats import bands
from cjepa_jax.data.formats.resize import resize
from cjepa_jax.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (12, 20, 12), np.uint8)
FLOATS = RNG.normal(size=(12, 20, 12)).astype(np.float32)
WORDS = RNG.integers(0, 10_000, (12, 20, 12)).astype(np.uint16)
FIRST = {"photometric": "minisblack", "planarconfig": "separate"}
LAST = {"photometric": "minisblack", "planarconfig": "contig"}


def tiff(file, values, **how):
    import tifffile

    tifffile.imwrite(file, values, **how)


@pytest.mark.parametrize("values, pixels", [(BYTES, "uint8"), (FLOATS, "float32"), (WORDS, "float32")])
def test_arrays(tmp_path, values, pixels):
    np.save(tmp_path / "a.npy", values)
    found, orientation = bands.read(tmp_path / "a.npy", 12, pixels)
    assert found.dtype == pixels and orientation == 1
    np.testing.assert_array_equal(found, values)
    np.save(tmp_path / "a.npy", values[..., 0])
    np.testing.assert_array_equal(bands.read(tmp_path / "a.npy", 1, pixels)[0][..., 0], values[..., 0])


@pytest.mark.needs("tifffile")
@pytest.mark.parametrize(
    "values, pixels, how",
    [
        (BYTES, "uint8", LAST),
        (BYTES, "uint8", LAST | {"tile": (16, 16), "compression": "zlib"}),
        (np.moveaxis(WORDS, -1, 0), "float32", FIRST | {"compression": "zlib"}),
        (np.moveaxis(FLOATS, -1, 0), "float32", {"photometric": "minisblack"}),  # a page for each band
    ],
    ids=["in one page", "tiles", "band after band", "pages"],
)
def test_tiffs(tmp_path, values, pixels, how):
    tiff(tmp_path / "a.tif", values, **how)
    wanted = np.moveaxis(values, 0, -1) if values.shape[0] == 12 and values.shape[2] == 20 else values
    np.testing.assert_array_equal(bands.read(tmp_path / "a.tif", 12, pixels)[0], wanted)


def pages(file, compression):
    """Four bands, a page each, written by libtiff."""
    first, *more = (Image.fromarray(BYTES[..., k]) for k in range(4))
    first.save(file, save_all=True, append_images=more, compression=compression)


@pytest.mark.needs("tifffile")
@pytest.mark.needs("imagecodecs")
def test_lzw(tmp_path):
    pages(tmp_path / "a.tif", "tiff_lzw")
    np.testing.assert_array_equal(bands.read(tmp_path / "a.tif", 4, "uint8")[0], BYTES[..., :4])


@pytest.mark.needs("tifffile")
@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs reads them")
@pytest.mark.parametrize("compression", ["tiff_lzw", "zstd"])
def test_a_compression_that_is_not_read_says_what_to_install_or_how_to_save(tmp_path, compression):
    pages(tmp_path / "a.tif", compression)
    with pytest.raises(DataError) as caught:
        bands.read(tmp_path / "a.tif", 4, "uint8")
    kind = compression.removeprefix("tiff_").upper()
    assert str(caught.value) == (
        f"{tmp_path / 'a.tif'}: {kind} needs the package imagecodecs: pip install 'cjepa_jax[bands]', or save it again "
        "with Deflate, without compression or as .npy"
    )


@pytest.mark.parametrize("channels, values, pixels", [(1, BYTES[..., 0], "uint8"), (1, WORDS[..., 0], "float32")])
def test_depth_in_a_png(tmp_path, channels, values, pixels):
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(bands.read(tmp_path / "a.png", channels, pixels)[0][..., 0], values)


def test_four_channels_in_a_png_keep_their_order(tmp_path):
    Image.fromarray(BYTES[..., :4]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(bands.read(tmp_path / "a.png", 4, "uint8")[0], BYTES[..., :4])


BAD = FLOATS.copy()
BAD[0, :3, 0] = np.nan


@pytest.mark.parametrize(
    "name, write, pixels, parts",
    [
        ("a.npy", lambda f: np.save(f, np.moveaxis(BYTES, -1, 0)), "uint8", ("[12, 12, 20]", "is 12")),
        ("a.npy", lambda f: np.save(f, np.ones((12, 30, 20), np.uint8)), "uint8", ("moveaxis(x, 0, -1)",)),
        ("a.npy", lambda f: np.save(f, np.asfortranarray(BYTES)), "uint8", ("ascontiguousarray",)),
        ("a.npy", lambda f: np.save(f, np.array([{}]), allow_pickle=True), "uint8", ("object",)),
        ("a.npy", lambda f: np.save(f, WORDS), "uint8", ("uint16", "'float32'", "objective.encoder.scale")),
        ("a.npy", lambda f: np.save(f, BAD), "float32", ("3 of 2880", "not finite")),
        ("a.npy", lambda f: f.write_bytes(b"no array"), "uint8", ("not an array",)),
        ("a.png", lambda f: Image.fromarray(BYTES[..., :3]).save(f), "uint8", ("[12, 20, 3]", "is 12")),
        ("a.jpg", lambda f: Image.fromarray(BYTES[..., :3]).save(f), "uint8", ("JPEG holds RGB", ".npy or TIFF")),
    ],
)
def test_what_does_not_hold_them_is_refused_by_name(tmp_path, name, write, pixels, parts):
    write(tmp_path / name)
    with pytest.raises(DataError) as caught:
        bands.read(tmp_path / name, 12, pixels)
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["a.npy", pytest.param("a.tif", marks=pytest.mark.needs("tifffile"))])
def test_files_that_are_cut_short(tmp_path, name, kept):
    file = tmp_path / name
    np.save(file, BYTES) if name == "a.npy" else tiff(file, BYTES, **LAST)
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(DataError, match=f"{name}: {'.*' if name == 'a.npy' else 'is '}cut short"):
        bands.read(file, 12, "uint8")


@pytest.mark.parametrize("bad", [{"channels": 0}, {"channels": 3.0}, {"channels": 513}, {"pixels": "uint16"}])
def test_options(bad):
    with pytest.raises(ConfigError, match=f"data.options.{next(iter(bad))} is"):
        bands.check_options(**{"channels": 12, "pixels": "uint8"} | bad)


@pytest.mark.parametrize("size", [(7, 5), (30, 8), (50, 40)])
@pytest.mark.parametrize("values", [BYTES, FLOATS[..., :9], FLOATS[..., :5]])
def test_channels_are_resized_one_like_the_other(values, size):
    together = resize(values, size)
    assert together.shape == (*size[::-1], values.shape[2])
    for c in range(values.shape[2]):
        np.testing.assert_allclose(together[..., c : c + 1], resize(values[..., c : c + 1], size), atol=1e-5)
