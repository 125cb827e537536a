"""Writes tests/golden/sam2_generation.json: masks that transformers' own pipeline makes with a random small SAM 2.

Its image processor for SAM 2 needs torchvision, which loads only beside a PyTorch of the same build:

    python -m venv /tmp/sam2 && /tmp/sam2/bin/pip install torch torchvision transformers pillow
    /tmp/sam2/bin/python tests/data/segmenters/sam2_generation.py
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[2]
GOLDEN = TESTS / "golden/sam2_generation.json"
WEIGHTS = {"kind": "sam2", "seed": 1, "scale": None}
SIDE, POINTS, SAME = 64, 4, 0.7


def picture(size: int) -> np.ndarray:
    """uint8 [size,size,3]: two rectangles on grey, with noise."""
    out = np.full((size, size, 3), 200, np.uint8)
    out[size // 8 : size // 2, size // 4 : size // 2] = (220, 20, 60)
    out[size // 3 : -size // 8, size // 2 : -size // 8] = (10, 40, 200)
    return out - np.random.default_rng(0).integers(0, 10, out.shape, np.uint8)


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32 [300,4] that overlap each other much, and their scores [300]."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 12, (300, 2))
    sides = rng.integers(8, 20, (300, 2))
    return np.concatenate([corners, corners + sides], 1).astype(np.float32), rng.random(300, np.float32)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    import torch
    import torchvision
    import transformers
    from PIL import Image

    sys.path.insert(0, str(TESTS / "data"))
    import sams

    folder = sams.write(Path(tempfile.mkdtemp()), **WEIGHTS)
    processor = transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    model = transformers.Sam2Model.from_pretrained(folder)
    generate = transformers.pipeline("mask-generation", model=model, image_processor=processor, device="cpu")
    versions = {module.__name__: module.__version__ for module in (torch, torchvision, transformers)}
    golden = {"versions": versions, "sha256": digest(folder), "pictures": {}}
    drawn, scores = (torch.from_numpy(values) for values in boxes())
    one = torch.zeros(len(drawn))  # the group of each, as the pipeline calls it
    golden["suppression"] = torchvision.ops.batched_nms(drawn, scores, one, SAME).tolist()
    for size in (SIDE, 96):
        given = dict(points_per_crop=POINTS, stability_score_thresh=0.0, output_rle_mask=True, output_bboxes_mask=True)
        image = Image.fromarray(picture(size))
        every = generate(image, pred_iou_thresh=0.0, crops_nms_thresh=1.0, **given)["scores"].sort().values
        middle = len(every) // 2
        score = float(every[middle - 1 : middle + 1].mean())
        found = generate(image, pred_iou_thresh=score, crops_nms_thresh=1.0, **given)  # by decreasing score
        kept = generate(image, pred_iou_thresh=score, crops_nms_thresh=SAME, **given)
        golden["pictures"][str(size)] = {
            "sha256": hashlib.sha256(picture(size).tobytes()).hexdigest(),
            "score": score,
            "scores": found["scores"].tolist(),
            "boxes": found["bounding_boxes"].tolist(),  # left, top, right, bottom: the last pixels
            "runs": [code["counts"] for code in found["rle_mask"]],  # down the columns, beginning with 0
            "kept": [found["scores"].tolist().index(score) for score in kept["scores"].tolist()],
        }
    GOLDEN.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
