"""A dense probe: what single tokens say of their place and of the objects that they touch."""

import dataclasses
import math

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import ridge
from cjepa_jax.evals.base import TRAINED, Bench, Result, Scenes, Score, encoded, integer, over_inits, require

PLACES = ("time", "row", "column")
ALL = "every token"


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Ridge regressions from one token of the encoder. Each scene gives `each` tokens, drawn from bench.seed.

    Metrics:
      "token/row", "token/column", and of clips "token/time": R² of the token's place in the grid.
      "token/objects": IoU of the tokens that are predicted to touch an object (a regression to 0 and 1 that exceeds
        0.5) with those that do. The floor "every token" says it of all.

    Attributes: each: tokens of a scene.
    """

    each: int = 32

    def __post_init__(self):
        if not integer(self.each, 1):
            raise ConfigError(f"evals.protocols: Tokens.each = {self.each!r}: must be an integer of at least 1")

    def run(self, bench: Bench) -> Result:
        """Scores of the test scenes' tokens. Raises ConfigError for scenes without objects."""
        parts = [self._drawn(part, bench.seed, index) for index, part in enumerate((bench.fitting, bench.testing))]
        require(all(0 < targets[:, 3].mean() < 1 for _, targets in parts), "Tokens", "tokens with and without objects")
        (train_at, train_y), (test_at, test_y) = parts
        places = [name for i, name in enumerate(PLACES) if np.ptp(test_y[:, i])]
        found = {}
        for model in bench.models:
            train_x, test_x = (
                _at(model, part, at, bench.batch) for part, at in ((bench.fitting, train_at), (bench.testing, test_at))
            )
            columns = [PLACES.index(name) for name in places]
            r2 = ridge.r2(train_x, train_y[:, columns], test_x, test_y[:, columns])
            found[model.name] = {f"token/{name}": float(score) for name, score in zip(places, r2, strict=True)}
            guess = np.asarray(ridge.predict(train_x, train_y[:, 3:], test_x)[:, 0] > 0.5)
            found[model.name]["token/objects"] = overlap(guess, test_y[:, 3] > 0)
        scores: list[Score] = []
        count = len(test_y)
        for metric, value in found[bench.model.name].items():
            scores.append(Score(metric, TRAINED, value, count=count))
            if bench.randoms:
                scores.append(over_inits(metric, [found[model.name][metric] for model in bench.randoms], count))
        floor = overlap(np.ones(count, bool), test_y[:, 3] > 0)
        scores.append(Score("token/objects", ALL, floor, count=count, kind="floor"))
        return Result(scores, notes=(f"{self.each} tokens of each scene. Heads are fitted on {len(train_y)} tokens.",))

    def _drawn(self, part: Scenes, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens of each scene, int [n, each], and their time, row, column and object, float [n each, 4]."""
        patches, grid = part.arrays["object_patches"].any(1), part.map.grid
        rng = seeds.generator(seed, "tokens of a dense probe", index)
        at = np.stack([rng.permutation(math.prod(grid))[: self.each] for _ in part.arrays["object_patches"]])
        places = np.stack(np.unravel_index(at.ravel(), grid), axis=-1)
        touches = np.take_along_axis(patches, at, axis=1).ravel()
        return at, np.concatenate([places, touches[:, None]], axis=1).astype(float)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks. 1 if both are empty."""
    union = (found | true).sum()
    return float((found & true).sum() / union) if union else 1.0


def _at(model, part: Scenes, at: np.ndarray, batch: int) -> np.ndarray:
    """The features of these tokens, [n each, D]."""
    chosen = [
        np.take_along_axis(tokens, at[rows][..., None], axis=1)
        for rows, tokens in encoded(model, part.arrays["video"], batch)
    ]
    return np.concatenate(chosen).reshape(at.size, -1)
