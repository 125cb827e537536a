"""Segment Anything (Kirillov et al. 2023) and SAM 2 (Ravi et al. 2024): masks of everything, from a grid of points.

The models are those of `transformers`, read from a local folder (safetensors only, nothing that could run code). Its
mask-generation pipeline needs torchvision, for box suppression and for SAM 2's images, so its steps are implemented
here:

    1. the image once through the encoder, the points through the decoder: three masks each, at low resolution
    2. kept: predicted IoU >= score, stability >= stability, share of the image within area
    3. box suppression at IoU 0.7, by predicted IoU, then the `top` largest
    4. resized to the image's size, and each pixel given to the smallest mask (`select.share_out`). Masks that are then
       below the smallest area are dropped

SAM's own generator measures steps 2 and 3 at the image's size, which takes far more time and memory. The logits have no
more detail there. Stability is the IoU of the mask cut at logit +1 with the one cut at -1.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cjepa_jax.data.formats import files
from cjepa_jax.data.segmenters import needs, select
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.host import door

SETTINGS = {
    "points_per_side": 32,  # points along each side of the grid
    "score": 0.88,  # least IoU that the model predicts for its mask
    "stability": 0.95,  # least stability
    "area": (0.05, 0.40),  # share of the image
    "top": 20,  # the largest masks that are kept
}
MODELS = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}  # model_type in config.json -> class
SAME = 0.7  # IoU of boxes above which two masks are the same
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make(settings: Mapping[str, Any], device: str, batch: int) -> tuple[Callable, dict[str, str]]:
    """See `cjepa_jax.data.segmenters`. `settings["weights"]` is the folder, and `batch` points are decoded at a time.

    Raises ConfigError for a folder without SAM, a missing device or a package that is not installed.
    """
    folder = Path(settings["weights"])
    kind, checksum = identify(folder)
    torch = needs("torch", "sam")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported, so that nothing is downloaded
    transformers = needs("transformers", "sam")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, MODELS[kind]).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, needs("safetensors", "sam").SafetensorError) as error:
        raise ConfigError(f"--weights={folder}: cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if report["missing_keys"]:
        raise ConfigError(f"--weights={folder}: lacks {len(report['missing_keys'])} of the model's parameters")
    try:
        model = model.to(device=device, dtype=torch.float32).eval()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device={device}: {str(error).strip().splitlines()[0]}") from error
    parts = dict(torch=torch, model=model, kind=kind, device=device, batch=batch, settings=dict(settings))
    return Segmenter(**parts), {"weights": checksum}


def identify(folder: Path) -> tuple[str, str]:
    """(model_type, SHA-256 of all *.safetensors) of a folder of weights. Raises ConfigError if it is not SAM's."""
    if not folder.is_dir():
        raise ConfigError(f"--weights={folder}: no such folder")
    try:
        config = files.read_json(folder / "config.json", 1 << 20)
    except DataError as error:
        raise ConfigError(f"--weights={folder}: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in MODELS:
        raise ConfigError(f"--weights={folder}: config.json is of model_type {kind!r}, not one of {', '.join(MODELS)}")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"--weights={folder}: no *.safetensors in it (pickled weights are not read)")
    digest = hashlib.sha256()
    for file in weights:
        with door.regular(file, links=True) as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    return kind, digest.hexdigest()


@dataclass(frozen=True)
class Segmenter:
    """A loaded model, called with an image."""

    torch: Any  # the module, which is optional
    model: Any
    kind: str
    device: str
    batch: int
    settings: dict[str, Any]

    def __call__(self, image: np.ndarray) -> list[tuple[np.ndarray, dict[str, float]]]:
        """The masks of an image uint8 [H,W,3], at its size, largest first."""
        low, high = self.settings["area"]
        logits, scores = self.propose(image)
        area = (self.seen(logits, image) > 0).mean((1, 2))
        chosen = np.argsort(-area, kind="stable")[: self.settings["top"]]
        masks = self.enlarge(logits[chosen], image) > 0
        share = masks.mean((1, 2))
        fits = (share >= low) & (share <= high)
        masks, chosen = select.share_out(masks[fits]), chosen[fits]
        return [
            (masks[n], {"predicted_iou": float(scores[k, 0]), "stability_score": float(scores[k, 1])})
            for n, k in ((n, chosen[n]) for n in select.left(masks, low))
        ]

    @property
    def side(self) -> int:
        """Pixels along each side of the model's input."""
        return int(np.ravel(self.model.config.prompt_encoder_config.image_size)[0])

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """An image's height and width in the model's input: SAM keeps the proportions and pads, SAM 2 does not."""
        if self.kind != "sam":
            return self.side, self.side
        return tuple(int(n * self.side / max(height, width) + 0.5) for n in (height, width))

    def pixels(self, image: np.ndarray) -> Any:
        """The model's input, a tensor float32 [1,3,S,S], as SAM's own preparation makes it."""
        pillow = needs("PIL.Image", "sam")
        height, width = self.fit(*image.shape[:2])
        small = pillow.fromarray(image).resize((width, height), pillow.Resampling.BILINEAR)
        out = np.zeros((self.side, self.side, 3), np.float32)
        out[:height, :width] = (np.asarray(small, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
        return self.torch.from_numpy(out.transpose(2, 0, 1)[None].copy()).to(self.device)

    def propose(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Step 1 to the suppression of 3: logits float32 [N,h,w], and their predicted IoU and stability [N,2]."""
        torch, n = self.torch, self.settings["points_per_side"]
        height, width = self.fit(*image.shape[:2])
        centres = (np.arange(n) + 0.5) / n
        grid = np.stack(np.meshgrid(centres * width, centres * height), -1).reshape(-1, 2)
        points = torch.tensor(grid, dtype=torch.float32, device=self.device)
        parts = []
        try:
            with torch.inference_mode():
                embedding = self.model.get_image_embeddings(self.pixels(image))
                for some in points.split(self.batch):
                    out = self.model(image_embeddings=embedding, input_points=some[None, :, None])
                    parts.append(self.filter(out.pred_masks[0].flatten(0, 1), out.iou_scores[0].flatten(), image))
        except torch.OutOfMemoryError as error:
            raise ConfigError(f"--batch={self.batch}: out of memory on {self.device}. Take fewer points") from error
        logits, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        kept = self.distinct(logits, scores, image)
        return logits[kept], scores[kept]

    def filter(self, logits: Any, predicted: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Step 2, and 3 among the masks [N,h,w] of these points."""
        passed = predicted >= self.settings["score"]
        logits, predicted = logits[passed], predicted[passed]
        seen = self.seen(logits, image)
        area = (seen > 0).float().mean((1, 2))
        stability = (seen > 1).sum((1, 2)) / (seen > -1).sum((1, 2)).clamp(min=1)
        low, high = self.settings["area"]
        passed = (stability >= self.settings["stability"]) & (area >= low) & (area <= high) & (area > 0)
        scores = self.torch.stack([predicted, stability], 1)[passed].float().cpu().numpy()
        logits = logits[passed].float().cpu().numpy()
        kept = self.distinct(logits, scores, image)
        return logits[kept], scores[kept]

    def seen(self, logits: Any, image: np.ndarray) -> Any:
        """The part of logits [N,h,w] that lies over the image, not over its padding."""
        rows, columns = (-(-n * logits.shape[-1] // self.side) for n in self.fit(*image.shape[:2]))
        return logits[:, :rows, :columns]

    def distinct(self, logits: np.ndarray, scores: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The indices of the masks that are not duplicates of a better one."""
        return select.distinct(select.boxes(self.seen(logits, image) > 0), scores[:, 0], SAME)

    def enlarge(self, logits: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Logits [N,h,w] at the image's size, [N,H,W]. SAM's are first resized to its padded input."""
        if not len(logits):
            return np.zeros((0, *image.shape[:2]), np.float32)
        resize = functools.partial(self.torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
        large = self.torch.from_numpy(logits)[:, None]
        if self.kind == "sam":
            height, width = self.fit(*image.shape[:2])
            large = resize(large, (self.side, self.side))[..., :height, :width]
        return resize(large, image.shape[:2])[:, 0].numpy()
