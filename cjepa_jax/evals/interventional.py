"""Interventional probing: can a frozen model predict what would happen without an object?

The protocol of METHOD (14) (Algorithm 3, lines 4-7), other readouts of the same model, and rows that need no model or
no intervention. The questions are balanced: a guess is right half of the time.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import base
from cjepa_jax.evals.base import TRAINED, Bench, Model, Result, Score
from cjepa_jax.evals.counterfactual import pictures, questions
from cjepa_jax.evals.counterfactual import readouts as do_readouts
from cjepa_jax.evals.counterfactual.judge import CEILINGS, FINAL, HEADS, Judge, explained, flat
from cjepa_jax.evals.counterfactual.questions import DoQuestions
from cjepa_jax.evals.counterfactual.readouts import CHANGE, READOUTS, REMOVAL, WRONG

NAME = "interventional"
Found = dict[str, np.ndarray]  # by "readout/head", "readout/final", "response", ...: see Judge


@dataclasses.dataclass(frozen=True)
class Interventional:
    """Answers and final positions of object j without object k, by heads on each readout (counterfactual/readouts.py).

    Each readout's accuracy has these floors: the same readout of the network at random initialisation, and the readout
    with another object removed instead of k ("wrong object"). Four more floors need no model. The heads get the looks
    of j and k and their first distance ("query only"), then positions and sizes too ("query + position"), then 96
    principal components of the pixels too ("pixels + query"). "copy-factual" answers with what happens with k.
    Ceilings are the encoder on the scene that the world simulates without k ("true removal"), and the heads on the
    true states over time of j and k, and of all objects.

    `final` is the R2 of the position of j at the end. `response` is the change of tokens that k does not touch when the
    world removes k, in units of their variance over scenes. `explained` is the share of that change that the model
    predicts.

    Attributes:
      questions_fit, questions_test: multiples of 4, drawn from the bench's two splits.
      anchor: times (tubelets) at the start that stay visible. 0: all of k is hidden. -1: the training's.
      heads: "linear" (ridge on +-1) and "mlp". steps: of the mlp, at most.
      readouts, random_readouts: of the model, and of the random initialisations.
      wrong: whether the rows of the wrong object are computed.
      response: the number of test questions for `response` and `explained`.
      limit: the number of scenes that may be searched for questions. Stored data that have fewer give all.
      cache: a folder that stores questions, baselines and random initialisations for other models. "": none.
    """

    questions_fit: int = 1600
    questions_test: int = 1000
    anchor: int = 0
    heads: Sequence[str] = HEADS
    steps: int = 300
    readouts: Sequence[str] = READOUTS
    random_readouts: Sequence[str] = READOUTS
    wrong: bool = True
    response: int = 256
    limit: int = 200_000
    cache: str = ""

    def __post_init__(self):
        for name, least in (("questions_fit", 20), ("questions_test", 8)):
            value = getattr(self, name)
            _check(base.integer(value, least) and value % 4 == 0, name, value, f"a multiple of 4 from {least}")
        for name, least in (("anchor", -1), ("steps", 1), ("response", 4), ("limit", 1)):
            value = getattr(self, name)
            _check(base.integer(value, least), name, value, f"an integer of at least {least}")
        for name, known in (("heads", HEADS), ("readouts", READOUTS), ("random_readouts", READOUTS)):
            value = tuple(getattr(self, name))
            _check(value and set(value) <= set(known), name, value, f"some of {', '.join(known)}")
            object.__setattr__(self, name, value)
        _check(isinstance(self.wrong, bool), "wrong", self.wrong, "True or False")
        _check(isinstance(self.cache, str), "cache", self.cache, "a folder, or empty")

    def run(self, bench: Bench) -> Result:
        """Raises ConfigError for data without counterfactuals, and DataError if they do not give enough questions."""
        if self.anchor < 0:
            return dataclasses.replace(self, anchor=bench.anchor).run(bench)
        base.require(bench.fit_split != bench.test_split, NAME, f"two splits, not {bench.test_split!r} twice")
        scenes = [self._scenes(bench, split) for split in (bench.fit_split, bench.test_split)]
        sets, keys = zip(
            *(
                self._questions(each, count, bench.seed)
                for each, count in zip(scenes, (self.questions_fit, self.questions_test), strict=True)
            ),
            strict=True,
        )
        key = questions.digest("".join(keys).encode(), repr((self.heads, self.steps)).encode())
        judge = Judge(*sets, self.heads, self.steps, bench.seed)
        times = scenes[1].grid[0]
        few = judge.test.part(slice(bench.batch))
        has = do_readouts.features(bench.model, few, times, anchor=self.anchor, batch=bench.batch, wanted=self.readouts)
        base.require(bool(has), NAME, f"a model with one of the readouts {', '.join(self.readouts)}")
        baselines = questions.remembered(self.cache, f"baselines-{key}", judge.baselines)
        wanted = (*self.readouts, REMOVAL)
        found = self._found(bench.model, judge, times, batch=bench.batch, wanted=wanted, wrong=self.wrong)
        randoms = []
        for model in bench.randoms:
            name = self._identity(model, judge.test, times, bench.batch, key) if self.cache else ""
            options: dict[str, Any] = dict(batch=bench.batch, wanted=self.random_readouts, wrong=False)
            make = functools.partial(self._found, model, judge, times, **options)
            randoms.append(questions.remembered(self.cache, f"random-{name}", make))
        scores = [*_answer_scores(judge, found, randoms, baselines), *_response_scores(judge, found, randoms)]
        accuracy = {
            score.metric: score.value for score in scores if score.row == TRAINED and "accuracy/" in score.metric
        }
        readout = max(accuracy, key=accuracy.get).removeprefix("accuracy/")
        images = pictures.strip(scenes[1], judge.test, judge.test.answer == found[readout])
        return Result(scores, {f"Without the red object: {readout}": images}, notes=self._notes(*sets))

    def _scenes(self, bench: Bench, split: str) -> SceneMap:
        """Raises ConfigError where the data have no counterfactuals."""
        try:
            source = bench.source(split, self.limit)
        except DataError:  # stored data that have fewer
            source = bench.source(split, 0)
        serves = getattr(source, "can_rerender", False) and hasattr(source, "outcomes") and hasattr(source, "rollout")
        base.require(serves, NAME, f"counterfactuals and their outcomes, which {type(source).__name__} does not have")
        scenes = dataclasses.replace(bench.prepare(source), with_objects=True, with_masks=True)
        base.require(scenes.frames > 1, NAME, "clips: data.frames is 1")
        _check(self.anchor < scenes.grid[0], "anchor", self.anchor, f"below the clip's {scenes.grid[0]} times")
        return scenes

    def _questions(self, scenes: SceneMap, count: int, seed: int) -> tuple[DoQuestions, str]:
        """Questions about the scenes of one split, and a name for them."""
        key = questions.fingerprint(scenes, count=count, seed=seed, anchor=self.anchor)
        make = lambda: questions.prepare(scenes, count, seed, self.anchor)._asdict()  # noqa: E731
        return DoQuestions(**questions.remembered(self.cache, f"questions-{key}", make)), key

    def _found(self, model: Model, judge: Judge, times: int, batch: int, wanted: Sequence[str], wrong: bool) -> Found:
        """A model's answers by "readout/head", its "response", and "error" and "spread" of the predicted change."""
        options = (times, self.anchor, batch, wanted, wrong)
        fit, test = (do_readouts.features(model, asked, *options) for asked in (judge.fit, judge.test))
        found = flat({name: judge.judge(fit[name], test[name]) for name in test})
        part = judge.test.part(slice(self.response))
        found["response"], change = do_readouts.responses(model, part, times, self.anchor, batch)
        if change is not None:
            found["error"], found["spread"] = change
            found |= do_readouts.wrong_object(model, part, times, self.anchor, batch)
        return found

    def _identity(self, model: Model, test: DoQuestions, times: int, batch: int, key: str) -> str:
        """A name for a model by its outputs on these questions and options."""
        few = test.part(slice(batch))
        outputs = [model.encode(few.video), *model.hide(do_readouts.hide(few, few.removed, times, self.anchor))]
        options = repr((key, self.random_readouts, self.response)).encode()
        return questions.digest(options, *(np.asarray(out).tobytes() for out in outputs if out is not None))

    def _notes(self, fit: DoQuestions, test: DoQuestions) -> list[str]:
        """The number of questions, and the number of those that were left out."""
        notes = []
        for name, wanted, asked in (("fitting", self.questions_fit, fit), ("test", self.questions_test, test)):
            left, alone = wanted - len(asked.video), int((asked.other < 0).sum())
            text = f"{len(asked.video)} {name} questions. {left} left out, in groups of four with an object"
            notes.append(f"{text} that no token shows. {alone} have no other object to remove")
        return notes


def _answer_scores(judge: Judge, found: Found, randoms: Sequence[Found], baselines: Found) -> list[Score]:
    """Accuracies and final positions of every readout, with their floors and ceilings."""
    scores, count = [], len(judge.test.video)
    readouts = [name for name in READOUTS if f"{name}/{FINAL}" in found]
    for readout in readouts:
        for quantity in (*judge.heads, FINAL):
            metric = f"{FINAL}/{readout}" if quantity == FINAL else f"accuracy/{readout}/{quantity}"
            key = f"{readout}/{quantity}"
            scores.append(Score(metric, TRAINED, *judge.value(quantity, found[key]), count))
            values = [judge.value(quantity, random[key])[0] for random in randoms if key in random]
            scores += [base.over_inits(metric, values, count)] if values else []
            floors = {"wrong object": found[WRONG + key]} if WRONG + key in found else {}
            names = (CHANGE, REMOVAL) if readout in ("context", "counterfactual") else (REMOVAL,)
            ceilings = {name: found[f"{name}/{quantity}"] for name in names}
            for name in baselines:
                row, _, of = name.rpartition("/")
                if of == quantity:
                    (ceilings if row in CEILINGS else floors)[row] = baselines[name]
            for kind, rows in (("floor", floors), ("ceiling", ceilings)):
                scores += [
                    Score(metric, row, *judge.value(quantity, value), count, kind) for row, value in rows.items()
                ]
    return scores


def _response_scores(judge: Judge, found: Found, randoms: Sequence[Found]) -> list[Score]:
    """How tokens change when k is removed, and the share of the change that the model predicts."""
    response, count = found["response"], len(found["response"])
    scores = [Score("response", TRAINED, *base.mean(response), count)]
    if randoms:
        scores.append(base.over_inits("response", [random["response"].mean() for random in randoms], count))
    if "error" in found:
        value = explained(found["error"], found["spread"], judge.seed)
        scores.append(Score("explained", TRAINED, *value, count))
        values = [
            explained(random["error"], random["spread"], judge.seed)[0] for random in randoms if "error" in random
        ]
        scores += [base.over_inits("explained", values, count)] if values else []
    if "wrong" in found:
        metric, count = "explained/neither object", len(found["wrong"])
        for row, error, kind in ((TRAINED, "own", "result"), ("wrong object", "wrong", "floor")):
            share, half = explained(found[error], found["size"], judge.seed)
            scores.append(Score(metric, row, share, half, count=count, kind=kind))
        values = [explained(random["own"], random["size"], judge.seed)[0] for random in randoms if "own" in random]
        scores += [base.over_inits(metric, values, count)] if values else []
    return scores


def _check(fits: bool, name: str, value, limit: str) -> None:
    if not fits:
        raise ConfigError(f"evals.protocols: {NAME}.{name} = {value!r}: must be {limit}")
