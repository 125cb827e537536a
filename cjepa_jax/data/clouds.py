"""Point clouds as groups of neighbours: farthest points, nearest neighbours, an order in which neighbours are close."""

import numpy as np
from jaxtyping import Float, Int


def farthest(points: Float[np.ndarray, "P 3"], count: int, start: int = 0) -> Int[np.ndarray, " {count}"]:
    """Farthest point sampling: each next point is the farthest from all that were chosen. The first is `start`.

    Of equally far points the first counts. Raises: ValueError for more points than there are.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} of {len(points)} points")
    chosen = np.empty(count, np.int64)
    chosen[0], distance = start, np.full(len(points), np.inf)
    for i in range(1, count):
        distance = np.minimum(distance, np.square(points - points[chosen[i - 1]]).sum(-1))
        chosen[i] = distance.argmax()
    return chosen


def nearest(
    points: Float[np.ndarray, "P 3"], centres: Float[np.ndarray, "G 3"], count: int
) -> Int[np.ndarray, "G {count}"]:
    """The `count` points nearest to each centre, nearest first."""
    distance = np.square(centres[:, None] - points).sum(-1)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


def order(centres: Float[np.ndarray, "G 3"]) -> Int[np.ndarray, " G"]:
    """From the centre with the least x + y + z, always to the nearest one that is left (Point-JEPA's sequencer)."""
    left = np.ones(len(centres), bool)
    found = [int(centres.sum(-1).argmin())]
    for _ in range(len(centres) - 1):
        left[found[-1]] = False
        distance = np.where(left, np.square(centres - centres[found[-1]]).sum(-1), np.inf)
        found.append(int(distance.argmin()))
    return np.array(found)


def grouped(
    points: Float[np.ndarray, "P 3"], groups: int, neighbours: int, start: int = 0
) -> Float[np.ndarray, "G K 3"]:
    """float32 [groups, 1 + neighbours, 3] in `order`: each centre, then its neighbours relative to it."""
    centres = points[farthest(points, groups, start)]
    centres = centres[order(centres)]
    around = points[nearest(points, centres, neighbours)] - centres[:, None]
    return np.concatenate([centres[:, None], around], axis=1).astype(np.float32)


def unit(points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "P 3"]:
    """Centred on their mean, and scaled so that the farthest point is 1 away."""
    points = points - points.mean(0)
    return points / max(float(np.sqrt(np.square(points).sum(-1).max())), 1e-12)
