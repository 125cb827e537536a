# %% [markdown]
# # A new mask
#
# A masking strategy is one function. It says which patches of a scene are hidden and which objects are removed with
# them. This tutorial writes one, tests it, looks at it, and trains with it. Nothing in the package is changed.
#
# The strategy: remove the object that is nearest to the middle of the picture. It is the opposite of a random choice,
# and easy to check by eye.

# %%
import argparse
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

parser = argparse.ArgumentParser(description="Write a masking strategy, test it, look at it, train with it.")
parser.add_argument("--steps", type=int, default=100, help="training steps")
parser.add_argument("--out", default="runs/new_mask", help="the folder for everything that is written")
parser.add_argument("--smoke", action="store_true", help="the smallest model and 2 steps")
args = parser.parse_args([] if "ipykernel" in sys.modules else None)
if args.smoke:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # compile quickly, compute slowly
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The function
#
# It gets a random generator, the patches that each object touches (bool `[K, N]`), which objects are real and not
# padding (bool `[K]`), the grid `(times, rows, cols)` (images have one time), and the options of the config's `mask`
# section. It returns the hidden patches (bool `[N]`) and the removed objects (bool `[K]`). At least one patch
# must be hidden, and at least one must stay.
#
# All randomness comes from the generator. So a scene's mask depends on seed, scene and epoch only.


# %%
def draw(rng, object_patches, object_valid, grid=None, nearest=1, anchor=0):
    """Remove the `nearest` objects whose patches are nearest to the middle of the picture."""
    rows, cols = grid[-2:]
    row, col = np.divmod(np.arange(object_patches.shape[1]) % (rows * cols), cols)
    distance = np.hypot(row - (rows - 1) / 2, col - (cols - 1) / 2)
    area = object_patches.sum(1)
    place = (object_patches * distance).sum(1) / np.maximum(area, 1)
    place[~object_valid | (area == 0)] = np.inf
    removed = np.zeros(len(place), bool)
    removed[np.argsort(place, kind="stable")[:nearest]] = True
    removed &= np.isfinite(place)
    masked = object_patches[removed].any(0)
    masked[: anchor * rows * cols] = False  # clips: the first times stay visible
    if not masked.any() or masked.all():  # no object, or one that covers everything: hide one patch
        removed[:] = False
        masked[:] = False
        masked[rng.integers(anchor * rows * cols, len(masked))] = True
    return masked, removed


# %% [markdown]
# ## A test
#
# A mask is plain NumPy, so a test is a few lines: here a grid of 4 × 4 patches with two objects, whose answer is
# known, and a scene without any object.

# %%
patches = np.zeros((3, 16), bool)
patches[0, [0, 1]] = True  # in the corner
patches[1, [5, 6]] = True  # in the middle
valid = np.array([True, True, False])  # the third is padding
masked, removed = draw(np.random.default_rng(0), patches, valid, grid=(1, 4, 4))
assert np.flatnonzero(masked).tolist() == [5, 6] and removed.tolist() == [False, True, False]
masked, removed = draw(np.random.default_rng(0), np.zeros((3, 16), bool), valid, grid=(1, 4, 4))
assert masked.sum() == 1 and not removed.any()
print("the mask does what it should")

# %% [markdown]
# ## A module and a config
#
# A config names a mask as `module:function`, so the function goes into a file that Python can import. The config
# replaces the `mask` section of `configs/clips.py`. `nearest` is an option of our mask.

# %%
(out / "my_mask.py").write_text("import numpy as np\n\n\n" + inspect.getsource(draw))
(out / "my_config.py").write_text('''"""clips, with the object nearest to the middle removed."""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config()
    config.mask = ConfigDict(dict(type="my_mask:draw", nearest=1, anchor=1))
    return config
''')
paths = [str(out.resolve()), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def run(module: str, *flags: str) -> None:
    """Runs a command of the package, and stops if it fails."""
    print(f"\n$ python -m {module} {' '.join(flags)}", flush=True)
    if subprocess.run([sys.executable, "-m", module, *flags], env=environment).returncode:
        raise SystemExit(1)


# %% [markdown]
# ## Look at it

# %%
config = f"--config={out / 'my_config.py'}"
run("cjepa_jax.data.show", config, "--scenes=3", f"--out={out / 'masks.png'}")

# %% [markdown]
# ![A clip with the object in the middle hidden, above the same clip simulated without it](../pictures/new_mask.png)
#
# The first frames stay visible, since the config sets `anchor=1`. Below each clip is its simulation without the
# object.
#
# ## Train with it
#
# The training step, checkpoints, probes and the report need no change. Compare it with a run of `configs/clips.py` at
# the same seeds and steps. A single seed says little.

# %%
settings = [f"--config.train.steps={args.steps}", f"--workdir={out / 'model'}"]
if args.smoke:
    settings += ["--config.train.steps=2", "--config.train.batch=8", "--config.data.frames=2", "--config.data.size=32"]
    settings += ["--config.objective.encoder.depth=1", "--config.objective.predictor.depth=1"]
    settings += ["--config.mask.anchor=0", "--config.probe.train=16", "--config.probe.test=16"]
    settings += ["--config.log.report=False", "--config.log.tensorboard=False", "--config.data.row_lengths=(1.0,)"]
run("cjepa_jax.train", config, *settings)
print(f"\npicture: {out / 'masks.png'}")

# %% [markdown]
# ## Next
#
# Run folders are read as data: a module that only a folder names is not imported. So whoever evaluates or loads this
# run says that it may be, by `--trust=my_mask` or `cjepa_jax.load(..., trust="my_mask")`, with the module on
# `PYTHONPATH`.
#
# To keep a mask in the package: one file in `cjepa_jax/masks/`, one config, one test in `tests/masks/`. CONTRIBUTING
# tells the rest. Masks that do not follow objects (blocks, tubes) return `removed` all False; then there is no scene
# under do(remove), and the config sets `data.intervened = "none"` and `objective.causal_weight = 0`.
