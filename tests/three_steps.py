"""Three training steps of a model of almost no size: the settings and everything that goes in, from NumPy alone.

Nothing here comes from the package: parameters are laid out by a table of this file, scenes are drawn by a legacy
NumPy generator, whose stream never changes. tests/three_steps_torch.py derives from it what must come out.
"""

import dataclasses
import json
import pathlib
import zlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden/three_steps.json"
STEPS = 3
SCENES, FRAMES, SIZE, OBJECTS, MAX_REMOVED = 4, 4, 16, 5, 3
PATCH, TUBELET, GRID = 4, 2, (2, 4, 4)
TOKENS = 32
WIDTH, DEPTH, HEADS, HIDDEN = 24, 2, 3, 40  # the encoder's. No other number is its MLP's
NARROW, NARROW_HEADS = 16, 2  # the predictor's
FIRST, TOTAL, WARMUP, PEAK = 3, 20, 4, 3e-3  # steps 3, 4 and 5 of 20: over the end of the warm-up
# epsilon is far above the rounding of gradients that are 0, such as those of the keys' biases
ADAM = dict(b1=0.9, b2=0.95, eps=1e-3, weight_decay=0.05)
DECAYED = "kernel"  # the last name of what weight decay acts on: no bias, norm, mask token or object embedding


@dataclasses.dataclass(frozen=True)
class Setting:
    """One reading of the method. The defaults are those of its description (docs/METHOD.md)."""

    attention: str = "joint"
    encoder_input: str = "context"
    intervened: str = "zero_pixels"
    anchor: int = 0
    causal_tokens: str = "remaining"
    prediction_loss: str = "smooth_l1"
    beta: float = 1.0
    target_norm: str = "none"
    causal_weight: float = 0.5
    sigreg_weight: float = 0.01
    ema: tuple[float, float] = (0.996, 1.0)
    ema_kind: str = "cosine"
    gelu: str = "exact"
    depth: int = 2  # of the predictor
    remat: str = "none"  # what is computed again changes no number
    clip: float = 0.0
    pack: int = 0  # grids per row
    accumulate: int = 1  # microbatches
    shards: int = 1  # for each microbatch
    dropped: bool = False  # some tokens are neither seen nor predicted
    uncounted: bool = False  # the third scene does not count, the second has none without its objects


ALONE = {
    "plain": Setting(),
    "packed": Setting(pack=2),
    "accumulated": Setting(accumulate=2),
    "cross": Setting(attention="cross"),
    "zeroed": Setting(encoder_input="zeroed"),
    "drop_tokens": Setting(intervened="drop_tokens"),
    "anchor": Setting(intervened="rerender", anchor=1),
    "anchor-context": Setting(intervened="rerender", anchor=1, causal_tokens="context"),
    "l1": Setting(prediction_loss="l1"),
    "neither": Setting(causal_weight=0.0, sigreg_weight=0.0),
}
# The same and the other readings, several at a time: what the fast test runs besides "plain".
TOGETHER = {
    "packed-accumulated": Setting(
        pack=2, accumulate=2, uncounted=True, anchor=1, intervened="rerender", beta=3.0, clip=0.5
    ),
    "cross-drop_tokens": Setting(
        attention="cross", intervened="drop_tokens", ema_kind="linear", prediction_loss="mse", gelu="tanh",
        dropped=True, remat="full",
    ),
    "zeroed-elementwise": Setting(
        encoder_input="zeroed", prediction_loss="elementwise", beta=0.1, target_norm="layer_norm", ema=(0.9, 0.9),
        intervened="rerender", anchor=1, causal_tokens="context", sigreg_weight=0.0, depth=12, remat="dots",
    ),
}  # fmt: skip
SETTINGS = ALONE | TOGETHER


def golden() -> dict:
    return json.loads(GOLDEN.read_text())


def random(name: str) -> np.random.RandomState:
    """A generator of this name's own."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def flat(tree: dict, name: str = "") -> dict[str, np.ndarray]:
    """Leaves of nested dicts by their paths, "a/b/c"."""
    leaves = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{name}{key}/") if isinstance(value, dict) else {name + key: value}
    return leaves


def nested(leaves: dict) -> dict:
    """The inverse of `flat`."""
    tree = {}
    for name, value in leaves.items():
        *parents, last = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def parameters(setting: Setting, which: str) -> dict[str, np.ndarray]:
    """float64 leaves of the encoder and the predictor, by path. `which` is a seed: the target has others."""

    def dense(rows, cols, *layers):
        return {"kernel": (*layers, rows, cols), "bias": (*layers, cols)}

    def norm(width, *layers):
        return {"scale": (*layers, width), "bias": (*layers, width)}

    def stack(width, layers, hidden, cross=False):
        blocks = {
            "norm1": norm(width, layers),
            "attention": {"qkv": dense(width, 3 * width, layers), "out": dense(width, width, layers)},
            "norm2": norm(width, layers),
            "mlp": {"up": dense(width, hidden, layers), "down": dense(hidden, width, layers)},
        }
        if cross:
            blocks["norm_cross"] = norm(width, layers)
            blocks["cross"] = {
                "q": dense(width, width, layers),
                "kv": dense(width, 2 * width, layers),
                "out": dense(width, width, layers),
            }
        return {"blocks": blocks, "norm": norm(width)}

    shapes = {
        "encoder": {
            "tokenizer": {"projection": dense(TUBELET * PATCH * PATCH * 3, WIDTH)},
            "stack": stack(WIDTH, DEPTH, HIDDEN),
        },
        "predictor": {
            "embed": dense(WIDTH, NARROW),
            "mask_token": (NARROW,),
            "object_embedding": (MAX_REMOVED, NARROW),
            "stack": stack(NARROW, setting.depth, 4 * NARROW, setting.attention == "cross"),
            "prediction": dense(NARROW, WIDTH),
            "residual": dense(NARROW, WIDTH),
        },
    }
    return {
        name: 0.2 * random(f"{which} {name}").standard_normal(shape) + name.endswith("/scale")
        for name, shape in flat(shapes).items()
    }


def patches(video: np.ndarray) -> np.ndarray:
    """Boxes of pixels, [T, H, W, C] -> [N, box], in the grid's order."""
    times, rows, cols = GRID
    boxes = []
    for t in range(times):
        for r in range(rows):
            for c in range(cols):
                frames, high, wide = (slice(i * n, (i + 1) * n) for i, n in ((t, TUBELET), (r, PATCH), (c, PATCH)))
                boxes.append(video[frames, high, wide].reshape(-1))
    return np.stack(boxes)


def scenes(setting: Setting, step: int) -> dict[str, np.ndarray]:
    """The arrays of a step's batch, by the names of types.Batch but for `rows`: boxes that move, over noise.

    The third scene of every second step is a fallback: what it hides belongs to no object.
    """
    rng = random(f"moving boxes {step}")
    video = rng.randint(0, 256, (SCENES, FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.zeros((SCENES, OBJECTS, FRAMES, SIZE, SIZE), bool)
    for scene in range(SCENES):
        for k in range(OBJECTS - 1):  # the last one is padding
            (high, wide), (top, left) = rng.randint(2, 7, 2), rng.randint(0, 10, 2)
            for t in range(FRAMES):
                y, x = min(top + 2 * t, SIZE - high), min(left + t, SIZE - wide)
                masks[scene, k, t, y : y + high, x : x + wide] = True
    touched = np.array([[patches(mask[..., None]).any(1) for mask in some] for some in masks])
    removed = np.zeros((SCENES, OBJECTS), bool)
    for scene in range(SCENES):
        removed[scene, rng.permutation(OBJECTS - 1)[: rng.randint(1, MAX_REMOVED + 1)]] = True
    masked = (touched & removed[..., None]).any(1)
    gone = (masks & removed[:, :, None, None, None]).any(1)
    fallback = step % 2 == 1
    if fallback:
        removed[2], masked[2] = False, rng.rand(TOKENS) < 0.3
        boxes = masked[2].reshape(GRID)
        for axis, size in enumerate((TUBELET, PATCH, PATCH)):
            boxes = np.repeat(boxes, size, axis)
        gone[2] = boxes
    masked[:, : setting.anchor * TOKENS // GRID[0]] = False
    assert masked.any(1).all() and not masked.all(1).any()
    for one, some in zip(touched, removed, strict=True):  # of two alike nobody could say which comes first
        assert len({mask.tobytes() for mask in one[some]}) == some.sum()
    others = rng.randint(0, 256, video.shape) if setting.intervened == "rerender" else np.zeros_like(video)
    arrays = dict(
        scene=np.arange(SCENES, dtype=np.int32), epoch=np.full(SCENES, step, np.int32), video=video,
        object_patches=touched, object_valid=touched.any(-1), removed=removed, context=~masked,
        valid=np.ones(SCENES, bool),
    )  # fmt: skip
    if setting.intervened != "drop_tokens" and setting.causal_weight:
        arrays["intervened"] = np.where(gone[..., None], others, video).astype(np.uint8)
        arrays["intervened_valid"] = np.array([True, not setting.uncounted, not fallback, True])
        if setting.intervened == "zero_pixels":
            arrays["intervened_valid"][2] = True
    if setting.uncounted:
        arrays["valid"][2] = False
    if setting.dropped:
        arrays["hidden"] = masked & ((rng.rand(*masked.shape) < 0.7) | (np.cumsum(masked, 1) == 1))
    return arrays


def projected(leaves: dict[str, np.ndarray]) -> list[float]:
    """Each leaf, by name, on its fixed direction: a number that every entry changes, of the size of one."""
    out = []
    for name, leaf in sorted(leaves.items()):
        direction = random(f"direction {name}").standard_normal(np.shape(leaf))
        out.append(float((np.asarray(leaf, np.float64) * direction).sum() / np.sqrt((direction**2).sum())))
    return out
