"""Object-level intervention masking: METHOD, Algorithm 2."""

import numpy as np
from jaxtyping import Bool

from cjepa_jax.masks import blocks
from cjepa_jax.masks.grid import anchored

REDRAWS = 8  # draws that hide nothing or everything are tried again this often before falling back


def patches(masks: Bool[np.ndarray, "K *frames H W"], patch: int, tubelet: int = 1) -> Bool[np.ndarray, "K N"]:
    """The patches that each object touches with *any* pixel: P_k of METHOD (1).

    Args:
      masks: bool [K, H, W], or [K, T, H, W] for clips.
      patch: in pixels. H and W must be multiples of it.
      tubelet: frames per token. A clip's object touches a token if it does in any of the token's frames.
    Returns: bool [K, N], N time-major, then row-major.
    Raises: ValueError if a size does not divide.
    """
    if masks.ndim == 3:
        masks, tubelet = masks[:, None], 1
    objects, frames, height, width = masks.shape
    if height % patch or width % patch or frames % tubelet:
        raise ValueError(f"masks {masks.shape[1:]}: not a multiple of tubelet {tubelet} and patch {patch}")
    times, rows, cols = frames // tubelet, height // patch, width // patch
    word = int(np.gcd(patch, 8))  # pixels that are combined at once: each is a byte
    lines = np.ascontiguousarray(masks).view(f"u{word}").reshape((objects, times, tubelet, rows, patch, width // word))
    joined = np.bitwise_or.reduce(np.bitwise_or.reduce(lines, 4), 2)
    patches: Bool[np.ndarray, "K N"] = joined.reshape((objects, times * rows * cols, patch // word)).any(-1)
    return patches


def draw(
    rng: np.random.Generator,
    object_patches: Bool[np.ndarray, "K N"],
    object_valid: Bool[np.ndarray, " K"],
    max_objects: int = 3,
    area: tuple[float, float] = (0.05, 0.40),
    grid: tuple[int, ...] | None = None,
    anchor: int = 0,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " K"]]:
    """Selects objects to remove and the tokens to hide with them: METHOD, Algorithm 2.

    Args:
      rng: the scene's generator. The number of padded objects does not change the draw.
      object_patches: bool [K, N].
      object_valid: bool [K], False for padding.
      max_objects: M_max, with M = min(uniform 1..M_max, eligible objects).
      area: an eligible object's share of the N tokens, both ends included.
      grid: (rows, cols) or (times, rows, cols), the fallback's geometry. None lets it scatter single tokens.
      anchor: tokens of the first `anchor` times stay visible (needs a grid with times). 0: none, as in METHOD (1).
    Returns: masked bool [N], removed bool [K]. At least one token is masked and one is not. Without an eligible
      object, or if every draw would hide nothing or everything, I-JEPA-style blocks are masked and `removed` is empty.
    Raises: ValueError for a grid that does not have N tokens, or for N = 1.
    """
    objects, tokens = object_patches.shape
    maskable = ~anchored(tokens, grid, anchor)
    share = object_patches.sum(1) / tokens
    # The tolerance keeps bounds inclusive if N * bound is an integer that floating point misses (0.05 * 160 = 8).
    eligible = np.flatnonzero(object_valid & (share >= area[0] - 1e-9) & (share <= area[1] + 1e-9))
    removed = np.zeros(objects, bool)
    for _ in range(REDRAWS if len(eligible) else 0):
        count = min(int(rng.integers(1, max_objects + 1)), len(eligible))
        chosen = rng.choice(eligible, count, replace=False)
        masked = object_patches[chosen].any(0) & maskable
        if masked.any() and not masked.all():
            removed[chosen] = True
            return masked, removed
    return blocks.draw(rng, object_patches, object_valid, grid=grid, anchor=anchor)[0], removed
