"""Predict hidden object slots: Causal-JEPA on slots (arXiv 2602.11389, equations 3 to 6). See docs/SLOTS.md."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.slot_predictor import Auxiliary, SlotPredictor
from cjepa_jax.objectives import dagma, graphs, options
from cjepa_jax.objectives.base import PerExample
from cjepa_jax.types import Array, Batch, Params

PROBES = 8  # random projections of the Jacobian
AUXILIARY = ("proprio", "action")  # tokens of a frame after its slots, in the published order


class Pass(NamedTuple):
    """One pass of the predictor: its input, its prediction [B, T, S, D] and its intermediate values."""

    tokens: Array  # [B, T, S, D]
    visible: Array  # bool [B, T, S]
    present: Array  # bool [B, T, S]
    prediction: Array
    more: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Slots(PerExample):
    """L = L_history + L_future + L_proprio, squared errors of predicted slots.

    Slots come from a source of kind "slots" and are targets without a target encoder. Which tokens are hidden is the
    mask's choice (masks.slots): some of the history, and all of the future. L_history is the mean over hidden tokens of
    the history, L_future over all slots of the future, L_proprio over the future's proprioception tokens.

    Attributes:
      slot_predictor: keyword arguments of models.slot_predictor.SlotPredictor but `frames`.
      history, future: frames that are given, and that are predicted. Their sum is data.frames.
      anchor_in_loss: True averages L_history of a masked slot also over its visible first frame, as the published code.
      auxiliary: further tokens of each frame, of "proprio" and "action". Each is a linear map of the batch's array,
        seen in the history and hidden in the future. The target of "proprio" is its own map, without gradient.
      steps: not used. dtype: the compute type.
    Raises: ConfigError for values outside their limits, and for a batch without what `auxiliary` names.
    """

    slot_predictor: Mapping
    history: int
    future: int
    steps: int
    dtype: str = "float32"
    anchor_in_loss: bool = False
    auxiliary: tuple[str, ...] = ()

    patch = 1
    tubelet = 1
    max_removed = 0  # the predictor has no embedding of objects, so any number can be hidden
    kinds = ("slots",)
    predicts = True
    graph_names = ("last attention", "attention", "jacobian", "masking", "dropping", "learned DAG")
    causal_weight = 0.0  # it does not predict the change under do(remove)
    method = "Causal-JEPA on object slots: slots of the history are hidden, and predicted with the future"

    def __post_init__(self):
        for name in ("history", "future"):
            options.whole(f"objective.{name}", getattr(self, name))
        section, given = "objective.slot_predictor", self.slot_predictor
        options.keywords(section, given, SlotPredictor, "frames")
        for name in ("depth", "heads", "units"):
            options.whole(f"{section}.{name}", given.get(name, 1))
        options.flags(section, given, "norm_attention")
        options.number(f"{section}.dropout", given.get("dropout", 0.0), 0, 1, limit="in [0, 1)")
        wrong = [name for name in self.auxiliary if name not in AUXILIARY]
        if wrong or len(set(self.auxiliary)) < len(self.auxiliary):
            raise ConfigError(f"objective.auxiliary = {tuple(self.auxiliary)!r}: must be of {', '.join(AUXILIARY)}")

    @functools.cached_property
    def model(self) -> SlotPredictor:
        """The network."""
        return SlotPredictor(**self.slot_predictor, frames=self.history + self.future, dtype=jnp.dtype(self.dtype))

    @property
    def _auxiliary(self) -> tuple[str, ...]:
        return tuple(name for name in AUXILIARY if name in self.auxiliary)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh predictor, and maps of the auxiliary arrays. There is no target."""
        slots = _slots(batch.video)
        params, width = {}, slots.shape[-1]
        for name in self._auxiliary:
            key, own = jax.random.split(key)
            params[name] = Auxiliary(width).init(own, _given(batch, name))["params"]
        tokens = self._tokens(params, batch)
        visible, present = self._masks(batch)
        params["predictor"] = self.model.init(key, tokens, visible, present)["params"]
        return params, {}, {}

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample."""
        return self._terms(self._pass(params, batch, key), batch)

    def _pass(self, params: Params, batch: Batch, key: Array) -> Pass:
        """The training's pass, with dropout. Raises ConfigError for a clip of another length."""
        frames = batch.video.shape[1]
        if frames != self.history + self.future:
            text = f"objective.history + objective.future = {self.history + self.future}"
            raise ConfigError(f"{text}: must be data.frames = {frames}")
        tokens, (visible, present) = self._tokens(params, batch), self._masks(batch)
        prediction, more = self._run(params, tokens, visible, present, key)
        return Pass(tokens, visible, present, prediction, more)

    def _run(self, params: Params, tokens: Array, visible: Array, present: Array, key: Array | None = None):
        """The predictor's values. With a key: those of training, with dropout."""
        given = {"params": params["predictor"]}
        if key is None:
            return self.model.apply(given, tokens, visible, present)
        return self.model.apply(given, tokens, visible, present, True, rngs={"dropout": key})

    def _terms(self, found: Pass, batch: Batch):
        """(terms, stats) of a pass."""
        tokens, visible, present, prediction, _ = found
        slots = batch.video.shape[3]
        terms = losses_of(
            prediction,
            tokens,
            visible,
            present,
            history=self.history,
            objects=slots,
            anchor_in_loss=self.anchor_in_loss,
            proprio="proprio" in self._auxiliary,
        )
        future = prediction[:, self.history :, :slots]
        there = jnp.broadcast_to(present[:, self.history :, :slots, None], future.shape)
        stats = {
            "valid": batch.valid,
            "masked": hidden_slots(visible, present, self.history).any(-1),
            "context": batch.context.mean(-1),
            "pooled": losses.masked_mean(future, there, axis=(1, 2)),  # [B, D]
            "per_scene": sum(terms.values()),
        }
        return terms, stats

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """Means over scenes. L_history is the mean over scenes of which something in the history is hidden."""
        valid = stats["valid"]
        means = {
            name: losses.masked_mean(term, valid & stats["masked"] if name == "history" else valid)
            for name, term in terms.items()
        }
        total = sum(means.values())
        metrics = {
            "loss": total,
            **{f"loss/{name}": value for name, value in means.items()},
            **losses.collapse_monitors(stats["pooled"], valid),
            "context_fraction": losses.masked_mean(stats["context"], valid),
            "per_scene": stats["per_scene"],
        }
        return total, (metrics, extra)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none: {}."""
        return target

    def encode(self, params: Params, video: Array) -> Array:
        """The slots themselves, [B, T, 1, S, D] -> float32 [B, T S, D]. They are not learned."""
        return _flat(_slots(video))

    def encode_context(self, params: Params, batch: Batch) -> Array:
        """The visible slots, [B, T S, D], 0 elsewhere."""
        return jnp.where(batch.context[..., None], self.encode(params, batch.video), 0)

    def predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        """Predicted slots, float32 [B, T S, D], from those of `context` that are visible. The second value is 0.

        Fewer frames than history + future take the last time codes, as the published inference.
        """
        slots = context.reshape(_slots(batch.video).shape)
        tokens, (visible, present) = self._tokens(params, batch, slots), self._masks(batch)
        prediction, _ = self._run(params, tokens, visible, present)
        found = _flat(prediction[:, :, : slots.shape[2]])
        return found, jnp.zeros_like(found)

    def targets(self, target: Params, batch: Batch) -> tuple[Array, Array | None]:
        """The slots, [B, T S, D], and None."""
        return self.encode({}, batch.video), None

    def influence(self, params: Params, batch: Batch, key: Array) -> Float[Array, "B G K K"]:
        """What each slot's predicted future depends on, by the graphs `graph_names`. Entry i, j: slot i on slot j.

        The last and all blocks' attention, the Jacobian's squared norm (by PROBES random projections), and the effects
        of hiding slot j after its first frame and of dropping it (objectives.graphs). Last the acyclic graph that is
        fitted to the given history and the predicted future (objectives.dagma). key: draws the projections.
        """
        tokens, (visible, present) = self._tokens(params, batch), self._masks(batch)
        slots, frames = batch.video.shape[3], batch.video.shape[1]
        there = present[:, 0, :slots]

        def predict(tokens, visible, present):
            return self._run(params, tokens, visible, present)[0]

        prediction, more = self._run(params, tokens, visible, present)
        whole = [tokens[:, : self.history, :slots], prediction[:, self.history :, :slots]]
        layers = jnp.stack([graphs.attention(layer, there, self.history, frames) for layer in more["attention"]])
        ablated = [
            graphs.effects(
                functools.partial(predict, tokens), visible, present, history=self.history, slots=slots, removal=removal
            )
            for removal in ("mask", "drop")
        ]
        slopes = graphs.jacobian(
            lambda x: predict(x, visible, present)[:, self.history :, :slots],
            tokens,
            key,
            history=self.history,
            probes=PROBES,
        )
        acyclic = dagma.static_graph(jnp.concatenate(whole, 1), there)
        return jnp.stack([layers[-1], layers.mean(0), slopes, *ablated, acyclic], 1)

    def advance(
        self,
        params: Params,
        tokens: Float[Array, "B t S D"],
        actions: Float[Array, "B t A"],
        present: Bool[Array, "B K"],
    ) -> Float[Array, "B S D"]:
        """The next frame's slots, and after them its token of "proprio" if that is auxiliary. Absent slots are 0.

        Args:
          tokens: of t <= history frames, without those of actions. The agent's may be an earlier prediction's.
          actions: actions[:, i] was taken at frame i. present: the K slots that hold an object.
        Raises: ConfigError without the auxiliary "action".
        """
        if "action" not in self._auxiliary:
            raise ConfigError("objective.auxiliary has no 'action': nothing can be planned")
        given = self._with(params, tokens, {"action": actions})
        given = jnp.concatenate([given, jnp.zeros_like(given[:, :1])], 1)
        held = jnp.concatenate([present, jnp.ones((len(present), given.shape[2] - present.shape[1]), bool)], 1)
        held = jnp.broadcast_to(held[:, None], given.shape[:3])
        visible = held & (jnp.arange(given.shape[1])[:, None] < tokens.shape[1])
        following = self._run(params, given, visible, held)[0][:, -1, : tokens.shape[2]]
        return jnp.where(held[:, 0, : tokens.shape[2], None], following, 0)

    def embedded(
        self, params: Params, slots: Float[Array, "B T K D"], proprio: Array | None
    ) -> Float[Array, "B T S D"]:
        """The slots, and after them the tokens of `proprio` [B, T, P] if they are auxiliary."""
        return self._with(params, slots, {"proprio": proprio} if "proprio" in self._auxiliary else {})

    def _tokens(self, params: Params, batch: Batch, slots: Array | None = None) -> Float[Array, "B T S D"]:
        """Slots, and after them the auxiliary tokens of each frame."""
        slots = _slots(batch.video) if slots is None else slots
        return self._with(params, slots, {name: _given(batch, name) for name in self._auxiliary})

    def _with(self, params: Params, tokens: Float[Array, "B T S D"], given: Mapping[str, Any]) -> Array:
        """The tokens of each frame, and after them those of the auxiliary arrays [B, T, A] in `given`, by name."""
        width = tokens.shape[-1]
        more = [Auxiliary(width).apply({"params": params[name]}, values) for name, values in given.items()]
        return jnp.concatenate([tokens, *(token[:, :, None] for token in more)], 2)

    def _masks(self, batch: Batch) -> tuple[Bool[Array, "B T S"], Bool[Array, "B T S"]]:
        """(visible, present) of every token. A token of no object is absent, unless the scene has no objects."""
        shape = batch.video.shape[0], batch.video.shape[1], batch.video.shape[3]
        covered = batch.object_patches.any(1)
        present = covered | ~covered.any(-1, keepdims=True)
        visible, present = batch.context.reshape(shape), present.reshape(shape)
        more = (*shape[:2], len(self._auxiliary))
        seen = jnp.broadcast_to(jnp.arange(shape[1])[:, None] < self.history, more)
        return jnp.concatenate([visible, seen], 2), jnp.concatenate([present, jnp.ones(more, bool)], 2)


def losses_of(
    prediction: Float[Array, "B T S D"],
    tokens: Float[Array, "B T S D"],
    visible: Bool[Array, "B T S"],
    present: Bool[Array, "B T S"],
    *,
    history: int,
    objects: int,
    anchor_in_loss: bool = False,
    proprio: bool = True,
) -> dict[str, Float[Array, " B"]]:
    """Each scene's mean squared errors "history", "future" and, with a token after the objects, "proprio".

    Args:
      tokens: the targets, through which no gradient flows.
      visible, present: as the predictor's. Absent tokens do not count.
      history: frames before the future. objects: the number of slots, which come first in a frame.
      anchor_in_loss: see Slots. Without it, the history's error is over hidden tokens only.
      proprio: whether the token after the objects is that of proprioception.
    """
    error = jnp.square(prediction - jax.lax.stop_gradient(tokens)).mean(-1)  # [B, T, S]
    hidden = ~visible & present
    if anchor_in_loss:
        hidden = hidden_slots(visible, present, history)[:, None] & present
    before = jnp.arange(error.shape[1])[:, None] < history
    own = jnp.arange(error.shape[2]) < objects
    found = {
        "history": losses.masked_mean(error, hidden & before & own, axis=(1, 2)),
        "future": losses.masked_mean(error, present & ~before & own, axis=(1, 2)),
    }
    if proprio and error.shape[2] > objects:
        found["proprio"] = error[:, history:, objects].mean(-1)
    return found


def hidden_slots(visible: Bool[Array, "B T S"], present: Bool[Array, "B T S"], history: int) -> Bool[Array, "B S"]:
    """The slots of which some token of the history is hidden."""
    return (~visible & present)[:, :history].any(1)


def _slots(video: Array) -> Float[Array, "B T S D"]:
    return video[:, :, 0].astype(jnp.float32)


def _flat(slots: Array) -> Float[Array, "B N D"]:
    return slots.reshape(slots.shape[0], -1, slots.shape[-1])


def _given(batch: Batch, name: str) -> Any:
    """[B, T, A] of the batch. Raises ConfigError if the source does not give it."""
    values = batch.actions if name == "action" else batch.proprio
    if values is None:
        raise ConfigError(
            f"objective.auxiliary has {name!r}: the scenes have no {'actions' if name == 'action' else name}"
        )
    return values
