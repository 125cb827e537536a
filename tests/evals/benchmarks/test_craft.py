"""CRAFT accuracy on fixtures in its published layout and on simulated scenes. Models are plain functions."""

import json

import numpy as np
import pytest

from cjepa_jax.data.sources.craft import Craft as Published
from cjepa_jax.data.worlds import Balls
from cjepa_jax.data.worlds import Craft as Simulated
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals.base import Model, Seen
from cjepa_jax.evals.benchmarks import craft, language_head
from cjepa_jax.evals.benchmarks.craft import Craft
from tests.data import clips
from tests.data.sources.test_craft import LENGTH, SIZE, video
from tests.evals.benches import bench, blind, by_row, colours, masked, patch_colours

LINEAR = dict(heads=("linear",), components=6)
FIT, TEST = 24, 16


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """One square that moves, red or blue by chance, and two questions: its colour, and what is always "True"."""
    root, blue = tmp_path_factory.mktemp("CRAFT"), np.random.default_rng(0).random(FIT + TEST) < 0.5
    asked = []
    for index, recoloured in enumerate(blue):
        frames, masks = video(0)
        frames[masks[1]] = 230
        frames[masks[0]] = (0, 0, 200) if recoloured else (200, 0, 0)
        clips.write(root / f"videos/sid_1/{index:06d}.mpg", frames)
        common = {"video_index": index, "video_file_path": f"./videos/sid_1/{index:06d}.mpg"}
        pairs = [
            ("Descriptive", "What colour is the square?", "Color", "Blue" if recoloured else "Red"),
            ("Cause", "Does the wall cause the square to stop?", "Boolean", "True" if index != FIT else "Never"),
        ]
        for number, (kind, text, form, answer) in enumerate(pairs):
            said = {"question_type": kind, "question": text, "answer": answer, "answer_type": form}
            asked.append(common | said | {"question_index": number})
    (root / "dataset_minimal.json").write_text(json.dumps(asked))
    pairs = [{key: q[key] for key in ("video_index", "question_index")} for q in asked]
    split = {"train": pairs[: 2 * FIT], "validation": pairs[-2:], "test": pairs[2 * FIT :]}
    (root / "split_info_random.json").write_text(json.dumps(split))
    return lambda split, count: Published(split, str(root), SIZE, 30, count, clip_frames=LENGTH)


def test_the_published_layout_is_scored_by_type(published):
    result = Craft(**LINEAR).run(bench(published, SIZE, 30, FIT, TEST))
    assert by_row(result, "linear/descriptive").keys() == {
        "trained", "random init", "question only", "pixel PCA", "most frequent",
    }  # fmt: skip
    colour, cause = by_row(result, "linear/descriptive"), by_row(result, "linear/cause")
    assert colour["trained"] == 1 and colour["pixel PCA"] == 1
    assert colour["random init"] == colour["question only"] == colour["most frequent"] < 0.8
    assert set(cause.values()) == {1 - 1 / TEST}  # the answer "Never" is not among the fitted ones
    overall = by_row(result, "linear/overall")
    assert overall["trained"] == pytest.approx((1 + cause["trained"]) / 2)
    counts = {score.metric: score.count for score in result.scores}
    assert counts == {"linear/overall": 2 * TEST, "linear/cause": TEST, "linear/descriptive": TEST}
    assert any("do not say which object is removed" in note for note in result.notes)


@pytest.fixture(scope="module")
def simulated():
    """Scenes of the launchers' world, drawn and asked about once."""
    worlds = {split: Simulated(split, size=32, frames=8, count=8, seed=3) for split in ("train", "test")}
    return lambda split, count: worlds[split]


@pytest.fixture(scope="module")
def asked(simulated):
    """The bench, and its fitting questions that name a removed object."""
    shared = bench(simulated, 32, 8, 8, 8, max_objects=12, randoms=(colours("random init 0"),))
    fit = craft.items_of(shared.fitting)
    return shared, fit.take(np.array([q["removed"] >= 0 for q in fit.source]))


def test_the_removed_objects_tokens_are_hidden_and_predicted(asked):
    shared, fit = asked
    found, arrays = craft.without(colours(), shared.fitting, fit, 3), shared.fitting.arrays
    tokens, empty = patch_colours(arrays["video"]), 0
    assert len(fit.row) > 10 and found.shape == (len(fit.row), 6)
    for q, (row, question) in enumerate(zip(fit.row, fit.source, strict=True)):
        hidden = arrays["object_patches"][row][arrays["objects"][row] == question["removed"]].any(0)
        empty += not hidden.any()
        assert found[q, :3] == pytest.approx(tokens[row][~hidden].mean(0), abs=1e-5)
        assert found[q, 3:] == pytest.approx(tokens[row][hidden].mean(0) if hidden.any() else 0, abs=1e-5)
    assert empty < len(fit.row) / 2
    turned = arrays | {name: arrays[name][:, ::-1] for name in ("objects", "object_patches", "object_valid")}
    again = craft.without(colours(), shared.fitting._replace(arrays=turned), fit, 3)
    np.testing.assert_array_equal(again, found)  # the order of a scene's rows does not matter


def test_a_model_without_predictions_is_read_from_its_context(asked):
    shared, fit = asked
    alone = Model("m", patch_colours, lambda hidden: Seen(masked(hidden).context, None, None))
    both = craft.without(colours(), shared.fitting, fit, 4)
    assert np.array_equal(craft.without(alone, shared.fitting, fit, 4), both[:, :3])
    assert craft.without(blind(), shared.fitting, fit, 4) is None


def test_questions_about_removed_objects_are_answered_from_the_rest(asked):
    shared, _ = asked
    result = Craft(**LINEAR).run(shared)
    found = by_row(result, "interventional linear/overall")
    assert found.keys() == {
        "trained", "random init", "question only", "most frequent", "true states", "trained, whole scene",
    }  # fmt: skip
    assert found["trained"] == found["random init"]  # the same functions here
    kinds = {score.metric.split("/")[1] for score in result.scores if score.metric.startswith("inter")}
    assert "descriptive" not in kinds and "counterfactual" in kinds and "overall" in kinds
    assert {s.kind for s in result.scores if s.row == language_head.STATES} == {"ceiling"}
    once = dict(Craft(**LINEAR, interventional=False).run(shared).scores[0]._asdict())
    assert once["metric"] == "linear/overall" and once == result.scores[0]._asdict()


def test_data_that_cannot_serve_it_are_refused(simulated, published):
    with pytest.raises(ConfigError, match="Craft needs questions in words, which Balls has not"):
        Craft().run(bench(lambda split, count: Balls(split, size=32, frames=2, count=8), 32, 2))
    with pytest.raises(ConfigError, match="Craft needs clips, .*data.frames is 1"):
        Craft().run(bench(simulated, 32, 1))

    class Mute(Simulated):
        def questions(self, i):
            return []

    with pytest.raises(ConfigError, match="Craft needs questions in words. Mute asks none"):
        Craft().run(bench(lambda split, count: Mute(split, size=32, frames=2, count=8), 32, 2))
