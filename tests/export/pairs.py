"""The same random weights in JAX and, through an export, in PyTorch, and what each makes of the same scenes."""

import functools

import jax
import numpy as np

from cjepa_jax.data import batching
from cjepa_jax.evals.base import pool
from cjepa_jax.evals.counterfactual import questions
from cjepa_jax.export import bundle
from cjepa_jax.masks import objects
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.predictor import Predictor
from cjepa_jax.models.tokenizers import grid
from cjepa_jax.types import Rows
from cjepa_jax.weights.read import Pretrained

SIZE = "36x2x3x56/4"
ENCODER = {"gelu": "exact", "positions": "sincos", "position_grid": (), "epsilon": 1e-6, "depth": 0}
ENCODER |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PREDICTOR = {"depth": 2, "width": 24, "heads": 2, "attention": "joint", "max_objects": 3, "gelu": "exact"}
PREDICTOR |= {"positions": "sincos", "position_grid": (), "epsilon": 1e-6}
FREE = {"source": "/some/where/run", "digest": "0" * 64, "licence": "unspecified", "about": {}}


def model(seed=0, variant=SIZE, frames=1, tubelet=2, size=16, predictor=None, target=True, encoder=None, **given):
    """A Pretrained with random parameters on which every part of the output depends; `given`: of its input."""
    options = ENCODER | {"variant": variant, "tubelet": tubelet} | (encoder or {})
    head = PREDICTOR | (predictor or {}) if predictor is not False else None
    seen = {"size": size, "frames": frames, "anchor": 0, "names_objects": True} | given
    scenes = jax.ShapeDtypeStruct((1, frames, size, size, options.get("channels", 3)), np.uint8)
    shapes = {"encoder": jax.eval_shape(Encoder(**options).init, jax.random.key(0), scenes)["params"]}
    if target:
        shapes["target"] = shapes["encoder"]
    if head:
        shapes["predictor"] = _predictor_shapes(options, head, scenes.shape)
    params = filled(shapes, seed)
    return Pretrained("cjepa_jax", **FREE, encoder=options, predictor=head, params=params, input=seen)


def filled(shapes, seed):
    """Random arrays that keep activations near 1 at any width and depth."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, noise = path[-1].key, rng.standard_normal(leaf.shape, np.float32)
        if name == "kernel":
            return noise * np.float32(leaf.shape[-2] ** -0.5)
        return 1 + noise * np.float32(0.1) if name == "scale" else noise * np.float32(0.3)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def scenes(model, batch=3, count=3, seed=1):
    """(video uint8 [B, T, H, W, C], masks bool [B, K, T, H, W], removed bool [B, K]): boxes of different sizes. With
    another scale than 255 the video is float32, of numbers around 0."""
    rng = np.random.default_rng(seed)
    size, frames = model.input["size"], model.input["frames"]
    channels, scale = model.encoder.get("channels", 3), model.encoder.get("scale", 255.0)
    video = rng.integers(0, 256, (batch, frames, size, size, channels), np.uint8)
    video = video if scale == 255 else ((video - 128.0) * scale / 64).astype(np.float32)
    masks = np.zeros((batch, count, frames, size, size), bool)
    for scene in range(batch):
        for k in range(count):
            top, left = rng.integers(0, size // 2, 2)
            high, wide = rng.integers(2, 2 * size // 3, 2)
            masks[scene, k, :, top : top + high, left : left + wide] = True
    removed = np.zeros((batch, count), bool)
    for scene in range(batch):
        removed[scene, rng.choice(count, 1 + scene % 2, replace=False)] = True
    return video, masks, removed


@functools.lru_cache(maxsize=64)
def _applied(options, head, places, zeroed):
    encoder = Encoder(**dict(options))
    predictor = Predictor(**dict(head), out=encoder.width) if head else None

    def run(params, video, index, segment, patches, removed, hidden):
        found = {"encode": encoder.apply({"params": params["encoder"]}, video)}
        if "target" in params:
            found["target"] = encoder.apply({"params": params["target"]}, video)
        chosen = {"keep": ~hidden} if zeroed else {"rows": Rows(index, segment)}
        found["context"] = tokens = encoder.apply({"params": params["encoder"]}, video, **chosen)
        if predictor:
            inputs = tokens, ~hidden, patches, removed, places, hidden
            found["prediction"], found["change"] = predictor.apply({"params": params["predictor"]}, *inputs)
        return found

    return jax.jit(run)


def in_jax(model, video, patches, removed, hidden, rows=None):
    """What the networks of models/ give, and the readouts as evals/counterfactual/readouts.py pools them.

    `rows` (R, L) packs several scenes to a row of L.
    """
    size = Encoder(**model.encoder)
    places = grid(video.shape, size.patch, size.tubelet)
    frozen = tuple(model.encoder.items()), model.predictor and tuple(model.predictor.items())
    index, segment = batching.lay_out(~hidden, 1, rows or hidden.shape)
    named = removed & model.input["names_objects"]
    zeroed = model.input.get("encoder_input") == "zeroed"
    found = _applied(*frozen, places, zeroed)(model.params, video, index, segment, patches, named, hidden)
    found = {name: np.asarray(value) for name, value in found.items()}
    if "change" in found:
        base = found.get("target", found["encode"])
        found["masked"] = pool(found["prediction"], hidden)
        found["counterfactual"] = pool(base - found["change"], ~hidden)
    return found


def in_torch(model, folder):
    """The exported model, read by the code that goes with it."""
    from cjepa_jax.export.modeling_cjepa import CausalJEPA

    bundle.write(folder, model, "card")
    return CausalJEPA.from_pretrained(folder)


def compare(model, folder, rows=None, **given):
    """The largest difference of each output between JAX and PyTorch: by name."""
    import torch

    video, masks, removed = scenes(model, **given)
    ours = in_torch(model, folder)
    image = model.input["frames"] == 1
    with torch.no_grad():
        pixels = torch.tensor(video[:, 0] if image else video)
        tokens, features = ours.encode(pixels), ours.features(pixels)
        answer = ours.intervene(pixels, torch.tensor(masks[:, :, 0] if image else masks), torch.tensor(removed))
    patch, tubelet = Encoder(**model.encoder).patch, 1 if image else model.encoder["tubelet"]
    patches = np.stack([objects.patches(scene, patch, tubelet) for scene in masks])
    places = grid(video.shape, patch, tubelet)
    gone = (patches & removed[..., None]).any(1)
    gone = questions.hidden(gone, places[0], model.input["anchor"])
    np.testing.assert_array_equal(answer.hidden, gone)
    assert gone.any()
    wanted = in_jax(model, video, patches, removed, gone, rows)
    everywhere = np.ones_like(gone) if model.input.get("encoder_input") == "zeroed" else ~gone
    found = {
        "encode": apart(tokens, wanted["encode"]),
        "features": apart(features, wanted["encode"].mean(1)),
        "context": apart(answer.tokens, wanted["context"], everywhere),
        "prediction": apart(answer.prediction, wanted["prediction"], gone),
        "change": apart(answer.change, wanted["change"], ~gone),
        "masked": apart(answer.readouts["masked"], wanted["masked"]),
        "counterfactual": apart(answer.readouts["counterfactual"], wanted["counterfactual"]),
    }
    both = torch.cat([answer.readouts["masked"], answer.readouts["counterfactual"]], -1)
    assert torch.equal(answer.readouts["both"], both)
    assert not answer.prediction[~answer.hidden].any() and not answer.change[answer.hidden].any()
    return found


def _predictor_shapes(options, head, scene):
    network = Encoder(**options)
    places = grid(scene, network.patch, network.tubelet)
    count, width = int(np.prod(places)), network.width
    like = jax.ShapeDtypeStruct
    rest = like((1, count), bool), like((1, 1, count), bool), like((1, 1), bool)
    start = functools.partial(Predictor(**head, out=width).init, grid=places)
    return jax.eval_shape(start, jax.random.key(0), like((1, count, width), np.float32), *rest)["params"]


def apart(found, wanted, where=None):
    """The largest difference, relative to the spread (standard deviation) of what is wanted."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    if where is not None:
        found, wanted = found[where], wanted[where]
    return float(np.abs(found - wanted).max() / wanted.std())
