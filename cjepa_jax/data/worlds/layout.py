"""Random objects in the unit square: positions without overlap, shapes, colours. World units: the view is 1 x 1."""

import colorsys
import math

import numpy as np

DISC, BOX, TRIANGLE, JAR = 0, 1, 2, 3  # a jar is open at the top
CIRCLE = np.stack([np.cos(np.arange(40) * math.tau / 40), np.sin(np.arange(40) * math.tau / 40)], -1)
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
TRINE = np.array([[0.0, -2.0], [3**0.5, 1.0], [-(3**0.5), 1.0]]) / 3**0.5  # equilateral around its centroid, 2 wide
SIZE_CLASSES = (0.01, 0.025, 0.05)  # bounds between the classes, shares of the view
SECTORS = 6  # of the hue circle
RIM = 0.2  # thickness of a jar's walls, as a share of its half width
AREA = {DISC: math.pi, BOX: 4.0, TRIANGLE: 3**0.5}  # of a shape with both half sizes 1


def place(rng: np.random.Generator, radius: np.ndarray, layer: np.ndarray, margin: float, gap: float = 1.0):
    """Centres [K,2] in the view and the common factor (<= 1) by which all radii [K] shrink to fit.

    Centres of objects in one layer are at least `gap` times the sum of their radii apart. Objects of different layers
    may overlap. Centres are at least the radius plus `margin` from the border. Larger objects are placed first. After
    24 failed tries for one object, all radii shrink by 10 % and placement restarts.
    """
    order = np.argsort(-radius, kind="stable").tolist()
    layer, scale = layer.tolist(), 1.0
    while True:
        size = (radius * scale).tolist()
        tries = rng.random((len(size), 24, 2)).tolist()
        placed: dict[int, tuple[float, float]] = {}
        for k in order:
            low = margin + size[k]
            others = [(*placed[j], gap * (size[j] + size[k])) for j in placed if layer[j] == layer[k]]
            for u, v in tries[k]:
                x, y = low + (1 - 2 * low) * u, low + (1 - 2 * low) * v
                if all((x - a) ** 2 + (y - b) ** 2 >= d * d for a, b, d in others):
                    placed[k] = (x, y)
                    break
            else:
                break
        if len(placed) == len(order):
            return np.array([placed[k] for k in range(len(order))]), scale
        scale *= 0.9


def place_held(
    rng: np.random.Generator,
    radius: np.ndarray,
    layer: np.ndarray,
    margin: float,
    gap: float = 1.0,
    held: bool | None = None,
):
    """`place` with a condition on the mean position.

    held: True requires it in the lower right quarter of the view. False requires it outside. None: no condition.
    """
    while True:
        position, scale = place(rng, radius, layer, margin, gap)
        if held is None or bool((position.mean(0) > 0.5).all()) == held:
            return position, scale


def half_sizes(kind: np.ndarray, radius: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Half widths and heights [K,2]: discs of `radius`, other shapes of the same area.

    A box has width / height = `stretch`.
    """
    root = np.sqrt(stretch)
    box = (math.pi**0.5 / 2 * radius)[:, None] * np.stack([root, 1 / root], -1)
    triangle = ((math.pi / 3**0.5) ** 0.5 * radius)[:, None]
    return np.where(kind[:, None] == BOX, box, np.where(kind[:, None] == TRIANGLE, triangle, radius[:, None]))


def reach(kind: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Circumscribed radii [K]."""
    corner = np.where(kind == TRIANGLE, 2 / 3**0.5 * half[:, 0], np.hypot(half[:, 0], half[:, 1]))
    return np.where(kind == DISC, half[:, 0], corner)


def areas(kind: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Areas [K] as shares of the view."""
    width, height = half.T
    rim = RIM * width
    jar = 4 * (width * height - (width - rim) * (height - rim / 2))  # without the inside, which is open at the top
    simple = np.array([AREA.get(shape, 0.0) for shape in kind.tolist()]) * width * height
    return np.where(kind == JAR, jar, simple)


def looks(kind: np.ndarray, half: np.ndarray, mode: np.ndarray | None = None) -> np.ndarray:
    """Appearance class below 64 of each object [K], from shape, mode (None: all move) and size class of its area."""
    return kind + 4 * (0 if mode is None else mode) + 16 * np.searchsorted(SIZE_CLASSES, areas(kind, half))


def parts(kind: int, half: np.ndarray) -> list[np.ndarray]:
    """The convex polygons [V,2] of one object with half sizes [2], at angle 0, relative to its origin."""
    if kind == JAR:
        width, height = half
        rim = RIM * width / 2
        walls = [np.array([side * (width - rim), 0.0]) + SQUARE * (rim, height) for side in (-1, 1)]
        return [*walls, np.array([0.0, height - rim]) + SQUARE * (width, rim)]
    return [{DISC: CIRCLE, BOX: SQUARE, TRIANGLE: TRINE}[kind] * half]


def colours(
    rng: np.random.Generator, count: int, kind: np.ndarray | None = None, held: bool | None = None
) -> np.ndarray:
    """Saturated random RGB colours uint8 [count,3], independent of all other properties of the object.

    The hue circle has six sectors. Each `kind` [count] has one held-out sector: the one where (sector + kind) % 6 is 0.

    Args:
      held: True draws from the held-out sector, False from the other five. None draws from all six and needs no `kind`.
        Number and order of the random draws are the same in each case.
    """
    draws = rng.random((count, 3)) * (1.0, 0.4, 0.35) + (0.0, 0.55, 0.6)
    if held is not None:
        first, wide = (-kind % 6, 1) if held else (-kind % 6 + 1, 5)
        draws[:, 0] = (first + 0.01 + (wide - 0.02) * draws[:, 0]) / 6 % 1  # 0.01: margin for rounding
    return np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(*hsv)] for hsv in draws.tolist()], np.uint8)


def outlines(kind: np.ndarray, half: np.ndarray, position: np.ndarray, angle: np.ndarray) -> list[list[np.ndarray]]:
    """Convex parts of each object, arrays [..., V, 2], from position [..., K, 2] and angle [..., K]."""
    result, cosines, sines = [], np.cos(angle)[..., None], np.sin(angle)[..., None]
    for k, shape in enumerate(kind.tolist()):
        cos, sin = cosines[..., k, :], sines[..., k, :]
        result.append([])
        for points in parts(shape, half[k]):
            corners = np.empty((*cos.shape[:-1], *points.shape))
            corners[..., 0] = cos * points[:, 0] - sin * points[:, 1] + position[..., k, 0, None]
            corners[..., 1] = sin * points[:, 0] + cos * points[:, 1] + position[..., k, 1, None]
            result[-1].append(corners)
    return result


def marks(kind: np.ndarray, half: np.ndarray, position: np.ndarray, angle: np.ndarray) -> list[list[np.ndarray]]:
    """`outlines` of the mark inside each object.

    A mark is a smaller copy of the object, off centre so that rotation is visible. A jar's mark is a bar in its bottom.
    """
    cos, sin, jar = np.cos(angle), np.sin(angle), kind == JAR
    right = np.where(jar, 0.0, np.where(kind == TRIANGLE, 0.2, 0.35)) * half[:, 0]
    down = np.where(jar, half[:, 1] - RIM * half[:, 0] / 2, 0.0)
    place = position + np.stack([cos * right - sin * down, sin * right + cos * down], -1)
    size = np.where(jar[:, None], half[:, :1] * (0.6, 0.2 * RIM), 0.4 * half)
    return outlines(np.where(jar, BOX, kind), size, place, angle)
