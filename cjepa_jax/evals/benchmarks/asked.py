"""Questions about scenes as items to be answered, open and multiple choice, and their accuracies by type."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.evals.base import Scenes, require
from cjepa_jax.evals.benchmarks import clevrer
from cjepa_jax.evals.benchmarks.language_head import Items, share

MOST_ANSWERS = 4096  # of open questions. CLEVRER has 21


class Measured(NamedTuple):
    """An accuracy, half of its 95 % interval over scenes, and the number of questions or options."""

    value: float
    half: float
    number: int


def items_of(scenes: Scenes, split: str, protocol: str) -> Items:
    """Each open question, and each option of the others, in the order of the scenes. An option has two texts.

    Raises ConfigError for scenes without questions, for a question in another format, and for one without its answer.
    """
    source: Any = scenes.source
    rows: list[tuple] = []
    number = 0
    for place, scene in enumerate(scenes.arrays["scene"].tolist()):
        for question in source.questions(scene):
            check(question, scene, split, protocol)
            text, kind = question["question"], question["question_type"].lower()
            if "choices" not in question:
                rows.append((place, (text,), kind, question["answer"], question, number))
            for option in question.get("choices", []):
                rows.append((place, (text, option["choice"]), kind, option["answer"], question, number))
            number += 1
    require(bool(rows), protocol, f"questions about the scenes, and the split {split!r} has none")
    return Items.of(rows)


def check(question: Any, scene: int, split: str, protocol: str) -> None:
    """Raises ConfigError, in one line, for a question that is not in CLEVRER's or CRAFT's format or has no answer."""
    known = clevrer.is_question(question) or (
        isinstance(question, dict)
        and "choices" not in question
        and all(isinstance(question.get(name), str) for name in ("question", "question_type"))
    )
    require(known, protocol, f"questions with a text, a type and perhaps choices. Scene {scene} has {question}"[:200])
    parts = question.get("choices", [question])
    missing = f"answers, of which the split {split!r} has none: score another split, such as evals.test_split=eval"
    require(any("answer" in part for part in parts), protocol, missing)
    good = all(
        part.get("answer") in clevrer.RIGHT if "choice" in part else isinstance(part.get("answer"), str)
        for part in parts
    )
    require(good, protocol, f'answers in words, "correct" or "wrong" for choices. Scene {scene} has {question}'[:200])


def is_choice(items: Items) -> np.ndarray:
    """Which items are options of multiple-choice questions, bool [Q]."""
    return np.array([len(texts) == 2 for texts in items.texts])


def measured(items: Items, right: np.ndarray) -> dict[str, Measured]:
    """Accuracies of answers, of which `right`, bool [Q], are right.

    "TYPE" of open questions, "TYPE/options" and "TYPE/questions" of the others: a question is right if each of its
    options is. "overall/questions" is the share of all questions, "overall/types" the mean of the types per question.
    """
    place = np.unique(items.number, return_inverse=True)[1]
    return _by_type(items, right, np.bincount(place, ~right) == 0)


def chance(items: Items) -> dict[str, Measured]:
    """The expected accuracies of evenly drawn answers, as `measured`. {} if an open question has no `answer_set`."""
    one = np.where(is_choice(items), 1 / 2, [_share(question.get("answer_set")) for question in items.source])
    if not one.all():
        return {}
    place = np.unique(items.number, return_inverse=True)[1]
    return _by_type(items, one, np.exp(np.bincount(place, np.log(one))))


def _share(answers: Any) -> float:
    """1 over their number, 0 if this is not a list of answers."""
    return 1 / len(answers) if isinstance(answers, list | tuple) and answers else 0.0


def _by_type(items: Items, right: np.ndarray, whole: np.ndarray) -> dict[str, Measured]:
    """`measured` of how right each item is, [Q], and each question."""
    choice, out = is_choice(items), {}
    first = np.unique(items.number, return_index=True)[1]
    kind, scene, multiple = items.kind[first], items.row[first], choice[first]
    every = np.full(len(first), True)
    for name, where, group in (("questions", every, None), ("types", every, kind)):
        out[f"overall/{name}"] = Measured(*share(whole[where], scene[where], group), int(where.sum()))
    for name in np.unique(kind).tolist():
        for several in (False, True):
            where = (kind == name) & (multiple == several)
            if where.any():
                metric = f"{name}/questions" if several else name
                out[metric] = Measured(*share(whole[where], scene[where]), int(where.sum()))
        where = (items.kind == name) & choice
        if where.any():
            out[f"{name}/options"] = Measured(*share(right[where], items.row[where]), int(where.sum()))
    return out


def answers_of(items: Items) -> list[str]:
    """The answers of open questions, in the order of their characters."""
    choice = is_choice(items)
    return sorted(set(items.answer[~choice].tolist()))


def texts_of(items: Iterable[tuple[str, ...]]) -> list[str]:
    """All texts, of questions and of options."""
    return [text for texts in items for text in texts]
