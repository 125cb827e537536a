# %% [markdown]
# # Fine-tune public weights
#
# Published encoders of I-JEPA, V-JEPA and V-JEPA 2 can start a training of Causal-JEPA. First the encoder is
# fixed and only the predictor learns. Then all parts learn, at a tenth of the rate.
#
#     python examples/public_weights.py --weights=IN1K-vit.h.14-300e.pth.tar
#
# [PyTorch and public weights](../PYTORCH.md) lists what can be read and where it is published. Mind the licences: many
# allow non-commercial use only. A `.pth` file needs PyTorch (`pip install -e '.[torch]'`). A safetensors file does not.

# %%
import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import cjepa_jax

parser = argparse.ArgumentParser(description="Start Causal-JEPA from published weights.")
parser.add_argument("--weights", help="a published file or folder. Without it, a small random stand-in is made")
parser.add_argument("--images", default="examples/folder", help="pictures and instance maps (see own_images.py)")
parser.add_argument("--steps", type=int, default=100, help="training steps of each of the two runs")
parser.add_argument("--out", default="runs/public_weights", help="the folder for everything that is written")
parser.add_argument("--smoke", action="store_true", help="2 steps")
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
# ## The weights
#
# Without `--weights` the tutorial makes a file in timm's layout: a Vision Transformer of two layers, width 96, for 64
# × 64 pixels in patches of 8. Its numbers are random. It stands for a download and has learned nothing.


# %%
def stand_in(file: Path, width: int = 96, depth: int = 2, patch: int = 8, size: int = 64) -> Path:
    """Writes a random encoder in timm's names."""
    block = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    shapes = {
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "pos_embed": (1, (size // patch) ** 2, width),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    shapes |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
    rng = np.random.default_rng(0)
    arrays = {
        name: np.ones(shape, np.float32) if "norm" in name and "weight" in name else rng.normal(0, 0.05, shape)
        for name, shape in shapes.items()
    }
    save_file({name: array.astype(np.float32) for name, array in arrays.items()}, file)
    return file


weights = args.weights or str(stand_in(out / "stand_in.safetensors"))
public = cjepa_jax.load(weights)
print("\n".join(f"{name:16} {value}" for name, value in public.info.items()))

# %% [markdown]
# ## The encoder stays fixed
#
# `init_from` reads the weights and sets `objective.encoder` to match them. A line is printed for each key that changes.
# `optim.freeze` keeps the encoder. Only the predictor is trained: it learns to infer hidden objects, and the change of
# the rest, in the feature space of the published encoder.

# %%
size = public.info["size"]
data = [f"--config.data.path={args.images}", f"--config.data.size={size}"]
brief = ["--config.log.report=False", "--config.log.tensorboard=False", "--config.data.row_lengths=(1.0,)"]
brief = brief if args.smoke else []
both = [*data, *brief, f"--config.train.steps={2 if args.smoke else args.steps}"]
frozen = out / "frozen"
start = [f"--config.init_from={weights}", "--config.optim.freeze=('encoder',)", f"--workdir={frozen}"]
run("cjepa_jax.train", "--config=folder", *both, *start)

# %% [markdown]
# The encoder has not moved: its features are those of the published weights.

# %%
images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
before, after = public.features(images), cjepa_jax.load(frozen).features(images)
print(f"\nlargest difference of the features: {np.abs(after - before).max():.1e}")
assert np.allclose(before, after, atol=1e-4)

# %% [markdown]
# ## All parts learn
#
# The second run starts from the first one's folder, so the predictor comes along. The peak rate is a tenth of that of
# `configs/folder.py`.

# %%
tuned = out / "tuned"
start = [f"--config.init_from={frozen}", "--config.optim.peak=1e-4", f"--workdir={tuned}"]
run("cjepa_jax.train", "--config=folder", *both, *start)
print(f"\nmoved by {np.abs(cjepa_jax.load(tuned).features(images) - before).max():.1e}")

# %% [markdown]
# ## Next
#
# * Was it worth it? `python -m cjepa_jax.evaluate --config=evals/imagenet --checkpoint=FOLDER` and the other protocols
#   score the published weights, the frozen run and the tuned one alike ([How scores are made](../EVALUATION.md)).
#   Published weights have no config: add `--training=data/imagenet`.
# * To fine-tune for labels instead, with a head: `--config=evals/finetune`.
# * The licence of the weights stays with the runs and their exports.
