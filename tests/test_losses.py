"""The loss terms against golden numbers, float64 NumPy, and the promises about gradients, padding and scale."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cjepa_jax import losses as plain
from cjepa_jax.configuration import loss_names
from cjepa_jax.configuration.check import CHOICES
from cjepa_jax.errors import ConfigError
from tests.compiled import whole
from tests.objectives import family

losses = whole(plain, "beta", "width", "count", "knots", "t_max", "per_example")
LOSSES = {name: getattr(losses, function) for name, function in loss_names.LOSSES.items()}
OF_DIFFERENCES = ("elementwise", "l1", "mse", "smooth_l1")  # those of `token_loss`
GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden/formulas.json").read_text())


def mine(prediction, target, mask, beta=1.0, valid=None, *, per_example=False):
    """1 - cos, as CONTRIBUTING shows."""
    error = plain.cosine_distance(prediction, jax.lax.stop_gradient(target)) / 2
    return plain.scene_mean(error, mask, valid, per_example=per_example)


def without_per_example(prediction, target, mask, beta, valid=None):
    return jnp.mean((prediction - target) ** 2)


def scalar(prediction, target, mask, beta, valid=None, *, per_example=False):
    return jnp.mean((prediction - target) ** 2)


def raising(prediction, target, mask, beta, valid=None, *, per_example=False):
    return prediction - target[:, :1, :2]


@pytest.mark.parametrize(
    "name, text",
    [
        ("without_per_example", "must take (prediction, target, mask, beta, valid=None, *, per_example=False): got an"),
        ("scalar", "returned [] with per_example=True: must be [2], as losses.scene_mean returns"),
        ("raising", "raised TypeError: "),
        ("missing", "the module has no 'missing'"),
    ],
)
def test_a_loss_of_ones_own_that_is_broken_ends_in_one_line(name, text):
    tokens = jnp.ones((2, 3, 4))
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(
            lambda x: plain.named(f"tests.test_losses:{name}")(x, x, x[..., 0] > 0, 1.0, per_example=True), tokens
        )
    assert str(error.value).startswith(f"objective.prediction_loss = 'tests.test_losses:{name}': {text}"), error.value
    assert name != "raising" or "(test_losses.py, line " in str(error.value)


def test_a_loss_of_ones_own_gives_each_scene_and_their_mean():
    loss = plain.named("tests.test_losses:mine")
    prediction, target = jnp.array([[[1.0, 0.0]], [[0.0, 2.0]]]), jnp.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    mask = jnp.ones((2, 1), bool)
    np.testing.assert_allclose(loss(prediction, target, mask, 1.0, per_example=True), [1, 0], atol=1e-6)
    np.testing.assert_allclose(loss(prediction, target, mask, 1.0), 0.5, atol=1e-6)


def f32(*arrays):
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def huber(size, beta):
    return size**2 / 2 / beta if size < beta else size - beta / 2


def token_loss(kind, z, beta):
    """One token's loss from its error z [D], by METHOD (6) and by the ablations' definitions."""
    if kind == "smooth_l1":
        return huber(np.sqrt((z**2).sum()), beta)
    if kind == "l1":
        return np.abs(z).mean()
    return np.mean([huber(abs(component), beta) if kind == "elementwise" else component**2 for component in z])


def reference(tokens, mask, valid):
    """Algorithm 1, line 12: mean over a scene's masked tokens, then over scenes. No masked token counts as 0."""
    scenes = [np.mean(t[m]) if m.any() else 0.0 for t, m in zip(tokens, mask, strict=True)]
    return np.mean(np.array(scenes)[valid]) if valid.any() else 0.0


def kl_to_uniform(features):
    sigma = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = sigma / sigma.sum() if sigma.sum() > 0 else np.array([1.0])
    share = share[share > 0]
    return (share * np.log(share * features.shape[1])).sum()


@pytest.mark.parametrize("beta", GOLDEN["smooth_l1"]["value"])
def test_smooth_l1_golden(beta):
    case = GOLDEN["smooth_l1"]
    prediction, target = f32(case["prediction"], case["target"])
    value = losses.smooth_l1(prediction, target, np.array(case["mask"], bool), beta=float(beta))
    assert float(value) == pytest.approx(case["value"][beta], rel=1e-6)


def test_causal_consistency_golden():
    case = GOLDEN["causal_consistency"]
    arrays = f32(case["residual"], case["full"], case["intervened"])
    value = losses.causal_consistency(*arrays, np.array(case["mask"], bool))
    assert float(value) == pytest.approx(case["value"], rel=1e-6)


@pytest.mark.parametrize("name", GOLDEN["sigreg"])
def test_sigreg_golden(name):
    case = GOLDEN["sigreg"][name]
    assert float(losses.sigreg(*f32(case["features"]))) == pytest.approx(case["value"], abs=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1), (2, 5, 3), (4, 3, 7)]),
    seed=st.integers(0, 2**31),
    beta=st.sampled_from([0.1, 1.0, 3.0]),
    density=st.sampled_from([0.0, 0.4, 1.0]),
    kind=st.sampled_from(OF_DIFFERENCES),
)
def test_token_losses_match_float64(shape, seed, beta, density, kind):
    rng = np.random.default_rng(seed)
    prediction, target = rng.normal(size=(2, *shape)).astype(np.float32)
    mask, valid = rng.random(shape[:2]) < density, rng.random(shape[0]) < 0.7
    error = prediction.astype(np.float64) - target
    tokens = np.array([[token_loss(kind, z, beta) for z in scene] for scene in error])
    value = jax.jit(LOSSES[kind], static_argnums=3)(prediction, target, mask, beta, valid)
    np.testing.assert_allclose(value, reference(tokens, mask, valid), rtol=2e-5, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.sampled_from([(1, 2, 3), (3, 4, 5)]))
def test_causal_consistency_matches_float64(seed, shape):
    rng = np.random.default_rng(seed)
    residual, full, intervened = rng.normal(size=(3, *shape)).astype(np.float32)
    mask, valid = rng.random(shape[:2]) < 0.5, rng.random(shape[0]) < 0.7
    tokens = ((residual.astype(np.float64) - (full.astype(np.float64) - intervened)) ** 2).sum(-1)  # summed over D
    value = jax.jit(losses.causal_consistency)(residual, full, intervened, mask, valid)
    np.testing.assert_allclose(value, reference(tokens, mask, valid), rtol=1e-5, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.sampled_from([(2, 3), (4, 4), (5, 4), (20, 6), (6, 20)]))
def test_sigreg_and_rankme_match_float64(seed, shape):
    features = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    expected = kl_to_uniform(features.astype(np.float64))
    (value, _), rankme, std = check_sigreg(features, np.ones(shape[0], bool))
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rankme, shape[1] * np.exp(-expected), rtol=1e-4)
    np.testing.assert_allclose(std, features.std(0).mean(), rtol=1e-5)
    assert value >= losses.sigreg_floor(shape[0], shape[1]) - 1e-5


def test_sigreg_floor_is_reached_and_is_log_of_width_over_rank():
    for rows, width in ((4, 7), (8, 7), (30, 7)):
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(rows, rows)) + [[1.0]] * rows)[0]
        basis = np.linalg.qr(np.concatenate([np.ones((rows, 1)), q[:, : rows - 1]], 1))[0][:, 1:]  # orthogonal to 1
        rank = min(rows - 1, width)
        features = basis[:, :rank] @ np.eye(rank, width)
        floor = float(losses.sigreg_floor(rows, width))
        assert floor == pytest.approx(np.log(width / rank), abs=1e-6)
        assert float(losses.sigreg(*f32(features))) == pytest.approx(floor, abs=1e-5)


RNG = np.random.default_rng(0)
SINGULAR = {
    "zero": np.zeros((6, 8)),
    "constant": np.full((6, 8), 0.1),
    "constant rows": np.tile(np.arange(8.0), (6, 1)),
    "identity": np.eye(6, 8),
    "equal sigma": np.linalg.qr(np.eye(6) - 1 / 6)[0] @ np.eye(6, 8),
    "equal and zero sigma": np.diag([1, 1, 1, 0, 0, 0]) @ np.eye(6, 8),
    "rank one": np.outer(np.arange(6.0), [1, 2, -1, 0, 0, 3, 1, 1]),
    "exact rank one": np.outer(np.arange(6.0), np.eye(8)[0]),
    "huge": 1e15 * RNG.normal(size=(6, 8)),
    "tiny": 1e-12 * RNG.normal(size=(6, 8)),
    "tall": np.eye(9, 2),
    "one row": np.ones((1, 2)),
}
check_sigreg = jax.jit(
    lambda x, v: (jax.value_and_grad(losses.sigreg)(x, v), losses.rankme(x, v), losses.feature_std(x, v))
)


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("rows", ["all", "some", "none"])
def test_sigreg_is_finite_at_singular_features(name, rows):
    features = SINGULAR[name].astype(np.float32)
    valid = np.arange(len(features)) < {"all": len(features), "some": 2, "none": 0}[rows]
    (value, gradient), rankme, std = check_sigreg(features, valid)
    assert np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(rankme) and np.isfinite(std)
    assert -1e-5 <= value <= np.log(features.shape[1]) + 1e-5
    if name in ("zero", "constant", "constant rows", "one row") or rows == "none":
        assert value == pytest.approx(np.log(features.shape[1]), abs=1e-5)  # collapsed is the worst there is


@pytest.mark.parametrize("kind", OF_DIFFERENCES)
@pytest.mark.parametrize("case", ["z = 0", "no masked token", "no valid scene", "z on the edge"])
def test_token_losses_have_finite_gradients(kind, case):
    target = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    prediction = target + (np.float32([1, 0, 0, 0]) if case == "z on the edge" else 0)
    mask, valid = np.full((2, 3), case != "no masked token"), np.full(2, case != "no valid scene")
    value, gradient = jax.value_and_grad(LOSSES[kind])(prediction, target, mask, 1.0, valid)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if case != "z on the edge":
        assert value == 0 and (gradient == 0).all()
    residual = jax.grad(losses.causal_consistency)(prediction, target, target, mask, valid)
    assert np.isfinite(residual).all()


def test_token_loss_gradient_is_that_of_the_formula():
    """Quadratic inside: z / beta. Outside: the unit vector."""
    z = np.array([[[0.3, 0.4], [3.0, 4.0]]], np.float32)
    gradient = jax.grad(losses.smooth_l1)(z, np.zeros_like(z), np.ones((1, 2), bool), 2.0)
    np.testing.assert_allclose(gradient, [[[0.075, 0.1], [0.3, 0.4]]], rtol=1e-6)


def test_a_collapsed_batch_keeps_a_large_sigreg_gradient():
    """SIGReg is what pulls a collapsed batch apart: its gradient must not fade as features line up."""
    rng = np.random.default_rng(0)
    line, noise = np.outer(rng.normal(size=32), rng.normal(size=16)), rng.normal(size=(32, 16))
    grad = jax.jit(jax.value_and_grad(losses.sigreg))
    healthy = np.linalg.norm(grad(noise.astype(np.float32))[1])
    for spread in (1e-2, 1e-4, 1e-6):
        features = (line + spread * noise).astype(np.float32)
        value, gradient = grad(features)
        assert np.linalg.norm(gradient) > 3 * healthy, spread
        assert grad(features - 0.3 * gradient)[0] < value - 0.1, spread


def test_scenes_without_masked_tokens_stay_in_the_denominator_and_invalid_ones_leave_it():
    prediction, target = np.ones((4, 3, 2), np.float32), np.zeros((4, 3, 2), np.float32)
    mask = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]], bool)
    each = float(losses.smooth_l1(prediction[:1], target[:1], mask[:1]))
    assert float(losses.smooth_l1(prediction, target, mask)) == pytest.approx(each * 3 / 4)
    valid = np.array([True, True, False, True])
    assert float(losses.smooth_l1(prediction, target, mask, valid=valid)) == pytest.approx(each * 2 / 3)
    prediction[2] = 1e6  # an invalid scene's content is nowhere
    assert float(losses.smooth_l1(prediction, target, mask, valid=valid)) == pytest.approx(each * 2 / 3)


def test_invalid_scenes_leave_sigreg_and_the_monitors():
    features = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    valid = np.arange(9) % 3 > 0
    spoilt = np.where(valid[:, None], features, 1e4).astype(np.float32)
    for monitor in (losses.sigreg, losses.rankme, losses.feature_std):
        np.testing.assert_allclose(monitor(spoilt, valid), monitor(features[valid]), rtol=1e-5)


def test_means_weigh_scenes_not_tokens():
    prediction = np.zeros((2, 4, 1), np.float32)
    prediction[0] = 1.5
    mask = np.array([[1, 0, 0, 0], [1, 1, 1, 1]], bool)
    assert float(losses.smooth_l1(prediction, np.zeros_like(prediction), mask)) == pytest.approx((1.0 + 0.0) / 2)


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_bfloat16_gives_float32_and_is_near(kind):
    rng = np.random.default_rng(0)
    low = jnp.asarray(rng.normal(size=(3, 4, 8)), jnp.bfloat16), jnp.asarray(rng.normal(size=(3, 4, 8)), jnp.bfloat16)
    mask = rng.random((3, 4)) < 0.5
    value = LOSSES[kind](*low, mask)
    assert value.dtype == jnp.float32 and value.shape == ()
    # Once inside, nothing is rounded to bfloat16: the same numbers in float32 give the same loss.
    np.testing.assert_allclose(value, LOSSES[kind](*(x.astype(jnp.float32) for x in low), mask), rtol=1e-6)
    causal = losses.causal_consistency(*low, low[0], mask)
    assert causal.dtype == losses.sigreg(low[0][:, 0]).dtype == jnp.float32


def test_no_gradient_reaches_targets():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 2, 3, 4)).astype(np.float32)
    mask = np.ones((2, 3), bool)
    for term in LOSSES.values():
        to_prediction, to_target = jax.grad(term, (0, 1))(a, b, mask)
        assert np.abs(to_prediction).max() > 0 and (to_target == 0).all()
    gradients = jax.grad(losses.causal_consistency, (0, 1, 2))(a, b, c, mask)
    assert np.abs(gradients[0]).max() > 0 and (gradients[1] == 0).all() and (gradients[2] == 0).all()
    assert (jax.grad(losses.rankme)(a[0]) == 0).all() and (jax.grad(losses.feature_std)(a[0]) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_never_hidden(bad):
    """Guards against 0/0 must not turn a NaN into a good loss."""
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    spoilt, mask = x.copy(), np.ones((3, 4), bool)
    spoilt[1, 2, 3] = bad
    for term in LOSSES.values():
        assert not np.isfinite(term(spoilt, x, mask)) and not np.isfinite(term(x, spoilt, mask))
        assert np.isfinite(term(spoilt, x, mask & (np.arange(4) != 2)))  # but not where it does not count
    assert not np.isfinite(losses.causal_consistency(spoilt, x, x, mask))
    for monitor in (losses.sigreg, losses.rankme, losses.feature_std):
        assert not np.isfinite(monitor(spoilt[:, 2]))


def test_order_and_padding_do_not_matter():
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    mask, features = rng.random((3, 5)) < 0.5, rng.normal(size=(7, 4)).astype(np.float32)
    scenes, tokens = rng.permutation(3), rng.permutation(5)
    padded = [np.concatenate([x, np.full((3, 2, 4), 9.0, np.float32)], 1) for x in (prediction, 2 * target)]
    longer = np.concatenate([mask, np.zeros((3, 2), bool)], 1)
    for term in LOSSES.values():
        value = term(prediction, target, mask)
        shuffled = (x[scenes][:, tokens] for x in (prediction, target))
        np.testing.assert_allclose(term(*shuffled, mask[scenes][:, tokens]), value, rtol=1e-5)
        np.testing.assert_allclose(term(*padded, longer), term(prediction, 2 * target, mask), rtol=1e-5)
    np.testing.assert_allclose(losses.sigreg(features[rng.permutation(7)]), losses.sigreg(features), rtol=1e-5)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0].astype(np.float32)
    np.testing.assert_allclose(losses.sigreg(features @ turn), losses.sigreg(features), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e5])
def test_sigreg_does_not_see_scale_or_shift_but_the_std_does(scale):
    features = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    np.testing.assert_allclose(losses.sigreg(scale * (features + 1)), losses.sigreg(features), rtol=1e-3)
    np.testing.assert_allclose(losses.feature_std(scale * features), scale * losses.feature_std(features), rtol=1e-4)


def test_rankme_counts_directions():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, 8)) - 0)[0]
    basis = np.linalg.qr(basis - basis.mean(0))[0]
    for rank in (1, 3, 8):
        features = basis[:, :rank] @ rng.normal(size=(rank, 1)) if rank == 1 else basis[:, :rank] @ np.eye(rank, 8)
        assert float(losses.rankme(*f32(features))) == pytest.approx(rank, rel=1e-3)
    assert float(losses.rankme(jnp.ones((6, 4)))) == pytest.approx(1.0)


AXIS = jnp.ones((1, 1), jnp.float32)  # the one slice of one-dimensional features


@pytest.mark.parametrize(
    "sample, value",
    [(np.zeros(128), 51.462090), (np.linspace(-2, 2, 9), 1.0347855), (np.sin(np.arange(256)), 8.1339958)],
)
def test_epps_pulley_golden(sample, value):
    assert float(losses.epps_pulley(*f32(sample[:, None]), AXIS)) == pytest.approx(value, rel=2e-5)


def test_epps_pulley_is_that_of_lejepas_code():
    """Value, gradient and value by slice of the public class, and the loss of its minimal example."""
    numbers, arrays = family.stored("lejepa_sigreg")
    value, gradient = jax.jit(jax.value_and_grad(plain.epps_pulley))(arrays["x"], arrays["A"])
    family.close(value, numbers["statistic"])
    family.close(gradient, arrays["grad_x"])
    for slice_, wanted in zip(arrays["A"].T, arrays["per_slice"], strict=True):
        family.close(losses.epps_pulley(arrays["x"], slice_[:, None]), wanted, numbers["statistic"])
    family.close(losses.epps_pulley(arrays["x"], arrays["class_A"]), numbers["class_value"])

    def minimal(views):
        statistic = jax.vmap(plain.epps_pulley, (0, None))(views, arrays["A"]).mean()
        invariance = jnp.square(views.mean(0) - views).mean()
        return numbers["lam"] * statistic + (1 - numbers["lam"]) * invariance, (statistic, invariance)

    (total, parts), gradient = jax.jit(jax.value_and_grad(minimal, has_aux=True))(arrays["p"])
    for found, name in zip((total, *parts), ("minimal_loss", "minimal_sigreg", "minimal_inv"), strict=True):
        family.close(found, numbers[name])
    family.close(gradient, arrays["grad_p"])


def closed_epps_pulley(x):
    """The integral over the whole line, for one slice."""
    n, pairs = len(x), x[:, None] - x[None]
    double, single = np.sqrt(2 * np.pi) * np.exp(-(pairs**2) / 2), np.sqrt(np.pi) * np.exp(-(x**2) / 4)
    return double.sum() / n - 2 * single.sum() + n * np.sqrt(2 * np.pi / 3)


def test_epps_pulley_is_its_closed_form_on_a_fine_grid_and_its_mean_over_slices():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) * [0.5, 1.0, 2.0] + [0, 0, 1]
    expected = [closed_epps_pulley(column) for column in x.T]
    fine = {"knots": 129, "t_max": 8.0}
    for column, value in zip(x.T, expected, strict=True):
        assert float(losses.epps_pulley(*f32(column[:, None]), AXIS, **fine)) == pytest.approx(value, rel=1e-4)
    value = losses.epps_pulley(*f32(x), jnp.eye(3), **fine)
    assert float(value) == pytest.approx(np.mean(expected), rel=1e-4)


def test_epps_pulley_of_normal_features_does_not_depend_on_their_number():
    for rows in (32, 128):
        draws = jax.random.normal(jax.random.key(rows), (400, rows, 4))
        values = jax.vmap(losses.epps_pulley, (0, None))(draws, losses.random_slices(jax.random.key(1), 4, 8))
        assert float(values.mean()) == pytest.approx(1.0525, abs=0.06)  # 4 standard errors


def test_epps_pulley_leaves_invalid_rows_out_and_has_finite_gradients():
    x = jax.random.normal(jax.random.key(0), (6, 5))
    slices = losses.random_slices(jax.random.key(1), 5, 7)
    np.testing.assert_allclose(np.linalg.norm(slices, axis=0), 1, rtol=1e-5)
    spoilt = x.at[4:].set(1e3)
    valid = jnp.arange(6) < 4
    assert float(losses.epps_pulley(spoilt, slices, valid)) == pytest.approx(
        float(losses.epps_pulley(x[:4], slices)), rel=1e-5
    )
    slope = jax.jit(jax.grad(plain.epps_pulley))
    gradient = np.asarray(slope(spoilt, slices, valid))
    assert np.isfinite(gradient).all() and (gradient[4:] == 0).all() and (gradient[:4] != 0).any()
    assert np.isfinite(slope(np.zeros((6, 5), np.float32), slices)).all()
    assert float(losses.epps_pulley(x, slices, jnp.zeros(6, bool))) == 0


def test_cosine_distance():
    a, b = f32([[0.1, 0], [1, 1], [2, 0], [0, 0]], [[0.3, 0], [0, 1], [-1, 0], [1, 0]])
    np.testing.assert_allclose(losses.cosine_distance(a, b), [0, 2 - np.sqrt(2), 4, 2], atol=1e-6)
    gradient = jax.grad(lambda a, b: losses.cosine_distance(a, b).sum(), (0, 1))(a, b)
    assert all(np.isfinite(x).all() for x in gradient)


def test_a_config_may_name_every_loss_and_no_other():
    assert CHOICES["objective.prediction_loss"] == tuple(plain.LOSSES)
    assert plain.LOSSES["smooth_l1"] is plain.smooth_l1
    assert plain.LOSSES["elementwise"] is plain.smooth_l1_elementwise


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_the_mean_of_the_losses_per_example_is_the_loss(kind):
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
    mask, valid = rng.random((5, 3)) < 0.5, np.array([1, 1, 0, 1, 0], bool)
    each = LOSSES[kind](prediction, target, mask, 0.7, valid, per_example=True)
    assert each.shape == (5,)
    np.testing.assert_allclose(each.mean(), LOSSES[kind](prediction, target, mask, 0.7), rtol=1e-6)
    np.testing.assert_allclose(each[valid].mean(), LOSSES[kind](prediction, target, mask, 0.7, valid), rtol=1e-6)
    causal = losses.causal_consistency(prediction, target, -target, mask, per_example=True)
    np.testing.assert_allclose(causal.mean(), losses.causal_consistency(prediction, target, -target, mask), rtol=1e-6)


def test_normed_cosine_is_the_public_codes():
    numbers, _ = family.stored("audio_jepa")
    prediction, target = family.draw(1, 2, 5, 8), family.draw(2, 2, 5, 8)
    mask = np.ones((2, 5), bool)
    both = jax.jit(jax.value_and_grad(plain.normed_cosine))
    value, gradient = both(prediction, target, mask)
    assert float(value) == pytest.approx(numbers["loss"], rel=1e-6)
    assert float(np.linalg.norm(gradient)) == pytest.approx(numbers["grad_norm"], rel=1e-5)
    level = both(prediction, np.ones_like(target), mask)[1]  # no direction: finite
    assert np.isfinite(level).all()
    assert losses.normed_cosine(prediction, target, mask, per_example=True).shape == (2,)
