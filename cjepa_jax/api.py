"""A trained model as an object that takes and gives NumPy arrays.

    import cjepa_jax

    model = cjepa_jax.load("runs/tiny")                  # or an export, or public weights
    tokens = model.encode(clips)                         # [B, N, D]
    features = model.features(clips)                     # [B, D]
    answer = model.intervene(clips, masks, remove=[0])   # what if the first object were absent?
    layers = model.states(clips)                         # [L + 1, B, N, D], after each block
    tokens = model.run(clips, at=2, edit=lambda x: 2 * x)  # what if the second block's output were another?

Scenes are images [H, W, 3], [B, H, W, 3] or clips [B, T, H, W, 3], RGB, uint8 or float in 0..255. A model of other
channels takes as many, and one with another scale than 255 takes any finite values. See docs/API.md.
B scene, K object, N token of the grid (times, rows, columns, in this order), D width.
"""

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from cjepa_jax.configuration import sizes
from cjepa_jax.evals import base
from cjepa_jax.evals.counterfactual.questions import hidden
from cjepa_jax.loading import inputs, released
from cjepa_jax.loading.inputs import Clouds, InputError, Takes
from cjepa_jax.loading.model import Network
from cjepa_jax.loading.pretrained import load_weights
from cjepa_jax.weights import read, worlds
from cjepa_jax.weights.points import ENCODER as POINTS
from cjepa_jax.weights.read import Pretrained, Reading

log = logging.getLogger(__name__)


class Intervention(NamedTuple):
    """Model outputs for scenes without some of their objects."""

    prediction: np.ndarray  # float32 [B, N, D] predicted tokens where they are hidden, 0 elsewhere
    change: np.ndarray | None  # float32 [B, N, D] predicted s_full - s_int at the others, 0 elsewhere. None: untrained
    hidden: np.ndarray  # bool [B, N] tokens that went with the objects
    context: np.ndarray  # bool [B, N] tokens that stayed visible
    readouts: dict[str, np.ndarray]  # float32 "masked" [B, D], "counterfactual" [B, D], "both" [B, 2 D]


def load(
    path: str | os.PathLike,
    *,
    weights: str = "encoder",
    dtype: str = "float32",
    batch: int = 32,
    step: int | None = None,
    trust: str | Iterable[str] = (),
    layout: str = "",
    heads: int = 0,
    frames: int = 0,
    images: bool = False,
    levels: bool = False,
) -> "Model":
    """The model of a run's folder, of an export, or of published weights. A log line names it and its licence.

    Args:
      path: see loading.pretrained.load_weights. "hf://OWNER/NAME@REVISION" is read from the Hugging Face Hub's cache.
      weights: what encodes: the trained "encoder", or its moving average, the "target".
      dtype: of the computation, "float32" or "bfloat16". Results are float32.
      batch: scenes that are computed together. More are taken in turn, fewer are padded. A scene that comes alone
        is computed alone.
      step: which checkpoint of a run. None: the newest that is readable.
      trust: your packages that the run's config may name, such as "my_masks" (docs/API.md).
      layout, heads, frames, images, levels: what published weights do not say themselves (weights.read.read).
    Raises: InputError for an invalid argument. ConfigError and CheckpointError as load_weights.
    """
    for name, value, choices in (
        ("weights", weights, ("encoder", "target")),
        ("dtype", dtype, ("float32", "bfloat16")),
    ):
        if value not in choices:
            raise InputError(f"{name} = {value!r}: must be {' or '.join(map(repr, choices))}")
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path = {path!r}: must be the path of a run's folder, of an export, or of public weights")
    batch = _whole("batch", batch, 1)
    reading = Reading(layout, _whole("heads", heads, 0), _whole("frames", frames, 0), bool(images), bool(levels))
    found = load_weights(path, step=step, trust=trust, reading=reading)
    if weights not in found.params:
        raise InputError(f"weights = {weights!r}: {found.source} has no target, only the encoder")
    first, *notes = found.summary().split("\n")
    log.log(logging.INFO if found.licence == "unspecified" else logging.WARNING, first)  # terms are to be seen
    for note in notes:
        log.info(note.strip())
    return Model(found, weights, dtype, batch)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Model:
    """See `load`. Its functions are compiled once for each shape of a scene, for any number of scenes. A scene that
    comes alone is compiled separately, and floats are compiled separately from uint8.

    Invalid arguments raise InputError, one line.
    """

    pretrained: Pretrained
    weights: str = "encoder"
    dtype: str = "float32"
    batch: int = 32

    def __repr__(self) -> str:
        return f"<cjepa_jax model {', '.join(f'{name} {value}' for name, value in self.info.items())}>"

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """What it is: where from and under which licence, sizes, and how it was trained to see scenes."""
        found, size = self.pretrained, sizes.parse(self.pretrained.encoder["variant"])
        leaves = jax.tree.leaves(found.params["encoder"])
        return {
            "source": found.source,
            "layout": found.layout,
            "licence": found.licence,
            "digest": found.digest,
            "step": found.about.get("step"),
            "weights": self.weights,
            "variant": found.encoder["variant"],
            "width": size.width,
            "depth": found.encoder.get("depth") or size.depth,
            "heads": size.heads,
            "parameters": sum(leaf.size for leaf in leaves),
            "patch": size.patch,
            "tubelet": self._takes.frames,
            "parts": tuple(found.params),
            **{name: found.input[name] for name in ("size", "frames", "anchor", "names_objects")},
            "max_objects": found.predictor["max_objects"] if found.predictor and self._names else 0,
            "foresees_change": self._foresees,
        }

    def grid(self, images: Any) -> tuple[int, int, int]:
        """(times, rows, columns) of the tokens of such images or clips: tokens[i].reshape(*grid, D)."""
        return self._takes.grid(inputs.scenes(images, self._takes).shape)

    def encode(self, images: Any) -> np.ndarray:
        """Tokens of whole scenes: images or clips of B scenes -> float32 [B, N, D]. See inputs.pixels."""
        return self._encode(inputs.scenes(images, self._takes))

    def features(self, images: Any, pooling: str = "mean") -> np.ndarray:
        """One vector of each scene, for probes: images or clips of B scenes -> float32 [B, D]. pooling: "mean", "max"
        or "mean+max" [B, 2 D]. Raises: InputError for another one."""
        if pooling not in base.POOLINGS:
            raise InputError(f"pooling = {pooling!r}: must be one of {', '.join(base.POOLINGS)}")
        video = inputs.scenes(images, self._takes)
        starts = range(0, len(video), self.batch)  # all tokens would not fit
        parts = [base.whole(self._encode(video[i : i + self.batch], len(video)), pooling) for i in starts]
        width = self.info["width"] * (2 if pooling == "mean+max" else 1)
        return np.concatenate([np.zeros((0, width), np.float32), *parts])

    def states(self, images: Any) -> np.ndarray:
        """Tokens after each layer: images or clips of B scenes -> float32 [L + 1, B, N, D], all kept in memory.

        Layer 0 is the tokenizer, layer l the l-th of L blocks. The last norm is not applied: `resume` applies it.
        """
        video = inputs.scenes(images, self._takes)
        if not len(video):
            tokens = math.prod(self._takes.grid(video.shape)), self.info["width"]
            return np.zeros((self.info["depth"] + 1, 0, *tokens), np.float32)
        return self._inside(len(video)).states(video)

    def resume(self, tokens: Any, at: int, grid: tuple[int, int, int]) -> np.ndarray:
        """The encoder's output from tokens of a layer: [B, N, D] -> float32 [B, N, D], by the blocks after it and the
        last norm. resume(states(x)[l], l, grid(x)) is encode(x), up to rounding.

        Args:
          tokens: as `states` gives them. at: their layer, 0 to L. grid: (times, rows, columns) of the tokens.
        Raises: InputError for another shape, for values that are not finite real numbers, and for an encoder that also
          puts out earlier layers (`levels`).
        """
        at = self._layer(at)
        if not isinstance(grid, tuple | list | np.ndarray) or len(np.shape(grid)) != 1:
            raise InputError(f"grid = {grid!r}: must be (times, rows, columns)")
        if self.pretrained.encoder.get("levels"):
            text = "earlier layers are a part of the output, which cannot be computed from one layer"
            raise InputError(f"levels = {tuple(self.pretrained.encoder['levels'])}: {text}")
        whole = tuple(_whole(f"grid[{i}]", value, 1) for i, value in enumerate(grid))
        x = inputs.as_array("tokens", tokens)
        if x.ndim != 3 or len(whole) != 3 or x.shape[1:] != (math.prod(whole), self.info["width"]):
            text = f"[B, {math.prod(whole)}, {self.info['width']}], B scenes of {' x '.join(map(str, whole))} tokens"
            raise InputError(f"tokens: shape {x.shape}: must be {text}")
        times, rows, columns = whole
        x = inputs.reals("tokens", x)
        return self._inside(len(x)).resume(x, at, (times, rows, columns)) if len(x) else x

    def run(self, images: Any, at: int, edit: Callable[[np.ndarray], Any] | None = None) -> np.ndarray:
        """The encoder's output if the tokens of a layer were others: images or clips of B scenes -> float32 [B, N, D].

        Args:
          at: the layer, 0 (the tokenizer) to L.
          edit: tokens float32 [B, N, D] of all scenes -> tokens of the same shape. It may change its argument in place
            and return it. None: nothing is edited. An edit that changes no value leaves the output's bits.
        Raises: InputError as `resume`, for what `edit` returns.
        """
        if edit is not None and not callable(edit):
            raise InputError(f"edit = {edit!r}: must be a function of tokens, or None")
        at, video = self._layer(at), inputs.scenes(images, self._takes)
        grid = self._takes.grid(video.shape)
        if not len(video):
            return self._encode(video)
        tokens = self._inside(len(video)).tokens(video, at)
        shape = tokens.shape
        if edit is not None:
            tokens = inputs.as_array("edit", edit(tokens.copy()))
        if tokens.shape != shape:
            raise InputError(f"edit: shape {tokens.shape} from tokens {shape}: must be {shape}")
        return self.resume(tokens, at, grid)

    def latents(self, clips: Any) -> np.ndarray:
        """What a released world model predicts: clips [B, T, H, W, 3] -> float32 [B, T, D], a vector for each frame
        (LeWorldModel), or [B, T, M, D], its M tokens (V-JEPA 2-AC). Each frame is encoded on its own.

        Raises: InputError also for other weights than those of a world model.
        """
        world, takes = self._world, self._framewise
        clips = inputs.as_array("clips", clips)
        if clips.ndim != 5:
            raise InputError(f"clips: shape {clips.shape}: must be [B, T, H, W, {takes.channels}]")
        video = inputs.pixels(clips, takes)
        if not len(video):
            raise InputError(f"clips: shape {clips.shape}: must have a clip")
        functions: Any = world.functions(1 if len(video) == 1 else self.batch)
        return functions.latents(video)

    def advance(self, latents: Any, actions: Any, proprio: Any = None) -> np.ndarray:
        """The latents of the next frame, float32 [B, D] or [B, M, D], by a released world model.

        Args:
          latents: of t frames that follow each other, as `latents` gives them, [B, t, D] or [B, t, M, D]. The model
            uses the last ones, up to the history of its training.
          actions: [B, t, A], each after its frame, in the units of the training. proprio: [B, t, S], the agent's state
            at each frame, for V-JEPA 2-AC alone.
        Raises: InputError as `latents`, for other shapes, and for values that are not finite.
        """
        world, needed = self._world, released.sizes_of(self.pretrained)
        z = inputs.reals("latents", latents)
        square = world.objective.latent == "tokens"
        fits = z.ndim == 3 + square and z.size and z.shape[-1] == needed["latent"]
        if not fits or (square and math.isqrt(z.shape[2]) ** 2 != z.shape[2]):
            shape = f"[B, t, {'M, ' * square}{needed['latent']}]{', M a square' * square}"
            raise InputError(f"latents: shape {z.shape}: must be {shape}, as `latents` gives them")
        given = {"actions": (actions, needed["action"]), "proprio": (proprio, needed["proprio"])}
        if not needed["proprio"] and proprio is not None:
            raise InputError(f"proprio: {self.pretrained.source} takes no state of the agent: leave it out")
        own = {}
        for name, (value, size) in given.items():
            if size:
                own[name] = inputs.reals(name, value)
                if own[name].shape != (*z.shape[:2], size):
                    raise InputError(f"{name}: shape {own[name].shape}: must be {(*z.shape[:2], size)}")
        functions: Any = world.functions(1 if len(z) == 1 else self.batch)
        return functions.advance(z, **own)

    def intervene(self, images: Any, masks: Any, remove: Any, *, anchor: int | None = None) -> Intervention:
        """What if these objects were absent? Their tokens are hidden and the others are encoded without them. The
        predictor infers the hidden tokens and how the rest would change, as in evals.counterfactual.readouts.

        `prediction` is in the space of the training's targets: standardised tokens of the target encoder, if
        objective.target_norm says so. The readouts are means over tokens, "masked" of the prediction at hidden tokens
        and "counterfactual" of s_full - change at visible ones. "both" concatenates the two. s_full is the target
        encoder's, if there is one. A model that was not trained to predict change has change None and "masked" only.

        Args:
          masks: the objects' visible pixels, one mask each or a map of labels. See inputs.objects_of.
          remove: which of them, for all scenes or a list for each. See inputs.chosen.
          anchor: times (of the grid) at the start that stay visible. None: as many as in training.
        Raises: InputError also for a model without a predictor, and if nothing or everything would be hidden.
        """
        takes: Any = self._takes
        found = self.pretrained
        if "predictor" not in found.params:
            raise InputError(f"intervene: {found.source} has no predictor (layout {found.layout}): it can only encode")
        images = inputs.as_array("images", images)
        video = inputs.pixels(images, takes)
        objects = inputs.objects_of(masks, video.shape, images.ndim)
        removed = inputs.chosen(remove, len(video), objects.shape[1])
        anchor = found.input["anchor"] if anchor is None else anchor
        anchor = _whole("anchor", anchor, 0)
        most = found.predictor["max_objects"] if self._names else 0
        patches = inputs.taken_away(objects, removed, most, takes)
        gone = _gone(patches.any(1), takes.grid(video.shape)[0], anchor)
        if not len(video):
            return self._answer(*[np.zeros((*gone.shape, self.info["width"]), np.float32)] * 3, gone)
        patches = patches if self._names else gone[:, None]  # not told which object it is
        model = self._models(len(video))
        seen = model.hide(base.Hidden(video, ~gone, patches, patches.any(-1)))
        full = (model.target or model.encode)(video) if self._foresees else None
        return self._answer(seen.prediction, seen.change, full, gone)

    def _answer(self, prediction, change, full, gone) -> Intervention:
        """What is answered, from predicted tokens and change, s_full, [B, N, D] each, and the hidden tokens [B, N]."""
        readouts = {"masked": base.pool(prediction, gone)}
        prediction = np.where(gone[..., None], prediction, np.float32(0))
        if self._foresees:
            readouts["counterfactual"] = base.pool(full - change, ~gone)
            readouts["both"] = np.concatenate([readouts["masked"], readouts["counterfactual"]], -1)
            change = np.where(gone[..., None], np.float32(0), change)
        return Intervention(prediction, change if self._foresees else None, gone, ~gone, readouts)

    def _encode(self, video: np.ndarray, scenes: int = 0) -> np.ndarray:
        """Tokens of videos, which are a part of `scenes` videos (0: all of them)."""
        if not len(video):
            return np.zeros((0, math.prod(self._takes.grid(video.shape)), self.info["width"]), np.float32)
        model, own = self._models(scenes or len(video)), self.weights == "target" and not self._alone
        return (model.target if own else model.encode)(video)

    @functools.cached_property
    def _takes(self) -> Takes | Clouds:
        encoder = self.pretrained.encoder
        if encoder.get("type") == POINTS:
            return Clouds()
        if self._alone:
            return self._framewise
        patch, tubelet = sizes.parse(encoder["variant"]).patch, encoder.get("tubelet", 2)
        frames = read.frames(self.pretrained)
        clips = frames == tubelet and self.pretrained.input["frames"] > 1
        values = {key: encoder[key] for key in ("channels", "scale") if key in encoder}
        return Takes(patch, frames, clips, **values)

    @property
    def _framewise(self) -> Takes:
        """What the encoder of a world model takes: clips, each frame on its own."""
        found = self.pretrained
        patch, side = sizes.parse(found.encoder["variant"]).patch, released.side(found)
        return Takes(patch, 1, True, side=side, whole=self._alone)

    @property
    def _alone(self) -> bool:
        """Whether its encoder runs in one objective alone."""
        return released.alone(self.pretrained)

    @property
    def _names(self) -> bool:
        """Whether the predictor is told which objects are hidden."""
        return bool(self.pretrained.input.get("names_objects", True))

    @functools.cached_property
    def _foresees(self) -> bool:
        """Whether the predicted change was trained."""
        return read.foresees(self.pretrained)

    def _models(self, scenes: int) -> base.Model:
        """The functions that compute this number of scenes."""
        return self._compiled(1 if scenes == 1 else self.batch)

    def _inside(self, scenes: int) -> base.Inside:
        """The layers of the encoder that encodes, for this number of scenes."""
        network = self._network
        own = network.state.target if self.weights == "target" else network.state.params
        inside = network.inside(1 if scenes == 1 else self.batch, own)
        if inside is None:
            raise InputError(f"{self.pretrained.source}: its encoder is not one Transformer whose layers can be read")
        return inside

    def _layer(self, at: int) -> int:
        at, most = _whole("at", at, 0), self.info["depth"]
        if at > most:
            raise InputError(f"at = {at}: must be a layer from 0 to {most}")
        return at

    @functools.cached_property
    def _network(self) -> Network:
        return Network.of_weights(self.pretrained, self.dtype, self.weights)

    @functools.cached_property
    def _world(self) -> Network:
        """The world model. Raises InputError if these weights are of none."""
        found = self.pretrained
        if found.world is None or found.world.objective != worlds.OBJECTIVE:
            raise InputError(f"{found.source}: layout {found.layout}: has no predictor that takes actions")
        return self._network if self._alone else Network(**released.fields(found, self.dtype, self.weights))

    @functools.cached_property
    def _compiled(self):
        return functools.cache(self._network.functions)


def _whole(name: str, value: Any, least: int) -> int:
    """Of Python or of NumPy. Raises InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} = {value!r}: must be a whole number from {least}")
    return int(value)


def _gone(touched: np.ndarray, times: int, anchor: int) -> np.ndarray:
    """The tokens that are hidden with those that the objects touch, bool [B, N]. Raises InputError for none and all."""
    gone = hidden(touched, times, anchor)
    for i in np.flatnonzero(~gone.any(-1)):
        if touched[i].all() and not anchor:
            raise InputError(f"remove: the objects touch every token of scene {i}: nothing would stay visible")
        raise InputError(f"remove: scene {i} is touched at the first {anchor} times only, which stay visible (anchor)")
    return gone
