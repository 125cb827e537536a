"""Pictures of scenes for the report, from the arrays of report.npz: NumPy and OpenCV in, HTML out.

n scenes, T frames, K objects, N = times * rows * cols tokens, time-major. One frame is shown per token time.
"""

import base64
import math
from dataclasses import dataclass, field
from html import escape

import cv2
import matplotlib
import numpy as np

from cjepa_jax.data.drawing import marks
from cjepa_jax.errors import DataError, printable
from cjepa_jax.weights import npz

REMOVED = (255, 64, 129)  # outline of a removed object
MASKED = (64, 156, 255)  # tint of a masked patch
PIXELS = ("video", "intervened", "painted")
FLAGS = ("masked", "masks", "removed", "fallback")
SCENES = 8  # scenes shown at most
TIMES = 4  # frames shown per scene at most
MOST_SIDE, MOST_SHAPE = 8192, 16  # pixels of a side, and of the longer one to a pixel of the shorter one
WEBP_SIDE = 16383  # pixels of a side of a WebP picture
LEAST_WIDTH = 240  # pixels to which small pictures are enlarged
MOST_OBJECTS = 1024
SHOWN = "shown: "  # before the title of a monitor's picture, as the name of its array
MOST_SHOWN, LONGEST = 8, 200  # pictures of monitors, and characters of a title
HEAT = matplotlib.colormaps["inferno"]


@dataclass(frozen=True)
class Scenes:
    """The arrays of report.npz (absent ones are None), checked to fit together.

    Raises DataError naming the array whose shape does not fit, or that is missing and needed (video, masked, grid).
    """

    video: np.ndarray  # uint8 [n,T,H,W,3]
    masked: np.ndarray  # bool [n,N]
    grid: np.ndarray  # int [3]: times, rows, cols
    masks: np.ndarray | None = None  # bool [n,K,T,H,W]
    removed: np.ndarray | None = None  # bool [n,K]
    intervened: np.ndarray | None = None  # uint8 [n,T,H,W,3]
    pca: np.ndarray | None = None  # float32 [n,N,3] in [0,1]
    pca_random: np.ndarray | None = None
    predicted_change: np.ndarray | None = None  # float32 [n,N]
    true_change: np.ndarray | None = None  # float32 [n,N]
    fallback: np.ndarray | None = None  # bool [n]
    painted: np.ndarray | None = None  # uint8 [n,T,H,W,3]
    shown: dict[str, np.ndarray] = field(default_factory=dict)  # pictures of monitors by title, uint8 [H',W',3] each

    def __post_init__(self):
        if self.video.ndim != 5 or self.grid.shape != (3,) or self.grid.dtype.kind not in "iu":
            raise DataError(f"report.npz: video has shape {self.video.shape}, grid {self.grid.shape}")
        n, frames, height, width = self.video.shape[:4]
        sides = height, width, *map(int, self.grid)
        if min(n, frames, *sides) < 1 or max(sides) > MOST_SIDE or max(height, width) > MOST_SHAPE * min(height, width):
            raise DataError(f"report.npz: video has shape {self.video.shape}, grid is {self.grid.tolist()}")
        if any(array is not None and array.ndim < 2 for array in (self.masks, self.removed)):
            raise DataError("report.npz: masks and removed are of scenes and objects")
        tokens = math.prod(map(int, self.grid))
        objects = next((array.shape[1] for array in (self.masks, self.removed) if array is not None), 0)
        if objects > MOST_OBJECTS:
            raise DataError(f"report.npz: has masks of {objects} objects, at most {MOST_OBJECTS} are drawn")
        shapes = {name: (n, tokens) for name in ("masked", "predicted_change", "true_change")}
        shapes |= {name: (n, tokens, 3) for name in ("pca", "pca_random")}
        shapes |= {name: (n, frames, height, width, 3) for name in ("video", "intervened", "painted")}
        shapes |= {"masks": (n, objects, frames, height, width), "removed": (n, objects), "fallback": (n,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise DataError(f"report.npz: {name} has shape {array.shape}, must be {shape}")
            kinds = "u" if name in PIXELS else "b" if name in FLAGS else "f"
            if array is not None and array.dtype.kind != kinds:
                raise DataError(f"report.npz: {name} has the type {array.dtype}")
        for title, array in self.shown.items():
            fits = (
                array.ndim == 3 and array.shape[2] == 3 and 0 < min(array.shape[:2]) and max(array.shape) <= MOST_SIDE
            )
            if not fits or array.dtype != np.uint8 or len(self.shown) > MOST_SHOWN or len(title) > LONGEST:
                text = f"has shape {array.shape}, type {array.dtype}, of {len(self.shown)} pictures"
                raise DataError(f"report.npz: {SHOWN}{printable(title[:LONGEST])}: {text}")

    @classmethod
    def load(cls, file) -> "Scenes":
        """Read report.npz. Unknown arrays are ignored."""
        try:
            arrays = npz.read(file)
            shown = {name.removeprefix(SHOWN): array for name, array in arrays.items() if name.startswith(SHOWN)}
            known = cls.__dataclass_fields__.keys() - {"shown"}
            return cls(**{name: array for name, array in arrays.items() if name in known}, shown=shown)
        except (DataError, TypeError, ValueError) as error:  # TypeError: an array that is needed is missing
            raise DataError(f"{file}: not a readable report.npz ({error})") from error

    def times(self) -> list[tuple[int, int]]:
        """(token time, frame) pairs to show: the first frame of at most TIMES tubelets, evenly spaced."""
        count, frames = int(self.grid[0]), self.video.shape[1]
        chosen = np.unique(np.linspace(0, count - 1, min(count, TIMES)).round().astype(int))
        return [(int(t), int(t) * frames // count) for t in chosen]

    def side(self) -> int:
        """The width of a shown frame in CSS pixels. Its file has about twice as many (for high-resolution screens)."""
        return 122 if len(self.times()) <= 2 else 102

    def on_grid(self, values: np.ndarray) -> np.ndarray:
        """Values of one scene [N,...] -> [times,rows,cols,...]."""
        return values.reshape(*self.grid, *values.shape[1:])


def sheet(scenes: Scenes) -> str:
    """Every scene with its masked patches tinted and its removed objects outlined."""
    cards = []
    for i in range(min(SCENES, len(scenes.video))):
        frames = [masked_frame(scenes, i, t, frame) for t, frame in scenes.times()]
        cards.append(card([("", strip(frames))], caption(scenes, i)))
    return grid(cards)


def caption(scenes: Scenes, i: int) -> str:
    """The objects removed from scene i, in words."""
    share = f"{scenes.masked[i].mean():.0%} of the patches masked"
    if scenes.fallback is not None and scenes.fallback[i]:
        return f"Scene {i}: no object removed. {share}"
    if scenes.removed is None:
        return f"Scene {i}: {share}"
    count = int(scenes.removed[i].sum())
    return f"Scene {i}: {count} object{'s' * (count != 1)} removed, {share}"


def features(scenes: Scenes) -> str:
    """Scenes next to the first three principal components of their patch features as red, green and blue."""
    cards = []
    for i in range(min(SCENES, len(scenes.video))):
        rows = [("scene", strip([plain(scenes.video[i, f], 2 * scenes.side(), at(i, f)) for _, f in scenes.times()]))]
        for name, values in (("trained", scenes.pca), ("random init", scenes.pca_random)):
            if values is not None:
                colours = (np.clip(np.nan_to_num(scenes.on_grid(values[i])), 0, 1) * 255).astype(np.uint8)
                text = f"principal components of its features, {name}"
                rows.append((name, strip([small(colours[t], f"{at(i, f)}: {text}") for t, f in scenes.times()])))
        cards.append(card(rows))
    return grid(cards)


def paintings(scenes: Scenes) -> str:
    """Scenes, their visible part, and the same with the rest reconstructed."""
    cards = []
    for i in range(min(SCENES, len(scenes.video))):
        hidden = scenes.on_grid(scenes.masked[i])
        rows = {"scene": [], "visible": [], "painted": []}
        for time, frame in scenes.times():
            scene = scenes.video[i, frame]
            grey = np.where(marks.stretch(hidden[time], scene)[..., None], np.uint8(128), scene)
            for (name, row), picture in zip(rows.items(), (scene, grey, scenes.painted[i, frame]), strict=True):
                row.append(plain(picture, 2 * scenes.side(), f"{at(i, frame)}: {name}"))
        cards.append(card([(name, strip(row)) for name, row in rows.items()]))
    return grid(cards)


def changes(scenes: Scenes) -> str:
    """Predicted against true change of the context patches, on one colour scale per scene."""
    cards = []
    for i in range(len(scenes.video)):
        visible = ~scenes.masked[i] & np.isfinite(scenes.true_change[i]) & np.isfinite(scenes.predicted_change[i])
        unchanged = not scenes.true_change[i][visible].any()  # as in a fallback scene, where no object was removed
        if (
            len(cards) == SCENES
            or not visible.any()
            or (unchanged and scenes.fallback is not None and scenes.fallback[i])
        ):
            continue
        predicted, true = scenes.predicted_change[i], scenes.true_change[i]
        top = float(max(predicted[visible].max(), true[visible].max())) or 1.0
        rows = [("factual", strip([masked_frame(scenes, i, t, frame, tint=False) for t, frame in scenes.times()]))]
        if scenes.intervened is not None:
            rows.append(
                (
                    "intervened",
                    strip(
                        [
                            plain(
                                scenes.intervened[i, f], 2 * scenes.side(), f"{at(i, f)}: without the removed objects"
                            )
                            for _, f in scenes.times()
                        ]
                    ),
                )
            )
        for name, values in (("predicted", predicted), ("true", true)):
            maps = heat(scenes.on_grid(np.where(visible, values, np.nan)), top)
            rows.append((name, strip([small(maps[t], f"{at(i, f)}: {name} change") for t, f in scenes.times()])))
        text = f"{caption(scenes, i)}. Correlation {agreement(predicted[visible], true[visible])}, "
        text += f"mean predicted {predicted[visible].mean():.3g}, true {true[visible].mean():.3g}"
        cards.append(card(rows, text, scale_bar(top)))
    return grid(cards) if cards else ""


def agreement(one: np.ndarray, other: np.ndarray) -> str:
    """The correlation over patches as text. A constant map has none."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return "not defined (a constant map)"
    return f"{np.corrcoef(one, other)[0, 1]:.2f}"


def heat(values: np.ndarray, top: float) -> np.ndarray:
    """Values [...] -> uint8 colours [...,3], from 0 to `top`. NaN is grey."""
    colours = (HEAT(np.clip(np.nan_to_num(values) / top, 0, 1))[..., :3] * 255).astype(np.uint8)
    return np.where(np.isnan(values)[..., None], np.uint8(128), colours)


def masked_frame(scenes: Scenes, i: int, time: int, frame: int, tint: bool = True) -> str:
    """One frame with masked patches tinted and removed objects outlined, as an <img>."""
    picture = np.ascontiguousarray(marks.enlarge(scenes.video[i, frame], 2 * scenes.side()))
    if tint:
        hidden = marks.stretch(scenes.on_grid(scenes.masked[i])[time], picture)[..., None]
        tinted = (0.6 * picture + 0.4 * np.array(MASKED)).astype(np.uint8)
        np.copyto(picture, tinted, where=hidden)
    if scenes.masks is not None and scenes.removed is not None:
        for mask in scenes.masks[i, scenes.removed[i], frame]:
            marks.outline(picture, mask, REMOVED, max(2, picture.shape[1] // 64))
    what = "removed objects outlined" + (", hidden patches tinted" if tint else "")
    return image(picture, f"{at(i, frame)}: {what}")


def at(i: int, frame: int) -> str:
    """Which frame a picture shows, for readers who cannot see it."""
    return f"Scene {i}, frame {frame}"


def plain(frame: np.ndarray, width: int, alt: str) -> str:
    """An unchanged frame as an <img>. The browser enlarges a small one."""
    return small(frame, alt) if frame.shape[1] <= 96 else image(marks.enlarge(frame, width), alt)


def figure(title: str, picture: np.ndarray) -> str:
    """A titled picture. A small one is enlarged without smoothing."""
    times = max(1, min(LEAST_WIDTH // picture.shape[1], WEBP_SIDE // picture.shape[0]))
    picture = picture.repeat(times, 0).repeat(times, 1)
    return f"<figure class=shot>{image(picture, title)}<figcaption>{escape(title)}</figcaption></figure>"


def image(picture: np.ndarray, alt: str) -> str:
    """uint8 RGB [H,W,3] -> an <img> that holds it (WebP: frames are many). alt: plain text, what it shows."""
    return _img(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 82], alt)


def small(cells: np.ndarray, alt: str) -> str:
    """A map of few cells, uint8 RGB [rows,cols,3], as a lossless <img>. The browser enlarges it without smoothing."""
    return _img(cells, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9], alt)


def _img(picture: np.ndarray, suffix: str, options: list[int], alt: str) -> str:
    data = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), options)[1].tobytes()
    return f'<img alt="{escape(alt)}" src="data:image/{suffix[1:]};base64,{base64.b64encode(data).decode()}">'


def strip(images: list[str]) -> str:
    """Frames of one scene side by side."""
    return f'<div class="strip">{"".join(images)}</div>'


def card(rows: list[tuple[str, str]], text: str = "", foot: str = "") -> str:
    """Labelled strips of one scene, its caption and its colour scale."""
    body = "".join(f'<div class="row">{f"<b>{name}</b>" if name else ""}{content}</div>' for name, content in rows)
    note = f"<figcaption>{text}</figcaption>" if text else ""
    return f'<figure class="card">{body}{foot}{note}</figure>'


def grid(cards: list[str]) -> str:
    """Cards in as many columns as fit on the page."""
    return f'<div class="cards">{"".join(cards)}</div>'


def scale_bar(top: float) -> str:
    """The colours from 0 to `top`."""
    stops = ", ".join(matplotlib.colors.to_hex(HEAT(x)) for x in np.linspace(0, 1, 8))
    bar = f'<i style="background:linear-gradient(90deg, {stops})"></i>'
    return f'<div class="scale">0 {bar} {top:.3g}<span class="grey"></span> masked</div>'
