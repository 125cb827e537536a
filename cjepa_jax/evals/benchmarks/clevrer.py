"""CLEVRER's scores: question heads on frozen features, for open and for multiple-choice questions.

K. Yi et al., "CLEVRER: Collision Events for Video Representation and Reasoning", ICLR 2020, section 5.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax.evals.base import Bench, Result, Scenes, Score, require
from cjepa_jax.evals.benchmarks import language_head
from cjepa_jax.evals.benchmarks.language_head import Items, Judged, Reader

OPEN, CHOICE = "descriptive", ("explanatory", "predictive", "counterfactual")
RIGHT = ("correct", "wrong")


@dataclasses.dataclass(frozen=True)
class Clevrer:
    """Accuracy (0..1) by type of question.

    Two heads are fitted on frozen features. One answers a descriptive question with one of the answers of the fitting
    set. The other judges each option of a multiple-choice question (explanatory, predictive, counterfactual)
    separately, from the words of question and option. Features are the mean tokens of `parts` successive segments of
    the clip, concatenated, so that they show the order of events. language_head.Reader describes the inputs of the
    heads "linear" and "mlp", including products of features and words.

    Metrics of each head:
      "HEAD/descriptive": the share of correct answers.
      "HEAD/TYPE/options": the share of options that are judged correctly.
      "HEAD/TYPE/questions": the share of questions of which every option is judged correctly.
      "HEAD/overall/questions": accuracy over all questions. Most of them are descriptive. The published C-JEPA's code
        averages in this way.
      "HEAD/overall/types": the mean of the four types' accuracies per question, as in many papers.

    Floors are the question alone, the most frequent answer of each type (for options: the most frequent verdict), and
    pixel PCA. The ceiling is the true states of all objects at four moments. Intervals are over scenes. The published
    test split has no answers, so the validation split is scored.

    heads, components, parts, steps: as in evals/benchmarks/craft.py.
    Raises: ConfigError for options outside their limits.
    """

    heads: tuple[str, ...] = language_head.HEADS
    components: int = 24
    parts: int = 3
    steps: int = 1000

    def __post_init__(self):
        language_head.check_options(self)

    def run(self, bench: Bench) -> Result:
        """Raises ConfigError for data without clips, or without CLEVRER's questions and their answers."""
        language_head.check_data(bench, "Clevrer")
        for split, count in ((bench.fit_split, bench.fit), (bench.test_split, bench.test)):
            check_answers(bench.source(split, count), split)
        (fit_open, fit_choice), (test_open, test_choice) = (items_of(s) for s in (bench.fitting, bench.testing))
        features = language_head.of_scenes(bench, self.parts)
        asked = []  # for descriptive questions, then for options: a reader, its rows and the most frequent answer
        for fit, test in ((fit_open, test_open), (fit_choice, test_choice)):
            reader = Reader(fit, test, self.components, self.steps, bench.seed)
            asked.append(
                (reader, language_head.of_items(bench, features, fit, test), language_head.most_frequent(fit, test))
            )
        scores = []
        for head in self.heads:
            judged = [[*(reader(head, row) for row in rows), frequent] for reader, rows, frequent in asked]
            scores += tables(head, *judged, test_open, test_choice)
        notes = [
            f"{len(fit_open.row)} descriptive questions and {len(fit_choice.row)} options about "
            f"{len(bench.fitting.arrays['scene'])} scenes are fitted",
            *language_head.about_windows(bench),
        ]
        return Result(scores, notes=notes)


def tables(head: str, opened: list[Judged], chosen: list[Judged], test_open: Items, test_choice: Items) -> list[Score]:
    """One head's scores. `opened` and `chosen` say which descriptive questions and options each row gets right."""
    number, first = np.unique(test_choice.number, return_index=True)
    place = np.searchsorted(number, test_choice.number)
    kinds, scenes = test_choice.kind[first], test_choice.row[first]
    questions = [  # a question is right if none of its options is judged wrong
        Judged(name, kind, np.bincount(place, ~right, len(number)) == 0) for name, kind, right in chosen
    ]
    every = [Judged(*a[:2], np.concatenate([a.right, b.right])) for a, b in zip(opened, questions, strict=True)]
    kind, scene = np.concatenate([test_open.kind, kinds]), np.concatenate([test_open.row, scenes])
    out = language_head.scores(f"{head}/overall/questions", every, scene, np.full(len(kind), True))
    out += language_head.scores(f"{head}/overall/types", every, scene, np.full(len(kind), True), kind)
    out += language_head.scores(f"{head}/{OPEN}", opened, test_open.row, np.full(len(test_open.row), True))
    for name in sorted(set(kinds)):
        out += language_head.scores(f"{head}/{name}/options", chosen, test_choice.row, test_choice.kind == name)
        out += language_head.scores(f"{head}/{name}/questions", questions, scenes, kinds == name)
    return out


def check_answers(source: Any, split: str) -> None:
    """Raises ConfigError if the first scene's questions are not CLEVRER's, or have no answers."""
    for question in source.questions(0):
        known = question.get("question_type") in (OPEN, *CHOICE)
        require(known and is_question(question), "Clevrer", f"CLEVRER's questions, not such as {question}"[:160])
        given = [question] if question["question_type"] == OPEN else question["choices"]
        missing = (
            f"answers, of which the split {split!r} has none: score on the validation split, evals.test_split=eval"
        )
        require(all("answer" in part for part in given), "Clevrer", missing)


def items_of(scenes: Scenes) -> tuple[Items, Items]:
    """All descriptive questions, and all options of the others.

    Raises ConfigError if either kind is missing, or if a question does not have the published format.
    """
    rows: tuple[list, list] = [], []
    number = 0
    for place, scene in enumerate(scenes.arrays["scene"].tolist()):
        for question in scenes.source.questions(scene):
            answered = is_question(question) and all(
                given.get("answer") in RIGHT if "choice" in given else isinstance(given.get("answer"), str)
                for given in question.get("choices", [question])
            )
            require(answered, "Clevrer", f"CLEVRER's questions with answers. Scene {scene} has {question}"[:200])
            text, kind = question["question"], question["question_type"]
            if kind == OPEN:
                rows[0].append((place, (text,), kind, question["answer"], question, number))
            for option in question.get("choices", []):
                rows[1].append((place, (text, option["choice"]), kind, option["answer"], question, number))
            number += 1
    missing = "both descriptive and multiple-choice questions about its scenes"
    require(all(rows), "Clevrer", missing)
    return Items.of(rows[0]), Items.of(rows[1])


def is_question(question: Any) -> bool:
    """Whether it has all fields of a question of its type. Answers are not checked."""
    if not isinstance(question, Mapping) or not isinstance(question.get("question"), str):
        return False
    if question.get("question_type") == OPEN:
        return "choices" not in question
    options = question.get("choices")
    listed = question.get("question_type") in CHOICE and isinstance(options, list) and bool(options)
    return listed and all(isinstance(o, Mapping) and isinstance(o.get("choice"), str) for o in options)
