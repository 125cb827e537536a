"""A dense probe: what single tokens say of their place, of the objects that they touch, and of which is in front."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import ridge
from cjepa_jax.evals.base import TRAINED, Bench, Result, Scenes, Score, encoded, integer, over_inits, require

PLACES = ("time", "row", "column")
AXES = ("x", "y", "z")  # places of the points' groups
DEPTH = "depth"  # the state that orders objects, larger is farther
ALL, PLACE = "every token", "place alone"


class Drawn(NamedTuple):
    """Tokens of n scenes, and what is asked of them. m = n each.

    at: which of a scene's tokens, int [n, each]. places: float [m, P]. touches: whether an object, bool [m].
    owner: the one object that it touches, -1 for none or several, int [m]. depth: of that object, float [m]. meet:
    whether two objects touch a common token at a time, bool [n, T, K, K]. Both are None if the source has no depth.
    """

    at: np.ndarray
    places: np.ndarray
    touches: np.ndarray
    owner: np.ndarray
    depth: np.ndarray | None
    meet: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Ridge regressions from one token of the encoder. Each scene gives `each` tokens, drawn from bench.seed.

    Metrics:
      "token/row", "token/column", and of clips "token/time": R² of the token's place in the grid. Of point clouds
        "token/x", "token/y" and "token/z": of its group's centre. Of a spectrogram rows are times, columns bands.
      "token/objects": IoU of the tokens that are predicted to touch an object (a regression to 0 and 1 that exceeds
        0.5) with those that do. The floor "every token" says it of all.
      "token/depth order": of worlds whose objects have the state "depth". The depth of the object is regressed from
        tokens that touch one object alone. The score is the share of pairs in the right order, among pairs of tokens
        of one time whose objects differ and touch a common token, so that one may hide the other. Chance is 0.5. The
        floor "place alone" regresses it from the token's time, row and column.

    Attributes: each: tokens of a scene.
    """

    each: int = 32

    kinds: ClassVar[tuple[str, ...]] = ("video", "episodes", "points", "spectrogram")

    def __post_init__(self):
        if not integer(self.each, 1):
            raise ConfigError(f"evals.protocols: Tokens.each = {self.each!r}: must be an integer of at least 1")

    def run(self, bench: Bench) -> Result:
        """Scores of the test scenes' tokens. Raises ConfigError for videos without objects."""
        kind = getattr(bench.fitting.source, "kind", "video")
        drawn = [self._drawn(part, kind, bench.seed, i) for i, part in enumerate((bench.fitting, bench.testing))]
        train, test = drawn
        filmed = kind in ("video", "episodes")
        if filmed:
            require(all(0 < part.touches.mean() < 1 for part in drawn), "Tokens", "tokens with and without objects")
        names = AXES if kind == "points" else PLACES
        pairs = _pairs(test)
        found: dict[str, dict[str, float]] = {}
        for model in bench.models:
            x = [_at(model, part, d.at, bench.batch) for part, d in ((bench.fitting, train), (bench.testing, test))]
            columns = [i for i in range(len(names)) if np.ptp(test.places[:, i])]
            r2 = ridge.r2(x[0], train.places[:, columns], x[1], test.places[:, columns])
            found[model.name] = {f"token/{names[i]}": float(score) for i, score in zip(columns, r2, strict=True)}
            if filmed:
                guess = np.asarray(ridge.predict(x[0], train.touches[:, None].astype(float), x[1])[:, 0] > 0.5)
                found[model.name]["token/objects"] = overlap(guess, test.touches)
            if len(pairs):
                found[model.name]["token/depth order"] = _ordered(x, drawn, pairs)
        floors = [("token/objects", ALL, overlap(np.ones(len(test.touches), bool), test.touches))] if filmed else []
        if len(pairs):
            floors.append(("token/depth order", PLACE, _ordered([train.places, test.places], drawn, pairs)))
        counts = {"token/depth order": len(pairs)}
        scores: list[Score] = []
        for metric, value in found[bench.model.name].items():
            count = counts.get(metric, len(test.touches))
            scores.append(Score(metric, TRAINED, value, count=count))
            if bench.randoms:
                scores.append(over_inits(metric, [found[model.name][metric] for model in bench.randoms], count))
        for metric, row, value in floors:
            scores.append(Score(metric, row, value, count=counts.get(metric, len(test.touches)), kind="floor"))
        notes = (f"{self.each} tokens of each scene. Heads are fitted on {len(train.touches)} tokens.",)
        return Result(scores, notes=notes)

    def _drawn(self, part: Scenes, kind: str, seed: int, index: int) -> Drawn:
        """The tokens of a part's scenes."""
        patches, grid = part.arrays["object_patches"], part.map.grid
        rng = seeds.generator(seed, "tokens of a dense probe", index)
        at = np.stack([rng.permutation(math.prod(grid))[: self.each] for _ in patches])
        places = np.stack(np.unravel_index(at.ravel(), grid), axis=-1).astype(float)
        scene = np.repeat(np.arange(len(at)), at.shape[1])
        owner = np.where(patches.sum(1) == 1, patches.argmax(1), -1) if patches.shape[1] else np.full(at.shape, -1)
        owner = owner[scene, at.ravel()] if patches.shape[1] else owner.ravel()
        states, known = part.arrays.get("states"), getattr(part.source, "state_names", ())
        depth = meet = None
        if states is not None and DEPTH in known:
            frame = ((places[:, 0] + 0.5) * states.shape[1] / grid[0]).astype(int)
            depth = states[scene, frame, owner, known.index(DEPTH)].astype(float)
            of_time = patches.reshape(*patches.shape[:2], grid[0], math.prod(grid[1:])).astype(np.float32)
            meet = np.einsum("natr,nbtr->ntab", of_time, of_time) > 0
        if kind == "points":
            places = part.arrays["video"][scene, 0, at.ravel(), 0].astype(float)
        touches = np.asarray(patches.any(1))[scene, at.ravel()]
        return Drawn(at=at, places=places, touches=touches, owner=owner, depth=depth, meet=meet)


def _pairs(drawn: Drawn) -> np.ndarray:
    """Rows i, j of tokens of one scene and time, of two objects that meet and whose depths differ: int [pairs, 2]."""
    if drawn.depth is None or drawn.meet is None:
        return np.zeros((0, 2), int)
    each, found = drawn.at.shape[1], []
    for scene in range(len(drawn.at)):
        rows = scene * each + np.flatnonzero(drawn.owner[scene * each : (scene + 1) * each] >= 0)
        i, j = (rows[one] for one in np.triu_indices(len(rows), 1))
        time, a, b = drawn.places[i, 0].astype(int), drawn.owner[i], drawn.owner[j]
        kept = (a != b) & (drawn.places[j, 0] == time) & drawn.meet[scene, time, a, b]
        kept &= drawn.depth[i] != drawn.depth[j]
        found.append(np.stack([i[kept], j[kept]], axis=-1))
    return np.concatenate(found)


def _ordered(features: Sequence[np.ndarray], drawn: Sequence[Drawn], pairs: np.ndarray) -> float:
    """The share of pairs in the right order, by a regression of the depth. features: of the tokens to fit and test."""
    train, test = drawn
    depths: Any = train.depth, test.depth
    own = train.owner >= 0
    guess = ridge.predict(features[0][own], depths[0][own, None], features[1])[:, 0]
    i, j = pairs.T
    return float(((guess[i] - guess[j]) * (depths[1][i] - depths[1][j]) > 0).mean())


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
