"""The predictor: who attends to whom, how objects condition mask tokens, and what must not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cjepa_jax.models import predictor
from cjepa_jax.models.predictor import Predictor

ranks = jax.jit(predictor.ranks)
B, K, GRID, D = 2, 4, (1, 3, 4), 10
N = 12


def make(attention="joint", depth=2, **options):
    return Predictor(**{"depth": depth, "width": 16, "heads": 2, "attention": attention, "out": D} | options)


@functools.cache
def setup(attention="joint", depth=2):
    rng = np.random.default_rng(0)
    patches = np.zeros((B, K, N), bool)
    patches[0, 0, 4:6] = patches[0, 1, 0:2] = patches[0, 2, 5:7] = patches[0, 3, 9] = True
    patches[1, 0, 3] = patches[1, 1, 8:12] = patches[1, 2, 1:3] = True
    removed = np.array([[1, 1, 1, 0], [0, 1, 0, 0]], bool)
    context = ~(patches & removed[..., None]).any(1)
    tokens = rng.normal(size=(B, N, D)).astype(np.float32)
    init = jax.jit(functools.partial(make(attention, depth).init, grid=GRID))
    params = init(jax.random.key(0), tokens, context, patches, removed)["params"]
    leaves, tree = jax.tree.flatten(params)
    params = tree.unflatten([leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
    return params, tokens, context, patches, removed


@functools.cache
def apply(attention="joint", depth=2, **options):
    module = make(attention, depth, **options)
    return jax.jit(
        lambda params, tokens, context, patches, removed, hidden=None: module.apply(
            {"params": params}, tokens, context, patches, removed, GRID, hidden
        )
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_rank_is_lowest_patch_then_area_then_centroid(seed):
    rng = np.random.default_rng(seed)
    patches, removed = rng.random((1, 5, 6)) < 0.5, rng.random((1, 5)) < 0.8
    patches[0, :, rng.integers(6)] = True  # none is empty
    found = np.asarray(ranks(patches, removed))[0]
    order = {}
    for k in np.flatnonzero(removed[0]):
        own = np.flatnonzero(patches[0, k])
        order[k] = (own[0], len(own), own.mean())
    for k in order:
        assert sum(order[j] < order[k] for j in order) <= found[k] < sum(order[j] <= order[k] for j in order)
        assert found[k] == sum(found[j] < found[k] for j in order)  # 0, 1, 2, ... . Twins share a rank
    assert (found[~removed[0]] >= 5).all()
    shuffle = rng.permutation(5)
    assert (np.asarray(ranks(patches[:, shuffle], removed[:, shuffle]))[0] == found[shuffle]).all()


def test_ranks_of_a_known_scene():
    _, _, _, patches, removed = setup()
    assert np.asarray(ranks(patches, removed)).tolist() == [[1, 0, 2, 4], [4, 0, 4, 4]]
    ties = np.zeros((1, 3, 6), bool)
    ties[0, 0, [1, 2, 3]] = ties[0, 1, [1, 5]] = ties[0, 2, [1, 2]] = True
    assert np.asarray(ranks(ties, np.ones((1, 3), bool))).tolist() == [[2, 1, 0]]
    centred = np.zeros((1, 3, 6), bool)  # the last two have one centroid: the narrower one comes first
    centred[0, 0, [0, 1, 4]] = centred[0, 1, [0, 1, 5]] = centred[0, 2, [0, 2, 4]] = True
    assert np.asarray(ranks(centred, np.ones((1, 3), bool))).tolist() == [[0, 2, 1]]


def test_an_object_that_stays_says_nothing_at_hidden_tokens_that_it_touches():
    params, tokens, context, patches, removed = setup()  # object 2 of scene 1, alone with 1, now overlaps it
    patches, removed = patches[1:, 1:3].copy(), removed[1:, 1:3]
    patches[0, 1, 8:10] = True
    with_it = apply()(params, tokens[1:], context[1:], patches, removed)
    without = apply()(params, tokens[1:], context[1:], patches & removed[..., None], removed)
    jax.tree.map(np.testing.assert_array_equal, with_it, without)


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_shapes_and_what_does_not_matter(attention):
    params, tokens, context, patches, removed = setup(attention)
    prediction, residual = apply(attention)(params, tokens, context, patches, removed)
    assert prediction.shape == residual.shape == (B, N, D)
    expected = np.stack([prediction, residual])

    garbage = np.where(context[..., None], tokens, 1e6).astype(np.float32)  # at masked places nothing is read
    np.testing.assert_array_equal(np.stack(apply(attention)(params, garbage, context, patches, removed)), expected)

    order = np.array([3, 1, 0, 2])  # objects and removed permuted together
    shuffled = apply(attention)(params, tokens, context, patches[:, order], removed[:, order])
    np.testing.assert_allclose(np.stack(shuffled), expected, atol=1e-5)

    padded = np.pad(patches, [(0, 0), (0, 3), (0, 0)]), np.pad(removed, [(0, 0), (0, 3)])
    np.testing.assert_allclose(np.stack(apply(attention)(params, tokens, context, *padded)), expected, atol=1e-5)

    staying = patches | (~removed[..., None] & (np.arange(N) % 2 == 0))  # the shapes of objects that stay
    np.testing.assert_allclose(
        np.stack(apply(attention)(params, tokens, context, staying, removed)), expected, atol=1e-5
    )


def influence(attention, depth, token):
    """Which outputs [N] of scene 0 change when context token `token` does: (prediction, residual)."""
    params, tokens, context, patches, removed = setup(attention, depth)
    other = tokens.copy()
    other[0, token] += 1.0
    run = apply(attention, depth)
    before, after = (np.stack(run(params, x, context, patches, removed)) for x in (tokens, other))
    changed = np.abs(after - before).max(-1) > 1e-6
    assert not changed[0][1].any() and not changed[1][1].any()  # scenes do not see each other
    return changed[0][0], changed[1][0]


def test_joint_attention_is_among_all_tokens():
    prediction, residual = influence("joint", 1, token=3)
    assert prediction.all() and residual.all()


def test_cross_attention_goes_from_masked_to_context_and_back():
    """One layer: mask tokens see the context. Context tokens see mask tokens and not each other."""
    context = setup("cross", 1)[2][0]
    prediction, residual = influence("cross", 1, token=3)
    assert prediction[~context].all()
    assert residual[3] and not residual[context & (np.arange(N) != 3)].any()
    assert influence("cross", 2, token=3)[1][context].all()  # two layers: by way of the mask tokens


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_tokens_that_are_neither_seen_nor_predicted_take_no_part(attention):
    """Context and hidden tokens do not depend on dropped ones. With `hidden` None it matters."""
    params, tokens, context, patches, removed = setup(attention)
    hidden = ~context & (np.arange(N) != 5)
    hidden[1, 11] = False
    dropped = ~context & ~hidden
    assert dropped.sum() == 2 and hidden.any(1).all()
    other = patches ^ (
        dropped[:, None] & removed[..., None]
    )  # other objects cover the dropped places, in the same order
    assert (np.asarray(ranks(patches, removed)) == np.asarray(ranks(other, removed))).all()
    take = (context | hidden)[None]
    for mask, equal in ((hidden, True), (None, False)):
        a, b = (np.stack(apply(attention)(params, tokens, context, p, removed, mask)) for p in (patches, other))
        assert np.isfinite(a).all()
        assert (np.abs(a - b).max(-1)[take.repeat(2, 0)] == 0).all() == equal
    both = (apply(attention)(params, tokens, ~hidden, patches, removed, mask) for mask in (None, hidden))
    for a, b in zip(*both, strict=True):  # and where nothing is dropped, naming the hidden tokens changes nothing
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_context_tokens_feel_which_objects_are_gone(attention):
    params, tokens, context, patches, removed = setup(attention)
    louder = params | {"object_embedding": 3 * params["object_embedding"]}
    a, b = (apply(attention)(p, tokens, context, patches, removed)[1] for p in (params, louder))
    assert (np.abs(a - b).max(-1)[context] > 1e-6).all()


def test_a_mask_token_is_vector_plus_position_plus_the_sum_of_its_objects():
    """Two objects that share a patch equal three disjoint ones, the middle one embedded by the sum.

    Twins, which have one rank, equal one object with twice the embedding. What is added to the vector may as well be
    taken from every object.
    """
    params, tokens, *_ = setup()
    e = np.asarray(params["object_embedding"])
    shared, disjoint = np.zeros((1, 3, N), bool), np.zeros((1, 3, N), bool)
    shared[0, 0, :2] = shared[0, 1, 1:3] = True
    disjoint[0, range(3), range(3)] = True
    context = np.arange(N)[None] > 2
    a = apply()(params, tokens[:1], context, shared, np.array([[True, True, False]]))
    b = apply()(
        params | {"object_embedding": np.stack([e[0], e[0] + e[1], e[1]])}, tokens[:1], context, disjoint,
        np.ones((1, 3), bool),
    )  # fmt: skip
    np.testing.assert_allclose(np.stack(a), np.stack(b), atol=1e-5)

    twins = np.zeros((1, 3, N), bool)
    twins[0, :2, :3] = True
    a = apply()(params, tokens[:1], context, twins, np.array([[True, True, False]]))
    b = apply()(params | {"object_embedding": 2 * e}, tokens[:1], context, twins, np.array([[True, False, False]]))
    np.testing.assert_allclose(np.stack(a), np.stack(b), atol=1e-5)

    removed = np.ones((1, 3), bool)
    shift = np.linspace(-1, 1, 16, dtype=np.float32)
    shifted = params | {"mask_token": params["mask_token"] + shift, "object_embedding": e - shift}
    a, b = (apply()(p, tokens[:1], context, disjoint, removed) for p in (params, shifted))
    np.testing.assert_allclose(np.stack(a), np.stack(b), atol=1e-5)


def test_fallback_patches_have_no_object():
    params, tokens, context, patches, removed = setup()
    louder = params | {"object_embedding": 3 * params["object_embedding"]}
    nothing = np.zeros_like(removed)
    a, b = (apply()(p, tokens, context, patches, nothing) for p in (params, louder))
    np.testing.assert_array_equal(np.stack(a), np.stack(b))


def test_ranks_have_their_own_embeddings():
    params, tokens, context, patches, removed = setup()
    base = apply()(params, tokens, context, patches, removed)[0]
    for rank in range(3):
        changed = params | {"object_embedding": params["object_embedding"].at[rank].add(jnp.arange(16.0))}
        difference = np.abs(apply()(changed, tokens, context, patches, removed)[0] - base).max((1, 2)) > 1e-6
        assert difference.tolist() == [True, rank == 0]  # scene 1 has one removed object only


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_remat_bfloat16_and_gradients(attention):
    params, *args = setup(attention)

    def loss(params, **options):
        return sum((x.astype(jnp.float32) ** 2).mean() for x in apply(attention, **options)(params, *args))

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    again = jax.jit(jax.value_and_grad(functools.partial(loss, remat="full")))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4), again, (value, gradient))
    assert float(loss(params, dtype="bfloat16")) == pytest.approx(float(value), rel=0.03)


def parameters(**options):
    shape = jax.ShapeDtypeStruct
    hidden = shape((1, 196, 1024), jnp.float32), shape((1, 196), bool), shape((1, 8, 196), bool), shape((1, 8), bool)
    init = functools.partial(Predictor(**options).init, grid=(1, 14, 14))
    params = jax.eval_shape(init, jax.random.key(0), *hidden)["params"]
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def test_parameter_counts():
    """The stated shape, 6 x 384, has 12 M parameters. The 24 M of the method's description need about twelve layers.

    Cross-attention adds q, k, v, out and a norm per layer (4 d^2 + 6 d).
    """
    d, width = 384, 1024
    block = 12 * d**2 + 13 * d
    rest = (width * d + d) + 2 * (d * width + width) + 2 * d + d + 3 * d  # embed, two heads, norm, mask token, objects
    assert parameters() == 6 * block + rest == 11_831_168
    assert parameters(attention="cross") == 6 * (block + 4 * d**2 + 6 * d) + rest
    assert 22e6 < parameters(depth=12) == 12 * block + rest < 24e6


def test_the_name_of_a_removed_object_reaches_the_visible_tokens_that_it_covers():
    params, tokens, _, patches, removed = setup()
    everything = np.ones((B, N), bool)
    other = removed ^ np.array([[0, 0, 1, 0], [1, 0, 0, 0]], bool)
    plain, named = ([apply(name_context=on)(params, tokens, everything, patches, r)[1] for r in (removed, other)]
                    for on in (False, True))  # fmt: skip
    assert np.array_equal(*plain) and not np.allclose(*named, atol=1e-3)
    nobody = apply(name_context=True)(params, tokens, everything, patches, np.zeros_like(removed))[1]
    np.testing.assert_array_equal(nobody, plain[0])
    # One token that one object of rank 0 covers: its embedding is as good as a shift of the token.
    patches = np.zeros((B, 1, N), bool)
    patches[:, 0, 5] = True
    kernel, names = params["embed"]["kernel"], params["object_embedding"]
    shift = np.linalg.lstsq(np.asarray(kernel).T, np.asarray(names[0]), rcond=None)[0]
    wide = params | {"object_embedding": (shift @ kernel)[None].repeat(3, 0)}
    shifted = tokens.copy()
    shifted[:, 5] += shift
    one = apply(name_context=True)(wide, tokens, everything, patches, np.ones((B, 1), bool))[1]
    two = apply()(wide, shifted, everything, patches, np.zeros((B, 1), bool))[1]
    np.testing.assert_allclose(one, two, atol=1e-4)
