"""Draw docs/pictures/method.svg, the figure of docs/METHOD.md: one training step, on a simulated scene.

    python docs/figures/method.py [FILE]

Numbers in brackets are the equations of docs/METHOD.md. The file is the same on every run with the same matplotlib.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from cjepa_jax.data.worlds import Shadows
from cjepa_jax.masks import objects

OUT = Path(__file__).parents[1] / "pictures/method.svg"
WIDTH, HEIGHT = 13.0, 7.3  # inches, also the units of every position below
SIZE, PATCH = 224, 16
SCENE, REMOVED = 3, 1  # a scene in which the removed disc casts a shadow
INK, SOFT = "#23262f", "#6b7080"
TRAINED, FROZEN, TERM = "#1b8a4b", "#4a63a8", "#b8541b"
FILLS = {TRAINED: "#e9f6ee", FROZEN: "#eef1fa", TERM: "#fdf1e7"}
FULL, CONTEXT, DONE = 6.1, 3.75, 1.45  # heights of the three rows


def scenes() -> dict[str, np.ndarray]:
    """The pictures on the left, uint8 [H, W, 3]: the scene, its context, and the two ways to remove an object."""
    world = Shadows(split="train", size=SIZE, frames=1, count=SCENE + 1, seed=3)
    scene = world[SCENE]
    image, masks = scene["video"][0], scene["masks"][:, 0]
    gone = np.arange(len(masks)) == REMOVED
    hidden = objects.patches(masks, PATCH)[REMOVED].reshape(SIZE // PATCH, SIZE // PATCH)
    cells = np.kron(hidden, np.ones((PATCH, PATCH), bool))
    y, x = np.mgrid[:SIZE, :SIZE]
    context = np.where(cells[..., None], np.where(((x + y) % 14 < 3)[..., None], 165, 205), image)
    lines = (x % PATCH == 0) | (y % PATCH == 0)
    context = np.where(lines[..., None], 0.75 * context + 0.25 * 255, context)
    zeroed = np.where(masks[REMOVED][..., None], 0, image)
    return {
        "full": image,
        "context": context.astype(np.uint8),
        "zeroed": zeroed.astype(np.uint8),
        "again": world.intervene(SCENE, gone)[0],
    }


def picture(axes, image: np.ndarray, x: float, y: float, side: float, title: str) -> None:
    """An image centred on (x, y), with a title above it."""
    axes.imshow(image, extent=(x - side / 2, x + side / 2, y - side / 2, y + side / 2), zorder=2)
    frame = (x - side / 2, y - side / 2)
    axes.add_patch(Rectangle(frame, side, side, fill=False, edgecolor=SOFT, linewidth=0.8, zorder=3))
    axes.text(x, y + side / 2 + 0.08, title, ha="center", va="bottom", fontsize=10.5, color=INK)


def box(axes, x: float, y: float, size: tuple[float, float], lines: list[str], colour: str, dashed=False) -> None:
    """A box centred on (x, y): its first line in bold, the others smaller."""
    wide, high = size
    style = "round,pad=0,rounding_size=0.12"
    corner = (x - wide / 2, y - high / 2)
    dash = (0, (4, 2)) if dashed else "solid"
    axes.add_patch(
        FancyBboxPatch(
            corner,
            wide,
            high,
            style,
            facecolor=FILLS[colour],
            edgecolor=colour,
            linewidth=1.6,
            linestyle=dash,
            zorder=3,
        )
    )
    step = 0.245
    top = y + step * (len(lines) - 1) / 2
    for i, line in enumerate(lines):
        style = dict(fontsize=11.5, fontweight="bold", color=INK) if i == 0 else dict(fontsize=9.8, color=INK)
        axes.text(x, top - i * step, line, ha="center", va="center", zorder=4, **style)


def arrow(axes, points: list[tuple[float, float]], colour=INK, dashed=False, head=True) -> None:
    """A line through the points, with a head at the last one."""
    style = dict(color=colour, linewidth=1.5, linestyle=(0, (4, 2)) if dashed else "solid", zorder=2)
    if len(points) > 2:
        axes.plot(*zip(*points[:-1], strict=True), solid_capstyle="projecting", **style)
    start, end = points[-2:]
    kind = "-|>" if head else "-"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=kind, mutation_scale=13, shrinkA=0, shrinkB=0, **style))


def label(axes, x: float, y: float, text: str, colour=INK, ha="center", size=10.5) -> None:
    axes.text(x, y, text, ha=ha, va="center", fontsize=size, color=colour, zorder=5)


def left(axes) -> None:
    """The scenes and what encodes them."""
    shown, x = scenes(), 1.35
    picture(axes, shown["full"], x, FULL, 1.75, "scene $x$")
    picture(axes, shown["context"], x, CONTEXT, 1.75, "context: the patches $C$  (1)")
    picture(axes, shown["zeroed"], x - 0.6, DONE, 1.12, "pixels set to 0")
    picture(axes, shown["again"], x + 0.6, DONE, 1.12, "or simulated")
    label(axes, x, DONE - 0.76, r"scene under $\mathrm{do}(\mathrm{remove})$: $x_{\mathrm{do}}$")
    size, middle = (2.0, 1.0), 4.25
    for y in (FULL, CONTEXT, DONE):
        arrow(axes, [(2.6 if y == DONE else 2.25, y), (middle - size[0] / 2, y)])
    box(axes, middle, FULL, size, ["target encoder", r"$f_{\bar\theta}$, no gradient  (3)"], FROZEN, dashed=True)
    box(axes, middle, CONTEXT, size, ["context encoder", r"$f_\theta$, ViT  (2)"], TRAINED)
    box(axes, middle, DONE, size, ["target encoder", r"$f_{\bar\theta}$, no gradient  (3)"], FROZEN, dashed=True)
    arrow(axes, [(middle, CONTEXT + 0.5), (middle, FULL - 0.5)], FROZEN, dashed=True)
    arrow(axes, [(middle, CONTEXT - 0.5), (middle, DONE + 0.5)], FROZEN, dashed=True)
    label(axes, middle + 0.12, (FULL + CONTEXT) / 2, "moving average  (11)", FROZEN, ha="left", size=9.8)
    label(axes, middle + 0.12, (CONTEXT + DONE) / 2, "the same", FROZEN, ha="left", size=9.8)


def right(axes) -> None:
    """The predictor and the three terms."""
    predictor, edge = 7.35, 8.45
    arrow(axes, [(5.25, CONTEXT), (predictor - 1.1, CONTEXT)], TRAINED)
    label(axes, 5.72, CONTEXT + 0.2, r"$h_C$", TRAINED)
    box(axes, predictor, CONTEXT, (2.2, 1.0), ["predictor", r"$g_\varphi$, narrow ViT  (5)"], TRAINED)
    box(axes, predictor, 5.0, (2.2, 0.75), ["mask tokens", r"$m_P$: where, which object  (4)"], TRAINED)
    arrow(axes, [(predictor, 5.0 - 0.375), (predictor, CONTEXT + 0.5)], TRAINED)

    box(axes, 10.1, 4.75, (1.75, 0.85), [r"$L_{\mathrm{pred}}$", r"smooth $\ell_1$ at $P$  (7)"], TERM)
    arrow(axes, [(edge, CONTEXT + 0.3), (8.85, CONTEXT + 0.3), (8.85, 4.75), (9.22, 4.75)], TRAINED)
    label(axes, 8.72, 4.45, r"$\hat s_P$", TRAINED, ha="right")
    box(axes, 11.95, CONTEXT - 0.1, (1.75, 0.85), [r"$L_{\mathrm{causal}}$", r"squared $\ell_2$ at $R$  (8)"], TERM)
    arrow(axes, [(edge, CONTEXT - 0.1), (11.07, CONTEXT - 0.1)], TRAINED)
    label(axes, 9.75, CONTEXT + 0.1, r"$\hat r$, predicted change of the rest", TRAINED, size=9.8)

    arrow(axes, [(5.25, FULL), (11.95, FULL), (11.95, CONTEXT + 0.325)], FROZEN, dashed=True)
    arrow(axes, [(10.1, FULL), (10.1, 5.175)], FROZEN, dashed=True)
    label(axes, 5.72, FULL + 0.2, r"$s^{\mathrm{full}}$", FROZEN)
    arrow(axes, [(5.25, DONE), (11.95, DONE), (11.95, CONTEXT - 0.525)], FROZEN, dashed=True)
    label(axes, 5.72, DONE + 0.2, r"$s^{\mathrm{int}}$", FROZEN)
    label(axes, 11.82, 2.55, r"target $s^{\mathrm{full}} - s^{\mathrm{int}}$", FROZEN, ha="right", size=9.8)

    box(axes, predictor, 2.35, (2.2, 0.85), [r"$L_{\mathrm{SIGReg}}$", "spread of all scenes  (9)"], TERM)
    arrow(axes, [(5.72, CONTEXT), (5.72, 2.35), (predictor - 1.1, 2.35)], TRAINED)
    label(axes, 5.66, 2.85, "mean\nover $C$", TRAINED, ha="right", size=9.8)


def foot(axes) -> None:
    """The sum of the terms and the legend."""
    total = r"$L \;=\; L_{\mathrm{pred}} + \lambda\, L_{\mathrm{causal}} + \mu\, L_{\mathrm{SIGReg}}$   (10)"
    label(axes, 8.6, 0.72, total, size=13)
    for x, colour, dashed, text in (
        (3.35, TRAINED, False, "trained"),
        (4.6, FROZEN, True, "without gradient"),
    ):
        arrow(axes, [(x, 0.3), (x + 0.4, 0.3)], colour, dashed, head=False)
        label(axes, x + 0.5, 0.3, text, SOFT, ha="left", size=9.8)
    sets = "$P$ hidden patches · $C$ visible patches · $R$ visible patches that no removed object touches"
    label(axes, 6.5, 0.3, sets, SOFT, ha="left", size=9.8)


def main(out: Path = OUT) -> None:
    matplotlib.rcParams["svg.hashsalt"] = "cjepa_jax"
    matplotlib.rcParams["mathtext.fontset"] = "dejavusans"
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    left(axes)
    right(axes)
    foot(axes)
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
    axes.axis("off")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150, metadata={"Date": None} if out.suffix == ".svg" else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
