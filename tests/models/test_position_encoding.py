"""Stored tables and rotations of encoder and predictor: against NumPy, packed and whole, still and never trained."""

import functools

import jax
import numpy as np
import optax
import pytest

from cjepa_jax import experiment, positions, sharding, train_step
from cjepa_jax.data.batching import lay_out
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import position_encoding, tokenizers
from cjepa_jax.models.layers import CrossAttention, SelfAttention
from cjepa_jax.positions import sincos
from cjepa_jax.types import Rows
from tests import scenes
from tests.models import test_encoder, test_predictor
from tests.models.test_encoder import B, apply, reference
from tests.objectives import test_jepa

TABLE = {"positions": "table", "position_grid": (3, 3, 5)}
ROPES = [{"positions": "rope", "position_grid": (1, 7, 9)}, {"positions": "rope_tile"}]


def turned(x, coordinates, tile):
    """x [T, d] float64 with each pair turned by its own angle, by time, row and column [3, T]."""
    out, share = x.copy(), 2 * (x.shape[1] // 3 // 2)
    for axis, place in enumerate(coordinates):
        angles = [place / 10000 ** (i / (share // 2)) for i in range(share // 2)]
        for pair in range(share // 2):
            a, b = axis * share + 2 * pair, axis * share + 2 * pair + 1
            to_a, to_b = (angles[(2 * pair + j) % (share // 2)] if tile else angles[pair] for j in (0, 1))
            out[:, a] = x[:, a] * np.cos(to_a) - x[:, b] * np.sin(to_a)
            out[:, b] = x[:, b] * np.cos(to_b) + x[:, a] * np.sin(to_b)
    return out


def coordinates(grid, options):
    """Time, row and column of each token [3, N], scaled to the position grid."""
    scaled = np.indices(grid).reshape(3, -1).astype(float)
    for axis in (1, 2) if options.get("position_grid") else ():
        scaled[axis] *= (options["position_grid"][axis] - 1) / (grid[axis] - 1)
    return scaled


@functools.cache
def setup(kind, table=False):
    """(pixels, parameters, kept tokens, tokens before the stack without their codes, grid) of the encoder's tests."""
    video, params, keep = test_encoder.setup(kind)
    grid = (1, 4, 4) if kind == "image" else (2, 2, 4)
    bare = test_encoder.tokens(params, video) - sincos(grid, 96)
    if table:
        codes = np.random.default_rng(1).normal(size=(45, 96)).astype(np.float32)
        params = params | {"tokenizer": params["tokenizer"] | {"positions": codes}}
    return video, params, keep, bare, grid


@pytest.mark.parametrize("kind, options", [("video", ROPES[0]), ("image", ROPES[1])], ids=["rope", "rope_tile"])
@pytest.mark.parametrize("packed", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["packed", "whole"])
def test_rotations_match_float64(kind, options, packed):
    video, params, keep, bare, grid = setup(kind)
    keep, where = keep if packed else np.ones_like(keep), coordinates(grid, options)
    rows = Rows(*lay_out(keep, 2, (B // 2, 16))) if packed else None
    found = np.asarray(apply(epsilon=0.01, **options)(params, video, rows))
    tile = options["positions"] == "rope_tile"
    for b in range(B):
        turn = functools.partial(turned, coordinates=where[:, keep[b]], tile=tile)
        expected = reference(params, bare[b][keep[b]], epsilon=0.01, turn=turn)
        np.testing.assert_allclose(found[b][keep[b]], expected, atol=2e-4)
    assert (found[~keep] == 0).all()


def test_a_table_of_another_grid_is_resized_and_added():
    video, params, keep, bare, grid = setup("video", table=True)
    table = params["tokenizer"]["positions"].reshape(3, 3, 5, 96)
    codes = np.einsum("ta,rb,cd,abdk->trck", *positions.resizing((3, 3, 5), grid), table).reshape(16, 96)
    found = apply(**TABLE)(params, video, Rows(*lay_out(keep, 1, keep.shape)))
    for b in range(B):
        np.testing.assert_allclose(found[b][keep[b]], reference(params, (bare[b] + codes)[keep[b]]), atol=2e-4)


def tokenizer(**options):
    module = tokenizers.Tokenizer(8, 2, 12, **options)
    return module, jax.jit(module.init)(jax.random.key(0), setup("video")[0])["params"]


def test_a_table_starts_as_the_sincos_codes_of_its_grid_and_has_no_gradient():
    module, params = tokenizer(positions="table", position_grid=(2, 2, 4))
    plain, others = tokenizer()
    video = setup("video")[0]
    gradient = jax.jit(jax.grad(lambda p: (module.apply({"params": p}, video)[0] ** 2).sum()))(params)
    assert gradient["projection"]["kernel"].any() and not gradient["positions"].any()
    found, wanted = (jax.jit(m.apply)({"params": p}, video)[0] for m, p in ((module, params), (plain, others)))
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(params.pop("positions"), sincos((2, 2, 4), 12))
    jax.tree.map(np.testing.assert_array_equal, params, others)


def test_a_table_without_a_grid_is_refused():
    with pytest.raises(ConfigError, match=r"^position_grid = \(\): must be the table's times, rows and cols"):
        jax.eval_shape(test_encoder.make(positions="table").init, jax.random.key(0), test_encoder.setup("image")[0])


@pytest.mark.parametrize("options", [TABLE, ROPES[0]], ids=["table", "rope"])
def test_an_image_is_a_still_tubelet_to_the_parameters_of_clips(options):
    module, params = tokenizer(**options)
    image = setup("video")[0][:, :1]
    apply = jax.jit(module.apply)
    found, clip = (apply({"params": params}, x)[0] for x in (image, np.repeat(image, 2, axis=1)))
    assert found.shape == (B, 8, 12)
    np.testing.assert_allclose(found, clip, atol=2e-6)
    params = jax.eval_shape(test_encoder.make(**options).init, jax.random.key(0), setup("video")[0])
    assert jax.eval_shape(test_encoder.make(**options).apply, params, image).shape == (B, 8, 96)


def turned_products(positions_name):
    """q . k of one query and key, turned at all pairs of places that are one row apart: [rows - 1, cols, H]."""
    rng, grid = np.random.default_rng(0), (1, 5, 4)
    rotation = positions.rotations(grid, 32, positions_name == "rope_tile")[None]
    q, k = (np.broadcast_to(rng.normal(size=(1, 2, 1, 32)).astype(np.float32), (1, 2, 20, 32)) for _ in range(2))
    q, k = (np.asarray(position_encoding.rotate(x, rotation)).reshape(2, 5, 4, 32) for x in (q, k))
    return (q[:, 1:] * k[:, :-1]).sum(-1)


def test_attention_is_of_relative_place_with_rope_and_is_not_in_v_jepa_2s_form():
    """The latter is kept because released weights were trained with it."""
    same = turned_products("rope")
    np.testing.assert_allclose(same, same[:, :1, :1] * np.ones_like(same), atol=1e-4)
    other = turned_products("rope_tile")
    assert np.abs(other - other[:, :1, :1]).max() > 0.1


def test_the_predictor_turns_by_the_grid_and_adds_nothing():
    options = ROPES[0]
    params, tokens, context, patches, removed = test_predictor.setup()
    out = test_predictor.apply(**options, epsilon=0.01, heads=1)(params, tokens, context, patches, removed)
    turn = functools.partial(turned, coordinates=coordinates(test_predictor.GRID, options), tile=False)
    embed, heads = params["embed"], ("prediction", "residual")
    order = np.asarray(test_predictor.ranks(patches, removed))
    for b in range(test_predictor.B):
        x = np.where(context[b][:, None], tokens[b] @ embed["kernel"] + embed["bias"], params["mask_token"])
        for k in np.flatnonzero(removed[b]):
            x = x + patches[b, k][:, None] * np.asarray(params["object_embedding"])[order[b, k]]
        x = reference(params, x.astype(np.float64), heads=1, epsilon=0.01, turn=turn)
        for found, name in zip(out, heads, strict=True):
            np.testing.assert_allclose(found[b], x @ params[name]["kernel"] + params[name]["bias"], atol=2e-4)


def test_the_predictors_table_stands_in_for_its_codes():
    params, *arrays = test_predictor.setup()
    grid = test_predictor.GRID
    stored = {"positions": "table", "position_grid": grid}
    run = test_predictor.apply(**stored)
    np.testing.assert_array_equal(
        np.stack(run(params | {"positions": sincos(grid, 16)}, *arrays)),
        np.stack(test_predictor.apply()(params, *arrays)),
    )


def test_cross_attention_turns_queries_and_keys_like_self_attention():
    """And the order in which it is given the keys does not matter, if their ids are given in the same order."""
    rng = np.random.default_rng(0)
    x, segment = rng.normal(size=(2, 12, 32)).astype(np.float32), np.tile(np.arange(12) % 3, (2, 1))
    rotation, (qkv, out) = positions.rotations((1, 3, 4), 16)[None], rng.normal(0, 0.3, (2, 33, 96)).astype(np.float32)

    def dense(block):
        return {"kernel": block[:32], "bias": block[32]}

    both = {"qkv": dense(qkv), "out": dense(out[:, :32])}
    parts = {"q": dense(qkv[:, :32]), "kv": dense(qkv[:, 32:]), "out": dense(out[:, :32])}
    attend = jax.jit(lambda turn: SelfAttention(2).apply({"params": both}, x, segment, turn))
    across = jax.jit(lambda y, ids, turn: CrossAttention(2).apply({"params": parts}, x, y, segment, ids, turn))
    np.testing.assert_allclose(across(x, segment, rotation), attend(rotation), atol=1e-4)
    assert np.abs(attend(rotation) - attend(None)).max() > 0.1
    order = rng.permutation(12)
    np.testing.assert_allclose(across(x[:, order], segment[:, order], None), attend(None), atol=1e-4)


@pytest.mark.slow
def test_a_step_trains_all_but_the_tables():
    """Gradient zero and no decay: the tables keep their bits, in the target too."""
    table = {"positions": "table", "position_grid": (1, 3, 5)}
    run = test_jepa.started(test_jepa.make(table, table), test_jepa.as_batch(scenes.batch()))
    test_jepa.check_step(*run, still=("positions",))
    objective, batch, state, step = run
    before, after = (test_jepa.flat(tree) for tree in (state.target, step(state, batch)[0].target))
    (name,) = (name for name in before if "positions" in name)
    np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_of_rotations_changes_memory_not_values(remat):
    video, params, keep, *_ = setup("image")
    rows = Rows(*lay_out(keep, 1, keep.shape))

    def gradient(**options):
        run = apply(positions="rope", **options)
        return jax.jit(jax.value_and_grad(lambda p: (run(p, video, rows) ** 2).mean()))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), gradient(remat=remat), gradient())


@functools.cache
def stepped(devices, **layout):
    """(loss, gradient by name, where the tables live) of a step with a table and rotations on `devices` devices."""
    mesh = sharding.make_mesh(layout, 8, 1, jax.devices()[:devices])
    batch = sharding.put_batch(mesh, scenes.batch(range(8), shards=sharding.local_shards(mesh)))
    table = {"positions": "table", "position_grid": (1, 3, 5), "heads": 3, "width": 24}
    objective, keep = test_jepa.make({"positions": "rope"}, table), optax.trace(decay=0.0)
    init = functools.partial(train_step.init_state, objective, keep, 0)
    state = jax.device_get(jax.jit(init)(test_jepa.as_batch(scenes.batch(range(2)))))
    home = sharding.state_sharding(mesh, state)
    make = functools.partial(train_step.make, objective, keep, lambda step: 0.1, 0, 1)
    state, metrics = experiment.compile_step(make, mesh, home, "jit")(jax.device_put(state, home), batch)
    return float(metrics["loss"]), test_jepa.flat(state.opt_state.trace), home.params["predictor"]["positions"].spec


@pytest.mark.slow
@pytest.mark.parametrize("how", [dict(devices=2), dict(devices=6, fsdp=2, tensor=3)], ids=str)
def test_divided_among_devices_the_step_is_the_same(how):
    (expected, gradients, _), (loss, gradient, spec) = stepped(1), stepped(**how)
    assert loss == pytest.approx(expected, rel=1e-5) and spec == jax.sharding.PartitionSpec()
    for name, value in gradients.items():
        assert np.linalg.norm(gradient[name] - value) <= 1e-5 * np.linalg.norm(value), name
        assert value.any() != ("positions" in name), name
