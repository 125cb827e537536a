"""Effects of removals: does a frozen model know what changes without object k rather than without another object?

docs/EVALUATION.md, "Effects", has the formulas (E1) to (E9).
"""

import dataclasses
import functools
import importlib.resources
from collections.abc import Callable, Sequence

import numpy as np

from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import base
from cjepa_jax.evals.base import TRAINED, Bench, Model, Result, Score
from cjepa_jax.evals.counterfactual import do_probe, pairs, pictures, questions
from cjepa_jax.evals.counterfactual.effect_scores import CEILING, FLOORS, Found, Scorer
from cjepa_jax.evals.counterfactual.foresee import Foreseen, decoder, foresee

NAME = "effects"
CODE = importlib.resources.files("cjepa_jax.evals.counterfactual")  # whose files decide the scores that a folder keeps
DECIDABLE = 0.5  # the least ceiling of contrast/picture with which a world counts
CHANCE = "chance"


@dataclasses.dataclass(frozen=True)
class Effects:
    """Scores the difference of two removals in one scene, of object k and of another object o.

    The residual head of the model says how the tokens change without k, and without o. A decoder that has seen no scene
    without k or o turns the changes into colours. `contrast` compares the difference of the two with the true one at
    the tokens that neither object touches: 0 for anything that does not depend on which object was removed, 1 for the
    truth. `2afc` is the share of scenes where the two removals are matched with their outcomes. `effect` is the R2 of
    the change without k alone, next to the answer for o in its place ("wrong object"). Floors are the network at random
    initialisation, and ridge regressions on places and on local pixels with all labels. The ceiling is the true change
    of the tokens by the same decoder. Models without a residual head have the rows `encoder only` (ridge on context
    tokens) and `do-probe` (a predictor fitted on them with few and with all labels).

    Attributes:
      pairs_fit, pairs_test: scenes of the bench's two splits, with two removals each.
      anchor: times (tubelets) at the start at which nothing is hidden. -1: the training's.
      area: limits of both objects' share of the tokens.
      probe_pairs, probe_steps: numbers of labelled pairs of the do-probe, and its steps with each. (): no do-probe.
      limit: scenes that may be looked through for pairs. Stored data that have fewer give all.
      cache: a folder that keeps pairs, floors and random initialisations for other models. "": none.
    """

    pairs_fit: int = 1500
    pairs_test: int = 600
    anchor: int = -1
    area: Sequence[float] = (0.05, 0.40)
    probe_pairs: Sequence[int] = (300, 1500)
    probe_steps: Sequence[int] = (200, 400)
    limit: int = 200_000
    cache: str = ""

    def __post_init__(self):
        for name, least in (("pairs_fit", 10), ("pairs_test", 4), ("anchor", -1), ("limit", 1)):
            value = getattr(self, name)
            _check(base.integer(value, least), name, value, f"an integer of at least {least}")
        area = tuple(self.area)
        fits = len(area) == 2 and all(map(base.number, area)) and 0 < area[0] <= area[1] < 1
        _check(fits, "area", area, "two numbers, the lower one first, above 0 and below 1")
        _check(isinstance(self.cache, str), "cache", self.cache, "a folder, or empty")
        for name, most in (("probe_pairs", self.pairs_fit), ("probe_steps", 2**31 - 1)):
            value = tuple(getattr(self, name))
            fits = all(base.integer(v, 4) and v <= most for v in value)
            _check(fits, name, value, f"integers of at least 4, at most {most}")
            object.__setattr__(self, name, value)
        text = f"as many as probe_pairs, {len(self.probe_pairs)}"
        _check(len(self.probe_steps) == len(self.probe_pairs), "probe_steps", self.probe_steps, text)
        object.__setattr__(self, "area", area)

    def run(self, bench: Bench) -> Result:
        """Raises ConfigError for data without simulated removals. DataError if they do not give enough pairs."""
        base.require(bench.fit_split != bench.test_split, NAME, f"two splits, not {bench.test_split!r} twice")
        scenes = [self._scenes(bench, split) for split in (bench.fit_split, bench.test_split)]
        counts = self.pairs_fit, self.pairs_test
        names = [pairs.fingerprint(s, n, bench.seed, self.area) for s, n in zip(scenes, counts, strict=True)]
        fit, test = (self._pairs(*of, bench.seed) for of in zip(scenes, counts, names, strict=True))
        anchor = bench.anchor if self.anchor < 0 else self.anchor
        _check(anchor < scenes[1].grid[0], "anchor", anchor, f"below the clip's {scenes[1].grid[0]} times")
        scorer = Scorer(fit, test, scenes[1].grid, anchor, bench.seed)
        key = questions.digest(*map(str.encode, [*names, questions.code([CODE])]))
        floors = questions.remembered(self.cache, f"effects-floors-{key}", scorer.floors)
        key = questions.digest(key.encode(), repr((anchor, self.probe_pairs, self.probe_steps)).encode())
        found, seen = self._found(bench.model, scorer, bench.batch)
        randoms = []
        for model in bench.randoms:
            name = self._identity(model, scorer, bench.batch, key) if self.cache else ""
            make = functools.partial(self._of_random, model, scorer, bench.batch)
            randoms.append(questions.remembered(self.cache, f"effects-random-{name}", make))
        floors = floors | self._pixel_probe(bench.model, scorer, key)
        title, images = "Two removals, and the difference that each answer makes of them", {}
        if (said := seen.said) is not None:
            images[title] = pictures.removals(scenes[1], test, scorer.difference(), said.change - said.change_other)
        return Result(self._scores(found, floors, randoms), images, notes=self._notes(found))

    def _scenes(self, bench: Bench, split: str) -> SceneMap:
        """Raises ConfigError where the data cannot simulate removals."""
        try:
            source = bench.source(split, self.limit)
        except DataError:  # stored data that have fewer
            source = bench.source(split, 0)
        text = f"a source that can remove objects (can_rerender), which {type(source).__name__} is not"
        base.require(getattr(source, "can_rerender", False), NAME, text)
        return dataclasses.replace(bench.prepare(source), with_objects=True, with_masks=True)

    def _pairs(self, scenes: SceneMap, count: int, name: str, seed: int) -> pairs.Pairs:
        def make() -> dict[str, np.ndarray]:
            return pairs.prepare(scenes, count, seed, self.area)._asdict()

        return pairs.Pairs(**questions.remembered(self.cache, f"pairs-{name}", make))

    def _found(self, model: Model, scorer: Scorer, batch: int) -> tuple[Found, Foreseen]:
        """A model's scores, and what it said of the test pairs."""
        decode, strength = decoder(model, scorer.fit.pairs, scorer.grid, batch)
        sides = [
            foresee(model, side.pairs, scorer.grid, anchor=scorer.anchor, batch=batch, decode=decode)
            for side in (scorer.fit, scorer.test)
        ]
        found = {"strength": np.array([strength, np.nan])} | scorer.of_model(*sides)
        contexts = sides[0].context, (sides[1].context, sides[1].context_other)
        return found | self._probes(model, scorer, *contexts), sides[1]

    def _of_random(self, model: Model, scorer: Scorer, batch: int) -> Found:
        return self._found(model, scorer, batch)[0]

    def _probes(self, model: Model, scorer: Scorer, fit: np.ndarray, test: tuple[np.ndarray, np.ndarray]) -> Found:
        """The scores of the do-probe on tokens of the fitting pairs without k, and of the test pairs without k and o.

        Raises ConfigError for a model without `fresh_predictor`.
        """
        found: Found = {}
        for count, steps in zip(self.probe_pairs, self.probe_steps, strict=True):
            predictor = _fresh(model, scorer)
            few = do_probe.Asked(*(values[:count] for values in scorer.asked(scorer.fit, fit, False)))
            predict = do_probe.fit(
                predictor, few, scorer.fit.change[:count], scorer.grid, steps=steps, seed=scorer.seed
            )
            answers = [predict(scorer.asked(scorer.test, test[other], bool(other))) for other in (0, 1)]
            found |= scorer.of_probe(f"n = {count}", *answers)
        return found

    def _pixel_probe(self, model: Model, scorer: Scorer, key: str) -> Found:
        """The do-probe on pixels instead of tokens, by "pixels: metric"."""
        if not self.probe_pairs:
            return {}
        fit, test = (scorer.pixels(side) for side in (scorer.fit, scorer.test))
        few = scorer.asked(scorer.fit, fit, False)
        name = do_probe.identity(_fresh(model, scorer), few, scorer.grid)

        def make() -> Found:
            probed = self._probes(model, scorer, fit, (test, test))
            return {f"pixels: {metric}": value for metric, value in probed.items()}

        return questions.remembered(self.cache, f"effects-pixels-{questions.digest(key.encode(), name)}", make)

    def _identity(self, model: Model, scorer: Scorer, batch: int, key: str) -> str:
        """A name for a model by its outputs on these pairs and options."""
        return questions.digest(key.encode(), *(array.tobytes() for array in scorer.outputs(model, batch)))

    def _scores(self, found: Found, floors: Found, randoms: Sequence[Found]) -> list[Score]:
        """Every metric's row of the model, of the random initialisations, of its floors and of its ceiling."""
        scores = []
        for metric in found:
            if ": " in metric or metric == "strength":
                continue
            count = self.pairs_test
            scores.append(_score(metric, TRAINED, found[metric], count))
            values = [float(random[metric][0]) for random in randoms if metric in random]
            scores += [base.over_inits(metric, values, count)] if values else []
            if metric.startswith("2afc"):
                scores.append(Score(metric, CHANCE, 0.5, count=count, kind="floor"))
            for row, kind in (*((row, "floor") for row in FLOORS), (CEILING, "ceiling")):
                value = (found | floors).get(f"{row}: {metric}")
                if value is not None:
                    scores.append(_score(metric, row, value, count, kind))
        return scores

    def _notes(self, found: Found) -> list[str]:
        ceiling = float(found[f"{CEILING}: contrast/picture"][0])
        text = f"the ceiling of contrast/picture is {ceiling:.3f}. A world counts above {DECIDABLE}"
        known = "decidable" if ceiling > DECIDABLE else "not decidable"
        strength = f"decoder: ridge strength {float(found['strength'][0]):g}, chosen inside the fitting split"
        return [f"{known}: {text}", strength]


def _score(metric: str, row: str, found: np.ndarray, count: int, kind: str = "result") -> Score:
    value, half = found.tolist()
    return Score(metric, row, value, half, count=count, kind=kind)


def _fresh(model: Model, scorer: Scorer) -> tuple[Callable, Callable]:
    """An untrained predictor of changes of the picture. Raises ConfigError for a model without fresh_predictor."""
    if model.fresh_predictor is None:
        raise ConfigError(f"evals.protocols: {NAME} needs a model with fresh_predictor, or probe_pairs = ()")
    return model.fresh_predictor(scorer.fit.change.shape[-1])


def _check(fits: bool, name: str, value, limit: str) -> None:
    if not fits:
        raise ConfigError(f"evals.protocols: {NAME}.{name} = {value!r}: must be {limit}")
