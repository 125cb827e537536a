"""SAM and SAM 2 as transformers has them, at tiny sizes with random weights: the real code, no real objects."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from cjepa_jax.data.segmenters import sam, select
from cjepa_jax.errors import ConfigError
from tests.data import sams
from tests.data.segmenters import sam2_generation

pytestmark = [pytest.mark.slow, pytest.mark.needs("torch"), pytest.mark.needs("transformers")]
ALL = {"score": -1e9, "stability": 0.0, "area": (0.0, 1.0), "points_per_side": 4, "top": 20}
KINDS = {"sam": (2, 0.3), "sam2": (0, 0.2), "sam2_video": (2, 0.5)}  # seeds and scales whose masks are not all empty


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: sams.write(tmp_path_factory.mktemp(kind), kind, *KINDS[kind]) for kind in KINDS}


def image(height: int = 70, width: int = 96) -> np.ndarray:
    rng = np.random.default_rng(0)
    out = np.full((height, width, 3), 200, np.uint8)
    out[10:40, 20:60], out[35:65, 50:90] = (220, 20, 60), (10, 40, 200)
    return out - rng.integers(0, 10, out.shape, np.uint8)


def make(folder, **settings):
    return sam.make(ALL | settings | {"weights": folder}, "cpu", 16)


@pytest.mark.parametrize("kind", KINDS)
def test_masks(folders, kind):
    segment, identity = make(folders[kind])
    found = segment(image())
    masks = np.stack([mask for mask, _ in found])
    assert len(found) and masks.dtype == bool and masks.shape[1:] == (70, 96)
    assert masks.sum(0).max() == 1 and masks.any((1, 2)).all()
    assert set(found[0][1]) == {"predicted_iou", "stability_score"} and len(identity["weights"]) == 64
    again = segment(image())
    assert all((a[0] == b[0]).all() and a[1] == b[1] for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("kind", ["sam", "sam2"])
@pytest.mark.parametrize("size", [(96, 70), (3, 200)])
def test_every_shape_and_batch(folders, kind, size):
    """However the points are split, the masks are the same but for rounding."""
    few, _ = sam.make(ALL | {"weights": folders[kind]}, "cpu", 5)
    all_at_once, _ = sam.make(ALL | {"weights": folders[kind]}, "cpu", 64)
    a, b = few(image(96, 200)[: size[0], : size[1]]), all_at_once(image(96, 200)[: size[0], : size[1]])
    assert len(a) == len(b) and all((x[0] == y[0]).mean() > 0.99 for x, y in zip(a, b, strict=True))


def test_steps_are_those_of_transformers(folders):
    """Its own preparation, point grid and enlargement, which work without torchvision for SAM alone."""
    import torch
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    segment, _ = make(folders["sam"])
    theirs = SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    for size in ((70, 96), (96, 70), (31, 200)):
        picture = image(96, 200)[: size[0], : size[1]]
        inputs = theirs(picture, return_tensors="pt")
        assert torch.allclose(segment.pixels(picture), inputs["pixel_values"].float(), atol=1e-5)
        assert inputs["reshaped_input_sizes"].tolist() == [list(segment.fit(*size))]
        logits = torch.randn(4, 32, 32)
        large = theirs.post_process_masks(
            logits[None, :, None], inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
        )
        assert np.allclose(segment.enlarge(logits.numpy(), picture), large[0][:, 0].numpy(), atol=1e-4)
    _, points, _, _ = theirs.generate_crop_boxes(image(), 64, points_per_crop=4)
    seen = []
    segment.model.register_forward_pre_hook(lambda _, args, given: seen.append(given["input_points"]), with_kwargs=True)
    segment(image())
    ours = torch.cat(seen, 1)[0, :, 0]
    assert torch.allclose(ours, points.reshape(-1, 2).float(), atol=0.5)  # they round the image's size differently


@pytest.mark.parametrize("size", [(64, 64), (32, 64), (70, 96)])
def test_generation_is_that_of_transformers(folders, size, monkeypatch):
    """From the picture to the masks that pass its thresholds, by transformers alone and by ours.

    Only its box suppression needs torchvision, so both leave it out. Its thresholds are at the picture's size, ours at
    the logits', so the stability threshold is 0 and stabilities are compared with a tolerance.
    """
    import torch
    from transformers.models.sam import image_processing_pil_sam as theirs

    monkeypatch.setattr(sam, "SAME", 2.0)
    picture = image(96, 200)[: size[0], 40 : 40 + size[1]]
    processor = theirs.SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    boxes, points, crops, labels = processor.generate_crop_boxes(picture, 64, points_per_crop=4)
    inputs = processor(crops, return_tensors="pt")
    segment, _ = make(folders["sam"])
    with torch.inference_mode():
        given = dict(pixel_values=inputs["pixel_values"].float(), input_points=points.float(), input_labels=labels)
        out = segment.model(**given)
    sizes = inputs["original_sizes"].tolist()
    large = processor.post_process_masks(
        out.pred_masks, sizes, reshaped_input_sizes=inputs["reshaped_input_sizes"].tolist(), binarize=False
    )
    coded, scores, _ = processor.filter_masks(large[0], out.iou_scores[0], sizes[0], boxes[0], 0.0, 0.0)  # all
    masks = np.stack([theirs._rle_to_mask(code) for code in coded]).astype(bool)
    masks, scores = masks[masks.any((1, 2))], scores.numpy()[masks.any((1, 2))]
    cut = float(np.median(scores))
    masks, scores = masks[scores > cut], scores[scores > cut]
    logits, found = dataclasses.replace(segment, settings=segment.settings | {"score": cut + 1e-6}).propose(picture)
    ours = segment.enlarge(logits, picture) > 0
    exact = size != (70, 96)  # there it rounds the picture's size, and with it the points, in another way
    assert abs(len(ours) - len(masks)) <= (0 if exact else 2) and len(masks) > 4
    distance = np.abs(found[:, 0][:, None] - scores[None])
    near = distance.argmin(1)
    assert distance.min(1).max() < (1e-4 if exact else 0.05)
    agree = [(mask == masks[k]).mean() for mask, k in zip(ours, near, strict=True)]
    assert min(agree) > (0.999 if exact else 0.9)
    if exact:
        assert len(set(near)) == len(masks)
        stable = theirs._compute_stability_score(large[0].flatten(0, 1), 0, 1).numpy()
        predicted = out.iou_scores.flatten().numpy()
        same = np.abs(found[:, 0][:, None] - predicted[None]).argmin(1)
        assert np.abs(stable[same] - found[:, 1]).max() < 0.15


GENERATION = json.loads(sam2_generation.GOLDEN.read_text())


@pytest.fixture(scope="module")
def generating(tmp_path_factory):
    folder = sams.write(tmp_path_factory.mktemp("generating"), **sam2_generation.WEIGHTS)
    assert sam2_generation.digest(folder) == GENERATION["sha256"], "other weights: run sam2_generation.py again"
    return folder


@pytest.mark.parametrize("size", GENERATION["pictures"])
def test_generation_of_sam2_is_that_of_transformers(generating, size, monkeypatch):
    """The masks of its whole pipeline, made with torchvision where it loads (see sam2_generation.py).

    Pictures are square: its points for others do not cover the picture, which SAM 2 stretches to a square.
    """
    golden, picture = GENERATION["pictures"][size], sam2_generation.picture(int(size))
    assert hashlib.sha256(picture.tobytes()).hexdigest() == golden["sha256"]
    masks = []
    for runs in golden["runs"]:
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        masks.append(values.reshape(picture.shape[1], picture.shape[0]).T)
    scores = np.array(golden["scores"], np.float32)
    same = int(size) == sam2_generation.SIDE  # else both resize the picture, and round its values differently

    segment, _ = make(generating, score=golden["score"], points_per_side=sam2_generation.POINTS)
    monkeypatch.setattr(sam, "SAME", 2.0)
    logits, found = segment.propose(picture)
    ours = segment.enlarge(logits, picture) > 0
    order = np.argsort(-found[:, 0])
    np.testing.assert_allclose(found[order, 0], scores, atol=1e-5 if same else 1e-3)
    near = np.abs(found[:, 0][:, None] - scores).argmin(1)
    agree = [(mask == masks[k]).mean() for mask, k in zip(ours, near, strict=True)]
    assert min(agree) > (0.9995 if same else 0.99)
    assert sorted(near) == list(range(len(masks)))

    assert select.distinct(np.array(golden["boxes"]), scores, 0.7).tolist() == golden["kept"]
    if same:  # its boxes are those of the enlarged masks, ours of the logits, which are coarser
        monkeypatch.undo()
        _, kept = segment.propose(picture)
        np.testing.assert_allclose(np.sort(kept[:, 0])[::-1], scores[golden["kept"]], atol=1e-5)


def test_suppression_is_that_of_torchvision():
    assert select.distinct(*sam2_generation.boxes(), 0.7).tolist() == GENERATION["suppression"]


def test_the_masks_are_the_models(folders):
    """Before overlaps are resolved, a mask is one that the model gives for one of the points."""
    import torch

    segment, _ = make(folders["sam2"], top=1)
    (mask, scores), *_ = segment(image())
    centres = (np.arange(4) + 0.5) / 4 * 64
    points = torch.tensor(np.stack(np.meshgrid(centres, centres), -1).reshape(1, -1, 1, 2), dtype=torch.float32)
    with torch.inference_mode():
        out = segment.model(pixel_values=segment.pixels(image()), input_points=points)
    large = torch.nn.functional.interpolate(out.pred_masks[0], (70, 96), mode="bilinear", align_corners=False) > 0
    same = (large.numpy() == mask).mean((-1, -2))
    assert same.max() > 0.999
    assert abs(out.iou_scores[0].numpy()[same > 0.999] - scores["predicted_iou"]).min() < 1e-4


def test_filters(folders):
    segment, _ = make(folders["sam2"])

    def with_(**settings):
        return dataclasses.replace(segment, settings=ALL | settings)

    scores = [found["predicted_iou"] for _, found in segment(image())]
    assert len(scores) > 1
    cut = float(np.mean([min(scores), max(scores)]))
    kept = [found["predicted_iou"] for _, found in with_(score=cut)(image())]
    assert kept and min(kept) >= cut
    assert len(with_(top=1)(image())) == 1
    assert with_(score=1e9)(image()) == []
    assert with_(stability=1.0)(image()) == []
    for mask, _ in with_(area=(0.05, 0.4))(image()):
        assert 0.05 <= mask.mean() <= 0.4


def test_bad_weights(folders, tmp_path):
    def refused(message):
        with pytest.raises(ConfigError, match=message) as caught:
            make(tmp_path / "w")
        assert "--weights" in str(caught.value) and "\n" not in str(caught.value)

    refused("no such folder")
    (tmp_path / "w").mkdir()
    refused("config.json: No such file")
    (tmp_path / "w/config.json").write_text('{"model_type": "bert"}')
    refused("model_type 'bert', not one of sam, sam2")
    config = json.loads((folders["sam"] / "config.json").read_text())
    (tmp_path / "w/config.json").write_text(json.dumps(config))
    (tmp_path / "w/pytorch_model.bin").write_bytes(b"pickled")
    refused("pickled weights are not read")
    good = (folders["sam"] / "model.safetensors").read_bytes()
    for bad in (b"", b"x" * 100, good[: len(good) // 2]):
        (tmp_path / "w/model.safetensors").write_bytes(bad)
        refused("cannot be loaded")
    (tmp_path / "w/model.safetensors").write_bytes((folders["sam2"] / "model.safetensors").read_bytes())
    refused("lacks|cannot be loaded")
    config["vision_config"]["output_channels"] = 32
    (tmp_path / "w/config.json").write_text(json.dumps(config))
    (tmp_path / "w/model.safetensors").write_bytes(good)
    refused("cannot be loaded")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_bad_device(folders, device):
    with pytest.raises(ConfigError, match=f"--device={device}: ") as caught:
        sam.make(ALL | {"weights": folders["sam"]}, device, 64)
    assert "\n" not in str(caught.value)
