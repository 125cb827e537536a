"""The scores of the protocol `effects`, from predictions of two removals: docs/EVALUATION.md, (E3) to (E9)."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from cjepa_jax.evals.base import Model
from cjepa_jax.evals.counterfactual import cells, contrast, linear
from cjepa_jax.evals.counterfactual.contrast import Products, products
from cjepa_jax.evals.counterfactual.do_probe import Asked
from cjepa_jax.evals.counterfactual.foresee import Foreseen, ask
from cjepa_jax.evals.counterfactual.linear import Sums
from cjepa_jax.evals.counterfactual.pairs import Pairs
from cjepa_jax.evals.counterfactual.questions import hidden

PLACE, LOCAL, WRONG, PIXELS, CEILING = "place", "place + local pixels", "wrong object", "pixels", "true change"
FLOORS = (WRONG, PLACE, LOCAL, PIXELS)
ROWS = 64  # scenes whose features are in memory at a time

Found = dict[str, np.ndarray]  # by metric, or by "row: metric": [2], the value and half of its 95 % interval
Change = tuple[np.ndarray, np.ndarray]  # of the picture without k and without o, [n, N, 12] each


class Side:
    """The pairs of one split, with the true changes of the picture."""

    def __init__(self, pairs: Pairs, grid: cells.Grid):
        self.pairs = pairs
        self.colours = cells.colours(pairs.video, grid)
        self.change = cells.colours(pairs.without, grid) - self.colours
        self.change_other = cells.colours(pairs.without_other, grid) - self.colours
        self.touched = pairs.touched(pairs.removed)
        self.touched_other = pairs.touched(pairs.other)
        self.rest = ~(self.touched | self.touched_other)


class Scorer:
    """Scores predicted changes of the picture at the test pairs' tokens S. Neither object touches them.

    Args:
      fit, test: pairs. grid: of their tokens. anchor: times at which nothing is hidden. seed: of the bootstrap.
    """

    def __init__(self, fit: Pairs, test: Pairs, grid: cells.Grid, anchor: int, seed: int):
        self.fit, self.test = Side(fit, grid), Side(test, grid)
        self.grid, self.anchor, self.seed = grid, anchor, seed

    def difference(self) -> np.ndarray:
        """The true difference of the two removals in the test pairs, [n, N, 12]."""
        return self.test.change - self.test.change_other

    @functools.cached_property
    def tokens(self) -> dict[str, dict[str, np.ndarray]]:
        """The strata of S by name, bool [n, N]: "contrast" by both objects, "effect" by k alone."""
        pairs, rest = self.test.pairs, self.test.rest
        near, either = cells.nearby(pairs, self.grid)
        found = {"contrast": {"near": either, "far": ~either}, "effect": {"near": near, "far": ~near}}
        if (pairs.linked | pairs.linked_other).any():
            objects = np.asarray(pairs.object_patches.any(1))
            for of, linked in (("contrast", pairs.linked | pairs.linked_other), ("effect", pairs.linked)):
                found[of] |= {"linked": linked, "not linked": objects & ~linked, "no object": ~objects}
        return {of: {name: rest & where for name, where in strata.items()} for of, strata in found.items()}

    def of_change(self, change: Change, scale: float | None = None) -> Found:
        """The scores of predicted changes of the picture. scale: their factor in the score `contrast/..., scaled`."""
        x, test = change[0] - change[1], self.test
        of = {"contrast": products(x, self.difference()), "effect": products(change[0], test.change)}
        found = self._of_products(of["contrast"], of["effect"], "picture", scale)
        for name, strata in self.tokens.items():
            found |= {
                f"{name}/picture/{stratum}": self._r2(of[name], where)
                for stratum, where in strata.items()
                if of[name].over(where).true.sum() > 0
            }
        wrong = products(change[1], test.change)
        return found | {f"{WRONG}: effect/picture": self._r2(wrong, test.rest)}

    def _of_products(self, difference: Products, effect: Products, space: str, scale: float | None) -> Found:
        sums = difference.over(self.test.rest)
        found = {f"contrast/{space}": np.array(contrast.r2(sums, self.seed))}
        if scale is not None:
            found[f"contrast/{space}, scaled"] = np.array(contrast.r2(sums, self.seed, scale))
        found[f"2afc/{space}"] = np.array(contrast.matched(sums, self.seed))
        return found | {f"effect/{space}": self._r2(effect, self.test.rest)}

    def _r2(self, of: Products, where: np.ndarray) -> np.ndarray:
        return np.array(contrast.r2(of.over(where), self.seed))

    def of_model(self, fit: Foreseen, test: Foreseen) -> Found:
        """A model's scores: its predicted changes, as pictures and as features, and ridge on its context tokens."""
        found: Found = {}
        if fit.said is not None and test.said is not None:
            said = test.said
            scale = self._scale(fit.said.change, fit.said.change_other)
            found |= self.of_change((said.change, said.change_other), scale)
            scale = contrast.best_scale(fit.said.difference.over(self.fit.rest))
            found |= self._of_products(said.difference, said.effect, "features", scale)
            found[f"{WRONG}: effect/features"] = self._r2(said.wrong, self.test.rest)
        real = self.of_change((test.real, test.real_other), self._scale(fit.real, fit.real_other))
        found |= {f"{CEILING}: {metric}": value for metric, value in real.items() if ": " not in metric}
        tokens = {id(self.fit): fit, id(self.test): test}

        def context(side: Side, other: bool, rows: slice) -> np.ndarray:
            seen = tokens[id(side)]
            return (seen.context_other if other else seen.context)[rows]

        def both(side: Side, other: bool, rows: slice) -> np.ndarray:
            return np.concatenate([self._local(side, other, rows), context(side, other, rows)], -1)

        for name, features in (("encoder only", context), ("encoder + local pixels", both)):
            scores = self.of_change(self.ridge(features)(self.test))
            found |= {f"{metric}/{name}": scores[f"{metric}/picture"] for metric in ("contrast", "effect")}
        return found

    def _scale(self, change: np.ndarray, other: np.ndarray) -> float:
        """The best factor of the predicted difference in the fitting pairs."""
        fit = self.fit
        of = products(change - other, fit.change - fit.change_other)
        return contrast.best_scale(of.over(fit.rest))

    def of_probe(self, name: str, change: np.ndarray, other: np.ndarray) -> Found:
        """The do-probe's scores."""
        scores = self.of_change((change, other))
        return {f"do-probe/{metric}, {name}": scores[f"{metric}/picture"] for metric in ("effect", "contrast")}

    def floors(self) -> Found:
        """By "row: metric": ridge with all labels on what needs no model."""
        found: Found = {}
        for row, features in ((PLACE, self._place), (LOCAL, self._local)):
            predict = self.ridge(features)
            scores = self.of_change(predict(self.test), self._scale(*predict(self.fit)))
            scores |= {f"{of}/encoder only": scores[f"{of}/picture"] for of in ("contrast", "effect")}
            scores |= {f"{of}/encoder + local pixels": scores[f"{of}/picture"] for of in ("contrast", "effect")}
            found |= {f"{row}: {metric}": value for metric, value in scores.items() if ": " not in metric}
        return found

    def _place(self, side: Side, other: bool, rows: slice) -> np.ndarray:
        return cells.place_features((side.touched_other if other else side.touched)[rows], self.grid)

    def _local(self, side: Side, other: bool, rows: slice) -> np.ndarray:
        touched = (side.touched_other if other else side.touched)[rows]
        return cells.local_features(side.colours[rows], touched, self.grid)

    def ridge(self, features: Callable[[Side, bool, slice], np.ndarray]) -> Callable[[Side], Change]:
        """A regression of the change of the picture on features of (side, whether o is removed, scenes): [n, N, F].

        It is fitted to the removals of k, at the tokens that k does not touch. Its strength is chosen on the last fifth
        of the scenes.
        """
        sums: dict[bool, list[Sums]] = {False: [], True: []}  # by whether the scenes are held out
        out = linear.held_out(len(self.fit.colours))
        for rows in _slices(len(out)):
            x, rest = features(self.fit, False, rows), ~self.fit.touched[rows]
            for late in sums:
                chosen = rest & (out[rows] == late)[:, None]
                sums[late].append(Sums.of(x[chosen], self.fit.change[rows][chosen]))
        kept, held = (functools.reduce(Sums.__add__, sums[which]) for which in (False, True))
        found, _ = linear.fit(kept, held, held.error)

        def predict(side: Side) -> Change:
            parts = list(_slices(len(side.colours)))
            k, o = (np.concatenate([found(features(side, other, rows)) for rows in parts]) for other in (False, True))
            return k, o

        return predict

    def asked(self, side: Side, tokens: np.ndarray, other: bool) -> Asked:
        """The removals of k (or of o) as inputs of the do-probe."""
        touched = side.touched_other if other else side.touched
        return Asked(tokens, ~hidden(touched, self.grid[0], self.anchor), touched)

    def pixels(self, side: Side) -> np.ndarray:
        """Pixels instead of tokens, [n, N, F]."""
        return cells.raw_pixels(side.pairs.video, self.grid)

    def outputs(self, model: Model, batch: int) -> Iterator[np.ndarray]:
        """A model's outputs on a few test pairs."""
        few = self.test.pairs.part(slice(batch))
        yield model.encode(few.video)
        for out in ask(model, few, few.removed, self.grid[0], self.anchor):
            if out is not None:
                yield np.asarray(out)


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, count, ROWS))
