"""PHYRE's benchmark (Bakhtin et al. 2019, arXiv:1908.05656): a ranker on frozen features acts in the real simulator.

An action puts one or two red balls into a task's scene. The agent tries candidate actions in the order of their ranks
until one solves the task. It ranks an action by the picture of the scene with the balls in it.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data import transforms
from cjepa_jax.data.sources.phyre import PALETTE, Phyre
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.evals import heads, stats
from cjepa_jax.evals.base import RANDOM, TRAINED, Bench, Model, Result, Score, over_inits, require
from cjepa_jax.evals.benchmarks import auccess

PIXELS, COMPONENTS, COMPONENT_ROWS = 64, 96, 1024  # pixel PCA: side of the pictures, components, pictures to fit on
SHOWN = 6  # number of tasks whose first attempt is shown
SOLVED, FAILED = (46, 164, 79), (215, 58, 73)  # colours of the frames around them


class Trial(NamedTuple):
    """One task with candidate actions."""

    scene: np.ndarray  # uint8 [256, 256, 3] before any action
    actions: np.ndarray  # float64 [n, D]
    statuses: np.ndarray  # int8 [n]: 1 solved, -1 not solved, 0 invalid


@dataclass(frozen=True)
class PhyreAgent:
    """AUCCESS of an agent that ranks random valid actions by frozen features of (scene, action).

    The features are mean tokens, the action's coordinates and the products of these coordinates. The tokens are those
    of the initial scene with the action's balls in it, shrunk and repeated to a clip of T frames. On tasks of the
    fitting split, a ranker learns whether an action solves its task. It gets equally many solving and failing actions
    of each task, so that recognising the task does not help. On each test task, all rows try the same candidates. Setup
    and fold are those of the source.

    Attributes:
      tasks_fit, tasks_test: number of tasks drawn from the fitting split and from the test split. 0: all.
      actions_fit: the largest number of a task's candidates from which the ranker learns. Half of them solve the task.
        A task that no candidate solves, or that all solve, is left out.
      candidates: random valid actions per task.
      attempts: number of attempts that count. AUCCESS is defined with 100.
      rankers: "linear" (ridge), "mlp", or both.

    The metric "auccess/RANKER", 0 .. 1, is the mean over test tasks. Floors are the candidates in the order in which
    they were drawn (a random agent), a ranker on the action alone, and a ranker on the pixels' principal components.
    The ceiling counts tasks that any candidate solves as solved at the first attempt. Raises ConfigError for values
    outside their limits and for data that are not PHYRE's.
    """

    tasks_fit: int = 400
    actions_fit: int = 32
    tasks_test: int = 0
    candidates: int = 1000
    attempts: int = auccess.ATTEMPTS
    rankers: tuple[str, ...] = ("linear",)

    def __post_init__(self):
        for name, least in (("tasks_fit", 0), ("actions_fit", 2), ("tasks_test", 0), ("attempts", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"evals.protocols: phyre.{name} = {value!r}: must be an integer from {least}")
        if isinstance(self.candidates, bool) or not isinstance(self.candidates, int) or self.candidates < self.attempts:
            text = f"evals.protocols: phyre.candidates = {self.candidates!r}: must be at least attempts"
            raise ConfigError(f"{text} = {self.attempts}")
        if not self.rankers or not set(self.rankers) <= set(RANKERS):
            raise ConfigError(f"evals.protocols: phyre.rankers = {self.rankers!r}: must name {' or '.join(RANKERS)}")

    def run(self, bench: Bench) -> Result:
        """Raises DataError if no candidate solves any task of the fitting split."""
        sources = [bench.source(bench.fit_split, bench.fit), bench.source(bench.test_split, bench.test)]
        require(all(isinstance(source, Phyre) for source in sources), "PhyreAgent", "PHYRE (configs/data/phyre.py)")
        drawn = [trial for _, trial in self.trials(sources[0], self.tasks_fit, bench.seed, 0)]
        rng = seeds.generator(bench.seed, "balanced actions")
        fitting = [balanced(trial, self.actions_fit, rng) for trial in drawn]
        fitting = [trial for trial in fitting if len(trial.actions)]
        if not fitting:
            raise DataError(f"evals: none of {self.candidates} random actions solves any of {len(drawn)} PHYRE tasks")
        names, testing = zip(*self.trials(sources[1], self.tasks_test, bench.seed, 1), strict=True)

        frames, size = sources[1].frames, bench.prepare(sources[1]).size
        features = {
            model.name: functools.partial(encoded, model, frames=frames, size=size, batch=bench.batch)
            for model in bench.models
        }
        features["action alone"] = lambda trial: np.zeros((len(trial.actions), 0))
        features["pixel PCA"] = pixel_components(fitting, min(PIXELS, size), bench.seed)
        orders = {row: ranked(each, fitting, testing, self.rankers, bench.seed) for row, each in features.items()}
        scores, curves = [], {}
        for ranker in self.rankers:
            tried = {row: by[ranker] for row, by in orders.items()}
            tried["random agent"] = [np.arange(len(trial.actions)) for trial in testing]
            solved = {
                row: np.array([auccess.solved_at(t.statuses[o]) for t, o in zip(testing, order, strict=True)])
                for row, order in tried.items()
            }
            solved["any candidate"] = (solved["random agent"] > 0).astype(int)
            at_random = [solved.pop(model.name) for model in bench.randoms]
            scores += self.table(f"auccess/{ranker}", solved, at_random, bench.seed)
            curves[f"share of tasks solved within k attempts, {ranker}"] = self.curves(solved, at_random)
        first = [order[0] for order in orders[bench.model.name][self.rankers[0]][:SHOWN]]
        images = {f"first attempts at {', '.join(names[:SHOWN])}": attempts_picture(testing, first)}
        share = np.mean(np.concatenate([trial.statuses for trial in drawn]) > 0)
        rows = sum(len(trial.actions) for trial in fitting)
        note = f"{rows} actions at {len(fitting)} of {len(drawn)} tasks to learn from. {share:.1%} of random ones solve"
        return Result(scores, images, curves, [note])

    def trials(self, source: Phyre, count: int, seed: int, part: int) -> Iterator[tuple[str, Trial]]:
        """Yields (task, trial) for `count` drawn tasks of a source. The random valid actions of each are simulated."""
        order = seeds.generator(seed, "PHYRE's tasks of an agent", part).permutation(len(source.tasks))[: count or None]
        for done, number in enumerate(order.tolist()):
            task = source.tasks[number]
            rng = seeds.generator(seed, "PHYRE's candidate actions", part, number)
            actions = source.valid_actions(task, self.candidates, rng)
            if done % 50 == 0:
                logging.info("PHYRE, split %s: task %d of %d", source.split, done, len(order))
            yield task, Trial(source.initial_scenes([task])[0], actions, source.statuses(task, actions))

    def table(self, metric: str, solved: dict[str, np.ndarray], at_random: list, seed: int) -> list[Score]:
        """Rows from the numbers [tasks] of the first solving attempts. Intervals are from a bootstrap over tasks."""
        scores = []
        for row, attempts in solved.items():
            each = np.array([auccess.auccess([attempt], self.attempts) for attempt in attempts])
            half = stats.half_width(lambda rows, each=each: each[rows].mean(), len(each), seed)
            kind = "ceiling" if row == "any candidate" else "result" if row == TRAINED else "floor"
            scores.append(
                Score(metric=metric, row=row, value=float(each.mean()), interval=half, count=len(each), kind=kind)
            )
        if at_random:
            values = [auccess.auccess(attempts, self.attempts) for attempts in at_random]
            scores.insert(1, over_inits(metric, values, len(at_random[0])))
        return scores

    def curves(self, solved: dict[str, np.ndarray], at_random: list) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """row -> (k, share of tasks solved within k attempts). The random initialisations are one row."""
        rows = solved | ({RANDOM: np.concatenate(at_random)} if at_random else {})
        k = np.arange(1, self.attempts + 1)
        return {row: (k, ((each[:, None] > 0) & (each[:, None] <= k)).mean(0)) for row, each in rows.items()}


def linear(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, seed: int) -> np.ndarray:
    """Scores [m] by ridge regression."""
    return heads.ridge_classify(train_x, train_y, test_x)[:, 1]


def mlp(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities [m] by a network with one hidden layer."""
    return heads.mlp(train_x, train_y, test_x, 2, seed)[:, 1]


RANKERS = {"linear": linear, "mlp": mlp}


def ranked(features: Callable, fitting: list, testing: tuple, rankers: tuple, seed: int) -> dict[str, list[np.ndarray]]:
    """For each ranker, the order [n] in which it tries each trial's actions. features: Trial -> [n, D]."""

    def rows(trials):
        parts = [np.hstack([features(trial), coordinates(trial.actions)]).astype(np.float32) for trial in trials]
        return np.concatenate(parts)

    train_y = np.concatenate([trial.statuses > 0 for trial in fitting]).astype(int)
    train_x, test_x = rows(fitting), rows(testing)
    cuts = np.cumsum([len(trial.actions) for trial in testing])[:-1]
    scores = {name: np.split(RANKERS[name](train_x, train_y, test_x, seed), cuts) for name in rankers}
    return {name: [np.argsort(-each, kind="stable") for each in scores[name]] for name in rankers}


def balanced(trial: Trial, count: int, rng: np.random.Generator) -> Trial:
    """At most `count` of a trial's actions in random order, half of them solving. Empty if none or all solve."""
    sides = [rng.permutation(np.flatnonzero(trial.statuses == status)) for status in (1, -1)]
    half = min(count // 2, *(len(side) for side in sides))
    chosen = rng.permutation(np.concatenate([side[:half] for side in sides]))
    return Trial(trial.scene, trial.actions[chosen], trial.statuses[chosen])


def coordinates(actions: np.ndarray) -> np.ndarray:
    """Actions [n, D] and the products of their columns: [n, D + D (D + 1) / 2]."""
    one, other = np.triu_indices(actions.shape[1])
    return np.hstack([actions, actions[:, one] * actions[:, other]])


def pictures(scene: np.ndarray, actions: np.ndarray, size: int) -> np.ndarray:
    """A scene uint8 [256,256,3] with each action's balls where PHYRE puts them: uint8 [n, size, size, 3].

    PHYRE rounds x and y in 0 .. 1 down to whole pixels in 0 .. 255, with y upwards. Its radii are 2 .. 32 pixels. The
    first frame of the simulated clip is one simulation step later than this picture.
    """
    out = np.repeat(scene[None], len(actions), 0)
    side = len(scene)
    for picture, balls in zip(out, actions.reshape(len(actions), -1, 3), strict=True):
        for x, y, r in balls:
            column, row, radius = int(x * (side - 1)), side - int(y * (side - 1)), round(2 + 30 * r)
            top, left = max(row - radius, 0), max(column - radius, 0)
            part = picture[top : row + radius, left : column + radius]
            ys, xs = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
            part[(ys + 0.5 - row) ** 2 + (xs + 0.5 - column) ** 2 <= radius**2] = PALETTE[1]
    return transforms.centre_square(side, side).frames(out, size)


def encoded(model: Model, trial: Trial, frames: int, size: int, batch: int) -> np.ndarray:
    """Mean tokens [n, D] of still clips, which repeat the picture of (scene, action)."""
    parts = []
    for start in range(0, len(trial.actions), batch):
        still = pictures(trial.scene, trial.actions[start : start + batch], size)
        parts.append(model.encode(np.repeat(still[:, None], frames, 1)).mean(1))
    return np.concatenate(parts)


def pixel_components(fitting: list[Trial], size: int, seed: int) -> Callable[[Trial], np.ndarray]:
    """Returns a function Trial -> [n, C], the principal components of the pixels.

    They are fitted on about 1024 random pictures of the fitting trials, or on all if there are fewer.
    """

    def pixels(trial):
        return pictures(trial.scene, trial.actions, size).reshape(len(trial.actions), -1).astype(np.float32)

    share = COMPONENT_ROWS / sum(len(trial.actions) for trial in fitting)
    rng = seeds.generator(seed, "pictures for principal components")
    x = np.concatenate([pixels(trial)[rng.random(len(trial.actions)) <= share] for trial in fitting])
    mean = x.mean(0)
    values, vectors = np.linalg.eigh(((x - mean) @ (x - mean).T).astype(np.float64))
    values, vectors = values[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    keep = values > 1e-9 * values[0]
    directions = (x - mean).T @ (vectors[:, keep] / np.sqrt(values[keep])).astype(np.float32)
    return lambda trial: (pixels(trial) - mean) @ directions


def attempts_picture(trials: tuple[Trial, ...], first: list[int]) -> np.ndarray:
    """The first attempts side by side. Those that solve the task have a green frame, the others a red one."""
    panels = []
    for trial, index in zip(trials, first, strict=False):
        panel = pictures(trial.scene, trial.actions[index : index + 1], len(trial.scene))[0]
        colour = SOLVED if trial.statuses[index] > 0 else FAILED
        framed = np.full([side + 12 for side in panel.shape[:2]] + [3], colour, np.uint8)
        framed[6:-6, 6:-6] = panel
        panels.append(framed)
    return np.hstack(panels)
