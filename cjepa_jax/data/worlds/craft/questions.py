"""Questions about Craft's scenes in CRAFT's five types, answered by simulation, balanced so that no word helps.

Two objects are alike if they have the same size and shape: they differ by colour, which is drawn at random and changes
nothing that happens. A question is only asked beside its rivals, those of the same scene and template in which every
object is alike and whose answers differ: one of the different answers is drawn with equal chances, then one of the
rivals that have it. So every answer of `answer_set` is equally likely whatever the question's words and the template
are, and at any option of the world. Where there is no rival, nothing is asked.

What is asked (A: the object that is thought away, B: the other one; an event is to enter the basket, which is to be in
it at the end, or to touch the ground at any time, asked only of objects that don't begin on it):

descriptive     how many of some objects enter, how many moving objects B touches, how many end in a half of the view;
                the colour or shape of the first moving object that B touches; whether B's event happens; whether B
                enters before C does
counterfactual  whether B's event happens, how many others enter, if A is removed. Rivals agree in what happens as it
                is, and one of the answers is just that: to copy what is seen is right half of the time
cause           B is at rest at the start, its event happens, and doesn't if A is removed
enable          B moves at the start, its event happens, and doesn't if A is removed
prevent         B's event doesn't happen, and does if A is removed

Questions about cause, enable, prevent presuppose all but the last clause, so that the seen outcome says nothing; their
counts ask how many objects B there are. At rest: the velocity in frame 0 is 0, which only what stands on something has.
The definitions are those of CRAFT (Ates et al., Findings of ACL 2022, after the theory of force dynamics).
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.data.worlds.craft.facts import EVENTS, Facts


class Candidate(NamedTuple):
    """A question that could be asked, and what makes it a rival of others."""

    question_type: str
    template: str
    key: tuple  # equal for rivals: the words but for colours, and what is seen to happen where that is a hint
    question: str
    answer: str
    objects: tuple[int, ...]  # as they are named
    removed: int = -1
    asked: int = -1
    copy: str | None = None  # the answer that what is seen suggests, which must then be a possible one


def draw(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One question per template that the scene has rivals for: dictionaries with question, answer, question_type,
    template, answer_set (sorted), and as object numbers: removed and asked (-1: none), objects (all that are named)."""
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
    """One of a group of rivals, by answer."""
    answers, copy = sorted(group), next(iter(group.values()))[0].copy
    if copy is not None:
        others = [answer for answer in answers if answer != copy]
        answers = sorted([copy, others[rng.integers(len(others))]])
    same = group[answers[rng.integers(len(answers))]]
    return form(same[rng.integers(len(same))], answers)


def form(chosen: Candidate, answers: list[str]) -> dict[str, Any]:
    """The question as it is given out."""
    fields = chosen._asdict()
    return {name: fields[name] for name in fields if name not in ("key", "copy")} | {"answer_set": answers}


def colours(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The question for a colour needs no rivals: each colour that is not named is equally likely (nearly, where some
    are held out for some shapes)."""
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
    """The moving object that k touches first; -1 if there is none, or two at once."""
    row = facts.touched[k]
    return row[0][1] if row and (len(row) == 1 or row[0][0] < row[1][0]) else -1


def candidates(facts: Facts) -> Iterator[Candidate]:
    """All questions that could be asked, but for colours."""
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
    """Cause, enable and prevent."""
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
