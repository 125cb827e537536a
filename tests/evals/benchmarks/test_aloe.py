"""ALOE's protocol: accuracies by hand, what each question sees, and planted answers that only the slots tell."""

import dataclasses
import functools
import itertools
from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import pytest

from cjepa_jax.configs.evals import aloe as published
from cjepa_jax.configs.evals import aloe_craft as small
from cjepa_jax.configuration import build
from cjepa_jax.data.kinds.slots import SlotMap
from cjepa_jax.data.sources.true_slots import TrueSlots
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Seen
from cjepa_jax.evals.benchmarks import aloe, asked, vision
from cjepa_jax.evals.benchmarks.aloe import Aloe
from cjepa_jax.evals.benchmarks.asked import Measured
from cjepa_jax.evals.benchmarks.language_head import Items
from cjepa_jax.evals.influence import Influence
from cjepa_jax.evals.parts import Parts
from cjepa_jax.evals.rollout import Rollout
from cjepa_jax.masks import slots as masks
from cjepa_jax.models.aloe import Aloe as Network
from cjepa_jax.objectives import aloe as training

SMALL = dict(depth=1, heads=1, head_width=12, units=16, embed=6, hidden=12, dropout=0.0)
GIVEN = dict(
    frames=6, moments=2, every=2, words=(4, 3), reader=SMALL, seeds=2, steps=150, batch=24, rate=1e-2,
    rollout=2, history=2, future=2, skip=1,
)  # fmt: skip


def choices(right=True):
    return [{"choice": f"it is {c}", "answer": "correct" if right else "wrong"} for c in ("up", "lit")]


@dataclass(frozen=True)
class Lamps:
    """Two slots. The first says whether a lamp is up, at all frames. Three questions ask for it."""

    split: str = "train"
    count: int = 32
    frames: int = 6

    kind: ClassVar[str] = "slots"
    can_rerender: ClassVar[bool] = False
    label_names: ClassVar[tuple[str, ...]] = ()
    slots: ClassVar[int] = 2
    width: ClassVar[int] = 3

    def __len__(self):
        return self.count

    def up(self, i):
        return bool(np.random.default_rng([self.split == "test", i]).integers(2))

    def __getitem__(self, i):
        noise = np.random.default_rng([9, self.split == "test", i]).normal(0, 0.1, (self.frames, 1, 2, 3))
        noise[:, 0, 0, 0] += 2 * self.up(i) - 1
        return {"video": noise.astype(np.float32)}

    def questions(self, i):
        return [
            {"question": "Is it up?", "question_type": "descriptive", "answer": "yes" if self.up(i) else "no"},
            {"question": "What is it?", "question_type": "predictive", "choices": choices(self.up(i))},
            {"question": "What if?", "question_type": "counterfactual", "choices": choices(self.up(i))},
        ]


def model_of(name, value):
    """It predicts `value` everywhere."""
    return Model(name, lambda video: video, lambda h: Seen(None, np.full((*h.context.shape, 3), value, "f4"), None))


def bench_of(source, models=(0.5,)):
    mask = functools.partial(masks.draw, history=2)

    def prepare(of):
        return SlotMap(of, mask, 1, 1, size=64, max_objects=9, intervened="none", seed=0, frames=of.frames)

    named = [model_of(f"{RANDOM} {n}" if n else TRAINED, value) for n, value in enumerate(models)]
    make = functools.lru_cache(lambda split, count: dataclasses.replace(source, split=split, count=count or 8))
    return Bench(named[0], tuple(named[1:]), make, prepare, "train", 32, "test", 24, batch=8, seed=5, rate=1)


def values(result):
    return {(score.metric, score.row): score.value for score in result.scores}


def test_options_and_questions_are_counted_apart():
    """Descriptive: 1 of 2. One predictive question, of two options that are right. Two others with one right option."""
    kind = ["descriptive"] * 2 + ["predictive"] * 2 + ["explanatory"] * 4
    texts = [("q",)] * 2 + [("q", "c")] * 6
    number, row = np.array([0, 1, 2, 2, 3, 3, 4, 4]), np.array([0, 1, 0, 0, 1, 1, 1, 1])
    items = Items(row, texts, np.array(kind), np.array(["x"] * 8), [{}] * 8, number)
    found = asked.measured(items, np.array([1, 0, 1, 1, 1, 0, 0, 1], bool))
    assert {name: (m.value, m.number) for name, m in found.items()} == {
        "descriptive": (1 / 2, 2), "predictive/questions": (1, 1), "predictive/options": (1, 2),
        "explanatory/questions": (0, 2), "explanatory/options": (1 / 2, 4),
        "overall/questions": (2 / 5, 5), "overall/types": ((1 / 2 + 1 + 0) / 3, 5),
    }  # fmt: skip


def test_chance_is_the_share_of_one_answer_and_of_all_options_of_a_question():
    texts = [("q",)] * 2 + [("q", "c")] * 3
    number, source = np.array([0, 1, 2, 2, 3]), [{"answer_set": list("abcd")}, {"answer_set": ("a", "b")}, {}, {}, {}]
    items = Items(
        number, texts, np.array(["descriptive"] * 2 + ["predictive"] * 3), np.array(["x"] * 5), source, number
    )
    found = {name: m.value for name, m in asked.chance(items).items()}
    assert found == pytest.approx(
        {
            "descriptive": (1 / 4 + 1 / 2) / 2, "predictive/questions": (1 / 4 + 1 / 2) / 2,
            "predictive/options": 1 / 2, "overall/questions": (1 / 4 + 1 / 2) / 2, "overall/types": 3 / 8,
        }
    )  # fmt: skip
    for strange in ({}, {"answer_set": []}, {"answer_set": 3}):
        assert asked.chance(items._replace(source=[strange, *source[1:]])) == {}


def test_the_interval_has_the_spread_of_trainings_and_of_scenes():
    runs = [Measured(v, 0.03, 10) for v in (0.4, 0.5, 0.6)]
    found = aloe.over_seeds("m", TRAINED, runs, "result")
    assert found.value == pytest.approx(0.5)
    assert found.interval == pytest.approx(np.hypot(4.302653 * 0.1 / np.sqrt(3), 0.03))
    assert aloe.over_seeds("m", TRAINED, runs[:1], "result").interval == pytest.approx(0.03)
    said = "one training of each row: its interval is over scenes only"
    for count, notes in ((1, [said]), (2, [])):
        assert aloe.by_seed({TRAINED: [{"overall/questions": run} for run in runs[:count]]})[1:] == notes


@pytest.fixture(scope="module")
def result():
    """Without rollouts, and again the first row alone."""
    return [Aloe(**GIVEN, rolled=(), **more).run(bench_of(Lamps())) for more in ({}, dict(rows=()))]


def test_it_reads_answers_from_the_slots_and_none_from_the_words_and_gives_the_same_numbers_twice(result):
    found = values(result[0])
    kinds = ("descriptive", "predictive/options", "predictive/questions", "counterfactual/questions")
    assert {found[kind, TRAINED] for kind in (*kinds, "overall/questions", "overall/types")} == {1.0}
    for kind in kinds:
        assert found[kind, "question only"] < 0.8 and found[kind, "most frequent"] < 0.8
    assert {row for _, row in found} == {TRAINED, "question only", "most frequent"}
    assert [score for score in result[0].scores if score.row in (TRAINED, "most frequent")] == result[1].scores
    assert "no question's slots depend on the model: all are the encoder's" in result[0].notes


def test_a_protocol_that_was_stopped_resumes_with_the_next_training(result, tmp_path, monkeypatch):
    bench = dataclasses.replace(bench_of(Lamps()), parts=Parts(tmp_path, {}))
    protocol, learn, calls = Aloe(**GIVEN, rolled=()), training.learn, []

    def counted(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return learn(*given)

    monkeypatch.setattr(training, "learn", counted)
    with pytest.raises(KeyboardInterrupt):
        protocol.run(bench)
    assert protocol.run(bench) == result[0] and len(calls) == 5
    assert dataclasses.replace(protocol, rows=()).run(bench) == result[1] and len(calls) == 5
    dataclasses.replace(protocol, rows=(), seeds=1, every=1).run(bench)
    assert len(calls) == 6, "other frames are another training"


def test_rollouts_reach_the_questions_that_are_rolled_and_no_others():
    """The published pair: whichever model predicts, the input of a counterfactual question has the same bits."""
    found = Aloe(**GIVEN | dict(steps=1, seeds=1), rolled=("predictive",)).run(bench_of(Lamps(), (0.5, 3.0)))
    assert {row for _, row in values(found)} == {
        TRAINED, RANDOM, "observed slots", "question only", "most frequent",
    }  # fmt: skip
    same = "the encoder's slots, identical to the bit for every model"
    assert f"counterfactual: {same}" in found.notes and f"descriptive: {same}" in found.notes
    assert "predictive: rollouts of the model in 48 of 48 test items, the rest the encoder's slots" in found.notes
    plan, given = vision.Plan(("predictive",), 2, (), 2, 2, 1), bench_of(Lamps())
    scenes = Aloe(**GIVEN)._clips(given, "test", 6)
    items = asked.items_of(scenes, "test", "Aloe")
    observed = vision.Inputs.of(scenes, items)
    one, other = (plan.inputs(scenes, items, observed, vision.Foreseen(model_of("m", v), plan)) for v in (0.5, 3.0))
    for kind in ("descriptive", "counterfactual"):
        where = np.flatnonzero(items.kind == kind)
        assert vision.identical(one, other, where) == len(where)
    where = np.flatnonzero(items.kind == "predictive")
    assert vision.identical(one, other, where) == 0
    clips = whole(one, where)  # the clip moved on by 2 frames, of which the last are predicted
    np.testing.assert_array_equal(clips[:, :4], whole(observed, where)[:, 2:])
    assert (clips[:, 4:] == 0.5).all()


def test_rollouts_of_other_lengths_than_the_run_s_are_refused():
    given, protocols = bench_of(Lamps()), (Aloe(**GIVEN, rolled=("predictive",)), Rollout(2, 2), Influence(2, 2))
    for protocol, name in [*itertools.product(protocols, ("history", "future")), (protocols[0], "skip")]:
        own = getattr(protocol, name)
        bench = dataclasses.replace(given, lengths=dict(history=2, future=2, skip=1) | {name: own + 1})
        said = f"{type(protocol).__name__.lower()}.{name} = {own}: must be the run's {name}, {own + 1}$"
        with pytest.raises(ConfigError, match=said):
            protocol.run(bench)


def whole(inputs, where):
    """The clips of the items `where`."""
    frames = np.broadcast_to(np.arange(inputs.clips.shape[1]), (len(where), inputs.clips.shape[1]))
    clips = inputs.frames(where, frames)
    np.testing.assert_array_equal(clips, [inputs.clip(row) for row in inputs.row[where]])
    return clips


class Echo:
    """Predicts the last frame that it sees, plus the number of slots that are there."""

    @staticmethod
    def hide(hidden):
        batch, frames, _, slots, width = hidden.video.shape
        seen = hidden.context.reshape(batch, frames, slots).any(2)
        last = np.array([v[np.flatnonzero(s)[-1], 0] for v, s in zip(hidden.video, seen, strict=True)])
        there = hidden.object_patches.any(2).sum(1)
        made = np.repeat((last + there[:, None, None])[:, None], frames, 1)
        return Seen(None, made.reshape(batch, -1, width), None)


def craft(**fields):
    """The world of Lamps has no removals: slots of true states have."""
    options = dict(of="cjepa_jax.data.worlds:Craft", slots=9, frames=6, count=6, seed=1)
    return TrueSlots(**options | fields)


@pytest.fixture(scope="module")
def removing():
    """(plan, scenes, items, observed) of a simulated world whose questions name what is removed."""
    protocol = Aloe(**GIVEN | dict(words=(18, 0), frames=20), rolled=(), do=("counterfactual",))
    scenes = protocol._clips(bench_of(craft()), "test", 6)
    questions = {i: scenes.source.questions(i) for i in range(6)}
    items = asked.items_of(scenes, "test", "Aloe")
    assert [q for of in questions.values() for q in of] == items.source
    plan = vision.Plan((), 2, ("counterfactual",), 2, 2, 1)
    return plan, scenes, items, vision.Inputs.of(scenes, items)


def test_a_do_rollout_knows_the_first_frames_without_the_object_and_nothing_else(removing):
    plan, scenes, items, observed = removing
    where = np.flatnonzero(items.kind == "counterfactual")
    assert len(where) > 4 and (vision.removed(items)[where] >= 0).all()
    model = Model(TRAINED, lambda video: video, Echo.hide)
    made = plan.inputs(scenes, items, observed, vision.Foreseen(model, plan))
    rest = np.setdiff1d(np.arange(len(items.row)), where)
    assert vision.identical(made, observed, rest) == len(rest) and vision.identical(made, observed, where) == 0
    slot, clip, before = vision.removed(items)[where], whole(made, where), whole(observed, where)
    n = np.arange(len(where))
    assert not clip[n, :, slot].any(), "the slot of the removed object is empty at all frames"
    there = scenes.arrays["object_valid"][items.row[where], :9] & (np.arange(9) != slot[:, None])
    np.testing.assert_array_equal(clip[:, :2], np.where(there[:, None, :, None], before[:, :2], 0))
    steps = (
        np.repeat(np.arange(1, 10), 2)[None, :, None, None] * there.sum(1)[:, None, None, None]
    )  # two frames at once
    np.testing.assert_allclose(
        clip[:, 2:], np.where(there[:, None, :, None], before[:, 1:2] + steps, 0), rtol=1e-5, atol=1e-5
    )
    # Later frames of the clip, and the removed object at any frame, change nothing.
    other = observed.clips.copy()
    other[:, 2:] = 7
    again = plan.inputs(scenes, items, observed._replace(clips=other), vision.Foreseen(model, plan))
    assert vision.identical(made, again, where) == len(where)


def test_the_simulated_clip_is_that_of_the_world_without_the_object_and_its_true_continuation(removing):
    plan, scenes, items, observed = removing
    made = plan.inputs(scenes, items, observed, vision.Simulated(plan))
    for n in np.flatnonzero(items.kind == "counterfactual")[:3]:
        gone = np.arange(9) == vision.removed(items)[n]
        np.testing.assert_array_equal(made.clip(made.row[n]), scenes.source.intervene(int(items.row[n]), gone)[:, 0])
    after = dataclasses.replace(plan, rolled=("descriptive",), do=())
    made = after.inputs(scenes, items, observed, vision.Simulated(after))
    n = np.flatnonzero(items.kind == "descriptive")[0]
    longer = dataclasses.replace(scenes.source, frames=22)[int(items.row[n])]["video"][:, 0]
    np.testing.assert_array_equal(made.clip(made.row[n]), longer[2:])


def test_slots_name_the_objects_of_the_questions_that_they_hold():
    plain, mixed, frame = (craft(shuffle=shuffle) for shuffle in ("none", "scene", "frame"))
    world = plain.source
    for i in range(3):
        holds = mixed._holds(i, plain[i]["present"].sum())[0]
        for a, b, c, true in zip(
            plain.questions(i), mixed.questions(i), frame.questions(i), world.questions(i), strict=True
        ):
            assert a == true and b["question"] == true["question"]
            assert (b["removed"] < 0) == (true["removed"] < 0) and (
                b["removed"] < 0 or holds[b["removed"], true["removed"]]
            )
            assert c["removed"] == c["asked"] == -1
    merged = craft(merge=1.0)
    for i in range(3):
        held = merged._holds(i, plain[i]["present"].sum())[0].sum(1)
        assert all(held[q["removed"]] == 1 for q in merged.questions(i) if q["removed"] >= 0)
    with pytest.raises(ConfigError, match="asks no questions in words"):
        TrueSlots(frames=4, count=4).questions(0)


def test_batches_hold_open_questions_and_options_in_their_shares_and_every_frame_is_reached():
    protocol = Aloe(**GIVEN, rolled=())
    scenes = protocol._clips(bench_of(Lamps()), "train", 32)
    items = asked.items_of(scenes, "train", "Aloe")
    (text, _), *_ = protocol._text(items, items)
    drawn = protocol._batches(text, vision.Inputs.of(scenes, items), np.random.default_rng(0))
    batches = [next(drawn) for _ in range(4)]
    assert [(int((~b.choice).sum()), int(b.choice.sum())) for b in batches] == [(8, 32)] * 4
    clips = scenes.arrays["video"][:, :, 0]
    found = {int(np.argwhere((clips == b.slots[q, 0]).all((2, 3)))[0, 1]) for b in batches for q in range(40)}
    assert found == {0, 1, 2, 3}  # starts of two frames, two apart, in a clip of 6
    order = np.concatenate([next(s) for s in [aloe._stream(np.random.default_rng(1), np.arange(10), 5)] * 4])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10)) and list(order[:10]) != list(range(10))


def test_a_loss_that_is_not_finite_ends_the_training_early(monkeypatch):
    monkeypatch.setattr(training, "CHECKED", 3)
    protocol = Aloe(**GIVEN, rolled=())
    scenes = protocol._clips(bench_of(Lamps()), "train", 32)
    items = asked.items_of(scenes, "train", "Aloe")
    (text, _), reader, _ = protocol._text(items, items)
    batch = next(protocol._batches(text, vision.Inputs.of(scenes, items), np.random.default_rng(0)))
    with pytest.raises(ConfigError, match="the loss is nan after 3 steps: lower the rate"):
        training.learn(reader, itertools.repeat(batch._replace(slots=batch.slots * np.nan)), jax.random.key(0))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(moments=0), "aloe.moments = 0"),
        (dict(seeds=True), "aloe.seeds = True"),
        (dict(frames=2), "aloe.frames = 2: must be at least 3"),
        (dict(words=(3,)), r"aloe.words = \(3,\)"),
        (dict(words=3), "aloe.words = 3"),
        (dict(do=3), "aloe.do = 3"),
        (dict(rate=0), "aloe.rate = 0"),
        (dict(rolled="predictive"), "aloe.rolled = 'predictive'"),
        (dict(rows=("all",)), "aloe.rows has 'all'"),
        (dict(rolled=("a", "b"), do=("b",)), "aloe.do has 'b'"),
        (dict(reader=SMALL | dict(depth=0)), "aloe.reader.depth = 0"),
        (dict(reader=dict(words=3)), "aloe.reader.words = 3: there is no such option"),
        (dict(reader=dict(dropout=1.0)), "aloe.reader.dropout = 1.0"),
    ],
)
def test_options_outside_their_limits_are_refused_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Aloe(**GIVEN | options)
    assert "\n" not in str(caught.value)


class Said(Lamps):
    """Asks what the test says."""

    said: ClassVar[list] = []

    def questions(self, i):
        return self.said


@pytest.mark.parametrize(
    "said, message",
    [
        ([], "questions about the scenes, and the split 'train' has none"),
        ([3], "questions with a text"),
        ([{"question": "q", "question_type": "predictive", "choices": [3]}], "questions with a text"),
        ([{"question": "q", "question_type": "predictive", "choices": []}], "questions with a text"),
        ([{"question": "q", "question_type": "descriptive"}], "answers, of which the split 'train' has none"),
        ([{"question": "q", "question_type": "predictive", "choices": [{"choice": "c"}]}], "has none: score another"),
        ([{"question": "q", "question_type": "x", "answer": ["a\nb"]}], "answers in words"),
        (
            [{"question": "q", "question_type": "predictive", "choices": [{"choice": "c", "answer": "yes"}]}],
            '"correct" or "wrong"',
        ),
        (
            [{"question": "a b c d e", "question_type": "x", "answer": "y"}],
            r"5 words: must be at most .*words\[0\] = 4",
        ),
        ([{"question": "q", "question_type": "predictive", "choices": choices()}], "of the type 'counterfactual'"),
        (
            [{"question": "q", "question_type": "counterfactual", "choices": choices(), "removed": 5}],
            "slots below 2 as `removed`, and a question has 5",
        ),
        ([{"question": "q", "question_type": "counterfactual", "choices": choices()}], "does not say which slot holds"),
        (
            [{"question": "q", "question_type": "counterfactual", "choices": choices(), "removed": 10**30}],
            "does not say which slot holds",
        ),
    ],
)
def test_questions_of_another_file_are_refused_in_one_line(said, message, monkeypatch):
    monkeypatch.setattr(Said, "said", said)
    protocol = Aloe(**GIVEN, rolled=(), do=("counterfactual",))
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        protocol.run(bench_of(Said()))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_the_shipped_configs_build_and_clevrers_has_the_published_sizes():
    built = [build.build(module.get_config().evals.protocols.aloe, "aloe") for module in (published, small)]
    assert all(isinstance(protocol, Aloe) for protocol in built)
    reader = built[0].reader
    assert reader["heads"] * reader["head_width"] == 144 and built[0].rolled == ("predictive",)
    assert {name: value for name, value in reader.items() if getattr(Network(), name) != value} == {}
