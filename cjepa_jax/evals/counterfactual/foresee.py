"""A frozen model's predictions for pairs of removals, and the decoder from its tokens to the colours of cells."""

import functools
import operator
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cjepa_jax.evals.base import Hidden, Model, Seen
from cjepa_jax.evals.counterfactual import cells, contrast, linear
from cjepa_jax.evals.counterfactual.contrast import Products, products
from cjepa_jax.evals.counterfactual.linear import Linear, Sums
from cjepa_jax.evals.counterfactual.pairs import Pairs
from cjepa_jax.evals.counterfactual.questions import hidden


class Said(NamedTuple):
    """The predictions of the residual head for n pairs."""

    change: np.ndarray  # float32 [n, N, 12] the predicted change without k, decoded
    change_other: np.ndarray  # without o
    difference: Products  # of features: the predicted and the true difference of the two removals, [n, N]
    effect: Products  # of features: the predicted and the true change without k
    wrong: Products  # of features: the change that is predicted without o, and the true change without k


class Foreseen(NamedTuple):
    """A model's tokens and predictions for n pairs."""

    context: np.ndarray  # float32 [n, N, D] tokens of the scene, encoded without k
    context_other: np.ndarray  # without o
    real: np.ndarray  # float32 [n, N, 12] the true change of the target encoder's tokens without k, decoded
    real_other: np.ndarray  # without o
    said: Said | None  # None for a model without a trained residual head


def decoder(model: Model, pairs: Pairs, grid: cells.Grid, batch: int) -> tuple[Linear, float]:
    """(E2): ridge of the cells' colours on the target encoder's tokens of whole scenes, and its strength.

    It is fitted on the scenes and on the same scenes without a third object. No scene without k or o is used. The
    strength is chosen on the last fifth of the scenes. There it decodes best how the removal of the third object
    changes the tokens that this object does not touch. Where no scene has a third object, it decodes the scenes best.
    """
    target = model.target or model.encode
    parts: tuple[list[Sums], list[Sums], list[Sums]] = [], [], []  # kept scenes, held-out ones, differences in these
    out = linear.held_out(len(pairs.video))
    for start, part in zip(range(0, len(out), batch), _parts(pairs, batch), strict=True):
        x, y = ([f(v) for v in (part.video, part.without_third)] for f in (target, lambda v: cells.colours(v, grid)))
        late, third = out[start : start + batch], part.third >= 0
        for chosen, sums in ((~late, parts[0]), (late, parts[1])):
            sums += [Sums.of(x[0][chosen], y[0][chosen]), Sums.of(x[1][chosen & third], y[1][chosen & third])]
        rest = ~part.touched(part.third) & (late & third)[:, None]
        parts[2].append(Sums.of((x[1] - x[0])[rest], (y[1] - y[0])[rest]))
    kept, held, differences = (functools.reduce(operator.add, sums) for sums in parts)
    if differences.yy > 0:
        return linear.fit(kept, held, lambda found: differences.error(found, offset=False))
    return linear.fit(kept, held, held.error)


def foresee(model: Model, pairs: Pairs, grid: cells.Grid, anchor: int, batch: int, decode: Linear) -> Foreseen:
    """The model's tokens and predictions, computed for `batch` pairs at a time."""
    target = model.target or model.encode
    known, said = [], []
    for part in _parts(pairs, batch):
        seen = [ask(model, part, row, grid[0], anchor) for row in (part.removed, part.other)]
        contexts = [_context(model, part, of, other) for of, other in zip(seen, (False, True), strict=True)]
        full = target(part.video)
        real = [target(video) - full for video in (part.without, part.without_other)]
        known.append((*contexts, *(decode.change(change) for change in real)))
        changes = [-of.change for of in seen if of.change is not None]  # the residual head predicts s_full - s_int
        if changes:
            difference = products(changes[0] - changes[1], real[0] - real[1])
            effect, wrong = (products(change, real[0]) for change in changes)
            k, o = (decode.change(change) for change in changes)
            said.append(Said(k, o, difference=difference, effect=effect, wrong=wrong))
    arrays = [np.concatenate(values).astype(np.float32, copy=False) for values in zip(*known, strict=True)]
    context, context_other, decoded, decoded_other = arrays
    return Foreseen(context, context_other, decoded, decoded_other, _joined(said) if said else None)


def ask(model: Model, pairs: Pairs, row: np.ndarray, times: int, anchor: int) -> Seen:
    """The model's outputs without the object in `row` [n], which is hidden as in training."""
    gone = hidden(pairs.touched(row), times, anchor)
    removed = np.arange(pairs.object_patches.shape[1]) == row[:, None]
    return model.hide(Hidden(pairs.video, ~gone, pairs.object_patches, removed))


def _context(model: Model, pairs: Pairs, seen: Seen, other: bool) -> np.ndarray:
    """Tokens of the scene without k (or o). For a model that cannot encode a part of a scene, the object is black."""
    return model.encode(pairs.blanked(other)) if seen.context is None else seen.context


def _parts(pairs: Pairs, batch: int) -> Iterator[Pairs]:
    for start in range(0, len(pairs.video), batch):
        yield pairs.part(slice(start, start + batch))


def _joined(parts: list[Said]) -> Said:
    k, o = (np.concatenate([part[i] for part in parts]).astype(np.float32, copy=False) for i in (0, 1))
    difference, effect, wrong = (contrast.joined([getattr(part, name) for part in parts]) for name in Said._fields[2:])
    return Said(k, o, difference=difference, effect=effect, wrong=wrong)
