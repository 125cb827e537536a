"""End-point errors of planted flows on Balls, and what cannot be scored."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import ndimage

from cjepa_jax.data.worlds import Balls, Shadows
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import flow
from tests.evals import benches

SIZE, FRAMES = 32, 3
world = functools.partial(Balls, size=SIZE, frames=FRAMES, dt=0.04)


def bench(source=world, frames=FRAMES, estimate=None):
    made = benches.bench(lambda split, count: source(split=split, count=count), SIZE, frames, fit=8, test=6)
    models = [dataclasses.replace(model, flow=estimate) for model in made.models]
    return dataclasses.replace(made, model=models[0], randoms=tuple(models[1:]))


@pytest.fixture(scope="module")
def true():
    return flow.pairs(bench().testing, 0.5)


def planted(true: flow.Pairs, error):
    """An estimator that knows the truth and is off by `error` pixels to the right, found by the pair's frames."""
    known = {pair.tobytes(): answer for pair, answer in zip(true.frames, true.flow, strict=True)}
    return lambda frames: np.stack([known[pair.tobytes()] for pair in frames]) + np.float32((error, 0))


def test_the_truth_scores_0_an_error_its_size_and_floors_are_those_of_the_test_pairs(true):
    result = flow.Flow().run(bench(estimate=planted(true, 0.25)))
    assert [score.count for score in result.scores] == [6] * len(result.scores)
    length = np.linalg.norm(true.flow, axis=-1)
    moving = benches.by_row(result, "epe/moving")
    assert moving["trained"] == pytest.approx(0.25, abs=1e-5) == moving["random init"]
    assert moving[flow.ZERO] == pytest.approx(length[length >= 0.5].mean(), rel=1e-5)
    means = [pair[size >= 0.5].mean(0) for pair, size in zip(true.flow, length, strict=True)]
    away = [
        np.linalg.norm(pair - mean, axis=-1)[size >= 0.5]
        for pair, mean, size in zip(true.flow, means, length, strict=True)
    ]
    assert moving[flow.MEAN] == pytest.approx(np.concatenate(away).mean(), rel=1e-4)
    fit = flow.pairs(bench().fitting, 0.5)
    constant = fit.flow[np.linalg.norm(fit.flow, axis=-1) >= 0.5].mean(0)
    away = np.linalg.norm(true.flow - constant, axis=-1)[length >= 0.5]
    assert moving[flow.CONSTANT] == pytest.approx(away.mean(), rel=1e-4)
    testing = bench().testing
    shift = np.concatenate([testing.source.translation(int(index)) for index in testing.arrays["scene"]])
    away = np.linalg.norm(true.flow - shift, axis=-1)[length >= 0.5]
    assert 0.05 < moving[flow.TRANSLATION] == pytest.approx(away.mean(), rel=1e-4)
    assert 0 < moving[flow.DIS] < moving[flow.ZERO]
    every = benches.by_row(result, "epe/all")
    assert every[flow.ZERO] == pytest.approx(length.mean(), rel=1e-4)  # the ground moves by nothing
    assert all(image.dtype == np.uint8 and image.shape[1] == 5 * SIZE for image in result.images.values())


def test_points_that_the_next_frame_hides_are_left_out(true):
    """An estimator that is wrong there alone."""
    hidden = true.where["epe/moving"] & ~true.where["epe/moving and shown"]
    assert 0 < hidden.mean() < true.where["epe/moving"].mean() / 2
    wrong = true._replace(flow=true.flow + 9 * hidden[..., None])
    scores = benches.by_row(result := flow.Flow().run(bench(estimate=planted(wrong, 0.0))), "epe/moving and shown")
    assert scores["trained"] == 0 < benches.by_row(result, "epe/moving")["trained"]


def test_dis_is_chosen_on_the_fitting_scenes(true, monkeypatch):
    """Options that are perfect on the test pairs and wrong on the others are not taken."""
    fit = flow.pairs(bench().fitting, 0.5)
    know = planted(fit, 0.0), planted(true, 0.0)

    def classical(options):
        good = {(2, 1, 0): 0, (0, 0, 0): 1}.get(options)

        def found(frames):
            own = next(i for i, part in enumerate((fit, true)) if frames.shape == part.frames.shape)
            return know[own](frames) + np.float32(options == (2, 1, 0) and own or 5 * (good != own))

        return found

    monkeypatch.setattr(flow, "classical", classical)
    scores = benches.by_row(flow.Flow().run(bench(estimate=planted(true, 0.0))), "epe/moving")
    assert scores[flow.DIS] > 1


def test_dis_finds_the_motion_of_a_texture():
    noise = np.random.default_rng(0).normal(size=(12, 12))
    image = np.clip(128 + 60 * ndimage.zoom(noise, 6, order=3), 0, 255)
    first, second = (np.repeat(image[4:68, 4 - x : 68 - x, None], 3, -1).astype(np.uint8) for x in (0, 2))
    for options in ((2, 0, 0), (2, 0, 1)):
        found = flow.classical(options)(np.stack([first, second])[None])
        assert np.median(found[0, 16:48, 16:48, 0]) == pytest.approx(2, abs=0.2)


def test_hues_are_directions_and_0_is_white():
    field = np.float32([[[0, 0], [2, 0], [0, 2], [-2, 0], [1, 0]]])
    colours = flow.coloured(field, 2.0)[0]
    assert colours[0].tolist() == [255, 255, 255] and colours[1].tolist() == [255, 0, 0]
    assert colours[2].tolist() == [127, 255, 0] and colours[3].tolist() == [0, 255, 255]
    assert colours[4][0] == 255 and 120 < colours[4][1] < 136


def test_what_cannot_be_scored_is_refused(true):
    with pytest.raises(ConfigError, match="Flow needs a model that estimates flow"):
        flow.Flow().run(bench())
    for source, frames, text in (
        (functools.partial(Shadows, size=SIZE, frames=2), 2, "scenes with true flow"),
        (functools.partial(Balls, size=SIZE, frames=1), 1, "data.frames of at least 2"),
        (functools.partial(Balls, size=SIZE, frames=2, dt=0.001), 2, "objects that move"),
    ):
        with pytest.raises(ConfigError, match=f"Flow needs {text}"):
            flow.Flow().run(bench(source, frames, lambda frames: None))
    for least in (0, -1.0, True, float("inf")):
        with pytest.raises(ConfigError, match="Flow.least"):
            flow.Flow(least=least)
