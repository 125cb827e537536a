"""Questions about slots, answered by ALOE: a transformer on the slots of a clip and the words (arXiv 2012.08508).

SlotFormer's variant (arXiv 2210.05861), with which Causal-JEPA is scored on CLEVRER (arXiv 2602.11389). docs/SLOTS.md.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data import pipeline
from cjepa_jax.data.vocabulary import Vocabulary
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import (
    RANDOM,
    TRAINED,
    Bench,
    Result,
    Scenes,
    Score,
    integer,
    number,
    over_inits,
    require,
    require_lengths,
    student,
)
from cjepa_jax.evals.benchmarks import asked, language_head, vision
from cjepa_jax.evals.benchmarks.asked import Measured
from cjepa_jax.evals.benchmarks.language_head import MOST_FREQUENT, QUESTION_ONLY, Items
from cjepa_jax.evals.benchmarks.vision import OBSERVED, SIMULATED, Inputs
from cjepa_jax.objectives import aloe

ROWS = (RANDOM, OBSERVED, QUESTION_ONLY, SIMULATED)  # beside TRAINED and MOST_FREQUENT
CHANCE = "chance"
SECTION = "evals.protocols: aloe"


class Text(NamedTuple):
    """The items of a split in numbers."""

    words: np.ndarray  # int32 [Q, L]
    choice: np.ndarray  # bool [Q]
    answer: np.ndarray  # int32 [Q]: an answer's number from 1, 0 for one that no fitting question has. Options: 1 or 0


@dataclasses.dataclass(frozen=True)
class Aloe:
    """Accuracy (0..1) by type of question of transformers that are trained on the slots of the fitting split.

    A transformer sees `moments` frames of a clip, one of every `every` frames. In training, the start frame is random.
    In evaluation it is frame 0, so that the same parameters give the same answers. The public code draws it there too.

    What the slots are depends on the type of the question:

      types in `rolled`: the clip is moved on by `rollout` frames, which the evaluated model predicts after the clip's
        end. The published choice is "predictive" alone.
      types in `do`: the model's prediction of the whole clip without the slot that the question removes, from the first
        history x skip frames without it. The source must say which slot that is, as TrueSlots does. These first frames
        are the observed ones with one slot empty, so the others may already carry what the object did to them.
      all other types: the encoder's slots of the clip. They do not depend on the model. A note says which types have
        such inputs, compared to the bit. Between two models, a difference in a row of these types is one of training.

    Metrics: "TYPE" for open questions; "TYPE/options" and "TYPE/questions" for multiple choice, where a question is
    right if each of its options is judged correctly; "overall/questions" over all questions; "overall/types", the mean
    of the types per question.

    Rows: the trained model, and random initialisations of it, whose rollouts are seen. Floors: the slots of the encoder
    for every type, the same transformer without slots ("question only"), and the most frequent answer of each type. The
    ceiling, for a simulated world: the true continuation, and the true clip without the object from frame 0. It is not
    one for a type in `do` whose questions compare the two clips, since the observed one is not seen. If no type is
    rolled out, the first row is a transformer on the encoder's slots, and only the last two floors are reported. Where
    questions say which answers they can have (`answer_set`), "chance" is the accuracy of an answer drawn evenly.

    A value is the mean over `seeds` training runs, its interval the root of the sum of two squares: half of the 95 %
    interval over training runs (Student's t) and of that over scenes. With one training it is that over scenes. Random
    initialisations have one training each, and the interval is over them. Accuracies of finished training runs are
    kept, so a protocol that was stopped resumes with the next training.

    Attributes:
      frames: of a clip, from its first one. words: the most words of a question, and of an option.
      reader: keyword arguments of models.aloe.Aloe but the sizes of the vocabularies.
      steps, batch, rate: of a training: its length, questions of a step, and the peak rate of Adam.
      history, future, skip: those with which the model was trained (objective.history, objective.future, and
        data.options.skip of SlotFiles). A run with other ones is refused where it makes rollouts.
      rows: which of the rows beside the trained model to compute, of ROWS.
    Raises: ConfigError for values outside their limits, and for data that do not suit them.
    """

    frames: int = 128
    moments: int = 25
    every: int = 5
    words: tuple[int, int] = (20, 12)
    reader: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 3
    steps: int = 635_600
    batch: int = 96
    rate: float = 1e-3
    rolled: tuple[str, ...] = ("predictive",)
    rollout: int = 32
    do: tuple[str, ...] = ()
    history: int = 6
    future: int = 10
    skip: int = 2
    rows: tuple[str, ...] = ROWS

    kinds: ClassVar[tuple[str, ...]] = ("slots",)

    def __post_init__(self):
        for name in ("frames", "moments", "every", "seeds", "steps", "batch", "rollout", "history", "future", "skip"):
            value = getattr(self, name)
            if not integer(value, 1):
                raise ConfigError(f"{SECTION}.{name} = {value!r}: must be an integer of at least 1")
        if (
            not isinstance(self.words, tuple | list)
            or len(self.words) != 2
            or not integer(self.words[0], 1)
            or not integer(self.words[1], 0)
        ):
            raise ConfigError(f"{SECTION}.words = {self.words!r}: must be two integers, at least 1 and 0")
        if not number(self.rate) or not 0 < self.rate < 1:
            raise ConfigError(f"{SECTION}.rate = {self.rate!r}: must be in (0, 1)")
        for name in ("rolled", "do", "rows"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or not all(isinstance(word, str) for word in value):
                raise ConfigError(f"{SECTION}.{name} = {value!r}: must be a list of words")
        if strange := [name for name in self.rows if name not in ROWS]:
            raise ConfigError(f"{SECTION}.rows has {strange[0]!r}: must be of {', '.join(ROWS)}")
        if both := set(self.rolled) & set(self.do):
            raise ConfigError(f"{SECTION}.do has {min(both)!r}, and so has rolled: must be in one of them")
        least = max((self.moments - 1) * self.every + 1, self.rollout, self.history * self.skip + 1)
        if self.frames < least:
            text = "(moments - 1) x every + 1, rollout, and history x skip + 1"
            raise ConfigError(f"{SECTION}.frames = {self.frames}: must be at least {least}, the largest of {text}")
        aloe.check(f"{SECTION}.reader", self.reader)

    def run(self, bench: Bench) -> Result:
        """Trains and scores. Raises ConfigError and DataError, one line each, before anything is trained."""
        splits = (bench.fit_split, bench.fit), (bench.test_split, bench.test)
        scenes = [self._clips(bench, *split) for split in splits]
        items = [asked.items_of(of, split, "Aloe") for of, (split, _) in zip(scenes, splits, strict=True)]
        text, reader, notes = self._text(*items)
        seen, strange = self._seen(bench, scenes, items)
        trained: dict[str, list[dict[str, Measured]]] = {}
        for name, (make, runs) in seen.items():
            done = {n: self._kept(bench, name, n) for n in runs}
            compared = name == TRAINED and bool(self.rolled or self.do)
            inputs = make() if compared or None in done.values() else []
            if compared:
                strange += vision.identities(inputs[1], scenes[1], items[1])
            for n in [n for n, made in done.items() if made is None]:
                logging.info("ALOE, %s: training %d of %d, %d steps", name, n - runs[0] + 1, len(runs), self.steps)
                rng = seeds.generator(bench.seed, "training of ALOE", n)
                done[n] = self._trained(rng, reader, text, inputs, items[1])
                if bench.parts:
                    bench.parts.put(self._key(name, n), done[n])
            trained[name] = [made for made in done.values() if made is not None]
            del inputs  # before those of the next row are made
        frequent = asked.measured(items[1], language_head.most_frequent(*items).right)
        return Result(_scores(trained, frequent, asked.chance(items[1])), notes=[*notes, *strange, *by_seed(trained)])

    def _key(self, row: str, run: int) -> list[Any]:
        """Everything but the evaluation's setting on which the accuracies of one training depend."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        own = fields | {"reader": dict(self.reader), "rows": None, "seeds": None}
        return ["aloe", own, row, run]

    def _kept(self, bench: Bench, row: str, run: int) -> dict[str, Measured] | None:
        """The accuracies of a training that this evaluation has finished before."""
        found = bench.parts.get(self._key(row, run)) if bench.parts else None
        return None if found is None else {metric: Measured(*values) for metric, values in found.items()}

    def _clips(self, bench: Bench, split: str, count: int) -> Scenes:
        """The split's clips of `frames` frames."""
        source: Any = bench.source(split, count)
        name = type(source).__name__
        require(hasattr(source, "questions"), "Aloe", f"questions in words, which {name} has not")
        require(hasattr(source, "frames"), "Aloe", "a source that gives clips of any length (a field `frames`)")
        source = dataclasses.replace(source, frames=self.frames)
        scenes = dataclasses.replace(bench.prepare(source), source=source, frames=self.frames)
        total, n = min(count or len(source), len(source)), 0
        found: dict[str, np.ndarray] = {}
        for start in range(0, total, vision.AT_ONCE):  # all clips fill the memory once: no list of them beside
            for scene in pipeline.held_out(scenes, start, min(vision.AT_ONCE, total - start)):
                for name in ("scene", "video", "object_valid"):
                    value = np.asarray(scene[name])
                    found.setdefault(name, np.empty((total, *value.shape), value.dtype))[n] = value
                n += 1
        if n < 4:
            raise DataError(f"evals: the split {split!r} has {n} readable scenes, at least 4 are needed")
        return Scenes(source, scenes, {name: array[:n] for name, array in found.items()})

    def _text(self, fit: Items, test: Items) -> tuple[list[Text], aloe.Reader, list[str]]:
        """Both splits' items in numbers, of the fitting split's words and answers, and a remark."""
        words, answers = Vocabulary.of(asked.texts_of(fit.texts)), asked.answers_of(fit)
        if len(answers) > asked.MOST_ANSWERS:
            raise DataError(f"the questions have {len(answers)} different answers, at most {asked.MOST_ANSWERS}")
        place, found, left = {answer: n for n, answer in enumerate(answers, 1)}, [], []
        for items in (fit, test):
            choice = asked.is_choice(items)
            asking, n = words([texts[0] for texts in items.texts], self.words[0], f"{SECTION}.words[0]")
            option, m = words(
                [texts[1] if len(texts) > 1 else "" for texts in items.texts], self.words[1], f"{SECTION}.words[1]"
            )
            answer = [int(a == "correct") if c else place.get(a, 0) for a, c in zip(items.answer, choice, strict=True)]
            found.append(Text(np.concatenate([asking, option], 1), choice, np.array(answer, np.int32)))
            left.append((n + m, int((~choice & (found[-1].answer == 0)).sum())))
        reader = aloe.reader(
            f"{SECTION}.reader",
            self.reader,
            words=len(words),
            answers=len(answers) + 1,
            question=self.words[0],
            steps=self.steps,
            rate=self.rate,
        )
        counts = [
            f"{len(np.unique(items.number))} questions about {len(np.unique(items.row))} scenes"
            for items in (fit, test)
        ]
        notes = [f"fitted: {counts[0]}. Tested: {counts[1]}"]
        if any(left[1]):
            text = "words of test questions that no fitting question has are left out"
            notes.append(f"{left[1][0]} {text}. {left[1][1]} test questions have such an answer, and count as wrong")
        return found, reader, notes

    def _seen(
        self, bench: Bench, scenes: Sequence[Scenes], items: Sequence[Items]
    ) -> tuple[dict[str, tuple[Callable[[], list[Inputs]], range]], list[str]]:
        """By row: what makes the inputs of both splits, and the numbers of its training runs. And remarks."""
        observed = [Inputs.of(*each) for each in zip(scenes, items, strict=True)]
        if self.rolled or self.do:
            require_lengths(bench, SECTION, history=self.history, future=self.future, skip=self.skip)
        plan = vision.Plan(self.rolled, self.rollout, self.do, history=self.history, future=self.future, skip=self.skip)
        for of, given in zip(items, scenes, strict=True):
            plan.check(of, given)

        def rolled(future: Any) -> list[Inputs]:
            return [plan.inputs(*each, future) for each in zip(scenes, items, observed, strict=True)]

        every = range(self.seeds)
        rows: dict[str, tuple[Callable[[], list[Inputs]], range]] = {}
        blind: Callable[[], list[Inputs]] = functools.partial(
            list, [inputs._replace(seen=False) for inputs in observed]
        )
        plain: Callable[[], list[Inputs]] = functools.partial(list, observed)
        if not (self.rolled or self.do):
            rows = {TRAINED: (plain, every), QUESTION_ONLY: (blind, every)}
            notes = ["no question's slots depend on the model: all are the encoder's"]
        else:
            for model in bench.models:
                number = len(rows) - 1  # of a random initialisation
                own = every if model is bench.model else range(number, number + 1)
                rows[model.name] = functools.partial(rolled, vision.Foreseen(model, plan)), own
            rows |= {OBSERVED: (plain, every), QUESTION_ONLY: (blind, every)}
            if getattr(scenes[0].source, "can_rerender", False):
                rows[SIMULATED] = functools.partial(rolled, vision.Simulated(plan)), every
            notes = plan.remarks(items)
        wanted = (TRAINED, *self.rows)
        return {name: row for name, row in rows.items() if name.startswith(wanted)}, notes

    def _trained(
        self,
        rng: np.random.Generator,
        reader: aloe.Reader,
        text: Sequence[Text],
        inputs: Sequence[Inputs],
        test: Items,
    ) -> dict[str, Measured]:
        """The accuracies of one training, all of whose draws are those of `rng`."""
        key = jax.random.key(int(rng.integers(2**31)))
        params = aloe.learn(reader, self._batches(text[0], inputs[0], rng), key)
        right = np.zeros(len(text[1].answer), bool)
        for start in range(0, len(right), self.batch):
            where = np.arange(start, start + self.batch)
            batch = self._batch(text[1], inputs[1], np.minimum(where, len(right) - 1), np.zeros(self.batch, int))
            chosen, judged = aloe.answers(reader, params, batch)
            good = np.where(batch.choice, judged == (batch.answer == 1), (chosen == batch.answer) & (batch.answer > 0))
            right[start : start + self.batch] = good[: len(right) - start]
        return asked.measured(test, right)

    def _batches(self, text: Text, inputs: Inputs, rng: np.random.Generator) -> Iterator[aloe.Asked]:
        """Batches of `batch` questions on average: open ones and options, each in the share of the fitting split.

        Every item is drawn once before one is drawn again.
        """
        kinds = [np.flatnonzero(text.choice == choice) for choice in (False, True)]
        questions = len(kinds[0]) + len(np.unique(inputs.number[text.choice]))
        sizes = [max(1, round(self.batch * len(kind) / questions)) if len(kind) else 0 for kind in kinds]
        shifts = self.frames - (self.moments - 1) * self.every
        streams = [_stream(rng, kind, size) for kind, size in zip(kinds, sizes, strict=True) if size]
        while True:
            where = np.concatenate([next(stream) for stream in streams])
            yield self._batch(text, inputs, where, rng.integers(0, shifts, len(where)))

    def _batch(self, text: Text, inputs: Inputs, where: np.ndarray, start: np.ndarray) -> aloe.Asked:
        """The items `where`, int [B], and their frames from `start`, int [B], on."""
        frames = start[:, None] + self.every * np.arange(self.moments)
        seen = np.full(len(where), inputs.seen)
        return aloe.Asked(inputs.frames(where, frames), text.words[where], text.choice[where], text.answer[where], seen)


def _stream(rng: np.random.Generator, items: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Batches of `size` items in a random order, each once before one is there again."""
    left = np.zeros(0, items.dtype)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(items)])
        yield left[:size]
        left = left[size:]


def _scores(
    trained: Mapping[str, list[dict[str, Measured]]], frequent: dict[str, Measured], chance: dict[str, Measured]
) -> list[Score]:
    """All metrics of all rows. `chance` may be empty."""
    out = []
    for metric, usual in frequent.items():
        random = [runs[0][metric].value for name, runs in trained.items() if name.startswith(RANDOM)]
        for name, runs in trained.items():
            if not name.startswith(RANDOM):
                kind = {TRAINED: "result", SIMULATED: "ceiling"}.get(name, "floor")
                out.append(over_seeds(metric, name, [run[metric] for run in runs], kind))
            if name == TRAINED and random:
                out.append(over_inits(metric, random, usual.number))
        out.append(Score(metric, MOST_FREQUENT, usual.value, usual.half, count=usual.number, kind="floor"))
        if metric in chance:
            out.append(Score(metric, CHANCE, chance[metric].value, count=usual.number, kind="floor"))
    return out


def over_seeds(metric: str, row: str, runs: Sequence[Measured], kind: str) -> Score:
    """The mean of several training runs. Its interval: see Aloe."""
    values = np.array([run.value for run in runs])
    among = student(len(values)) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    scenes = float(np.mean([run.half for run in runs]))
    return Score(metric, row, float(values.mean()), float(np.hypot(among, scenes)), count=runs[0].number, kind=kind)


def by_seed(trained: Mapping[str, list[dict[str, Measured]]]) -> list[str]:
    """The overall accuracy of each training, and a remark where intervals say nothing of other training runs."""
    metric = "overall/questions"
    notes = [
        f"{metric} of each training, {name}: {', '.join(f'{run[metric].value:.3f}' for run in runs)}"
        for name, runs in trained.items()
    ]
    if all(len(runs) == 1 for runs in trained.values()):
        notes.append("one training of each row: its interval is over scenes only")
    return notes
