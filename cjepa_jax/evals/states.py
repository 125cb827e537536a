"""Ridge regression from frozen features to the true labels of a scene and the true states of its objects."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import ridge
from cjepa_jax.evals.base import TRAINED, Bench, Model, Result, Scenes, Score, encoded, over_inits, pool, require
from cjepa_jax.evals.probe import pixel_components

RESAMPLES = 500  # bootstrap samples of the test scenes, for the intervals
PIXELS, PLACE, LOOKS = "pixel PCA", "place", "place and colour"


@dataclasses.dataclass(frozen=True)
class States:
    """R^2 of ridge regression, with strengths selected by leave-one-out within the fitting set.

    Metrics:
      "scene/GROUP": the source's labels, predicted from the mean token.
      "object/GROUP": each object's states at the middle frame, predicted from the mean of the tokens that the object
        touches at the middle tubelet. Scored if the source has states.

    The group of a target is its name before "/". A metric is the mean over the targets of its group. Targets that are
    constant in the test scenes do not count.

    objects: False leaves out the metrics "object/GROUP".
    """

    objects: bool = True

    def __post_init__(self):
        if not isinstance(self.objects, bool):
            raise ConfigError(f"evals.protocols: States.objects = {self.objects!r}: must be True or False")

    def run(self, bench: Bench) -> Result:
        """Rows: trained, random init, and floors (pixel PCA, or place and colour).

        Raises ConfigError for a source without labels and states.
        """
        parts = fitting, _ = bench.fitting, bench.testing
        names = tuple(fitting.source.label_names)
        objects = [Objects(scenes) for scenes in parts] if self.objects else []
        objects = [] if any(part.states is None or not len(part.rows) for part in objects) else objects
        require(bool(names or objects), "States", f"labels or states, which {type(fitting.source).__name__} has not")
        features = [
            [
                _features(model, part, bench.batch, kept)
                for part, kept in zip(parts, objects or (None, None), strict=True)
            ]
            for model in bench.models
        ]
        scores, notes = [], ["The ceiling is 1: the targets are the simulator's or the annotators' own numbers."]
        if names:
            fit = len(fitting.arrays["video"])
            pixels = pixel_components(np.concatenate([part.arrays["video"] for part in parts]), fit)
            labels = [part.arrays["labels"] for part in parts]
            given = [[whole for whole, _ in model] for model in features]
            scene = np.arange(len(labels[1]))
            scores += _scores(
                "scene",
                names,
                given,
                floors={PIXELS: (pixels[:fit], pixels[fit:])},
                targets=labels,
                scene=scene,
                seed=bench.seed,
            )
        if objects:
            given = [[own for _, own in model] for model in features]
            floors = {row: [part.floor(row == LOOKS) for part in objects] for row in (PLACE, LOOKS)}
            states, scene = [part.states for part in objects], objects[1].rows[:, 0]
            scores += _scores(
                "object", fitting.source.state_names, given, floors=floors, targets=states, scene=scene, seed=bench.seed
            )
            notes.append(
                f"Objects: {len(objects[0].rows)} to fit on and {len(objects[1].rows)} to test, those that touch a "
                f"patch at the middle tubelet. {PLACE}: the patches' centre, extent and number. {LOOKS}: their mean "
                "colour as well."
            )
        return Result(scores, notes=notes)


class Objects:
    """The objects of scenes that touch a patch at the middle tubelet.

    rows: scene and object of each, int [m, 2]. where: their patches at that tubelet, bool [n, K, N]. states: at the
    middle frame, float64 [m, S]. None if the source has no states.
    """

    def __init__(self, scenes: Scenes):
        self.video, self.grid = scenes.arrays["video"], scenes.map.grid
        frames, times = self.video.shape[1], self.grid[0]
        self.frame, self.time = frames // 2, frames // 2 * times // frames
        self.where = np.zeros_like(scenes.arrays["object_patches"])
        place = np.arange(self.where.shape[-1]) // (self.grid[1] * self.grid[2]) == self.time
        self.where[..., place] = scenes.arrays["object_patches"][..., place]
        self.rows = np.argwhere(self.where.any(-1) & (scenes.arrays["objects"] >= 0))
        states = scenes.arrays.get("states")
        self.states = None if states is None else states[self.rows[:, 0], self.frame, self.rows[:, 1]].astype(float)

    def floor(self, colour: bool) -> np.ndarray:
        """Features [m, 6 or 9]: centre, extent and number of an object's patches and, with `colour`, mean colour."""
        _, height, width = self.grid
        size = self.video.shape[2] // height
        cells = self.video[:, self.frame].reshape((len(self.video), height, size, width, size, 3)).mean((2, 4))
        out = []
        for scene, k in self.rows:
            own = self.where[scene, k].reshape(self.grid)[self.time]
            at = np.argwhere(own)
            colours = cells[scene][own].mean(0) if colour else []
            out.append([*at.mean(0), *np.ptp(at, axis=0), len(at), np.sqrt(len(at)), *colours])
        return np.array(out)


def explained(
    prediction: np.ndarray, truth: np.ndarray, mean: np.ndarray, scene: np.ndarray, groups: Sequence[str], seed: int
) -> dict[str, tuple[float, float]]:
    """R^2 relative to the fitting set's `mean` [P] as in evals/ridge.py, averaged over the targets of each group.

    Args:
      prediction, truth: [m, P].
      scene: the scene of each row, int [m]. Intervals resample scenes, each with all of its rows.
      groups: the group of each target.
      seed: the seed of the bootstrap.

    Returns: group -> (R^2, half of its 95 % interval). The interval is 1.96 standard deviations over resampled scenes.
      Groups whose targets are all constant are left out.
    """
    scenes, row_scene = np.unique(scene, return_inverse=True)
    even = np.full(len(scenes), 1 / len(scenes))
    draws = seeds.generator(seed, "bootstrap of scenes", len(scenes)).multinomial(len(scenes), even, RESAMPLES)
    weights = np.concatenate([np.ones((1, len(truth))), draws[:, row_scene]])  # the first row is not resampled
    error, variance = weights @ (truth - prediction) ** 2, weights @ (truth - mean) ** 2
    r2 = 1 - error / np.where(variance > 0, variance, np.nan)
    out = {}
    for group in dict.fromkeys(groups):
        columns = [i for i, g in enumerate(groups) if g == group and truth[:, i].std() > 0]
        if columns:
            values = np.nanmean(r2[:, columns], 1)
            out[group] = float(values[0]), float(1.96 * np.nanstd(values[1:]))
    return out


def _scores(prefix, names, models, floors, targets, scene, seed):
    """Scores of features (fit, test). models: the trained model's, then the random ones'. floors: row -> features."""
    groups = [name.partition("/")[0] for name in names]

    def score(fit, test):
        mean = targets[0].mean(0, dtype=float)
        return explained(ridge.predict(fit, targets[0], test), targets[1], mean, scene=scene, groups=groups, seed=seed)

    found = [score(*model) for model in models]
    others = {row: score(*features) for row, features in floors.items()}
    scores, count = [], len(scene)
    for group in found[0]:
        metric = f"{prefix}/{group}"
        scores.append(Score(metric, TRAINED, *found[0][group], count))
        if len(found) > 1:
            scores.append(over_inits(metric, [one[group][0] for one in found[1:]], count))
        scores += [Score(metric, row, *one[group], count, "floor") for row, one in others.items()]
    return scores


def _features(model: Model, scenes: Scenes, batch: int, objects: Objects | None):
    """The mean tokens of scenes [n, D], and those of each object [m, D] (None without objects)."""
    whole, own = [], []
    for rows, tokens in encoded(model, scenes.arrays["video"], batch):
        whole.append(tokens.mean(1))
        if objects:
            chosen = objects.rows[(objects.rows[:, 0] >= rows.start) & (objects.rows[:, 0] < rows.stop)]
            own.append(pool(tokens[chosen[:, 0] - rows.start], objects.where[chosen[:, 0], chosen[:, 1]]))
    return np.concatenate(whole), np.concatenate(own) if own else None
