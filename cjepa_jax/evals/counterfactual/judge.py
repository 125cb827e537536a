"""Heads on features of counterfactual questions, rows that need no model, and intervals."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.evals import heads, probe, ridge
from cjepa_jax.evals.base import binomial
from cjepa_jax.evals.counterfactual.questions import DoQuestions

HEADS, FINAL = ("linear", "mlp"), "final"
COPY, QUERY, START, PIXELS = "copy-factual", "query only", "query + position", "pixels + query"
CEILINGS = PAIR, STATES = "true states of j and k", "true states"
RESAMPLES = 500  # of the bootstrap
FRAMES = 8  # at most this number of frames gives pixels, evenly spread


@dataclasses.dataclass(frozen=True)
class Judge:
    """Fits heads on some questions and applies them to others.

    Results have the name of a head ("linear", "mlp"): whether each test question was answered rightly, bool [Q]. The
    result "final" is the squared error of the position of j at the end, float32 [Q, 2].
    """

    fit: DoQuestions
    test: DoQuestions
    heads: Sequence[str]
    steps: int  # of the mlp, at most
    seed: int

    def judge(self, fit_x: np.ndarray, test_x: np.ndarray) -> dict[str, np.ndarray]:
        """The results for features [Q, F] of the two sets."""
        found, label = {}, self.fit.answer.astype(np.int32)
        for head in self.heads:
            if head == "linear":
                scores = heads.ridge_classify(fit_x, label, test_x)
            else:
                scores = heads.mlp(fit_x, label, test_x, 2, self.seed, steps=self.steps)
            found[head] = (scores[:, 1] > scores[:, 0]) == self.test.answer
        guess = ridge.predict(fit_x, self.fit.final, test_x)
        return found | {FINAL: np.square(guess - self.test.final).astype(np.float32)}

    def baselines(self) -> dict[str, np.ndarray]:
        """The rows that need no model, by "row/head" and "row/final"."""
        fit, test = self.fit, self.test
        query = one_hot(fit.looks, test.looks)
        start = [np.concatenate(pair, 1) for pair in zip(query, (fit.start, test.start), strict=True)]
        times = np.unique(np.linspace(0, fit.video.shape[1] - 1, FRAMES).round().astype(int))
        pixels = probe.pixel_components(np.concatenate([fit.video[:, times], test.video[:, times]]), len(fit.video))
        pixels = pixels[: len(fit.video)], pixels[len(fit.video) :]
        rows = {QUERY: query, START: start}
        rows[PIXELS] = [np.concatenate(pair, 1) for pair in zip(pixels, start, strict=True)]
        if fit.states.size:
            most = max(fit.states.shape[1], test.states.shape[1])  # one set may have scenes with more objects
            states = [np.pad(s.states, ((0, 0), (0, most - s.states.shape[1]), (0, 0))) for s in (fit, test)]
            for row, objects in ((PAIR, 2), (STATES, most)):
                rows[row] = [values[:, :objects].reshape(len(values), -1) for values in states]
        copied = dict.fromkeys(self.heads, test.factual == test.answer)
        copied[FINAL] = np.square(test.factual_final - test.final)
        return flat({COPY: copied} | {row: self.judge(*features) for row, features in rows.items()})

    def value(self, quantity: str, found: np.ndarray) -> tuple[float, float]:
        """The accuracy, or the R2 of the final position (mean over x and y), and half of its 95 % interval."""
        if quantity != FINAL:
            share = float(found.mean())
            return share, binomial(share, len(found))
        return explained(found, np.square(self.test.final - self.fit.final.mean(0)), self.seed)


def flat(rows: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """row -> quantity -> array as "row/quantity" -> array."""
    return {f"{row}/{quantity}": value for row, found in rows.items() for quantity, value in found.items()}


def explained(error: np.ndarray, spread: np.ndarray, seed: int) -> tuple[float, float]:
    """1 - sum of errors / sum of squared distances from the mean: [Q] or [Q, P] each.

    Sums are over questions, then the mean over targets is taken. Returns also half of the 95 % interval by bootstrap
    over questions."""
    error, spread = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (error, spread))
    rng = seeds.generator(seed, "bootstrap of questions", len(error))
    chosen = rng.integers(0, len(error), (RESAMPLES, len(error)))

    def of(error: np.ndarray, spread: np.ndarray) -> np.ndarray:
        return (1 - error.sum(-2) / np.maximum(spread.sum(-2), 1e-12)).mean(-1)

    low, high = np.quantile(of(error[chosen], spread[chosen]), [0.025, 0.975])
    return float(of(error, spread)), float(high - low) / 2


def one_hot(fit: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each column of two integer arrays [Q, C] as indicators of its values: float32 [Q, F] each."""
    parts = []
    for column in range(fit.shape[1]):
        values = np.unique(np.concatenate([fit[:, column], test[:, column]]))
        parts.append([(rows[:, column, None] == values).astype(np.float32) for rows in (fit, test)])
    return tuple(np.concatenate([part[side] for part in parts], 1) for side in (0, 1))
