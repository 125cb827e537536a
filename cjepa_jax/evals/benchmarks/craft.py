"""CRAFT's score: the share of questions in natural language that are answered exactly, by type of question.

T. Ates et al., "CRAFT: A Benchmark for Causal Reasoning About Forces and inTeractions", Findings of ACL 2022, section 5
(the paper reports percent).
"""

import dataclasses

import numpy as np

from cjepa_jax.evals.base import TRAINED, Bench, Hidden, Model, Result, Scenes, Score, pool, require
from cjepa_jax.evals.benchmarks import language_head
from cjepa_jax.evals.benchmarks.language_head import Items, Judged, Reader, Row

WHOLE = "trained, whole scene"


@dataclasses.dataclass(frozen=True)
class Craft:
    """Accuracy (0..1) by type of question, and over all questions ("overall").

    A head chooses one of the answers of the fitting questions, from frozen features of the whole clip and the words of
    the question. One head answers all types. The metrics are "HEAD/TYPE". The head "linear", the description's linear
    probe, is a ridge on [mean tokens, words, products]. The head "mlp" has one hidden layer on [mean tokens, words].
    Words are counts of words and of neighbouring pairs (see words.Words). Products are those of the first principal
    components of features and words (see language_head.Reader).

    Metrics "interventional HEAD/TYPE": if the data have masks, questions that name a removed object are also answered
    from an interventional readout. In the simulated world these are all types except the descriptive one. A separate
    head is fitted on these questions only. Its features are [mean context tokens, mean prediction at the hidden tokens]
    of the clip with that object's tokens hidden. They are hidden at all times (anchor 0), even if the model was trained
    with the first times visible. The row "trained, whole scene" answers the same questions from the features of the
    unmasked clip.

    Floors are the question alone, the most frequent answer of its type, and pixel PCA. The ceiling is the true states
    at four moments, beginning with those of the objects that the question names. These states describe the observed
    clip, not its counterfactual. Intervals are over scenes. Answers in the simulated world are balanced: see
    data/worlds/craft/questions.py.

    Attributes:
      heads: any of "linear" and "mlp".
      components: number C of principal components, so that there are at most C x C products. 0: no products.
      parts: number of segments of time whose tokens are averaged separately. 1 is the mean over all tokens (METHOD,
        Algorithm 3, line 2).
      steps: the largest number of training steps of "mlp".
      interventional: whether the interventional readout is scored.
    Raises: ConfigError for options outside their limits.
    """

    heads: tuple[str, ...] = language_head.HEADS
    components: int = 24
    parts: int = 1
    steps: int = 1000
    interventional: bool = True

    def __post_init__(self):
        language_head.check_options(self)

    def run(self, bench: Bench) -> Result:
        """Raises ConfigError for data without clips or questions with open answers."""
        language_head.check_data(bench, "Craft")
        fit, test = (items_of(scenes) for scenes in (bench.fitting, bench.testing))
        rows = language_head.of_items(bench, language_head.of_scenes(bench, self.parts), fit, test)
        scores, terms = self._scores("", bench, fit, test, rows)
        notes = [
            f"{len(fit.row)} questions about {len(bench.fitting.arrays['scene'])} scenes are fitted, with "
            f"{len(np.unique(fit.answer))} answers and {terms} words and pairs of words",
            *language_head.about_windows(bench),
        ]
        if self.interventional:
            more, why = self._interventional(bench, fit, test, rows)
            scores, notes = scores + more, notes + why
        return Result(scores, notes=notes)

    def _interventional(self, bench: Bench, fit: Items, test: Items, rows: list[Row]) -> tuple[list[Score], list[str]]:
        named = [np.array([question.get("removed", -1) >= 0 for question in items.source]) for items in (fit, test)]
        sets = (bench.fitting, bench.testing)
        if not all(where.any() for where in named):
            return [], ["no interventional readout: the questions do not say which object is removed"]
        if not all(scenes.arrays["object_valid"].any() for scenes in sets):
            return [], ["no interventional readout: the scenes have no masks"]
        chosen = [items.take(where) for items, where in zip((fit, test), named, strict=True)]
        own = []
        for model in bench.models:
            seen = [without(model, scenes, items, bench.batch) for scenes, items in zip(sets, chosen, strict=True)]
            if seen[0] is None:
                return [], ["no interventional readout: the model encodes whole scenes only"]
            own.append(language_head.model_row(bench, model, *seen))
        also = (TRAINED, language_head.QUESTION_ONLY, language_head.STATES)
        rest = [Row(*row[:2], row.fit[named[0]], row.test[named[1]]) for row in rows if row.name in also]
        rest = [row._replace(name=WHOLE, kind="floor") if row.name == TRAINED else row for row in rest]
        return self._scores("interventional ", bench, *chosen, [*own, *rest])[0], []

    def _scores(self, prefix: str, bench: Bench, fit: Items, test: Items, rows: list[Row]) -> tuple[list[Score], int]:
        """The scores of every head, and the number of terms of the vocabulary."""
        reader, out = Reader(fit, test, self.components, self.steps, bench.seed), []
        for head in self.heads:
            judged: list[Judged] = [*(reader(head, row) for row in rows), language_head.most_frequent(fit, test)]
            for kind in ("overall", *sorted(set(test.kind))):
                where = np.full(len(test.row), True) if kind == "overall" else test.kind == kind
                out += language_head.scores(f"{prefix}{head}/{kind}", judged, test.row, where)
        return out, reader.terms


def items_of(scenes: Scenes) -> Items:
    """All questions about the scenes. Raises ConfigError if there are none, or one without an open answer."""
    rows: list[tuple] = []
    for place, scene in enumerate(scenes.arrays["scene"].tolist()):
        for question in scenes.source.questions(scene):
            fit = all(isinstance(question.get(key), str) for key in ("question", "question_type", "answer"))
            require(
                fit, "Craft", f"questions with an open answer each. Scene {scene} has one without: {question}"[:200]
            )
            text, kind = question["question"], question["question_type"].lower()
            rows.append((place, (text,), kind, question["answer"], question, len(rows)))
    require(bool(rows), "Craft", f"questions in words. {type(scenes.source).__name__} asks none of its scenes")
    return Items.of(rows)


def without(model: Model, scenes: Scenes, items: Items, batch: int) -> np.ndarray | None:
    """[mean context tokens, mean prediction at the hidden tokens], with the object hidden that each question removes.

    If an object is not among the scene's rows (it touches no token, or there are too many objects), nothing is hidden.
    Then the context is the whole scene and the prediction is 0.

    Returns: float32 [Q, 2D], or [Q, D] for a model without prediction. None for a model without context.
    """
    arrays = scenes.arrays
    pairs = np.stack([items.row, [question["removed"] for question in items.source]], 1)
    pairs, place = np.unique(pairs, axis=0, return_inverse=True)
    out = []
    for start in range(0, len(pairs), batch):
        row, number = pairs[start : start + batch].T
        patches = arrays["object_patches"][row]
        removed = arrays["objects"][row] == number[:, None]
        hidden = (patches & removed[:, :, None]).any(1)
        hidden &= ~hidden.all(1, keepdims=True)  # if the object covers the whole scene, no token would stay visible
        seen = model.hide(Hidden(arrays["video"][row], ~hidden, patches, removed))
        if seen.context is None:
            return None
        parts = [pool(seen.context, ~hidden)]
        if seen.prediction is not None:
            parts.append(pool(seen.prediction, hidden))
        out.append(np.concatenate(parts, 1))
    return np.concatenate(out)[place.reshape(-1)].astype(np.float32)
