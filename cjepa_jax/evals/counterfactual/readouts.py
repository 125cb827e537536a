"""Features of scenes from which an object is removed: one vector for each question and readout."""

import functools
from collections.abc import Collection

import numpy as np

from cjepa_jax.evals.base import Hidden, Model, pool
from cjepa_jax.evals.counterfactual.questions import DoQuestions, hidden

READOUTS = ("factual", "blanked", "context", "masked", "counterfactual", "both")
REMOVAL, CHANGE = "true removal", "true change"
WRONG = "wrong object: "  # prefix of a readout's name: another object of the scene is removed instead of k


def features(
    model: Model, asked: DoQuestions, times: int, anchor: int, batch: int, wanted: Collection[str], wrong: bool = False
) -> dict[str, np.ndarray]:
    """float32 [Q, F] of each wanted readout that the model has (and CHANGE and REMOVAL, if REMOVAL is wanted).

    W are the tokens that stay visible without k. J are the tokens that j touches and k does not. Where there are none,
    J are all tokens that j touches. Each readout is a concatenation of means over tokens:

      factual         s, the whole scene encoded: all tokens, J, k's tokens
      blanked         the scene encoded with k's visible pixels black: all tokens, J
      context         only W encoded: W, J
      masked          the prediction at k's hidden tokens (Algorithm 3, line 7), and context's J
      counterfactual  s_full - the predicted change, s_full by the target encoder: W, J
      both            masked and counterfactual
      true change     W and J, of the scene that the world simulates without k: the value of a perfect prediction
      true removal    the scene that the world simulates without k, encoded: all tokens, those that j touches there

    Args:
      times: of the grid. anchor: the number of times at the start at which nothing is hidden.
      batch: questions at a time. wrong: whether to give the readouts without the row `other` too, as WRONG + name.
    """
    parts = []
    for start in range(0, len(asked.video), batch):
        part = asked.part(slice(start, start + batch))
        full = model.encode(part.video) if "factual" in wanted or model.target is None else None
        base = functools.cache(lambda part=part, full=full: full if model.target is None else model.target(part.video))
        found = _without(model, part, part.removed, times=times, anchor=anchor, wanted=wanted, full=full, base=base)
        if REMOVAL in wanted:
            tokens = model.encode(part.without)
            found[REMOVAL] = _joined(tokens.mean(1), pool(tokens, part.asked_without))
            stays = ~hidden(_touched(part, part.removed), times, anchor)
            found[CHANGE] = _joined(pool(tokens, stays), pool(tokens, _own(part, part.removed)))
        if wrong:  # a model that encodes parts of a scene needs no black pixels: one encoding less
            asked_of = set(wanted) - {"blanked"} if {"context", "masked"} & set(found) else wanted
            other = _without(
                model, part, part.other, times=times, anchor=anchor, wanted=asked_of, full=full, base=base, other=True
            )
            found |= {WRONG + name: value for name, value in other.items()}
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _without(model, asked, row, times, anchor, wanted, full, base, other=False) -> dict[str, np.ndarray]:
    """The readouts of a batch without the object in `row` [B]. base() gives s_full."""
    touched, own = _touched(asked, row), _own(asked, row)
    gone, found = hidden(touched, times, anchor), {}
    if "factual" in wanted:
        found["factual"] = _joined(full.mean(1), pool(full, own), pool(full, touched))
    if "blanked" in wanted:
        tokens = model.encode(asked.blanked(other))
        found["blanked"] = _joined(tokens.mean(1), pool(tokens, own))
    if not {"context", "masked", "counterfactual", "both"} & set(wanted):
        return found
    seen = model.hide(hide(asked, row, times, anchor))
    if seen.context is not None and "context" in wanted:
        found["context"] = _joined(pool(seen.context, ~gone), pool(seen.context, own))
    if seen.prediction is not None:
        found["masked"] = _joined(pool(seen.prediction, gone), pool(seen.context, own))
    if seen.change is not None and {"counterfactual", "both"} & set(wanted):
        expected = base() - seen.change
        found["counterfactual"] = _joined(pool(expected, ~gone), pool(expected, own))
        if "masked" in found:
            found["both"] = _joined(found["masked"], found["counterfactual"])
    return {name: value for name, value in found.items() if name in wanted}


def hide(asked: DoQuestions, row: np.ndarray, times: int, anchor: int) -> Hidden:
    """The scenes without the object in `row` [Q]. -1: nothing is removed."""
    removed = np.arange(asked.object_patches.shape[1]) == row[:, None]
    return Hidden(asked.video, ~hidden(_touched(asked, row), times, anchor), asked.object_patches, removed)


def responses(
    model: Model, asked: DoQuestions, times: int, anchor: int, batch: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """How tokens that k does not touch change when the world removes k, and how well the model predicts the change.

    Returns: the mean squared change of each question's tokens, summed over D, divided by the variance over scenes at a
      position (summed over D, mean over positions): [Q]. If the residual head was trained, also the squared error of
      the predicted change and the squared distance of the real change from its mean, for each question: [Q], [Q].
    """
    first, total, squares, parts = None, 0.0, 0.0, []
    for start in range(0, len(asked.video), batch):
        part = asked.part(slice(start, start + batch))
        full = model.encode(part.video)
        first = (
            full[0].astype(np.float64) if first is None else first
        )  # as an origin: sums of squares keep their digits
        total, squares = total + (full - first).sum(0), squares + np.square(full - first).sum(0)
        parts.append(_response(model, part, times, anchor, full))
    change, *foreseen = (np.concatenate(values) for values in zip(*parts, strict=True))
    count = len(asked.video)
    variance = (squares / count - np.square(total / count)).sum(-1).mean()
    response = change / max(float(variance), 1e-12)
    if not foreseen:
        return response, None
    error, tokens, sums, squares = foreseen
    mean = sums.sum(0) / max(tokens.sum(), 1)
    return response, (error, squares - 2 * sums @ mean + tokens * (mean @ mean))


def wrong_object(model: Model, asked: DoQuestions, times: int, anchor: int, batch: int) -> dict[str, np.ndarray]:
    """How well the predicted change without another object predicts the change without k. Tokens of both are left out.

    Returns: of the Q' questions that have another object, [Q'] each: the squared error of the change that is predicted
      without k ("own"), that of the change that is predicted without the other object ("wrong"), and the squared size
      of the real change without k ("size"). {} if there is none, or if the residual head was not trained.
    """
    parts = []
    for start in range(0, len(asked.video), batch):
        part = asked.part(slice(start, start + batch))
        target = model.target or model.encode
        real = target(part.video) - target(part.without)
        said = [model.hide(hide(part, row, times, anchor)).change for row in (part.removed, part.other)]
        if said[0] is None or said[1] is None:
            return {}
        rest = ~(_touched(part, part.removed) | _touched(part, part.other))
        row = (said[0] - real, said[1] - real, real)
        parts.append([_squares(values, rest)[part.other >= 0] for values in row])
    own, wrong, size = (np.concatenate(values) for values in zip(*parts, strict=True))
    return {"own": own, "wrong": wrong, "size": size} if len(own) else {}


def _response(model, asked, times, anchor, full) -> tuple[np.ndarray, ...]:
    """The mean squared change of a batch's untouched tokens, [B].

    If the residual head was trained, also the squared error of the predicted change [B], the number of these tokens
    [B], and the real change's sum [B, D] and sum of squares [B] over them."""
    rest = ~_touched(asked, asked.removed)
    tokens, other = rest.sum(1), model.encode(asked.without)
    change = _squares(full - other, rest) / np.maximum(tokens, 1)
    seen = model.hide(hide(asked, asked.removed, times, anchor))
    if seen.change is None:
        return (change,)
    if model.target is not None:
        full, other = model.target(asked.video), model.target(asked.without)
    real = full - other
    sums = np.einsum("bnd,bn->bd", real, rest, dtype=np.float64)
    return change, _squares(seen.change - real, rest), tokens, sums, _squares(real, rest)


def _squares(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The sum of squares over chosen tokens, [B, N, D], bool [B, N] -> float64 [B]."""
    return (np.square(values).sum(-1, dtype=np.float64) * where).sum(1)


def _touched(asked: DoQuestions, row: np.ndarray) -> np.ndarray:
    """Tokens that the object in `row` touches, bool [Q, N]. None for row -1."""
    return asked.object_patches[np.arange(len(row)), row] & (row >= 0)[:, None]


def _own(asked: DoQuestions, row: np.ndarray) -> np.ndarray:
    """Tokens of j that the object in `row` does not touch, bool [Q, N]. All of j's where it touches all of them."""
    tokens = _touched(asked, asked.asked)
    alone = tokens & ~_touched(asked, row)
    return np.where(alone.any(-1, keepdims=True), alone, tokens)


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, -1).astype(np.float32)
