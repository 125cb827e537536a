"""CLEVRER's accuracies: counted by hand, and on fixtures in its published layout. Models are plain functions."""

import json

import numpy as np
import pytest

from cjepa_jax.data.sources.clevrer import Clevrer as Published
from cjepa_jax.data.worlds import Craft as Simulated
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import RANDOM, TRAINED
from cjepa_jax.evals.benchmarks import clevrer
from cjepa_jax.evals.benchmarks.clevrer import Clevrer
from cjepa_jax.evals.benchmarks.language_head import Items, Judged
from tests.data import clips
from tests.data.sources.test_clevrer import HEIGHT, WIDTH, annotation
from tests.evals.benches import bench, by_row

FIT, TEST = 20, 12


def items(row, kind, number):
    blank = np.array([""] * len(row))
    return Items(np.array(row), [("",)] * len(row), np.array(kind), blank, [{}] * len(row), np.array(number))


def test_options_and_questions_are_counted_apart():
    """Three descriptive questions (2 right). A predictive one with options right, right. An explanatory one with right,
    wrong, right and one with right: by option 3 of 4, by question 1 of 2."""
    opened = items([0, 0, 1], ["descriptive"] * 3, [0, 3, 4])
    options = items([0, 0, 0, 0, 0, 1], ["predictive"] * 2 + ["explanatory"] * 4, [1, 1, 2, 2, 2, 5])
    judged = [
        [Judged(TRAINED, "result", np.array(right, bool)), Judged(RANDOM, "floor", np.zeros(len(right), bool))]
        for right in ([1, 1, 0], [1, 1, 1, 0, 1, 1])
    ]
    found = clevrer.tables("mlp", *judged, opened, options)
    value = {s.metric: s.value for s in found if s.row == TRAINED}
    assert value == pytest.approx(
        {
            "mlp/descriptive": 2 / 3,
            "mlp/predictive/options": 1.0,
            "mlp/predictive/questions": 1.0,
            "mlp/explanatory/options": 3 / 4,
            "mlp/explanatory/questions": 1 / 2,
            "mlp/overall/questions": 4 / 6,
            "mlp/overall/types": (2 / 3 + 1 + 1 / 2) / 3,
        }
    )
    assert {s.value for s in found if s.row == RANDOM} == {0.0}
    counts = {s.metric: s.count for s in found}
    assert counts["mlp/explanatory/options"] == 4 and counts["mlp/overall/types"] == 6


def questions(early: bool, number: int, answers: bool) -> dict:
    """Whether the square turns red early or late, asked openly and by two options."""
    said = [
        {"question": "When is it red?", "question_type": "descriptive", "answer": "early" if early else "late"},
        {"question": "Is there a square?", "question_type": "descriptive", "answer": "yes"},
        {
            "question": "What happens?", "question_type": "predictive",
            "choices": [
                {"choice": "It is red early", "answer": "correct" if early else "wrong"},
                {"choice": "It is red late", "answer": "wrong" if early else "correct"},
            ],
        },
    ]  # fmt: skip
    for question_id, question in enumerate(said):
        question |= {"question_id": question_id, "program": []}
        for choice_id, choice in enumerate(question.get("choices", [])):
            choice |= {"choice_id": choice_id}
        for given in [question, *question.get("choices", [])] if not answers else ():
            given.pop("answer", None)
    return {"scene_index": number, "video_filename": f"video_{number:05d}.mp4", "questions": said}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    home, rng = tmp_path_factory.mktemp("CLEVRER"), np.random.default_rng(0)
    (home / "questions").mkdir()
    for split, first, count in (("train", 0, FIT), ("validation", 10000, TEST), ("test", 15000, 4)):
        asked, place = [], f"{first:05d}-{first + 1000:05d}"
        for number, early in zip(range(first, first + count), rng.random(count) < 0.5, strict=True):
            frames = np.full((128, HEIGHT, WIDTH, 3), 160, np.uint8)
            frames[:, 10:50, 30:70] = (30, 40, 200)
            frames[(slice(64) if early else slice(64, 128)), 10:50, 30:70] = (200, 30, 30)
            clips.write(home / f"video_{split}/video_{place}/video_{number:05d}.mp4", frames)
            path = home / f"annotation_{split}/annotation_{place}/annotation_{number:05d}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(annotation(number)))
            asked.append(questions(bool(early), number, split != "test"))
        (home / f"questions/{split}.json").write_text(json.dumps(asked))
    return home


def run(root, frames=8, split="eval", protocol=None):
    def source(split, count):
        return Published(split, str(root), HEIGHT, frames, count, stride=16)

    shared = bench(source, HEIGHT, frames, FIT, 4 if split == "test" else TEST, splits=("train", split))
    return (protocol or Clevrer(heads=("linear",), components=6)).run(shared)


def test_the_published_layout_is_scored(root):
    result = run(root)
    assert by_row(result, "linear/predictive/questions").keys() == {
        "trained", "random init", "question only", "most frequent", "pixel PCA", "true states",
    }  # fmt: skip
    for metric, sure in (("descriptive", 0.5), ("predictive/options", 0), ("predictive/questions", 0)):
        values = by_row(result, f"linear/{metric}")
        assert values["trained"] == values["pixel PCA"] == 1
        assert sure <= values["random init"] == values["question only"] < 0.9
    overall = [by_row(result, f"linear/overall/{how}")["most frequent"] for how in ("questions", "types")]
    each = [by_row(result, f"linear/{kind}")["most frequent"] for kind in ("descriptive", "predictive/questions")]
    assert overall == pytest.approx([(2 * each[0] + each[1]) / 3, sum(each) / 2])


def test_data_that_cannot_serve_it_are_refused(root):
    with pytest.raises(ConfigError, match="Clevrer needs answers, of which the split 'test' has none") as caught:
        run(root, split="test")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="Clevrer needs clips, .*data.frames is 1"):
        run(root, frames=1)
    with pytest.raises(ConfigError, match="Clevrer needs CLEVRER's questions"):
        world = Simulated(size=32, frames=4, count=8)
        Clevrer().run(bench(lambda split, count: world, 32, 4))


@pytest.mark.parametrize(
    "question, fits",
    [
        ({"question": "q", "question_type": "descriptive"}, True),
        ({"question": "q", "question_type": "descriptive", "choices": []}, False),
        ({"question": "q", "question_type": "predictive", "choices": [{"choice": "c"}]}, True),
        ({"question": "q", "question_type": "predictive", "choices": []}, False),
        ({"question": "q", "question_type": "predictive", "choices": ["c"]}, False),
        ({"question": 3, "question_type": "descriptive"}, False),
        ({"question": "q", "question_type": "cause", "answer": "yes"}, False),
        ("q", False),
    ],
)
def test_what_a_published_question_is(question, fits):
    assert clevrer.is_question(question) == fits
