"""Draw the pictures of examples/folder: shaded shapes on textured grounds, each with its instance map.

    python examples/make_folder.py [DIR]

Deterministic: the same files on every run. 12 pictures to train on, 8 held out, 96 x 96 pixels.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

SIZE = 96


def ground(rng: np.random.Generator) -> np.ndarray:
    """A soft, low-contrast texture between two colours, float32 [H,W,3]."""
    coarse = rng.random((rng.integers(3, 9), rng.integers(3, 9))).astype(np.float32)
    mix = np.clip(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), 0, 1)[..., None]
    one = rng.uniform(60, 150, 3)
    return (one + mix * rng.uniform(-50, 60, 3)).astype(np.float32)


def outline(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """The corners int32 [n,2] of an ellipse, a box or a regular polygon, turned at random."""
    sides = int(rng.choice([3, 4, 5, 48, 48]))
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(sides) / sides
    shape = np.stack([np.cos(angles), np.sin(angles)], 1) * radius * [1, rng.uniform(0.7, 1)]
    return np.rint(centre + shape).astype(np.int32)


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 [H,W,3] and its instance map uint8 [H,W]. Later objects lie on top of earlier ones."""
    image, ids = ground(rng), np.zeros((SIZE, SIZE), np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    for k in range(1, int(rng.integers(2, 6)) + 1):
        centre, radius = rng.uniform(16, SIZE - 16, 2), rng.uniform(12, 22)
        corners, inside = outline(rng, centre, radius), np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillPoly(inside, [corners], 1)
        moved = np.pad(inside, ((3, 0), (3, 0)))[:SIZE, :SIZE].astype(np.float32)
        shadow = cv2.GaussianBlur(moved, (9, 9), 2.5)
        image *= 1 - 0.45 * shadow[..., None]
        light = np.clip(
            1.15 - np.hypot(x - centre[0] + radius / 2, y - centre[1] + radius / 2) / (2.2 * radius), 0.3, 1
        )
        colour = rng.permutation([rng.uniform(190, 255), rng.uniform(60, 200), rng.uniform(20, 90)])
        image = np.where(inside[..., None] > 0, light[..., None] * colour, image)
        ids[inside > 0] = k
    return (np.clip(image, 0, 255) // 6 * 6).astype(np.uint8), ids  # fewer tones: smaller files


def main(root: Path) -> None:
    for folder, count, seed in ((root, 12, 0), (root / "eval", 8, 1)):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, ids = scene(np.random.default_rng([seed, i]))
            cv2.imwrite(str(folder / f"images/shapes_{i:02}.png"), image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
            cv2.imwrite(str(folder / f"masks/shapes_{i:02}.png"), ids, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "folder"))
