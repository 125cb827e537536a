"""Contact sheets and animations of scenes with their counterfactuals: layout, text (Pillow) and files.

A scene is a block: its title, its pictures, its questions. On a sheet, a clip's block has one row of factual frames and
one row of counterfactual frames. In an animation, and for images, the two are side by side.
"""

import functools
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cjepa_jax.data.drawing import marks as drawing
from cjepa_jax.errors import printable
from cjepa_jax.host.paths import shown

PAPER, INK, MUTED = (255, 255, 255), (31, 35, 40), (101, 109, 118)
MARGIN, GUTTER, GAP = 20, 6, 22  # pixels: around the page, between pictures, between blocks
TEXT, LINE = 15, 24  # pixels: height of letters and of lines
MOST_LETTERS = 500  # of a note
WIDTH = 1280  # of a page, unless a single block is wider
FRAMES = 6  # of a clip on a sheet, at most
OBJECTS = 8  # listed in a title, at most
RATE = 8  # frames per second of an animation
REST = 1000  # milliseconds for which an animation shows its last frame
COLOURS = 250  # of an animation: fewer than 256 leave one for "unchanged", which keeps the file small
LINGER = 2  # frames of an animation that show the ring of a contact


@dataclass(frozen=True)
class Clip:
    """The factual or counterfactual clip: video uint8 [T,H,W,3], masks bool [K,T,H,W], contacts float32 [C,4]."""

    video: np.ndarray
    masks: np.ndarray
    contacts: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def begun(self, time: int) -> list[tuple[int, int]]:
        """The pairs (a, b or -1) whose contact begins in frame `time`, rounded to the nearest frame."""
        frames = np.floor(self.contacts[:, 0] + 0.5).clip(0, len(self.video) - 1)
        return [(int(a), int(b)) for a, b in self.contacts[frames == time, 2:]]


@dataclass(frozen=True)
class Scene:
    """Scene `index` with and without the objects `removed`, bool [K].

    hidden: bool [times, rows, cols], the patches that the mask hides. rerendered: whether `other` was simulated again.
    Otherwise the removed objects' pixels are blanked. notes: lines of text (questions).
    """

    index: int
    factual: Clip
    other: Clip
    removed: np.ndarray
    hidden: np.ndarray
    rerendered: bool
    notes: tuple[str, ...] = ()

    def times(self, most: int) -> list[int]:
        """At most `most` frames, evenly spaced, each moved within its interval to the frame where contacts begin."""
        frames = len(self.factual.video)
        if frames <= most:
            return list(range(frames))
        even = np.linspace(0, frames - 1, most)
        half = (frames - 1) / (most - 1) / 2
        chosen = [0]
        for middle in even[1:-1]:
            near = [t for t in range(frames) if abs(t - middle) <= half and t > chosen[-1]]
            chosen.append(max(near, key=lambda t: (len(self.factual.begun(t) + self.other.begun(t)), -abs(t - middle))))
        return [int(t) for t in (*chosen, frames - 1)]

    def picture(self, other: bool, time: int, side: int, linger: int = 1) -> Image.Image:
        """A frame of the factual or the other clip with its marks, `side` pixels wide or slightly wider."""
        clip = self.other if other else self.factual
        picture = np.ascontiguousarray(drawing.enlarge(clip.video[time], side))
        width = max(2, side // 80)
        if not other:
            tubelet = len(clip.video) // len(self.hidden)
            drawing.hatch(picture, self.hidden[time // tubelet], max(6, side // 20))
        for k, mask in enumerate(clip.masks[:, time]):
            drawing.outline(picture, mask, drawing.DARK, width + 2)
            drawing.outline(picture, mask, drawing.colour(k), width)
        for start in range(max(0, time - linger + 1), time + 1):
            for a, b in clip.begun(start):
                centre = drawing.touching(clip.masks[a, time], clip.masks[b, time] if b >= 0 else None)
                if centre:
                    drawing.ring(picture, centre, max(7, side // 14), width)
        return Image.fromarray(picture)

    def title(self) -> list:
        """The scene's number and its objects in the colours of their outlines, as parts of a line."""
        count, listed = len(self.removed), min(len(self.removed), OBJECTS)
        more = [" …"] if count > listed else []
        return [(f"Scene {self.index}",), "  ", *dots(range(listed)), *more]

    def change(self) -> list:
        """Describes the counterfactual clip, as parts of a line."""
        gone = np.flatnonzero(self.removed).tolist()
        if not gone:
            return ["nothing removed"]
        listed = dots(gone[:OBJECTS])
        unknown = [", outlines unknown"] if len(self.other.masks) < len(self.removed) else []
        return ["do(remove", *listed, ")", *unknown] if self.rerendered else ["blanked:", *listed]


def dots(objects: Iterable[int]) -> list:
    """Objects as parts of a line: a dot in the object's colour, and its number."""
    return [part for k in objects for part in (" ", drawing.colour(k), str(k))]


def sheet(scenes: list[Scene], heading: str, side: int) -> Image.Image:
    """All scenes on one page, frames `side` pixels wide (or slightly wider)."""
    still = len(scenes[0].factual.video) == 1
    blocks = [beside(scene, 0, side) if still else strips(scene, side) for scene in scenes]
    return page(blocks, heading, any_contact(scenes))


def animation(scenes: list[Scene], heading: str, side: int) -> list[Image.Image]:
    """The pages of an animation, one per frame of the clips."""
    frames = range(len(scenes[0].factual.video))
    return [page([beside(scene, t, side, LINGER) for scene in scenes], heading, any_contact(scenes)) for t in frames]


def any_contact(scenes: list[Scene]) -> bool:
    """Whether any clip has a contact."""
    return any(len(clip.contacts) for scene in scenes for clip in (scene.factual, scene.other))


def strips(scene: Scene, side: int) -> Image.Image:
    """A clip's block on a sheet: factual frames above, counterfactual frames below, times at the bottom."""
    times = scene.times(FRAMES)
    rows = [across([scene.picture(other, t, side) for t in times], GUTTER) for other in (False, True)]
    width = (rows[0].width - GUTTER * (len(times) - 1)) // len(times)
    below = across([centred(line(f"t = {t}", size=TEXT - 3), width) for t in times], GUTTER)
    title = between(line(*scene.title()), line("above: factual,  below: ", *scene.change()), rows[0].width)
    return down([title, down(rows, GUTTER), below, *notes(scene, rows[0].width)], 2)


def beside(scene: Scene, time: int, side: int, linger: int = 1) -> Image.Image:
    """A frame's block: factual left, counterfactual right."""
    halves = []
    for other, name in ((False, ["factual"]), (True, scene.change())):
        halves.append(down([scene.picture(other, time, side, linger), line(*name)], 2))
    pair = across(halves, GUTTER)
    return down([line(*scene.title()), pair, *notes(scene, pair.width)], 2)


def page(blocks: list[Image.Image], heading: str, contacts: bool) -> Image.Image:
    """Heading and legend, then the blocks in as many columns as fit, evenly filled."""
    wide = max(block.width for block in blocks)
    room = max(1, (WIDTH - 2 * MARGIN + GAP) // (wide + GAP))
    columns = -(-len(blocks) // -(-len(blocks) // room))
    blocks = [padded(block, wide) for block in blocks]
    rows = [across(blocks[i : i + columns], GAP) for i in range(0, len(blocks), columns)]
    body = down([legend(heading, contacts, rows[0].width), *rows], GAP - 8)
    whole = Image.new("RGB", (body.width + 2 * MARGIN, body.height + 2 * MARGIN), PAPER)
    whole.paste(body, (MARGIN, MARGIN))
    return whole


def legend(heading: str, contacts: bool, width: int) -> Image.Image:
    """Heading and meaning of the marks, on one line, or on two lines if the page is narrow."""
    marks = []
    for name in ("object", "hidden patches", "contact begins")[: 2 + contacts]:
        mark = np.full((TEXT + 5, TEXT + 5, 3), 214, np.uint8)
        everywhere = np.ones((1, 1), bool)
        if name == "object":
            drawing.outline(mark, everywhere, drawing.colour(1), 4)
        elif name == "hidden patches":
            drawing.hatch(mark, everywhere, 7)
        else:
            drawing.ring(mark, (0.5, 0.5), 6, 2)
        marks += ["    " if marks else "", Image.fromarray(mark), f"  {name}"]
    title, key = line((heading,), size=TEXT + 2), line(*marks)
    return between(title, key, width) if title.width + key.width + GAP <= width else down([title, key], 2)


def notes(scene: Scene, width: int) -> list[Image.Image]:
    """The scene's notes as lines that fit into `width`."""
    lines = []
    for note in scene.notes:
        words = shown(printable(note), MOST_LETTERS).split()  # a data set's text
        while words:
            fit = next((n for n in range(len(words), 1, -1) if letters().getlength(" ".join(words[:n])) <= width), 1)
            lines.append(line(" ".join(words[:fit])))
            words = words[fit:]
    return lines


@functools.cache
def letters(size: int = TEXT, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that is part of matplotlib, so that all machines draw the same."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def line(*parts, size: int = TEXT) -> Image.Image:
    """A line of text. A part is text, (text,) for bold, a colour (r, g, b) for a dot, or a small picture."""
    images = []
    for part in parts:
        if isinstance(part, Image.Image):
            images.append(part)
            continue
        bold = isinstance(part, tuple) and len(part) == 1
        if isinstance(part, tuple) and not bold:
            dot = Image.new("RGB", (4 * size, 4 * size), PAPER)
            ImageDraw.Draw(dot).ellipse((2 * size - 22, 2 * size - 22, 2 * size + 22, 2 * size + 22), part, INK, 4)
            images.append(dot.resize((size, size), Image.Resampling.LANCZOS))
            continue
        text, font = part[0] if bold else part, letters(size, bold)
        image = Image.new("RGB", (round(font.getlength(text)), LINE), PAPER)
        ImageDraw.Draw(image).text((0, LINE // 2), text, INK if bold else MUTED, font, anchor="lm")
        images.append(image)
    width = sum(image.width for image in images)
    whole = Image.new("RGB", (width, LINE), PAPER)
    left = 0
    for image in images:
        whole.paste(image, (left, (LINE - image.height) // 2))
        left += image.width
    return whole


def across(images: list[Image.Image], gap: int) -> Image.Image:
    """Images side by side, their tops level."""
    return _join(images, gap, 0)


def down(images: list[Image.Image], gap: int) -> Image.Image:
    """Images one below the other, their left sides level."""
    return _join(images, gap, 1)


def _join(images: list[Image.Image], gap: int, axis: int) -> Image.Image:
    size = [max(image.size[i] for image in images) for i in range(2)]
    size[axis] = sum(image.size[axis] for image in images) + gap * (len(images) - 1)
    whole, place = Image.new("RGB", tuple(size), PAPER), [0, 0]
    for image in images:
        whole.paste(image, tuple(place))
        place[axis] += image.size[axis] + gap
    return whole


def padded(image: Image.Image, width: int) -> Image.Image:
    """The image at the left of `width` pixels."""
    return between(image, Image.new("RGB", (0, 1)), width)


def between(left: Image.Image, right: Image.Image, width: int) -> Image.Image:
    """Two images at the two ends of `width` pixels."""
    return across([left, Image.new("RGB", (max(0, width - left.width - right.width), 1), PAPER), right], 0)


def centred(image: Image.Image, width: int) -> Image.Image:
    """The image in the middle of `width` pixels."""
    whole = Image.new("RGB", (width, image.height), PAPER)
    whole.paste(image, ((width - image.width) // 2, 0))
    return whole


def png(page: Image.Image) -> bytes:
    """The page as a PNG file."""
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return file.getvalue()


def gif(pages: list[Image.Image]) -> bytes:
    """Pages as an endless GIF with one palette and no dithering, so that static pixels cost nothing."""
    first, *others = to_palette(pages)
    durations = [1000 // RATE] * len(others) + [REST]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=True)
    return file.getvalue()


def to_palette(pages: list[Image.Image]) -> list[Image.Image]:
    """Pages with a palette: the colours of the marks, and the most common others. Each pixel gets the nearest colour.

    Pillow's mapping is not exact, which is visible in gradients.
    """
    marks = np.array([PAPER, INK, *drawing.COLOURS])
    some = down(pages[:: max(1, len(pages) // 4)], 0)
    found = some.quantize(COLOURS - len(marks), Image.Quantize.MEDIANCUT, kmeans=1)
    palette = np.concatenate([marks, np.array(found.getpalette()).reshape(-1, 3)[: COLOURS - len(marks)]])
    packed = np.stack([np.asarray(page, np.int64) for page in pages]) @ (1 << 16, 1 << 8, 1)
    values, places = np.unique(packed, return_inverse=True)
    colours = np.stack([values >> 16, values >> 8 & 255, values & 255], -1)
    distance = (palette**2).sum(1) - 2 * colours @ palette.T  # without the term that all colours share
    indices = distance.argmin(1).astype(np.uint8)[places].reshape(packed.shape)
    mapped = [Image.fromarray(frame) for frame in indices]
    for image in mapped:
        image.putpalette(palette.ravel().tolist())
    return mapped
