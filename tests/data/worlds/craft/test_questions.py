"""Craft's questions: right by simulation, repeatable, and of no use without the scene."""

import collections
import functools
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from cjepa_jax.data.worlds import Craft
from cjepa_jax.data.worlds.craft import questions
from cjepa_jax.data.worlds.craft.facts import entries
from cjepa_jax.data.worlds.craft.world import ENTERS, PALETTE, TOUCHES_GROUND

TYPES = ("descriptive", "counterfactual", "cause", "enable", "prevent")
MARGIN = 0.02  # allowed above what chance explains


@pytest.fixture(scope="module")
def asked() -> list[list[dict]]:
    world = Craft(size=8, frames=16)
    return [world.questions(i) for i in range(25)]


def fingerprint() -> str:
    world = Craft(size=8, frames=16)
    return hashlib.sha256(json.dumps([world.questions(i) for i in (4, 0, 2)]).encode()).hexdigest()


def test_questions_have_what_is_promised(asked):
    world, kinds = Craft(), collections.Counter()
    for i, rows in enumerate(asked):
        setup = world.setup(i)
        names = world.names(setup)
        assert len({(q["question_type"], q["template"]) for q in rows}) == len(rows)
        for q in rows:
            words = {"question", "answer", "question_type", "template", "answer_set"}
            assert set(q) == words | {"removed", "asked", "objects"}
            assert q["answer"] in q["answer_set"] and len(q["answer_set"]) >= 2
            assert q["answer_set"] == sorted(set(q["answer_set"])) and q["question"].endswith("?")
            assert all(names[k] in q["question"] or names[k].split()[1] in q["question"] for k in q["objects"])
            for k in (q["removed"], q["asked"]):
                assert k == -1 or k in q["objects"]
            assert (q["removed"] >= 0) == (q["question_type"] != "descriptive")
            kinds[q["question_type"]] += 1
    assert set(kinds) == set(TYPES) and kinds.total() > 6 * len(asked)


def test_same_questions_in_fresh_processes():
    code = "from tests.data.worlds.craft.test_questions import fingerprint; print(fingerprint())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fingerprint()


def test_an_image_has_nothing_to_ask_of_what_moves():
    assert all(q["template"] == "count/side" for i in range(5) for q in Craft(size=8, frames=1).questions(i))


def test_the_frame_of_entry_is_the_first_from_which_it_stays():
    within = np.array([[1, 0, 0, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 0]], bool)
    assert entries(within).tolist() == [0, 2, 1, 2, np.inf]
    assert entries(within[:1]).tolist() == [0, np.inf, np.inf, 0, 0]


@functools.cache
def rollout(world: Craft, i: int, removed: int) -> dict[str, np.ndarray]:
    return world.rollout(i, np.arange(len(world.setup(i).role)) == removed)


def happens(world: Craft, i: int, template: str, removed: int) -> np.ndarray:
    """Which objects take part in the event, by the events that a rollout shows."""
    scene = rollout(world, i, removed)
    events, count = scene["events"], scene["states"].shape[1]
    kind = ENTERS if template.endswith("basket") or template == "count" else TOUCHES_GROUND
    return np.isin(np.arange(count), events[events[:, 1] == kind, 2])


def test_answers_are_what_rollouts_show(asked):
    """Written from the definitions, from what scenes yield, for every type."""
    world, checked = Craft(size=8, frames=16), collections.Counter()
    for i, rows in enumerate(asked):
        scene, setup = world[i], world.setup(i)
        rest = (scene["states"][0, :, 4:6] == 0).all(1)
        for q in rows:
            kind, template, a, b = q["question_type"], q["template"], q["removed"], q["asked"]
            if kind == "descriptive":
                answer = describe(world, scene, setup, q)
            else:
                seen, other = happens(world, i, template, -1), happens(world, i, template, a)
                if kind == "counterfactual":
                    wanted = other
                elif kind == "prevent":
                    wanted = ~seen & other
                else:
                    wanted = seen & ~other & (rest if kind == "cause" else ~rest)
                    assert b < 0 or seen[b]
                assert kind != "prevent" or b < 0 or not seen[b]
                others = (setup.role < 0) & (np.arange(len(rest)) != a)
                answer = str((wanted & others & ~started_low(scene, template)).sum())
                if b >= 0:
                    answer = "yes" if wanted[b] else "no"
            assert q["answer"] == answer, (i, q)
            checked[kind] += 1
    assert all(checked[kind] >= 3 for kind in TYPES), checked


def started_low(scene: dict, template: str) -> np.ndarray:
    events = scene["events"]
    first = events[(events[:, 1] == TOUCHES_GROUND) & (events[:, 0] < 1), 2]
    return np.isin(np.arange(scene["states"].shape[1]), first) & template.endswith("ground")


def describe(world: Craft, scene: dict, setup, q: dict) -> str:
    movers, hues = setup.role < 0, [list(PALETTE)[h] for h in setup.hue]
    entry = {int(k): time for time, kind, k in scene["events"] if kind == ENTERS}
    met = [(time, int(a + b - q["asked"])) for time, _, a, b in scene["contacts"] if q["asked"] in (a, b) and b >= 0]
    met = [(time, k) for time, k in met if movers[k]]
    match q["template"]:
        case "event/basket":
            return "yes" if q["asked"] in entry else "no"
        case "event/ground":
            ground = scene["events"][scene["events"][:, 1] == TOUCHES_GROUND, 2]
            return "yes" if q["asked"] in ground else "no"
        case "order/basket":
            return "yes" if entry[q["objects"][0]] < entry[q["objects"][1]] else "no"
        case "count/basket":
            return str(sum(hues[k] in q["question"] for k in entry))
        case "count/touch":
            return str(len({k for _, k in met}))
        case "count/side":
            left = scene["states"][-1, movers, 1] < 0.5
            return str((left if "left" in q["question"] else ~left).sum())
        case "colour/touch":
            return hues[met[0][1]]
        case "shape/touch":
            return world.names(setup)[met[0][1]].split()[2]
    raise AssertionError(q["template"])


def test_rivals_are_alike_in_everything_but_colour():
    """The question with the other answer exists in the same scene, and differs in colours only."""
    world, pairs = Craft(size=8, frames=16), 0
    for i in range(10):
        facts = world.facts(world.setup(i))
        groups = collections.defaultdict(set)
        for c in questions.candidates(facts):
            free = [*PALETTE, "left", "right"] if c.template == "count/side" else PALETTE
            words = [word for word in c.question.replace(",", "").split() if word not in free]
            groups[c.question_type, c.template, c.key, c.copy].add(" ".join(words))
        assert all(len(texts) == 1 for texts in groups.values()), groups
        pairs += len(groups)
    assert pairs > 100


def grams(q: dict) -> list[str]:
    words = q["question"].rstrip("?").replace(",", "").lower().split()
    return [q["template"], *words, *(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))]


class Blind:
    """Naive Bayes over single words, pairs of words and the template, for each template. It never sees a scene."""

    def __init__(self, train: list[dict]):
        self.words = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
        self.prior = collections.defaultdict(collections.Counter)
        for q in train:
            topic = (q["question_type"], q["template"])
            self.prior[topic][q["answer"]] += 1
            self.words[topic][q["answer"]].update(grams(q))

    def answer(self, q: dict) -> str:
        topic = (q["question_type"], q["template"])
        counts, prior = self.words[topic], self.prior[topic]
        sizes = {a: counts[a].total() + 200 for a in q["answer_set"]}
        scores = {a: np.log(prior[a] + 1) + sum(np.log((counts[a][g] + 1) / sizes[a]) for g in grams(q))
                  for a in q["answer_set"]}  # fmt: skip
        return max(q["answer_set"], key=lambda a: (scores[a], a))


def excess(train: list[dict], test: list[dict], kind: str) -> tuple[float, float]:
    """How far the blind answers of a type are over chance, and the bound of what chance explains (95 %)."""
    blind, rows = Blind(train), [q for q in test if q["question_type"] == kind]
    chance = np.array([1 / len(q["answer_set"]) for q in rows])
    right = np.mean([blind.answer(q) == q["answer"] for q in rows])
    return right - chance.mean(), 1.96 * (chance * (1 - chance)).sum() ** 0.5 / len(rows)


def leaky(facts: questions.Facts, rng: np.random.Generator) -> list[dict]:
    """As questions.draw, but without rivals: any candidate of a template."""
    topics = collections.defaultdict(list)
    for c in questions.candidates(facts):
        if c.answer in ("yes", "no"):
            topics[c.question_type, c.template].append(c)
    return [questions.form(rows[rng.integers(len(rows))], ["no", "yes"]) for rows in topics.values()]


@pytest.mark.slow
def test_without_the_scene_the_questions_cannot_be_answered():
    """A question-only baseline stays at chance, and copying what is seen is right half of the time. On a set without
    rivals the same baseline is far over chance."""
    sets, copied = {}, collections.defaultdict(list)
    for split, count in (("train", 700), ("eval", 500)):
        world = Craft(size=8, frames=16, split=split)
        fair, unfair = [], []
        for i in range(count):
            facts = world.facts(world.setup(i))
            rows = world.questions_of(facts, i)
            for q in rows:
                if (seen := seen_answer(facts, q)) is not None:
                    copied[q["question_type"]].append(q["answer"] == seen)
            fair += rows
            unfair += leaky(facts, np.random.default_rng([7, i]))
        sets[split] = fair, unfair
    for kind in TYPES:
        over, bound = excess(sets["train"][0], sets["eval"][0], kind)
        assert over <= bound + MARGIN, f"{kind}: {over:.3f} over chance"
        over, bound = excess(sets["train"][1], sets["eval"][1], kind)
        assert over > bound + MARGIN, f"{kind}: not detected, {over:.3f}"
    assert set(copied) == set(TYPES[1:])
    for kind, rows in copied.items():
        assert abs(np.mean(rows) - 0.5) <= 1.96 * 0.5 / len(rows) ** 0.5 + MARGIN, kind


def seen_answer(facts: questions.Facts, q: dict) -> str | None:
    """What the unchanged scene suggests: that its outcome stays, or that what happens is caused (what doesn't,
    prevented). None where it suggests nothing."""
    if q["question_type"] == "descriptive" or q["asked"] < 0:
        return None
    happens = facts.happens[q["template"]][0, q["asked"]]
    return "yes" if happens != (q["question_type"] == "prevent") else "no"
