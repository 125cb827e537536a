"""Do-contrast during training: a few pairs of removals, scored as the protocol `effects` scores many."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.evals.base import Model
from cjepa_jax.evals.counterfactual import contrast, pairs, pictures
from cjepa_jax.evals.counterfactual.effect_scores import Side
from cjepa_jax.evals.counterfactual.foresee import Foreseen, decoder, foresee

AREA = (0.05, 0.40)  # limits of both objects' share of the tokens, as METHOD, Algorithm 2, has them
TITLE = "The difference that it makes which of two objects is removed"


class Removals:
    """Pairs of removals in held-out scenes. `score(model)` gives the metrics of docs/EVALUATION.md, (E4) to (E6).

    Args:
      scenes: a SceneMap over held-out scenes that can be simulated without objects. Its mask is not used.
      fit, test: numbers of pairs that fit the decoder, and that are scored.
      anchor: times (tubelets) at the start at which nothing is hidden, as in training.
      seed: of the draw of pairs and of the bootstrap. batch: pairs at a time.
      area: limits of both objects' share of the tokens.
    Raises: DataError if there are too few scenes with two objects that can be removed.
    """

    def __init__(
        self,
        scenes: SceneMap,
        fit: int,
        test: int,
        anchor: int,
        seed: int,
        batch: int,
        area: Sequence[float] = AREA,
    ):
        scenes = dataclasses.replace(scenes, with_objects=True, with_masks=True, intervened="none")
        drawn = pairs.prepare(scenes, fit + test, seed, area)
        self._scenes, self._anchor, self._seed, self._batch = scenes, anchor, seed, batch
        self._fit, self._test = drawn.part(slice(fit)), Side(drawn.part(slice(fit, None)), scenes.grid)

    def score(self, model: Model) -> dict[str, float]:
        """The metrics by name. Empty for a model that has no trained residual head.

        do_contrast            do-contrast R2 in colours, (E4). 0 for any answer that does not depend on the object
        do_contrast_interval   half of its 95 % interval, by bootstrap over scenes
        do_contrast_ceiling    the same of the true change of the target's tokens
        matched                2AFC, (E5)
        explained              the share of the true change of the target's tokens without k that is predicted
        explained_wrong_object the same, by the change that is predicted without o
        """
        seen, rest, true = self._seen(model), self._test.rest, self._true()
        if seen.said is None:
            return {}
        sums = contrast.products(seen.said.change - seen.said.change_other, true).over(rest)
        real = contrast.products(seen.real - seen.real_other, true).over(rest)
        value, half = contrast.r2(sums, self._seed)
        return {
            "do_contrast": value,
            "do_contrast_interval": half,
            "do_contrast_ceiling": contrast.share(real),
            "matched": contrast.matched(sums, self._seed)[0],
            "explained": contrast.share(seen.said.effect.over(rest)),
            "explained_wrong_object": contrast.share(seen.said.wrong.over(rest)),
        }

    def picture(self, model: Model) -> np.ndarray | None:
        """The first test pairs with the true and the predicted difference, uint8 [H, W, 3]. None as in `score`."""
        said = self._seen(model).said
        if said is None:
            return None
        return pictures.removals(self._scenes, self._test.pairs, self._true(), said.change - said.change_other)

    def _true(self) -> np.ndarray:
        """The true difference of the two removals, in colours of cells: float32 [n, N, 12]."""
        return self._test.change - self._test.change_other

    def _seen(self, model: Model) -> Foreseen:
        grid, batch = self._scenes.grid, self._batch
        decode, _ = decoder(model, self._fit, grid, batch)
        return foresee(model, self._test.pairs, grid, anchor=self._anchor, batch=batch, decode=decode)
