"""Weights of almost no size, in memory, as an export and as the files that are published."""

import functools
import hashlib
import json

import jax
import numpy as np
import safetensors.numpy

from cjepa_jax.configuration import sizes
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.weights import canonical as layouts
from cjepa_jax.weights.read import Pretrained

VARIANT = "24x2x3x40/8"  # no published size: width, depth, heads and hidden units are all told apart
PREDICTOR = {"depth": 1, "width": 16, "heads": 4, "attention": "joint", "max_objects": 3}


@functools.cache
def _shapes(module, inputs, named):
    def start():
        arrays = (np.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x for x in inputs)
        return module.init(jax.random.key(0), *arrays, **dict(named))

    return jax.eval_shape(start)["params"]


def drawn(module, seed, *inputs, **named):
    """Random parameters of a module: nothing is zero."""
    kinds = (jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, np.ndarray) else x for x in inputs)
    shapes = _shapes(module, tuple(kinds), tuple(named.items()))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(scale=0.1, size=leaf.shape).astype(np.float32), shapes)


def weights(variant=VARIANT, frames=2, tubelet=2, predictor=PREDICTOR, target=True, **options) -> Pretrained:
    """An encoder for 32 x 32 pixels, its moving average, and a predictor of it."""
    settings = {
        "variant": variant,
        "tubelet": tubelet,
        "gelu": "tanh",
        "positions": "sincos",
        "epsilon": 1e-5,
    } | options
    width = sizes.parse(variant).width
    video = np.zeros((1, frames, 32, 32, 3), np.uint8)
    params = {"encoder": drawn(Encoder(**settings), 0, video)}
    if target:
        params["target"] = drawn(Encoder(**settings), 1, video)
    if predictor:
        hidden = np.zeros((1, 16, width)), np.ones((1, 16), bool), np.zeros((1, 1, 16), bool), np.zeros((1, 1), bool)
        params["predictor"] = drawn(Predictor(**predictor, out=width), 2, *hidden, (1, 4, 4))
    seen = {"size": 32, "frames": frames, "anchor": 0, "names_objects": True}
    about = {"training": {"seed": 5}, "step": 7}
    return Pretrained("cjepa_jax", "a test", "0" * 64, "CC-BY-NC-4.0", settings, predictor, params, seen, about)


def export(folder, found):
    """A folder as the export writes it, with the files that are read back."""
    folder.mkdir()
    patch = sizes.parse(found.encoder["variant"]).patch
    parts = {name: layouts.to_canonical(tree, patch, found.encoder["tubelet"]) for name, tree in found.params.items()}
    flat = {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(a) for name, a in flat.items()}, folder / "model.safetensors"
    )
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "model.safetensors.sha256").write_text(f"{digest}  model.safetensors\n")
    names = ("encoder", "predictor", "input", "licence", "source", "digest", "about")
    content = {"format": "cjepa_jax", "version": 1} | {name: getattr(found, name) for name in names}
    (folder / "config.json").write_text(json.dumps(content))
    return str(folder)


def published(file, found):
    """One encoder alone, a safetensors file in timm's names."""
    patch = sizes.parse(found.encoder["variant"]).patch
    canonical = layouts.to_canonical(found.params["encoder"], patch, found.encoder["tubelet"])
    safetensors.numpy.save_file({name: np.ascontiguousarray(a) for name, a in canonical.items()}, file)
    return str(file)
