# %% [markdown]
# # What if an object were absent?
#
# This tutorial takes one object out of a simulated scene. It asks a trained model what follows, and compares the
# answer with the world's simulation without the object.
#
#     python examples/what_if.py                       asks the model that comes with the package
#     python examples/what_if.py --model=FOLDER        a run's folder or an export, with a predictor
#     python examples/what_if.py --scene=3 --remove=1  another scene, another object
#
# The scene is from the test split, which no training sees. Without `--remove` the object is taken whose absence
# changes the most.

# %%
import argparse
import os
import sys
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

import cjepa_jax
from cjepa_jax.configuration import build
from cjepa_jax.data.drawing import marks
from cjepa_jax.errors import CjepaError

parser = argparse.ArgumentParser(description="What if this object were absent? A model's answer, and the truth.")
parser.add_argument("--model", default="tiny", help="a run's folder, an export, or a model of the package")
parser.add_argument("--scene", type=int, default=3, help="which scene of the world's test split")
parser.add_argument("--remove", type=int, help="which object. By default the one whose absence changes the most")
parser.add_argument("--seed", type=int, default=1000, help="of the world's scenes")
parser.add_argument("--out", default="runs/what_if", help="the folder for what_if.png")
parser.add_argument("--smoke", action="store_true", help="compile quickly and compute slowly")
args = parser.parse_args([] if "ipykernel" in sys.modules else None)
if args.smoke:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
if args.scene < 0 or args.seed < 0:
    parser.error("--scene and --seed must be 0 or more")

# %% [markdown]
# ## A model
#
# `tiny` comes with the package. It is the result of `python -m cjepa_jax.train --config=tiny`, trained on images of the
# world *Shadows*. The target encoder is used: training measures everything in its features.

# %%
try:
    model = cjepa_jax.load(args.model, weights="target", batch=2)
except CjepaError as error:
    raise SystemExit(f"error: {error}") from error
print("\n".join(f"{name:16} {value}" for name, value in model.info.items()))

# %% [markdown]
# ## A scene
#
# It comes from the world that the model was trained on, or from *Balls* if the data are not a simulated world.
# `intervene` simulates it again, from the same initial state, without some of its objects.

# %%
trained = model.pretrained.about.get("training", {})
data = trained.get("data", {})
simulated = str(data.get("source", "")).startswith("cjepa_jax.data.worlds:")
section = {"type": data["source"], **data["options"]} if simulated else {"type": "cjepa_jax.data.worlds:Balls"}
size, frames = model.info["size"], model.info["frames"]
world = build.build(section, split="test", size=size, frames=frames, count=args.scene + 1, seed=args.seed)
scene = world[args.scene]
video, masks = scene["video"], scene["masks"]  # uint8 [T, H, W, 3], bool [K, T, H, W]


def without(k: int) -> np.ndarray:
    """The scene as the world simulates it without object k, uint8 [T, H, W, 3]."""
    return world.intervene(args.scene, np.arange(len(masks)) == k)


def elsewhere(k: int) -> float:
    """How much the removal of object k changes pixels that it does not cover."""
    return float((np.abs(video.astype(float) - without(k)).sum(-1) * ~masks[k]).sum()) if masks[k].any() else -1.0


if args.remove is None:
    args.remove = max(range(len(masks)), key=elsewhere)
if not 0 <= args.remove < len(masks):
    parser.error(f"--remove={args.remove}: the scene has the objects 0 to {len(masks) - 1}")
gone, real = masks[args.remove], without(args.remove)
print(f"\n{type(world).__name__}, scene {args.scene}: {len(masks)} objects, without object {args.remove}")

# %% [markdown]
# ## The question
#
# The model gets the scene and the pixels of its objects. It encodes the patches that the removed object does not
# touch. Its predictor infers the features at the hidden patches (`prediction`) and the change of the others
# (`change`).

# %%
form = (lambda clip: clip[None, 0]) if frames == 1 else (lambda clip: clip[None])
given = masks[None, :, 0] if frames == 1 else masks[None]
try:
    answer = model.intervene(form(video), given, remove=[args.remove])
except CjepaError as error:
    raise SystemExit(f"error: {error}") from error

# %% [markdown]
# ## The truth
#
# The same features, of the original scene and of the scene simulated without the object. Their difference at the
# patches that the object does not touch is what the residual head should predict.

# %%
full, intervened = model.encode(np.concatenate([form(video), form(real)]))
grid = model.grid(form(video))
hidden, context = answer.hidden[0], answer.context[0]
patch = model.info["patch"]
pixels = gone.reshape((grid[0], -1, grid[1], patch, grid[2], patch))
rest = context & ~pixels.any((1, 3, 5)).ravel()  # tokens that the object does not touch
change = full - intervened


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The mean cosine between rows."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(norms, 1e-12)).mean())


def standardised(tokens: np.ndarray) -> np.ndarray:
    """As objective.target_norm = layer_norm has them."""
    return (tokens - tokens.mean(-1, keepdims=True)) / (tokens.std(-1, keepdims=True) + 1e-6)


# %% [markdown]
# ## The numbers
#
# Each one is printed next to an answer that needs no model: the mean visible token, and "nothing changes".

# %%
wanted = standardised(full) if trained.get("objective", {}).get("target_norm") == "layer_norm" else full
anchor = model.info["anchor"]
stays = f"   (frames up to {anchor * (frames // grid[0])} stay visible, as in training)" if anchor else ""
lines = [
    f"hidden tokens          {hidden.sum()} of {hidden.size}{stays}",
    f"inferred there         cosine with the true tokens {cosine(answer.prediction[0][hidden], wanted[hidden]):.2f}"
    f"   (the mean visible token: {cosine(wanted[context].mean(0)[None], wanted[hidden]):.2f})",
]
if answer.change is not None and rest.any():
    foreseen, true = answer.change[0][rest], change[rest]
    explained = 1 - np.square(foreseen - true).sum() / max(np.square(true).sum(), 1e-12)
    strength, truth = np.linalg.norm(foreseen, axis=-1), np.linalg.norm(true, axis=-1)
    likeness = np.corrcoef(strength, truth)[0, 1] if min(np.ptp(strength), np.ptp(truth)) > 0 else float("nan")
    after = intervened[context].mean(0)
    error = np.linalg.norm(answer.readouts["counterfactual"][0] - after)
    nothing = np.linalg.norm(full[context].mean(0) - after)
    lines += [
        f"change of the rest     explained {explained:+.2f}   (saying that nothing changes: 0, perfect: 1)",
        f"where it changes       correlation of the two maps {likeness:.2f}",
        f"the scene without it   mean visible token off by {error:.3f}   (saying that nothing changes: {nothing:.3f})",
    ]
    verdict = "better" if explained > 0 else "no better"
    lines.append(f"On the change of this scene's rest, the model is {verdict} than saying that nothing changes.")
print("\n".join(lines))

# %% [markdown]
# ## The picture
#
# At most four times of the clip, one in each row.

# %%
TEXT, LINE, OUTLINE = "#23262f", "#c9ccd6", (255, 0, 200)
HEAT = colormaps["OrRd"]
times = np.unique(np.linspace(0, grid[0] - 1, min(grid[0], 4)).round().astype(int))
per = frames // grid[0]


def on_grid(values: np.ndarray, time: int) -> np.ndarray:
    return values.reshape(*grid, *values.shape[1:])[time]


def outlined(time: int) -> np.ndarray:
    """The last frame of a time, with the object's outline."""
    frame = np.ascontiguousarray(marks.enlarge(video[time * per + per - 1], 384))
    marks.outline(frame, gone[time * per + per - 1], OUTLINE, 5)
    return frame


def covered(time: int) -> np.ndarray:
    """The same without outline, the hidden tokens hatched."""
    frame = np.ascontiguousarray(marks.enlarge(video[time * per + per - 1], 384))
    frame[marks.stretch(on_grid(hidden, time), frame)] = 200
    marks.hatch(frame, on_grid(hidden, time), 14)
    return frame


def heat(values: np.ndarray, time: int, top: float) -> np.ndarray:
    """A map of the other patches, RGB, with grey where the object was."""
    colours = HEAT(np.clip(on_grid(values, time) / top, 0, 1))[..., :3]
    return np.where(on_grid(rest, time)[..., None], colours, 0.78)


sizes = {"change, simulated": np.linalg.norm(change, axis=-1)}
if answer.change is not None:
    sizes["change, predicted"] = np.linalg.norm(answer.change[0], axis=-1)
tops = {name: float(values[rest].max(initial=0)) or 1.0 for name, values in sizes.items()}
columns = {
    "the scene": outlined,
    "what the model sees": covered,
    "without it, simulated": lambda time: marks.enlarge(real[time * per + per - 1], 384),
    **{name: lambda time, name=name: heat(sizes[name], time, max(tops.values())) for name in sizes},
}
side, gap, left, right, head, foot = 2.3, 0.12, 0.35, 0.75, 0.45, 0.15 + 0.21 * len(lines)  # inches
wide = left + len(columns) * (side + gap) + right
tall = head + len(times) * (side + gap) + foot
figure = Figure(figsize=(wide, tall), facecolor="white")
plots = figure.subplots(
    len(times),
    len(columns),
    squeeze=False,
    gridspec_kw=dict(
        left=left / wide,
        right=1 - (right + gap) / wide,
        top=1 - head / tall,
        bottom=(foot + gap) / tall,
        wspace=gap / side,
        hspace=gap / side,
    ),
)
for row, time in zip(plots, times, strict=True):
    for axes, (title, draw) in zip(row, columns.items(), strict=True):
        axes.imshow(draw(time), interpolation="nearest", extent=(0, 1, 0, 1))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(LINE)
        if time == times[0]:
            axes.set_title(title, fontsize=10.5, color=TEXT, pad=7)
    label = f"frame {time * per + per} of {frames}" if frames > 1 else ""
    row[0].set_ylabel(label, fontsize=9, color=TEXT, labelpad=5)
bar = figure.add_axes([1 - right / wide, (foot + gap) / tall, 0.12 / wide, 1 - (head + foot + gap) / tall])
bar.imshow(HEAT(np.linspace(1, 0, 256))[:, None, :3], aspect="auto", extent=(0, 1, 0, max(tops.values())))
bar.set(xticks=[])
bar.yaxis.tick_right()
bar.tick_params(labelsize=8, colors=TEXT, length=2)
bar.spines[:].set_color(LINE)
style = dict(va="top", family="monospace", fontsize=9, color=TEXT, linespacing=1.5)
figure.text(left / wide, (foot - 0.1) / tall, "\n".join(lines), **style)
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)
figure.savefig(out / "what_if.png", dpi=130)
(out / "what_if.txt").write_text("\n".join(lines) + "\n")
print(f"\npicture: {out / 'what_if.png'}")

# %% [markdown]
# ![The scene, the same without the object, and both maps of change](../pictures/what_if.png)
#
# This one is of the model `tiny`. The removed object's shadow is the change, and the model predicts where it was.
# Another scene or seed gives another picture: one scene does not prove anything. `evaluate --config=evals/effects` asks
# about many pairs of removals, and `evaluate --config=evals/worlds` asks many questions with known answers.
