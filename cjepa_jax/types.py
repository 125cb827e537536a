"""The three pytrees that everything passes around, the axis letters, and the words of this package.

Axis letters, used in every comment and docstring of this package:
B scene · T frame · H, W pixel · C channel · K object · N token of the grid (time-major, then row-major) · A action ·
S data shard · R packed row · L token of a row · D width · P probe target.

Words, each with one meaning in code, docs and metrics:
  scene      one example: an image or a clip, with its object masks, labels and states. "example" is the same in names
             such as `per_example`.
  token      one box of pixels, tubelet x patch x patch, or its feature vector. A scene has N.
  patch      the side of a token in pixels (`patch`), and in names such as `object_patches` the token itself.
  position   where a token is in the grid of tokens, or where an object is in the view. "place" means the same.
  context    tokens that the context encoder sees. They are also called visible.
  masked     tokens that a mask function chooses in one scene. In a Batch they are `hidden`.
  hidden     tokens that the context encoder does not see and that the predictor predicts.
  dropped    tokens that are neither context nor hidden (I-JEPA's masks have some).
  removed    objects that the intervention do(remove) takes away. Their tokens are masked.
  intervened the scene without its removed objects.
  target     what a prediction is compared with: the tokens of the EMA encoder, whose parameters have the same name.
  residual   the predictor's second output at context tokens: the predicted change from the scene to the intervened one.
  held-out   scenes that training never draws. The probe and the report use them.
  valid      an entry that counts. The others fill up a shape: a short batch, fewer objects than K.
  row        a sequence of packed context tokens, possibly of several scenes (models/packing.py). "rows, cols" are the
             sides of the token grid.
  terms      float arrays of the loss with one entry per scene, through which gradients flow (objectives/base.py).
"""

import dataclasses
import math
from typing import Any, TypeVar, dataclass_transform

import jax

Array = Any  # a jax.Array, a NumPy array, or the ShapeDtypeStruct that stands for one
Params = Any  # a plain nested dict of arrays


ROWS = ("rows", "second_rows")  # fields of Batch that are Rows

C = TypeVar("C")


@dataclass_transform(frozen_default=True)
def _pytree(cls: type[C]) -> type[C]:
    made: Any = dataclasses.dataclass(frozen=True)(cls)
    static = [f.name for f in dataclasses.fields(made) if f.metadata.get("static")]
    jax.tree_util.register_dataclass(made, [f.name for f in dataclasses.fields(made) if f.name not in static], static)
    return cls


@_pytree
class Rows:
    """Where the context tokens go: ragged scenes laid out as rows of one length.

    `index` [S, R, L] int32 points into one shard's flattened tokens (scene-in-shard * N + token). Padding points one
    past the last token. `segment` [S, R, L] int32: tokens attend to each other only if their ids are equal and not 0.
    S is the number of data shards. An index never leaves its shard, so gathering needs no communication. `alone`: each
    row is known, when a step is traced, to hold one scene, whose tokens come first.
    """

    index: Array
    segment: Array
    alone: bool = dataclasses.field(default=False, metadata={"static": True})


@_pytree
class Batch:
    """One step's scenes. A field that a source or a method does not have is None."""

    scene: Array  # [B] int32: which scene of the source
    epoch: Array  # [B] int32: how often it has been drawn before
    video: Array  # [B, T, H, W, C] uint8; an image has T = 1. Slots, points, sounds: float32, see data/kinds
    object_patches: Array  # [B, K, N] bool: tokens that each object touches
    object_valid: Array  # [B, K] bool: False for padding
    removed: Array  # [B, K] bool: objects under do(remove); all False for a fallback scene
    context: Array  # [B, N] bool: tokens that stay visible
    rows: Rows | None  # layout of the context tokens
    valid: Array  # [B] bool: False for the filling of a short last batch
    intervened: Array | None = None  # [B, T, H, W, C] uint8: the scene under do(remove)
    intervened_valid: Array | None = None  # [B] bool: whether that scene has one
    labels: Array | None = None  # [B, P] float32: probe targets
    states: Array | None = None  # [B, T, K, S] float32: object states
    replaced: Array | None = None  # [B] bool: stands in for an unreadable scene
    hidden: Array | None = None  # [B, N] bool: tokens that are predicted; None: all that are not context
    actions: Array | None = None  # [B, T, A] float32: actions[:, t] leads from frame t to frame t + 1
    proprio: Array | None = None  # [B, T, S] float32: the agent's own state at each frame
    graph: Array | None = None  # [B, K, K] bool: which objects touch each other
    signal: Array | None = None  # float32, in place of video: spectrograms [B, H, W, C] or points [B, N, K, 3]
    embedding: Array | None = None  # [B, S, E] float32: features of another model, S steps in order of time
    centres: Array | None = None  # [B, N, 3] float32: the places of the points' groups
    second_context: Array | None = None  # [B, N] bool: of a second mask of the same scenes, as `context`
    second_hidden: Array | None = None  # [B, N] bool: of the second mask, as `hidden`
    second_rows: Rows | None = None  # the layout of the second context

    @property
    def observation(self) -> Any:
        """What the tokenizer takes: the video, the signal, or points with their centres, (signal, centres)."""
        if self.signal is None:
            return self.video
        return self.signal if self.centres is None else (self.signal, self.centres)


def batch_of(arrays: dict[str, Any]) -> Batch:
    """A loader's arrays, or their shapes, as a Batch. Its rows are dicts with the fields of Rows, laid out by
    data.batching, where as many rows as scenes hold one scene each."""
    laid_out = {name: arrays[name] for name in ROWS if name in arrays}
    scenes = arrays["context"].shape[0]
    rows = {name: Rows(**own, alone=math.prod(own["index"].shape[:2]) == scenes) for name, own in laid_out.items()}
    return Batch(**(arrays | rows))


@_pytree
class TrainState:
    """Everything that a checkpoint holds. No random key: that of step s is fold_in(seed, s)."""

    step: Array  # [] int32: optimiser steps tried so far, skipped ones included
    params: Params  # trained
    target: Params  # the EMA copy
    extra: Params  # an objective's other state ({} where it has none)
    opt_state: Any
    skipped: Array  # [] int32: steps skipped for a non-finite loss or gradient
