# %% [markdown]
# # Train on your own data
#
# You need pictures, and for each picture a map that says which pixels belong to which object. This tutorial trains on
# the 12 small drawings of `examples/folder`, then looks for pictures with similar features. With `--images` it takes
# your own folder.
#
#     DIR/images/NAME.png        the pictures
#     DIR/masks/NAME.png         the maps, same names and sizes: 0 is background, each other value is one object
#     DIR/eval/images, masks     held-out pictures (without them a tenth of the names is held out)
#
# No maps? `python -m cjepa_jax.data.segment` makes them with SAM or as superpixels (see *Data*). The steps are the same
# for other data, with another config:
#
# | you have | config |
# |---|---|
# | a COCO export of a labelling tool | `configs/data/coco.py` |
# | videos of any codec | `configs/data/videos.py` |
# | bands, depth, NumPy files | `configs/folder.py` and *Data*, "Several channels" |
# | a folder for each class | `configs/data/imagenette.py` |

# %%
import argparse
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

import cjepa_jax

parser = argparse.ArgumentParser(description="Train on a folder of pictures and look for similar ones.")
parser.add_argument("--images", default="examples/folder", help="the folder described above")
parser.add_argument("--steps", type=int, default=100, help="training steps. Thousands for a folder of real size")
parser.add_argument("--out", default="runs/own_images", help="the folder for everything that is written")
parser.add_argument("--smoke", action="store_true", help="the smallest model and 2 steps")
args = parser.parse_args([] if "ipykernel" in sys.modules else None)
if args.smoke:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # compile quickly, compute slowly
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)


def run(module: str, *flags: str) -> None:
    """Runs a command of the package, and stops if it fails."""
    print(f"\n$ python -m {module} {' '.join(flags)}", flush=True)
    if subprocess.run([sys.executable, "-m", module, *flags]).returncode:
        raise SystemExit(1)


# %% [markdown]
# ## Look before you train
#
# `data.inspect` reads every scene. Its `report.html` says what is wrong with which file, counts objects, sizes and
# ranges, shows typical and odd scenes, and says what to set. The command fails if training would stop because of
# unreadable files.

# %%
data = f"--config.data.path={args.images}"
run("cjepa_jax.data.inspect", "--config=folder", data, f"--out={out / 'inspected'}", "--log=warning")

# %% [markdown]
# `data.show` draws what training will see. Left: the picture with its objects outlined. Right: the same picture with
# the removed objects' pixels set to 0. Hatched patches are hidden. If outlines and objects do not match, the maps are
# wrong. Objects that cover less than 5 % or more than 40 % of the patches are never removed (`mask.area`).

# %%
run("cjepa_jax.data.show", "--config=folder", data, "--scenes=4", f"--out={out / 'scenes.png'}")

# %% [markdown]
# ![Drawings with objects and hidden patches, and without the removed objects](../pictures/own_images.png)
#
# ## Train
#
# `configs/folder.py` is a small model: 64 × 64 pixels, 4 layers. The command resumes if it is stopped, and does
# nothing once it has finished. For real folders raise `--steps`, `--config.data.size` and
# `--config.objective.encoder.variant` (for example `S/16` at 224 pixels).

# %%
settings = [data, f"--config.train.steps={args.steps}", f"--workdir={out / 'model'}"]
if args.smoke:
    settings += ["--config.train.steps=2", "--config.log.report=False", "--config.log.tensorboard=False"]
    settings += ["--config.data.row_lengths=(1.0,)"]
    settings += ["--config.objective.encoder.depth=1", "--config.objective.predictor.depth=1"]
run("cjepa_jax.train", "--config=folder", *settings)

# %% [markdown]
# ## Is it healthy?
#
# The loss alone does not tell. Look at three monitors, which the console and `report.html` show: `rankme` stays well
# above 1, `explained/prediction` rises above 0, and `probe/..._r2` rises above the value of the same network untrained.
# [Is my run healthy?](../HEALTH.md) shows them for a healthy run and for three broken ones, and says which learning
# rate, EMA and batch to start with for small data. This run is too short for any of them.
#
# ## Use the features
#
# Pictures are read, cut to their centred square and resized, as in training. `features` gives one vector for each.

# %%
model = cjepa_jax.load(out / "model")
size = model.info["size"]


def read(path: Path) -> np.ndarray:
    """A picture as the model takes it, uint8 [size, size, 3]."""
    image = cv2.imread(str(path))[..., ::-1]
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)


names = sorted(path for path in (Path(args.images) / "images").iterdir() if path.suffix in (".png", ".jpg", ".jpeg"))
images = np.stack([read(path) for path in names[:200]])
features = model.features(images)  # float32 [pictures, D]
features = features - features.mean(0)
features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
likeness = features @ features.T
print(f"\n{len(images)} pictures, {features.shape[1]} features each")

# %% [markdown]
# Each row below is a picture and the three with the most similar features. After 100 steps on 12 drawings this means
# little. It shows how the pieces fit.

# %%
rows = range(min(4, len(images)))
figure = Figure(figsize=(6, 1.55 * len(rows)), layout="constrained")
plots = figure.subplots(len(rows), 4, squeeze=False)
for i, row in zip(rows, plots, strict=True):
    for axes, j in zip(row, np.argsort(-likeness[i], kind="stable"), strict=False):
        axes.imshow(images[j])
        axes.set_title(f"{names[j].stem}: {likeness[i, j]:.2f}", fontsize=8)
        axes.axis("off")
figure.savefig(out / "similar.png", dpi=110)
print(f"pictures: {out / 'scenes.png'}, {out / 'similar.png'}")

# %% [markdown]
# ## Next
#
# * `report.html` in the run's folder shows curves, masks and features.
# * `python -m cjepa_jax.export --checkpoint=runs/own_images/model --out=exported` writes the model for PyTorch.
# * [Fine-tune public weights](public_weights.md) starts from a published encoder instead of random weights, which is
#   the better choice for small folders.
