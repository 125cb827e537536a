"""The terms of MC-JEPA against loops in NumPy, on flows that are known, and the whole loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.data import assemble
from cjepa_jax.errors import ConfigError
from cjepa_jax.loading.model import Network
from cjepa_jax.models import warping
from cjepa_jax.models.pyramid import FlowHead
from cjepa_jax.objectives import photometric
from cjepa_jax.objectives.flow import WEIGHTS, MotionContent, _both_ways
from cjepa_jax.types import Batch, TrainState
from configs.family import mcjepa

RNG = np.random.default_rng(0)
ONE, OTHER = RNG.uniform(size=(2, 2, 5, 6, 3)).astype(np.float32)
SEEN = RNG.random((2, 5, 6)) < 0.7
STILL = np.zeros((2, 5, 6, 2), np.float32)


def windows(image, row, col):
    return image[row - 1 : row + 2, col - 1 : col + 2].reshape(9, 3).astype(np.float64)


def similar(a, b):
    """SSIM of one window of one channel, from its definition."""
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    return (
        (2 * a.mean() * b.mean() + 1e-4)
        * (2 * covariance + 9e-4)
        / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4))
    )


def test_reconstruction_is_l1_l2_and_ssim_of_the_pixels_that_count():
    run = jax.jit(photometric.reconstruction, static_argnums=3)
    found = run(ONE, OTHER, SEEN, (0.5, 2.0, 3.0))
    for b in range(2):
        error = (OTHER[b] - ONE[b])[SEEN[b]].astype(np.float64)
        unlike = [
            (1 - np.mean([similar(windows(ONE[b], r, c)[:, k], windows(OTHER[b], r, c)[:, k]) for k in range(3)])) / 2
            for r in range(1, 4)
            for c in range(1, 5)
            if SEEN[b, r, c]
        ]
        wanted = 0.5 * abs(error).mean() + 2 * (error**2).mean() + 3 * np.mean(np.clip(unlike, 0, 1))
        assert float(found[b]) == pytest.approx(wanted, rel=1e-4)
    np.testing.assert_allclose(run(ONE, ONE, SEEN, (0.5, 2.0, 3.0)), 0, atol=1e-6)
    assert not run(ONE, OTHER, np.zeros_like(SEEN), (0.5, 2.0, 3.0)).any()  # no pixel counts


def test_smoothness_is_the_mean_change_of_neighbours_less_at_edges():
    flow = RNG.normal(size=(2, 5, 6, 2)).astype(np.float32)
    run = jax.jit(photometric.smoothness, static_argnums=2)
    found = run(flow, ONE, 10.0)
    for b in range(2):
        along = {"x": [], "y": []}
        for r in range(5):
            for c in range(6):
                for name, (i, j) in {"x": (r, c + 1), "y": (r + 1, c)}.items():
                    if i < 5 and j < 6:
                        edge = abs(ONE[b, i, j] - ONE[b, r, c]).mean()
                        along[name].append(np.exp(-10 * edge) * abs(flow[b, i, j] - flow[b, r, c]).mean())
        assert float(found[b]) == pytest.approx(np.mean(along["x"]) + np.mean(along["y"]), rel=1e-4)
    np.testing.assert_array_equal(run(np.ones_like(flow), ONE, 10.0), 0)


def test_opposite_flows_come_back_and_points_that_leave_or_do_not_come_back_are_not_shown():
    forward = STILL + np.float32((1.0, 0.0))
    visible, back = jax.jit(photometric.visible), jax.jit(photometric.round_trip)
    np.testing.assert_allclose(back(forward, -forward), 0)
    shown = np.asarray(visible(forward, -forward))
    assert shown[..., :5].all() and not shown[..., 5].any()  # the last column leaves the frame
    assert not visible(forward, STILL).any()  # 1 > 0.01 + 0.5: none comes back
    near = visible(forward, np.float32(-0.4) * forward)  # 0.36 < 0.01 x 1.16 + 0.5
    assert np.asarray(near)[..., :5].all()
    np.testing.assert_allclose(back(forward, STILL), forward)


def test_gradients_are_finite_where_frames_are_equal_and_nothing_moves():
    def total(flow):
        warped = warping.warp(ONE, flow)
        terms = photometric.reconstruction(ONE, warped, SEEN, (1.0, 1.0, 1.0)), photometric.smoothness(flow, ONE, 1.0)
        return sum(x.sum() for x in terms)

    assert np.isfinite(jax.jit(jax.grad(total))(STILL)).all()


def test_pairs_go_both_ways():
    clips = np.arange(2 * 3).reshape(2, 3, 1)
    start, end = _both_ways(clips)
    np.testing.assert_array_equal(np.ravel(start), [0, 1, 3, 4, 1, 2, 4, 5])
    np.testing.assert_array_equal(np.ravel(end), [1, 2, 4, 5, 0, 1, 3, 4])


def section(**changes):
    c = mcjepa.get_config().copy_and_resolve_references().unlock()
    c.objective.encoder.update(widths=(4, 6), blocks=(1, 1))
    c.objective.head.update(hidden=(6,), radius=1)
    c.objective.projector.update(hidden=(8,), out=6)
    c.update_from_flattened_dict({f"objective.{key}": value for key, value in changes.items()})
    fields = c.objective.to_dict()
    fields.pop("type")
    return fields


def clips(count=4):
    """Clips of two frames of noise: the second is the first one, two pixels further to the right."""
    noise = np.random.default_rng(1).integers(0, 256, (count, 1, 16, 18, 3), np.uint8)
    return as_batch(np.concatenate([noise[:, :, :, 2:], noise[:, :, :, :16]], axis=1))


MOVES = ((4, 0), (0, 4), (-4, 0), (0, -4))  # (x, y) in pixels


class Matching(FlowHead):
    """Knows that a pair moves by one of MOVES, and finds by which one from the coarsest maps, if its parameter is 1.
    If it is 0, every pair gets the first one."""

    def setup(self):
        self.finds = self.param("finds", jax.nn.initializers.ones, (), int)

    def __call__(self, one, other):
        cell = 2 ** len(one)
        errors = [jnp.square(one[-1] - jnp.roll(other[-1], (-y // cell, -x // cell), (1, 2))) for x, y in MOVES]
        best = jnp.argmin(jnp.stack([error.mean((1, 2, 3)) for error in errors]), axis=0) * self.finds
        flow = jnp.asarray(MOVES, jnp.float32)[best][:, None, None]
        return [jnp.broadcast_to(flow / 2**level, (*x.shape[:3], 2)) for level, x in enumerate(one, 1)]


def squares():
    """Clips of three frames, uint8 [2, 3, 16, 16, 3]: noise on grey that moves by two of MOVES, one after the other."""
    video = np.full((2, 3, 16, 16, 3), 128, np.uint8)
    noise = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 3), np.uint8)
    for scene, corners in enumerate((((4, 4), (4, 8), (8, 8)), ((8, 8), (8, 4), (4, 4)))):  # (row, column)
        for t, (row, col) in enumerate(corners):
            video[scene, t, row : row + 4, col : col + 4] = noise[scene]
    return video


def test_the_pyramid_says_how_large_its_patches_are():
    c = mcjepa.get_config().copy_and_resolve_references().unlock()
    c.objective.encoder.update(widths=(4, 6), blocks=(1, 1))
    assert assemble.patch_and_tubelet(c) == (4, 1)
    del c.objective.encoder.widths, c.objective.encoder.blocks  # the class has defaults
    assert assemble.patch_and_tubelet(c) == (16, 1)


@pytest.fixture(scope="module")
def matched():
    """(objective, its encoder's parameters, motion) with Matching behind a random pyramid without blocks, at whose
    borders nothing is padded."""
    fields = section(**{"encoder.blocks": (0, 0)})
    fields["head"] = {"type": f"{__name__}:Matching"}
    objective = MotionContent(**fields, steps=10)
    shapes = jax.eval_shape(objective._encoder.init, jax.random.key(0), np.zeros((1, 16, 16, 3)))["params"]
    rng = np.random.default_rng(3)
    encoder = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)
    return objective, encoder, jax.jit(objective._motion)


def as_batch(video):
    fields = dict.fromkeys(Batch.__dataclass_fields__) | {"video": video, "valid": np.ones(len(video), bool)}
    return Batch(**fields)


def test_true_flow_at_every_level_explains_both_directions_of_all_pairs(matched):
    """Fails if the two frames, the two directions, or the resolution of a flow are mistaken."""
    objective, encoder, motion = matched
    params = {"encoder": encoder, "head": {"finds": np.int32(1)}}
    terms, per_scene, monitors = motion(params, as_batch(squares()))
    for name, most in (("reconstruction", 1e-5), ("regression", 1e-8), ("smoothness", 0), ("cycle", 1e-5)):
        assert 0 <= float(terms[name]) <= most, name
    assert (np.abs(per_scene) < 1e-5).all()
    assert float(monitors["flow_size"]) == 4 and float(monitors["flow_seen"]) == 12 / 16

    pairs = np.concatenate([squares()[:, :2], squares()[:, 1:]])
    state = TrainState(step=0, params=params, target={}, extra={}, opt_state=None, skipped=0)
    found = Network(objective=objective, state=state, names_objects=False).functions(batch=3).flow(pairs)
    wanted = np.float32([(4, 0), (-4, 0), (0, 4), (0, -4)])
    np.testing.assert_array_equal(found, np.broadcast_to(wanted[:, None, None], (4, 16, 16, 2)))


def test_points_that_do_not_come_back_count_in_the_cycle_and_not_in_the_reconstruction(matched):
    _, encoder, motion = matched
    terms, _, monitors = motion({"encoder": encoder, "head": {"finds": np.int32(0)}}, as_batch(squares()))
    assert float(terms["cycle"]) == pytest.approx(8) and float(terms["reconstruction"]) == 0  # none is seen
    assert float(monitors["flow_seen"]) == 0 < float(terms["regression"])


def test_a_weight_that_is_not_given_is_that_of_the_config():
    given, shipped = MotionContent(**(section() | {"weights": {"cycle": 3.0}}), steps=10), section()
    assert {name: given._weight(name) for name in WEIGHTS} == shipped["weights"] | {"cycle": 3.0}
    defaults = {field.name: field.default for field in dataclasses.fields(MotionContent)}
    for name in ("pixels", "edge", "occlusion", "motion_weight", "content_weight", "motion_start"):
        assert defaults[name] == shipped[name], name


@pytest.fixture(scope="module")
def made():
    objective, batch = MotionContent(**section(), steps=10), clips()
    state = jax.jit(objective.init)(jax.random.key(0), batch)
    loss = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    return objective, batch, state, loss


@pytest.mark.slow
def test_the_loss_is_the_weighted_sum_of_its_terms_and_trains_every_part(made):
    objective, batch, state, loss = made
    (total, (metrics, extra)), gradient = loss(*state, batch, jax.random.key(1), 0)
    w = objective.weights
    motion = ("reconstruction", "regression", "smoothness", "cycle", "level_variance", "level_covariance")
    content = ("invariance", "variance", "covariance")
    terms = {name.removeprefix("loss/"): float(value) for name, value in metrics.items() if name.startswith("loss/")}
    assert set(terms) == {*motion, *content}
    content_sum = sum(w[name] * terms[name] for name in content)
    wanted = sum(w[name] * terms[name] for name in motion) + objective.content_weight * content_sum
    assert float(total) == pytest.approx(wanted, rel=1e-5) and metrics["per_scene"].shape == (4,)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
    assert all(float(abs(leaf).max()) > 0 for leaf in jax.tree.leaves((gradient["encoder"], gradient["head"])))
    kernels = [leaf for path, leaf in jax.tree.leaves_with_path(gradient["projector"]) if path[-1].key == "kernel"]
    assert len(kernels) == 2 and all(float(abs(leaf).max()) > 0 for leaf in kernels)  # a norm removes biases
    assert jax.tree.structure(extra) == jax.tree.structure(state[2])


def test_the_reconstruction_is_0_with_the_true_flow_and_large_with_others():
    here, there = (clips().video[:, t].astype(np.float32) / 255 for t in (0, 1))
    seen = np.ones(here.shape[:3], bool)
    seen[:, :, -2:] = False  # the last two columns leave the frame

    @jax.jit
    def error(flow):
        return photometric.reconstruction(here, warping.warp(there, flow), seen, (1.0, 1.0, 0.0))

    true, none, wrong = (error(np.full((*seen.shape, 2), (x, 0), np.float32)) for x in (2.0, 0.0, -2.0))
    assert (true < 1e-6).all() and (none > 0.3).all() and (wrong > 0.3).all()


@pytest.mark.slow
def test_a_scene_that_does_not_count_changes_nothing(made):
    _, batch, state, loss = made
    video = batch.video.copy()
    video[3] = 255 - video[3]
    flags = np.array([True, True, True, False])
    totals = [
        float(loss(*state, dataclasses.replace(batch, video=v, valid=flags), jax.random.key(1), 0)[0][0])
        for v in (batch.video, video)
    ]
    assert totals[0] == totals[1] != float(loss(*state, batch, jax.random.key(1), 0)[0][0])


@pytest.mark.slow
def test_the_motion_may_start_later(made):
    later = MotionContent(**section(motion_start=10, occlusion=False), steps=10)
    state, batch, key = made[2], clips(), jax.random.key(1)
    loss = jax.jit(later.loss)
    at = {step: float(loss(*state, batch, key, step)[0]) for step in (0, 10, 15, 20, 40)}
    assert loss(*state, batch, key, 0)[1][0]["flow_seen"] == 1  # all pixels count
    assert at[0] == at[10] < at[15] < at[20] == at[40]
    assert at[15] - at[10] == pytest.approx((at[20] - at[10]) / 2, rel=1e-4)


def test_flow_and_tokens_have_their_shapes():
    objective, batch = MotionContent(**section(), steps=10), clips()
    params, *_ = jax.eval_shape(objective.init, jax.random.key(0), batch)
    assert jax.eval_shape(objective.flow, params, batch.video).shape == (4, 16, 16, 2)
    assert jax.eval_shape(objective.encode, params, batch.video).shape == (4, 2 * 4 * 4, 6) and objective.patch == 4


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"encoder.blocks": (1,)}, r"widths = \(4, 6\), blocks = \(1,\): must be 1 to 8 levels, as many of each"),
        ({"encoder.kernel": 4}, "kernel = 4: must be an odd number of pixels"),
        ({"encoder.widths": (4, 0)}, "objective.encoder.widths = 0: must be a whole number, at least 1"),
        ({"head.hidden": (0,)}, "objective.head.hidden = 0: must be a whole number, at least 1"),
        ({"head.radius": -1}, "objective.head.radius = -1: must be a whole number, at least 1"),
        ({"head.limit": 0.0}, "objective.head.limit = 0.0: must be above 0, pixels"),
        ({"weights.cycle": -1.0}, "objective.weights.cycle = -1.0: must be 0 or more"),
        ({"pixels": (1.0, 1.0)}, r"objective.pixels = \(1.0, 1.0\): must be the weights of l1, l2 and SSIM"),
        ({"pixels": (1.0, -1.0, 0.0)}, "objective.pixels = -1.0: must be 0 or more"),
        ({"encoder.blocks": (1, -1)}, "objective.encoder.blocks = -1: must be a whole number, at least 0"),
        ({"edge": -1.0}, "objective.edge = -1.0: must be 0 or more"),
        ({"views.count": 3}, "objective.views.count = 3: must be 2 with MC-JEPA, which compares two"),
        ({"views.small": 1, "views.small_size": 8}, "objective.views.small = 1: must be 0"),
        ({"motion_start": -1}, "objective.motion_start = -1: must be a whole number, at least 0"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        MotionContent(**section(**changes), steps=10)


def test_images_and_unknown_weights_are_refused():
    with pytest.raises(ConfigError, match="objective.weights.smooth = 1.0: must be one of reconstruction, "):
        MotionContent(**(section() | {"weights": {"smooth": 1.0}}), steps=10)
    with pytest.raises(ConfigError, match="data.frames = 1: must be at least 2"):
        batch = dataclasses.replace(clips(), video=clips().video[:, :1])
        MotionContent(**section(), steps=10).init(jax.random.key(0), batch)
