"""The command that makes masks: what it writes, what it refuses, and that nothing is lost however it ends."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from cjepa_jax import cli
from cjepa_jax.data import batching, pipeline
from cjepa_jax.data import segment as command_module
from cjepa_jax.data.formats import rle
from cjepa_jax.data.sources import annotations
from cjepa_jax.data.sources.coco import Coco
from cjepa_jax.masks import objects
from tests.data import sams

needs_slic = pytest.mark.needs("skimage")


@pytest.fixture(autouse=True)
def logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def pictures(root: Path, count: int = 3, size: int = 32) -> Path:
    """Pictures of a coloured square on grey, in two folders."""
    (root / "images/more").mkdir(parents=True)
    for i in range(count):
        image = np.full((size, size + 8, 3), 120, np.uint8)
        image[4 + i % 5 : size // 2 + i % 5, 8:24] = (20, 40 * (i % 5), 250)
        cv2.imwrite(str(root / f"images/{'more/' * (i % 2)}p{i:03d}.png"), image)
    return root


def segment(*flags: str) -> int:
    """The command's exit code, in this process."""
    return cli.guard(lambda: command_module.main(list(flags)))


def command(root: Path, *flags: str, backend: str = "slic") -> int:
    return segment(f"--images={root}/images", f"--out={root}/segments", f"--backend={backend}", *flags)


def contents(root: Path) -> dict[str, bytes]:
    return {name: (root / "segments" / name).read_bytes() for name in annotations.tree(root / "segments", (".json",))}


@needs_slic
def test_superpixels_from_the_command_to_a_batch(tmp_path, capsys):
    assert command(pictures(tmp_path, 6), "--segments=9") == 0
    assert "6 images, 0 were there, 6 segmented" in capsys.readouterr().out
    written = json.loads((tmp_path / "segments/more/p001.png.json").read_text())
    assert written["image"] == {"file_name": "more/p001.png", "height": 32, "width": 40}
    masks = [rle.decode(entry["segmentation"], 32, 40, "here") for entry in written["annotations"]]
    assert (sum(mask.astype(int) for mask in masks) == 1).all()  # superpixels are all of the image
    for mask, entry in zip(masks, written["annotations"], strict=True):
        left, top, width, height = entry["bbox"]
        assert mask.sum() == entry["area"] == mask[top : top + height, left : left + width].sum()
        assert mask[top].any() and mask[:, left].any() and mask[top + height - 1].any()

    source = Coco(path=str(tmp_path), size=32)
    assert pickle.loads(pickle.dumps(source)) == source and len(source) == 5
    mask = partial(objects.draw, max_objects=3, area=(0.05, 0.6))
    scenes = pipeline.SceneMap(source, mask, 8, 1, 32, 8, "zero_pixels", 0, frames=1, crop=True)
    rows = [scenes(i, 0) for i in range(4)]
    batch = batching.collate(rows)
    assert batch["video"].shape == (4, 1, 32, 32, 3) and batch["object_valid"].any(1).all()
    assert not any(row["replaced"] for row in rows) and batch["removed"].any()


@needs_slic
def test_goes_on_where_it_was(tmp_path, capsys):
    command(pictures(tmp_path))
    before = contents(tmp_path)
    kept = (tmp_path / "segments/p000.png.json").stat().st_mtime_ns
    (tmp_path / "segments/p002.png.json").unlink()
    (tmp_path / "segments/p002.png.json.tmp").write_text("{")
    assert command(tmp_path) == 0 and contents(tmp_path) == before
    assert "3 images, 2 were there, 1 segmented" in capsys.readouterr().out
    assert (tmp_path / "segments/p000.png.json").stat().st_mtime_ns == kept


@needs_slic
def test_limit(tmp_path):
    assert command(pictures(tmp_path), "--limit=1") == 0 and len(contents(tmp_path)) == 2
    assert command(tmp_path) == 0 and len(contents(tmp_path)) == 4


@needs_slic
def test_the_white_of_16_bits_is_used_and_kept(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    small = np.full((32, 40), 300, np.uint16)
    small[:, 20:] = 4095
    cv2.imwrite(str(tmp_path / "images/a.png"), small)
    (tmp_path / "eight/images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "eight/images/a.png"), np.rint(small / 4095 * 255).astype(np.uint8))
    assert command(tmp_path, "--white=4095") == 0 and command(tmp_path / "eight") == 0
    assert contents(tmp_path)["a.png.json"] == contents(tmp_path / "eight")["a.png.json"]
    assert command(tmp_path, "--white=1023") == 2
    assert "was made with --white=4095, not 1023" in capsys.readouterr().err


@needs_slic
def test_other_settings_are_refused(tmp_path, capsys):
    command(pictures(tmp_path), "--segments=9")
    before = contents(tmp_path)
    for flags, message in (
        (["--segments=16"], "was made with --segments=9, not 16"),
        (["--segments=9", "--compactness=3"], "was made with --compactness=10.0, not 3.0"),
    ):
        assert command(tmp_path, *flags) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "images").rename(tmp_path / "others")
    assert segment(f"--images={tmp_path}/others", f"--out={tmp_path}/segments", "--backend=slic") == 2
    assert f"was made with --images={tmp_path}/images, not" in capsys.readouterr().err
    assert contents(tmp_path) == before


@needs_slic
@pytest.mark.parametrize("text", ["", "[]", "{", "5"])
def test_damaged_settings_are_refused(tmp_path, capsys, text):
    command(pictures(tmp_path, 1))
    (tmp_path / "segments/settings.json").write_text(text)
    assert command(tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: --out={tmp_path}/segments: ")


@needs_slic
def test_broken_images(tmp_path, capsys):
    pictures(tmp_path)
    (tmp_path / "images/p000.png").write_bytes(b"not an image")
    (tmp_path / "images/zz.png").symlink_to("/etc/hostname")
    assert command(tmp_path) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path}/images/p000.png: ") and "1 of 4 images" in error
    assert len(contents(tmp_path)) == 2  # settings.json and more/p001.png: nothing made is lost
    assert command(tmp_path, "--max-broken=0.5") == 0
    out, err = capsys.readouterr()
    assert "2 unreadable" in out and "leads out of" in err
    assert sorted(contents(tmp_path)) == ["more/p001.png.json", "p002.png.json", "settings.json"]
    assert len(Coco(path=str(tmp_path))) == 1


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (["--backend=sam"], 2, "--weights is missing"),
        (["--backend=sam", "--weights=/nowhere"], 2, "--weights=/nowhere: no such folder"),
        (["--backend=slic", "--score=0.5"], 2, "--score: is for --backend=sam, not slic"),
        (["--backend=slic", "--weights=/x"], 2, "--weights: is for --backend=sam"),
        (["--backend=sam", "--segments=4"], 2, "--segments: is for --backend=slic"),
        (["--backend=watershed"], 2, "'watershed'"),
        ([], 2, "--backend"),
        (["--backend=slic", "--segments=1"], 2, "--segments: 1: must be 2 to 1000"),
        (["--backend=slic", "--white=70000"], 2, "--white: 70000: must be 0 to 65535"),
        (["--backend=slic", "--limit=0"], 2, "--limit: 0: must be 1 or more"),
        (["--backend=slic", "--max-broken=x"], 2, "--max-broken: 'x': must be a number"),
        (["--backend=sam", "--score=nan"], 2, "--score: nan"),
        (["--backend=sam", "--area=0.4,0.05"], 2, "--area: 0.4,0.05: must be two shares"),
        (["--backend=sam", "--area=big"], 2, "--area: 'big': must be two numbers"),
        (["--backend=slic", "--segment=4"], 2, "--segment=4"),
    ],
)
def test_bad_command_lines(tmp_path, capsys, flags, code, message):
    pictures(tmp_path, 1)
    assert segment(f"--images={tmp_path}/images", f"--out={tmp_path}/segments", *flags) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert not (tmp_path / "segments").exists()


@needs_slic
def test_bad_folders(tmp_path, capsys):
    pictures(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for images, out, code, message in (
        ("nowhere", "segments", 3, "nowhere: no such folder"),
        ("empty", "segments", 3, "no images (.png"),
        ("images", "images", 2, "holds other files"),
        ("images", "file", 2, "file: cannot be used"),
    ):
        assert segment(f"--images={tmp_path}/{images}", f"--out={tmp_path}/{out}", "--backend=slic") == code
        assert message in capsys.readouterr().err


def run(root: Path, *flags: str, **options) -> subprocess.Popen:
    words = [f"--images={root}/images", f"--out={root}/segments", *flags]
    return subprocess.Popen([sys.executable, "-m", "cjepa_jax.data.segment", *words], **options)


@pytest.mark.slow
@pytest.mark.parametrize("backend, package", [("slic", "skimage"), ("sam", "transformers"), ("sam", "torch")])
def test_missing_package_names_the_extra(tmp_path, backend, package):
    """A package that Python cannot find, in a separate process."""
    pictures(tmp_path, 1)
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    flags = [f"--images={tmp_path}/images", f"--out={tmp_path}/segments", f"--backend={backend}"]
    flags += [f"--weights={tmp_path}"] if backend == "sam" else []
    hide = (
        f"import sys; sys.modules[{package!r}] = None; from cjepa_jax import cli; from cjepa_jax.data import segment; "
    )
    code = f"{hide} raise SystemExit(cli.guard(lambda: segment.main({flags!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"needs the package {package}" in done.stderr and "pip install 'cjepa_jax[sam]'" in done.stderr


@pytest.mark.slow
@needs_slic
def test_killed_at_any_moment(tmp_path):
    """kill -9 again and again: files are whole or absent, and the end is that of a run that was never touched."""
    pictures(tmp_path, 60, 96)
    assert run(tmp_path, "--backend=slic").wait() == 0
    expected = contents(tmp_path)
    (tmp_path / "segments").rename(tmp_path / "untouched")
    kills = 0
    for wanted in (1, 10, 30):
        process = run(tmp_path, "--backend=slic", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            there = contents(tmp_path) if (tmp_path / "segments").exists() else {}
            if len(there) > wanted:
                os.kill(process.pid, signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.005)
        assert contents(tmp_path).items() <= expected.items()
    assert kills >= 2 and len(contents(tmp_path)) < len(expected)
    assert run(tmp_path, "--backend=slic").wait() == 0 and contents(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.needs("torch")
@pytest.mark.needs("transformers")
@pytest.mark.parametrize("kind, seed, scale", [("sam", 2, 0.3), ("sam2", 0, 0.2)])
def test_sam_from_the_command_to_scenes(tmp_path, capsys, kind, seed, scale):
    weights = sams.write(tmp_path / "weights", kind, seed, scale)
    flags = [f"--weights={weights}", "--score=-9", "--stability=0", "--area=0.001,1", "--points-per-side=4"]
    pictures(tmp_path, 2)
    assert command(tmp_path, *flags, "--batch=16", backend="sam") == 0
    before = contents(tmp_path)
    settings = json.loads(before["settings.json"])
    assert settings["area"] == [0.001, 1] and settings["points_per_side"] == 4 and len(settings["weights"]) == 64
    entry = json.loads(before["p000.png.json"])["annotations"][0]
    assert set(entry) == {"segmentation", "area", "bbox", "predicted_iou", "stability_score"}
    read = sorted(len(Coco(split, str(tmp_path))[0]["masks"]) for split in ("train", "eval"))
    names = ("p000.png.json", "more/p001.png.json")
    assert read == sorted(len(json.loads(before[name])["annotations"]) for name in names)
    assert command(tmp_path, *flags, "--batch=7", backend="sam") == 0 and contents(tmp_path) == before
    assert command(tmp_path, *flags, "--top=3", backend="sam") == 2
    assert "was made with --top=20, not 3" in capsys.readouterr().err
    sams.write(weights, kind, seed + 1, scale)
    assert command(tmp_path, *flags, backend="sam") == 2
    assert "was made with --weights=" in capsys.readouterr().err
