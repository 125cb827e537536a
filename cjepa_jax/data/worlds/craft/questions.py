"""Questions about Craft's scenes in CRAFT's five types, answered by simulation. The words do not predict the answer.

Two objects are alike if they have the same size and shape. They differ by colour, which is random and has no effect on
the simulation. The rivals of a question are questions of the same scene and template about alike objects. A question
is asked only if its rivals include different answers. One of these answers is drawn with equal probabilities, then one
of the rivals that have it. So every answer of `answer_set` is equally likely given the question's words and template,
with any options of the world.

In the list, A is the removed object and B another object. There are two events. To enter the basket means to be in it
at the end. To touch the ground counts at any time, and is asked only of objects that do not start on the ground.

descriptive     How many of some objects enter? How many moving objects does B touch? How many moving objects end in
                one half of the view? What is the colour or shape of the first moving object that B touches? Does B's
                event happen? Does B enter before C?
counterfactual  If A is removed, does B's event happen, or how many others enter? Rivals have the same outcome in the
                original scene, and that outcome is one of the two answers. So copying it is right half of the time.
cause           B is at rest at the start. Its event happens, but does not happen if A is removed.
enable          B moves at the start. Its event happens, but does not happen if A is removed.
prevent         B's event does not happen, but happens if A is removed.

For cause, enable and prevent, only B that fulfil all conditions but the last are asked about. So the outcome in the
original scene gives no information. Questions with counts ask for the number of such objects B. At rest means velocity
0 in frame 0, which only supported objects have. The definitions are those of CRAFT (Ates et al., Findings of ACL 2022),
which follow the theory of force dynamics.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.data.worlds.craft.facts import EVENTS, Facts


class Candidate(NamedTuple):
    """A possible question, and the fields that decide which questions are its rivals."""

    question_type: str
    template: str
    key: tuple  # equal for rivals: the words without colours
    question: str
    answer: str
    objects: tuple[int, ...]  # in the order in which the question names them
    removed: int = -1
    asked: int = -1
    copy: str | None = None  # the answer in the original scene. It is equal for rivals, and one of them must have it.


def draw(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One question for each template for which the scene has rivals.

    Returns: dictionaries with question, answer, question_type, template, answer_set (sorted), and object numbers:
    removed and asked (-1: none), objects (all that the question names).
    """
    rivals: dict[tuple, dict[tuple, dict[str, list[Candidate]]]] = {}
    for c in candidates(facts):
        groups = rivals.setdefault((c.question_type, c.template), {})
        groups.setdefault((*c.key, c.copy), {}).setdefault(c.answer, []).append(c)
    result = []
    for groups in rivals.values():
        fit = [g for key, g in groups.items() if len(g) > 1 and (key[-1] is None or key[-1] in g)]
        if fit:
            result.append(ask(fit[rng.integers(len(fit))], rng))
    return result + colours(facts, rng)


def ask(group: dict[str, list[Candidate]], rng: np.random.Generator) -> dict[str, Any]:
    """Draws an answer from a group of rivals (by answer), then a question that has it."""
    answers, copy = sorted(group), next(iter(group.values()))[0].copy
    if copy is not None:
        others = [answer for answer in answers if answer != copy]
        answers = sorted([copy, others[rng.integers(len(others))]])
    same = group[answers[rng.integers(len(answers))]]
    return form(same[rng.integers(len(same))], answers)


def form(chosen: Candidate, answers: list[str]) -> dict[str, Any]:
    """The fields of a question that are returned to the user."""
    fields = chosen._asdict()
    return {name: fields[name] for name in fields if name not in ("key", "copy")} | {"answer_set": answers}


def colours(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The question about a colour. It needs no rivals, because each colour that is not named is equally likely.

    With held-out colours for some shapes this is approximately true.
    """
    known = [k for k in facts.movers if first_touched(facts, k) >= 0]
    answers = {k: facts.names[k].split()[1] for k in facts.movers}
    if not known or len(facts.movers) < 3:
        return []
    b = known[rng.integers(len(known))]
    text = f"What colour is the first moving object that the {facts.names[b]} touches?"
    answer = answers.pop(b) and answers[first_touched(facts, b)]
    chosen = Candidate(
        question_type="descriptive",
        template="colour/touch",
        key=(),
        question=text,
        answer=answer,
        objects=(b,),
        asked=b,
    )
    return [form(chosen, sorted(answers.values()))]


def first_touched(facts: Facts, k: int) -> int:
    """The moving object that k touches first. -1 if there is none, or if there are two at the same time."""
    row = facts.touched[k]
    return row[0][1] if row and (len(row) == 1 or row[0][0] < row[1][0]) else -1


def candidates(facts: Facts) -> Iterator[Candidate]:
    """All possible questions, except those about colours."""
    yield from descriptive(facts)
    yield from counterfactual(facts)
    yield from forces(facts)


def descriptive(facts: Facts) -> Iterator[Candidate]:
    kind, enters = "descriptive", facts.happens["basket"][0]
    for b in facts.movers:
        name, key = facts.names[b], (facts.kinds[b],)
        for event, (verb, _, where) in EVENTS.items():
            if event == "basket" or not facts.low[b]:
                text, answer = f"Does the {name} {verb} {where}?", yes(facts.happens[event][0, b])
                yield Candidate(
                    question_type=kind,
                    template=f"event/{event}",
                    key=key,
                    question=text,
                    answer=answer,
                    objects=(b,),
                    asked=b,
                )
        text, answer = f"How many moving objects does the {name} touch?", str(len(facts.touched[b]))
        yield Candidate(
            question_type=kind, template="count/touch", key=key, question=text, answer=answer, objects=(b,), asked=b
        )
        if first_touched(facts, b) >= 0:
            text = f"What shape is the first moving object that the {name} touches?"
            answer = facts.names[first_touched(facts, b)].split()[2]
            yield Candidate(
                question_type=kind, template="shape/touch", key=key, question=text, answer=answer, objects=(b,), asked=b
            )
        for c in facts.movers:
            if enters[[b, c]].all() and facts.kinds[b] == facts.kinds[c] and facts.entry[b] != facts.entry[c]:
                text = f"Does the {name} enter the basket before the {facts.names[c]} does?"
                yield Candidate(
                    question_type=kind,
                    template="order/basket",
                    key=key,
                    question=text,
                    answer=yes(facts.entry[b] < facts.entry[c]),
                    objects=(b, c),
                    asked=b,
                )
    for some in combinations(facts.movers, 3 if len(facts.movers) > 3 else 2):
        hues = [facts.names[k].split()[1] for k in some]
        text = f"How many of the {', '.join(hues[:-1])} and {hues[-1]} objects enter the basket?"
        key = tuple(sorted(facts.kinds[k] for k in some))
        yield Candidate(
            question_type=kind,
            template="count/basket",
            key=key,
            question=text,
            answer=str(enters[list(some)].sum()),
            objects=some,
        )
    for side, where in (("left", facts.left), ("right", ~facts.left)):
        text = f"How many moving objects are in the {side} half of the view at the end?"
        yield Candidate(
            question_type=kind,
            template="count/side",
            key=(),
            question=text,
            answer=str(where[facts.movers].sum()),
            objects=(),
        )


def counterfactual(facts: Facts) -> Iterator[Candidate]:
    kind = "counterfactual"
    for a, name in enumerate(facts.names):
        if a == facts.basket:
            continue
        others = [b for b in facts.movers if b != a]
        for b in others:
            key = (facts.kinds[a], facts.kinds[b])
            for event, (verb, _, where) in EVENTS.items():
                if event == "basket" or not facts.low[b]:
                    text = f"Does the {facts.names[b]} {verb} {where}, if the {name} is removed?"
                    seen, answer = (yes(facts.happens[event][row, b]) for row in (0, a + 1))
                    yield Candidate(
                        question_type=kind,
                        template=event,
                        key=key,
                        question=text,
                        answer=answer,
                        objects=(b, a),
                        removed=a,
                        asked=b,
                        copy=seen,
                    )
        seen, answer = (str(facts.happens["basket"][row, others].sum()) for row in (0, a + 1))
        text = f"How many of the other moving objects enter the basket, if the {name} is removed?"
        yield Candidate(
            question_type=kind,
            template="count",
            key=(facts.kinds[a],),
            question=text,
            answer=answer,
            objects=(a,),
            removed=a,
            asked=-1,
            copy=seen,
        )


def forces(facts: Facts) -> Iterator[Candidate]:
    """Questions of the types cause, enable and prevent."""
    for event, (verb, verbing, where) in EVENTS.items():
        happens = facts.happens[event]
        for kind in ("cause", "enable", "prevent"):
            if kind == "prevent":
                patients = ~happens[0]
            else:
                patients = happens[0] & (facts.rest if kind == "cause" else ~facts.rest)
            fit = [b for b in facts.movers if patients[b] and not (event == "ground" and facts.low[b])]
            then = f"from {verbing} {where}" if kind == "prevent" else f"to {verb} {where}"
            for a, name in enumerate(facts.names):
                if a == facts.basket:
                    continue
                needs = {b: bool(happens[a + 1, b] != happens[0, b]) for b in fit if b != a}
                for b, needed in needs.items():
                    text = f"Does the {name} {kind} the {facts.names[b]} {then}?"
                    yield Candidate(
                        question_type=kind,
                        template=event,
                        key=(facts.kinds[a], facts.kinds[b]),
                        question=text,
                        answer=yes(needed),
                        objects=(a, b),
                        removed=a,
                        asked=b,
                    )
                text = f"How many moving objects does the {name} {kind} {then}?"
                yield Candidate(
                    question_type=kind,
                    template=f"count/{event}",
                    key=(facts.kinds[a],),
                    question=text,
                    answer=str(sum(needs.values())),
                    objects=(a,),
                    removed=a,
                )


def yes(value: bool) -> str:
    return "yes" if value else "no"
