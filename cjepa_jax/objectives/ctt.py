"""Causal terms for slots: sufficiency, invariance and consistency on a graph of influence (docs/SLOTS.md)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from cjepa_jax import losses
from cjepa_jax.errors import ConfigError
from cjepa_jax.models.slot_gates import SlotGates
from cjepa_jax.objectives import graphs, options
from cjepa_jax.objectives.slots import Pass, Slots, hidden_slots
from cjepa_jax.types import Array, Batch, Params

THRESHOLDS = {"published": 0.15, "attention": 0.0, "effects": 0.75, "gates": 0.5, "true": 0.5, "intervened": 0.5}
UNLINKED = 0.95  # threshold of "effects" with quantile_of = "unlinked"
TERMS = ("invariance", "sufficiency", "consistency", "gates")
MOMENTUM = 0.99  # of the copy that measures effects, and of their quantile
SAME = 1e-9  # mean squared difference up to which a slot is the same with and without the removed objects


@dataclasses.dataclass(frozen=True)
class Ctt(Slots):
    """Slots' loss plus terms for axioms of Causal Transformation Theory, from step to step on the current graph.

    Every term is computed for each scene. Object j, of which the others may depend or not, and object k, which is to be
    predicted from its neighbours, take turns: those of scene s are number s + epoch among its objects.

      invariance: the futures of objects that do not depend on j should not change when j is taken away.
      sufficiency: the error of k's future when everything is taken away on which it does not depend.
      consistency: the distance between the future that is predicted at once and the future in two steps, whose second
        starts from the first one's prediction.

    Attributes:
      graph: says which slot depends on which.
        "published": as the public code, see graphs.published. Slots are hidden after their first frame.
        "attention": more than an even share of the last block's attention.
        "effects": dropping the slot changes the prediction of a moving average of the model by more than the quantile
          `threshold` of all such changes, which is a moving average too. So the share of edges is fixed. With
          quantile_of = "unlinked" it is the quantile of pairs that no contacts link, so their share of edges is fixed.
        "gates": learned gates of the edges (models.slot_gates), with a penalty on open ones.
        "true": the batch's graph, which a simulator gives: contacts of the whole clip.
        "intervened": batches with data.intervened = "rerender". j are the objects that the mask removes. What does not
          change without them, in the simulation, does not depend on them. Sufficiency is the error of the scene's
          future without them.
      threshold: an edge is an entry above it (of "effects": the quantile). -1: the graph's own (THRESHOLDS, UNLINKED).
      quantile_of: of "effects", the pairs of slots whose quantile is the threshold. "all", or "unlinked": those that no
        chain of contacts between slots links in the clip (graphs.unlinked). The batch's graph says which these are, and
        nothing else. A chain through an object without a slot is not seen.
      invariance, sufficiency, consistency, gates: weights of the terms. That of gates is relative: its term is the
        share of open gates times how much the loss grows when all are closed.
      start_epoch: terms count for scenes that have been drawn this often before.
      Others: see Slots.
    Raises: ConfigError as Slots, and for batches without what the graph needs.
    """

    graph: str = "attention"
    threshold: float = -1.0
    quantile_of: str = "all"
    invariance: float = 0.2
    sufficiency: float = 0.1
    consistency: float = 0.0
    gates: float = 0.1
    start_epoch: int = 10

    method = "Causal-JEPA on object slots, with invariance and sufficiency on a graph of influence"

    def __post_init__(self):
        super().__post_init__()
        if self.graph not in THRESHOLDS:
            raise ConfigError(f"objective.graph = {self.graph!r}: must be one of {', '.join(THRESHOLDS)}")
        for name in TERMS:
            options.number(f"objective.{name}", getattr(self, name), 0, limit="a number of at least 0")
        if self.graph != "effects":
            options.number("objective.threshold", self.threshold)
        elif self.threshold != -1:
            options.number("objective.threshold", self.threshold, 0, 1, limit="in [0, 1), or -1")
        if self.quantile_of not in ("all", "unlinked"):
            raise ConfigError(f"objective.quantile_of = {self.quantile_of!r}: must be all or unlinked")
        if self.quantile_of != "all" and self.graph != "effects":
            text = f"is for objective.graph = 'effects', not {self.graph!r}"
            raise ConfigError(f"objective.quantile_of = {self.quantile_of!r}: {text}")
        options.whole("objective.start_epoch", self.start_epoch, 0)
        if self.consistency and self.future < 2:
            raise ConfigError(f"objective.consistency = {self.consistency!r}: must be 0 where objective.future = 1")

    @property
    def graph_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of Slots, and the gates."""
        return (*Slots.graph_names, *(("gates",) if self.graph == "gates" else ()))

    def influence(self, params: Params, batch: Batch, key: Array) -> Float[Array, "B G K K"]:
        """As Slots, and the probabilities of open gates."""
        found = super().influence(params, batch, key)
        if self.graph != "gates":
            return found
        tokens, (visible, present) = self._tokens(params, batch), self._masks(batch)
        gates = self._run(params, tokens, visible, present)[1]["gates"]
        return jnp.concatenate([found, gates[:, None]], 1)

    @property
    def limit(self) -> float:
        """`threshold`, or the graph's own."""
        if self.threshold != -1:
            return float(self.threshold)
        return UNLINKED if self.quantile_of == "unlinked" else THRESHOLDS[self.graph]

    @property
    def removal(self) -> str:
        """As which an object is taken away, "mask" or "drop": graphs.effects."""
        return "mask" if self.graph == "published" else "drop"

    @functools.cached_property
    def _gates(self) -> SlotGates:
        return SlotGates(self.history)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """As Slots. With "effects" the target is the moving average, and the other state their quantile."""
        params, target, extra = super().init(key, batch)
        if self.graph == "gates":
            objects = batch.video.shape[3]
            tokens, (visible, _) = self._tokens(params, batch)[:, :, :objects], self._masks(batch)
            params["gates"] = self._gates.init(jax.random.fold_in(key, 1), tokens, visible[:, :, :objects])["params"]
        if self.graph == "effects":
            target = jax.tree.map(jnp.array, params)
            extra = {"quantile": jnp.zeros(()), "seen": jnp.zeros(())}
        return params, target, extra

    def per_example_terms(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array):
        """See objectives.base.PerExample."""
        _need(batch, self.graph, self.quantile_of)
        found = self._pass(params, batch, key)
        terms, stats = self._terms(found, batch)
        shapes = jax.eval_shape(self._causal, (params, target, extra), batch, found)
        counts = batch.epoch >= self.start_epoch
        more, own = jax.lax.cond(
            counts.any(),
            lambda: self._causal((params, target, extra), batch, found),
            lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
        )
        return terms | more, stats | own | {"counts": counts}

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """The loss of Slots, plus weight x mean over scenes of each term, of the scenes where it counts."""
        base = {name: term for name, term in terms.items() if name not in TERMS}
        total, (metrics, _) = super().reduce(base, stats, extra, key, step)
        valid = stats["valid"] & stats["counts"]
        for name in (name for name in TERMS if name in terms):  # in this order, so that every process adds alike
            mean = losses.masked_mean(terms[name], valid & stats.get(f"has_{name}", True))
            if name == "gates":
                grown = jax.lax.stop_gradient(losses.masked_mean(stats["closed"] - stats["open"], valid))
                mean = mean * jnp.maximum(grown, 0)
            metrics[f"loss/{name}"] = mean
            total = total + getattr(self, name) * mean
        density = losses.masked_mean(stats["edges"].astype(jnp.float32), valid[:, None, None] & stats["pairs"])
        metrics |= {"loss": total, "graph_density": density}
        if self.graph == "effects":
            extra = _following(extra, stats["effects"], valid[:, None, None] & stats["null"], self.limit)
        return total, (metrics, extra)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """With "effects" the moving average, which measures them. Else {}."""
        if self.graph != "effects":
            return target
        return jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, target, params)

    def _run(self, params: Params, tokens: Array, visible: Array, present: Array, key: Array | None = None):
        """See Slots. With gates, these are drawn in training."""
        if self.graph != "gates":
            return super()._run(params, tokens, visible, present, key)
        draw = None if key is None else jax.random.fold_in(key, 1)
        objects = tokens.shape[2] - len(self._auxiliary)
        given = {"params": params["gates"]}
        edges, probability = self._gates.apply(given, tokens[:, :, :objects], visible[:, :, :objects], draw)
        edges = _with_auxiliary(edges, tokens.shape[2])
        prediction, more = self._passed(params, tokens, visible, present, edges=edges, key=key)
        return prediction, more | {"gates": probability}

    def _passed(self, params, tokens, visible, present, *, edges, key=None):
        rngs = None if key is None else {"dropout": key}
        given = {"params": params["predictor"]}
        return self.model.apply(given, tokens, visible, present, key is not None, edges=edges, rngs=rngs)

    def _causal(self, trees: tuple[Params, Params, Params], batch: Batch, found: Pass):
        """(terms, stats) of the causal terms [B]. trees: params, target and extra."""
        params, target, extra = trees
        slots = batch.video.shape[3]
        there = found.present[:, 0, :slots]
        graph, ready = jax.lax.stop_gradient(self._graph(target, extra, batch, found))
        if self.graph == "effects":
            edges = graph > extra["quantile"] / jnp.maximum(extra["seen"], 1e-9)
        else:
            edges = graph > self.limit
        edges = edges & graphs.pairs(there)
        turn = batch.scene + batch.epoch
        clean = self._clean(params, found)
        if self.graph == "intervened":
            terms, stats = self._of_removal(params, batch, found, edges)
        else:
            seen = there & ~hidden_slots(found.visible, found.present, self.history)[:, :slots]
            terms, stats = {}, {}
            if self.invariance:
                term = self._invariance(params, found, clean, edges, seen=seen, j=chosen(seen, turn))
                terms["invariance"], stats["has_invariance"] = term
            if self.sufficiency:
                terms["sufficiency"], stats["has_sufficiency"] = self._sufficiency(
                    params, found, edges, there, chosen(there, turn)
                )
        if self.consistency:
            terms["consistency"] = self._consistency(params, found, clean, there)
        if self.graph == "gates":
            terms["gates"] = losses.masked_mean(found.more["gates"], graphs.pairs(there), axis=(1, 2))
            stats["closed"], stats["open"] = self._closed(params, found, batch), self._loss(clean, found, batch)
        stats |= {"edges": edges, "pairs": graphs.pairs(there)}
        if self.graph == "effects":
            stats["effects"], stats["null"] = graph, stats["pairs"]
            if self.quantile_of == "unlinked":
                assert batch.graph is not None  # see _need
                stats["null"] = graphs.unlinked(batch.graph, there)
            stats |= {name: has & ready for name, has in stats.items() if name.startswith("has_")}
        return terms, stats

    def _graph(self, target: Params, extra: Params, batch: Batch, found: Pass) -> tuple[Array, Array]:
        """The graph [B, K, K], and whether its threshold is known."""
        slots, frames = batch.video.shape[3], batch.video.shape[1]
        present, ready = found.present[:, 0, :slots], jnp.ones((), bool)
        last = found.more["attention"][-1]
        if self.graph == "published":
            return graphs.published(last, self.history, frames, slots), ready
        if self.graph == "attention":
            return graphs.attention(last, present, self.history, frames), ready
        if self.graph == "gates":
            return found.more["gates"], ready
        if self.graph == "true":
            assert batch.graph is not None  # see _need
            return batch.graph[:, :slots, :slots].astype(jnp.float32), ready
        if self.graph == "intervened":
            return _changed(batch)[:, :, None] & batch.removed[:, None, :slots], ready

        def predict(visible, present):
            return super(Ctt, self)._run(target, found.tokens, visible, present)[0]

        masks = found.visible, found.present
        effect = graphs.effects(predict, *masks, history=self.history, slots=slots, removal=self.removal)
        return effect, extra["seen"] > 0

    def _clean(self, params: Params, found: Pass) -> Array:
        """The prediction without dropout, and with gates that are not drawn: as `_without`, with all slots."""
        if self.graph != "gates" and not self.slot_predictor.get("dropout", 0.0):
            return found.prediction
        return self._run(params, found.tokens, found.visible, found.present)[0]

    def _without(self, params: Params, found: Pass, which: Array) -> Array:
        """The predicted future without the slots `which`, bool [B, K]."""
        more = found.visible.shape[2] - which.shape[1]
        which = jnp.concatenate([which, jnp.zeros((len(which), more), bool)], 1)
        visible, present = graphs.ablated(found.visible, found.present, which, self.removal)
        return self._run(params, found.tokens, visible, present)[0][:, self.history :]

    def _shown(self, found: Pass) -> Pass:
        """With the whole history visible."""
        seen = jnp.arange(found.visible.shape[1])[:, None] < self.history
        return found._replace(visible=jnp.broadcast_to(seen, found.visible.shape))

    def _invariance(self, params, found, clean, edges, *, seen, j):
        others = seen & ~j & ~jnp.einsum("bij,bj->bi", edges.astype(int), j.astype(int)).astype(bool)
        without = self._without(params, found, j)
        return invariance(without, clean[:, self.history :], others), (others.any(-1) & j.any(-1))

    def _sufficiency(self, params, found, edges, there, k):
        kept = jnp.einsum("bij,bi->bj", edges.astype(int), k.astype(int)).astype(bool) | k
        apart = there & ~kept
        error = sufficiency(self._without(params, self._shown(found), apart), found.tokens[:, self.history :], k)
        return error, apart.any(-1)  # with every slot its neighbour, this is the loss of the future

    def _of_removal(self, params: Params, batch: Batch, found: Pass, edges: Array):
        """Invariance and sufficiency on the scene and the scene without its removed objects."""
        assert batch.intervened is not None  # see _need
        slots = batch.video.shape[3]
        gone = batch.removed[:, :slots]
        has = gone.any(-1) & batch.intervened_valid
        shown = self._shown(found)
        other = shown._replace(tokens=found.tokens.at[:, :, :slots].set(batch.intervened[:, :, 0].astype(jnp.float32)))
        without = self._without(params, other, gone)
        there = found.present[:, 0, :slots] & ~gone
        terms, stats = {}, {}
        if self.invariance:
            clean = self._run(params, found.tokens, shown.visible, found.present)[0][:, self.history :]
            same = there & ~edges.any(-1)
            terms["invariance"], stats["has_invariance"] = invariance(without, clean, same), has & same.any(-1)
        if self.sufficiency:
            terms["sufficiency"] = sufficiency(without, other.tokens[:, self.history :], there)
            stats["has_sufficiency"] = has & there.any(-1)
        return terms, stats

    def _consistency(self, params: Params, found: Pass, clean: Array, there: Array) -> Array:
        """The future at once against the future in two steps, mean squared difference [B].

        The second step is given what the first one saw, and its prediction where it saw nothing. Its first frame has to
        be visible. Future actions stay hidden, since no loss trains their prediction.
        """
        half, history = self.future // 2, self.history
        past = jnp.arange(found.tokens.shape[1])[:, None] < history
        known = jnp.where(found.visible[..., None], found.tokens, clean)
        seen = (found.visible | ~past).at[:, half].set(True)
        if "action" in self._auxiliary:
            action = there.shape[1] + self._auxiliary.index("action")
            seen = seen.at[:, history:, action].set(False)
            known = known.at[:, history:, action].set(found.tokens[:, :1, action])  # the anchor of a hidden token
        window = slice(half, half + history)
        moved = jnp.concatenate([known[:, window], jnp.zeros_like(found.tokens[:, history:])], 1)
        visible = jnp.concatenate([seen[:, window], jnp.zeros_like(found.visible[:, history:])], 1)
        second = self._run(params, moved, visible, found.present)[0][:, history : history + self.future - half]
        difference = jnp.square(second - clean[:, history + half :]).mean((1, 3))[:, : there.shape[1]]
        return losses.masked_mean(difference, there, axis=1)

    def _closed(self, params: Params, found: Pass, batch: Batch) -> Array:
        """Each scene's loss with all gates closed, [B]. It has no gradient."""
        slots = batch.video.shape[3]
        own = jnp.broadcast_to(jnp.eye(slots), (len(batch.video), slots, slots))
        own = _with_auxiliary(own, found.visible.shape[2])
        return self._loss(self._passed(params, found.tokens, found.visible, found.present, edges=own)[0], found, batch)

    def _loss(self, prediction: Array, found: Pass, batch: Batch) -> Array:
        """Each scene's loss of a prediction of the pass, [B]. It has no gradient."""
        return sum(self._terms(found._replace(prediction=jax.lax.stop_gradient(prediction)), batch)[0].values())


def chosen(among: Bool[Array, "B K"], turn: Array) -> Bool[Array, "B K"]:
    """One of the slots `among`, number `turn` of them (modulo their number). None where there is none."""
    rank = jnp.cumsum(among, 1) - 1
    return among & (rank == (turn % jnp.maximum(among.sum(1), 1))[:, None])


def invariance(
    without: Float[Array, "B T S D"], clean: Float[Array, "B T S D"], others: Bool[Array, "B K"]
) -> Float[Array, " B"]:
    """Mean squared change of the predicted future of the slots `others`. `clean` gets no gradient. 0 without others."""
    change = jnp.square(without - jax.lax.stop_gradient(clean)).mean((1, 3))
    return losses.masked_mean(change[:, : others.shape[1]], others, axis=1)


def sufficiency(
    without: Float[Array, "B T S D"], truth: Float[Array, "B T S D"], which: Bool[Array, "B K"]
) -> Float[Array, " B"]:
    """Mean squared error of the predicted future of the slots `which`. `truth` gets no gradient."""
    error = jnp.square(without - jax.lax.stop_gradient(truth)).mean((1, 3))
    return losses.masked_mean(error[:, : which.shape[1]], which, axis=1)


def _with_auxiliary(edges: Float[Array, "B K K"], count: int) -> Float[Array, "B S S"]:
    """Edges between slots, and open ones to and from the other tokens of a frame."""
    more = count - edges.shape[1]
    return jnp.pad(edges, ((0, 0), (0, more), (0, more)), constant_values=1.0) if more else edges


def _changed(batch: Batch) -> Bool[Array, "B K"]:
    """The slots that differ in the scene without the removed objects."""
    assert batch.intervened is not None  # see _need
    difference = jnp.square(batch.video[:, :, 0] - batch.intervened[:, :, 0]).mean(-1).max(1)
    return (difference > SAME) & ~batch.removed[:, : difference.shape[1]]


def _following(extra: Params, effects: Array, where: Array, quantile: float) -> Params:
    """The moving average of the effects' quantile, corrected for its start by `seen`. Unchanged without effects."""
    values = jnp.where(where, effects, jnp.nan)
    now = jnp.nanquantile(values, quantile)
    has = where.any() & jnp.isfinite(now)
    step = {"quantile": jnp.where(has, now, 0), "seen": has.astype(jnp.float32)}
    moved = {name: MOMENTUM * extra[name] + (1 - MOMENTUM) * step[name] for name in extra}
    return jax.tree.map(lambda new, old: jnp.where(has, new, old), moved, dict(extra))


def _need(batch: Batch, graph: str, quantile_of: str) -> None:
    """Raises ConfigError for a batch without what the graph is made of."""
    if quantile_of == "unlinked" and batch.graph is None:
        raise ConfigError("objective.quantile_of = 'unlinked': the scenes have no graph")
    if graph == "true" and batch.graph is None:
        raise ConfigError("objective.graph = 'true': the scenes have no graph")
    if graph == "intervened" and batch.intervened is None:
        raise ConfigError("objective.graph = 'intervened': must have data.intervened = 'rerender'")
