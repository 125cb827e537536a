"""Point-JEPA's masks against stored statistics of the public samplers, and what must hold for each draw."""

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import runs
from tests.objectives import family


def draw(seed, tokens, **options):
    none = np.zeros((2, tokens), bool)
    return runs.draw(np.random.default_rng(seed), none, none[:, 0], grid=(1, tokens, 1), **options)


def test_amounts_are_those_of_the_public_samplers():
    wanted = family.stored("point_jepa")[0]["sampler_statistics"]
    found = [draw(seed, wanted["tokens"]) for seed in range(2000)]
    seen = np.array([(~masked & ~dropped).sum() for masked, _, dropped in found])
    union = np.array([masked.sum() for masked, *_ in found])
    error = lambda x: 4 * x.std() / len(x) ** 0.5  # noqa: E731
    assert abs(seen.mean() - wanted["context"]) < 1.5 * error(seen)
    assert abs(seen.std() - wanted["context_sd"]) < 0.3
    assert abs(union.mean() - wanted["union"]) < 1.5 * error(union)


@pytest.mark.parametrize("tokens", [2, 3, 16, 64])
def test_targets_are_runs_and_the_context_is_a_run_of_the_rest(tokens):
    for seed in range(50):
        masked, removed, dropped = draw(seed, tokens, targets=2)
        seen = ~masked & ~dropped
        assert masked.any() and seen.any() and not removed.any() and not (masked & dropped).any()
        assert (np.diff(np.pad(masked, 1).astype(int)) == 1).sum() <= 2
        order = np.flatnonzero(seen[~masked])
        assert (np.diff(order) == 1).all()


@pytest.mark.parametrize("option", [{"targets": 0}, {"target": (0.2, 0.1)}, {"context": (0.5, 1.5)}])
def test_options_that_cannot_work_are_refused(option):
    (name,) = option
    with pytest.raises(ConfigError, match=rf"^mask.{name} = "):
        draw(0, 16, **option)
