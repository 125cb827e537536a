"""The probe on encoders whose answers are known."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.evals import probe as probes
from cjepa_jax.masks import displaced, objects, random
from tests.scenes import scene_map


def patches(video):
    """Mean colour of every 8 x 8 patch and a share of the whole picture's: [B, T, H, W, C] -> [B, 16 T, 3]."""
    b, t = video.shape[:2]
    own = video.reshape(b, t, 4, 8, 4, 8, 3).mean((3, 5)).reshape(b, -1, 3) / 255.0
    return own + 0.5 * own.mean(1, keepdims=True)


def bright(params, video):
    return params * patches(jnp.asarray(video, jnp.float32))


def clips(params, video):
    """Tokens of the first of every two frames."""
    return bright(params, video[:, ::2])


def blind(params, video):
    """The same tokens for every scene."""
    return params * jnp.broadcast_to(jnp.arange(16.0)[:, None], (len(video), 16, 3))


def make(encode, intervened="rerender", train=8, test=8, batch=5, names=("count",) + tuple("abcde")):
    scenes = scene_map(frames=1, intervened=intervened, count=16)
    return probes.Probe(encode, jnp.float32(1.0), scenes, names, train, test, batch), scenes


def test_response_is_the_mean_change_of_context_tokens_over_the_feature_variance():
    probe, scenes = make(bright)
    scenes = dataclasses.replace(scenes, mask=objects.draw)  # METHOD, Algorithm 2 with its settings, not the run's
    found = [scenes(i, 0) for i in range(16)]
    tokens = np.stack([patches(s["video"][None].astype(np.float64))[0] for s in found])
    variance = np.square(tokens - tokens.mean(0)).sum(-1).mean()  # over scenes, position by position
    change = []
    for s, own in zip(found[8:], tokens[8:], strict=True):
        if s["removed"].any():
            other = patches(s["intervened"][None].astype(np.float64))[0]
            change.append(np.square(own - other).sum(-1)[s["context"]].mean())
    metrics = probe.run(jnp.float32(2.0))
    assert metrics["probe/response"] == pytest.approx(np.mean(change) / variance, rel=1e-4) and np.mean(change) > 0
    assert metrics["probe/response_random"] == pytest.approx(metrics["probe/response"], rel=1e-4)  # not of scale
    assert metrics["probe/feature_std"] == pytest.approx(2 * metrics["probe/feature_std_random"], rel=1e-4)
    pooled = tokens.mean(1)
    assert metrics["probe/feature_std_random"] == pytest.approx(pooled[8:].std(0).mean(), rel=1e-4)


def test_every_run_is_judged_under_the_same_masks():
    """Runs that hide one object, five, behind an anchor, larger ones, elsewhere, or tokens, and those with the wrong
    counterparts: equal to the bit."""
    found = {}
    kinds = {"rerender_other": "rerender_other", "second_view": "second_view"}
    for name, mask in {
        "document": objects.draw,
        "one": functools.partial(objects.draw, max_objects=1),
        "five": functools.partial(objects.draw, max_objects=5),
        "large": functools.partial(objects.draw, area=(0.2, 0.9)),
        "anchor": functools.partial(objects.draw, anchor=1),
        "displaced": displaced.draw,
        "random": random.draw,
        **dict.fromkeys(kinds, objects.draw),
    }.items():
        scenes = scene_map(frames=4, intervened=kinds.get(name, "rerender"), count=16, mask=mask, max_removed=5)
        probe = probes.Probe(clips, jnp.float32(1.0), scenes, ("count", *"abcde"), 8, 8, 8)
        found[name] = probe.run(jnp.float32(1.0))
    assert found["document"]["probe/response"] > 0
    assert all(metrics == found["document"] for metrics in found.values())


def test_the_rank_is_of_the_test_scenes_alone():
    probe, scenes = make(bright)
    features = np.stack([patches(scenes(i, 0)["video"][None].astype(np.float64))[0].mean(0) for i in range(8, 16)])
    sigma = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = sigma / sigma.sum()
    assert probe.run(jnp.float32(1.0))["probe/rankme"] == pytest.approx(
        np.exp(-(share * np.log(share)).sum()), rel=1e-3
    )


def test_an_encoder_that_ignores_the_scene_responds_to_nothing():
    metrics = make(blind)[0].run(jnp.float32(1.0))
    assert metrics["probe/response"] == 0 and metrics["probe/feature_std"] == pytest.approx(0, abs=1e-6)
    assert metrics["probe/rankme"] == pytest.approx(1.0)
    assert np.isfinite([value for value in metrics.values()]).all()


@pytest.mark.parametrize("intervened", ["zero_pixels", "drop_tokens"])
def test_without_real_removals_there_is_no_response(intervened):
    metrics = make(bright, intervened)[0].run(jnp.float32(1.0))
    assert not any("response" in name for name in metrics)
    assert {"probe/count_r2", "probe/count_r2_random", "probe/count_r2_pixels"} <= metrics.keys()


def test_groups_are_means_over_their_targets():
    names = ("count", "position/x", "position/y", "velocity/x", "velocity/y", "size/area")
    metrics = make(bright, names=names)[0].run(jnp.float32(1.0))
    each = make(bright, names=tuple("abcdef"))[0].run(jnp.float32(1.0))
    assert metrics["probe/position_r2"] == pytest.approx((each["probe/b_r2"] + each["probe/c_r2"]) / 2)
    assert metrics["probe/size_r2_pixels"] == pytest.approx(each["probe/f_r2_pixels"])


def test_labels_that_never_change_are_left_out(caplog):
    """One object in every picture, as in many data sets of people's own."""
    scenes = scene_map(frames=1, intervened="none", count=16)
    names = ("count", "position/x", "position/y")

    class Same(type(scenes.source)):
        def __getitem__(self, i):
            return super().__getitem__(i) | {"labels": np.array([1.0, 0.5, i / 16], np.float32)}

    fields = {f.name: getattr(scenes.source, f.name) for f in dataclasses.fields(scenes.source) if f.init}
    scenes = dataclasses.replace(scenes, source=Same(**fields))
    object.__setattr__(scenes.source, "label_names", names)
    metrics = probes.Probe(bright, jnp.float32(1.0), scenes, names, 8, 8, 5).run(jnp.float32(1.0))
    assert "probe/count_r2" not in metrics and np.isfinite(list(metrics.values())).all()
    assert {"probe/position_r2", "probe/position_r2_random", "probe/position_r2_pixels"} <= metrics.keys()
    assert "leaves out count, position/x" in caplog.text


def test_batches_do_not_matter_and_a_small_source_is_split_in_proportion():
    one, two = (make(bright, batch=batch)[0].run(jnp.float32(1.0)) for batch in (16, 3))
    assert one.keys() == two.keys()
    for name in one:
        assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-6), name
    small, exact = (make(bright, train=n, test=m)[0].run(jnp.float32(1.0)) for n, m in ((300, 100), (12, 4)))
    assert small == exact and np.isfinite(small["probe/count_r2"])


def test_pixel_components_are_those_of_the_svd():
    video = np.random.default_rng(0).integers(0, 256, (12, 2, 8, 8, 3), np.uint8)
    x = video.reshape(12, -1).astype(np.float64)
    x -= x[:9].mean(0)
    expected = x @ np.linalg.svd(x[:9], full_matrices=False)[2][:8].T  # 9 centred rows have rank 8
    found = probes.pixel_components(video, 9)
    assert found.shape == (12, 8)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(
        np.abs(probes.pixel_components(video, 9, 3)), np.abs(expected[:, :3]), rtol=1e-3, atol=1e-2
    )


def test_large_frames_are_shrunk_first():
    video = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64, 3), np.uint8), 2, 2), 2, 3)
    small = probes.pixel_components(video[:, :, ::2, ::2], 3)
    np.testing.assert_allclose(np.abs(probes.pixel_components(video, 3)), np.abs(small), rtol=1e-3, atol=1e-1)


def test_too_few_scenes_are_split_two_and_two_or_not_probed_at_all():
    scenes = scene_map(frames=1, count=5)
    metrics = probes.Probe(bright, jnp.float32(1.0), scenes, ["count"] + list("abcde"), 1, 99, 4).run(jnp.float32(1.0))
    assert "probe/count_r2" in metrics
    few = scene_map(frames=1, count=3)
    assert probes.Probe(bright, jnp.float32(1.0), few, ["count"] + list("abcde"), 8, 8, 4).run(jnp.float32(1.0)) == {}


def test_a_target_that_is_the_same_in_all_scenes_has_no_score():
    """Such as the place of a wall that never moves: a score of NaN would end the run."""
    rng = np.random.default_rng(0)
    features, probe = rng.standard_normal((40, 3)), object.__new__(probes.Probe)
    columns = [features[:, 0], np.full(40, 0.1), features[:, 1], np.full(40, 0.7)]
    labels = np.stack(columns, axis=1).astype(np.float32)
    probe._scenes, probe._train = {"labels": labels}, 20
    probe._groups = ["dot", "wall", "wall", "door"]
    scores = probe._r2(features, "")
    assert set(scores) == {"probe/dot_r2", "probe/wall_r2"} and min(scores.values()) > 0.99
