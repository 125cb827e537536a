"""ThinkJEPA: no leak of the future, a gate that starts closed, two rates of time, and embeddings from files."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cjepa_jax.data import batching, kinds, pipeline
from cjepa_jax.data.sources.guided import Guided
from cjepa_jax.data.worlds import Balls
from cjepa_jax.errors import ConfigError, DataError
from cjepa_jax.masks import future
from cjepa_jax.models.guide import Guide
from cjepa_jax.objectives.thinking import Thinking, last_visible
from cjepa_jax.types import Batch, Rows
from tests import scenes

SMALL = dict(
    encoder=dict(variant="12x1x2x24/8", tubelet=2),
    predictor=dict(depth=2, width=16, heads=2, max_objects=1),
    guide=dict(width=6, hidden=5),
    prediction_loss="mse",
    target_norm="layer_norm",
    sigreg_weight=0.0,
)
FRAMES, GRID, PAST = 8, (4, 4, 4), 32  # of 64 tokens


@functools.cache
def batch():
    """Three clips with an embedding of two steps."""
    arrays = scenes.batch(scenes=(0, 1, 2), frames=FRAMES, intervened="none", mask=future.draw)
    arrays["embedding"] = np.random.default_rng(0).standard_normal((3, 2, 7), np.float32)
    return jax.tree.map(jnp.asarray, Batch(**arrays | {"rows": Rows(**arrays["rows"])}))


def replaced(**fields):
    return Batch(**{name: getattr(batch(), name) for name in Batch.__dataclass_fields__} | fields)


@functools.cache
def made():
    """(objective, parameters with an open gate, the compiled outputs for a batch, the compiled predictor).

    The parameters are drawn here, which is quicker than to compile `init`.
    """
    objective, rng = Thinking(**SMALL, steps=10), np.random.default_rng(1)
    shapes = jax.eval_shape(objective.init, jax.random.key(0), batch())[:2]
    params, target = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes)

    @jax.jit
    def outputs(params, batch):
        context = objective.encode_context(params, batch)
        said, _ = objective.predict(params, context, batch)
        arguments = dict(extra={}, batch=batch, key=jax.random.key(1), step=0)
        metrics = objective.loss(params, target, **arguments)[1][0]
        return context, said, objective.targets(target, batch)[0], metrics

    return objective, params, outputs, jax.jit(objective.predict)


def with_blocks(params, change):
    """Parameters with other ones in the predictor's blocks."""
    predictor = params["predictor"]
    stack = predictor["stack"] | {"blocks": change(predictor["stack"]["blocks"])}
    return params | {"predictor": predictor | {"stack": stack}}


def test_the_future_changes_no_bit_of_the_past():
    """Pixels of the future reach no token of the context, no target of the past, and no prediction. Those of the past
    reach no target of the future. Noise, so that every pixel differs."""
    _, params, outputs, _ = made()
    noise = jax.random.randint(jax.random.key(2), batch().video.shape, 0, 256).astype(jnp.uint8)
    frame = jnp.arange(FRAMES)[None, :, None, None, None]
    later, earlier = (jnp.where(which, noise, batch().video) for which in (frame >= 4, frame < 4))
    context, said, target, _ = outputs(params, batch())
    assert np.abs(context[:, :PAST]).min(-1).max() > 0 and not np.asarray(context[:, PAST:]).any()
    after = outputs(params, replaced(video=later))
    np.testing.assert_array_equal(after[0], context)
    np.testing.assert_array_equal(after[1], said)
    np.testing.assert_array_equal(after[2][:, :PAST], target[:, :PAST])
    assert (after[2][:, PAST:] != target[:, PAST:]).any((1, 2)).all()
    before = outputs(params, replaced(video=earlier))
    np.testing.assert_array_equal(before[2][:, PAST:], target[:, PAST:])
    assert (before[0] != context).any() and (before[1][:, PAST:] != said[:, PAST:]).any()


def test_a_closed_gate_is_the_model_without_embeddings_to_the_bit():
    """A fresh gate is closed. Open, each clip follows its own embedding alone."""
    objective, params, _, predict = made()
    names = ("modulation_kernel", "modulation_bias")
    none = Thinking(**SMALL | dict(condition="none"), steps=10)
    fresh, without = (
        jax.jit(lambda key, of=of: of.init(key, batch())[0])(jax.random.key(0)) for of in (objective, none)
    )
    blocks = fresh["predictor"]["stack"]["blocks"]
    assert set(blocks) - set(without["predictor"]["stack"]["blocks"]) == set(names)
    assert not any(np.asarray(blocks.pop(name)).any() for name in names) and fresh.pop("guide")
    jax.tree.map(np.testing.assert_array_equal, fresh, without)
    closed = with_blocks(params, lambda blocks: blocks | {name: np.zeros_like(blocks[name]) for name in names})
    plain = with_blocks(params, lambda blocks: {name: leaf for name, leaf in blocks.items() if name not in names})
    del plain["guide"]
    context = jax.random.normal(jax.random.key(3), (3, 64, 12))
    np.testing.assert_array_equal(
        predict(closed, context, batch())[0], jax.jit(none.predict)(plain, context, batch())[0]
    )
    other = replaced(embedding=batch().embedding.at[0].add(1))
    np.testing.assert_array_equal(predict(closed, context, other)[0], predict(closed, context, batch())[0])
    moved = np.asarray(predict(params, context, other)[0] != predict(params, context, batch())[0])
    assert moved.any((1, 2)).tolist() == [True, False, False]


def test_the_times_of_a_slow_step_share_a_code():
    """All tokens of a time do, too. With the steps exchanged, so are the codes."""
    guide, embedding = Guide(width=4, hidden=5), batch().embedding
    made = jax.jit(guide.init_with_output, static_argnums=2)
    code, params = made(jax.random.key(0), embedding, GRID)
    code = code.reshape(3, 4, 16, 4)
    assert (code == code[:, :, :1]).all() and (code[:, 0] == code[:, 1]).all() and (code[:, 1] != code[:, 2]).any()
    swapped = made(jax.random.key(0), embedding[:, ::-1], GRID)[0].reshape(3, 4, 16, 4)
    np.testing.assert_allclose(swapped, code[:, ::-1], atol=1e-6)


def test_the_predictor_is_causal():
    """Tokens of the second time reach none of the first."""
    _, params, _, predict = made()
    context = jax.random.normal(jax.random.key(3), (3, 64, 12))
    plain, later = (predict(params, tokens, batch())[0] for tokens in (context, context.at[:, 16:].add(1)))
    np.testing.assert_array_equal(plain[:, :16], later[:, :16])
    assert (plain[:, 16:] != later[:, 16:]).any()


def test_the_loss_is_that_of_the_future_and_copying_is_a_floor():
    _, params, outputs, _ = made()
    _, said, target, metrics = outputs(params, batch())
    wanted = np.asarray(jax.nn.standardize(target, axis=-1, epsilon=1e-6))
    error = np.square(said - wanted)[:, PAST:]
    np.testing.assert_allclose(metrics["loss/prediction"], error.mean(), rtol=1e-4)
    later = wanted[:, PAST:]
    copied = np.tile(wanted[:, PAST - 16 : PAST], (1, 2, 1))
    share = 1 - np.square(copied - later).mean() / np.square(later - later.mean((0, 1))).mean()
    np.testing.assert_allclose(metrics["explained/copying"], share, rtol=1e-4)
    context = np.zeros((1, 8), bool)
    context[0, [0, 1, 2]] = True  # (4, 1, 2): both places at time 0, one at time 1
    copied = last_visible(jnp.arange(8.0)[None, :, None], jnp.asarray(context), (4, 1, 2))
    np.testing.assert_array_equal(copied[0, :, 0], [2, 1] * 4)


def test_the_mask_hides_the_last_times():
    draw = functools.partial(future.draw, np.random.default_rng(0), np.zeros((2, 24), bool), np.ones(2, bool))
    for share, grid, first in ((0.5, (4, 2, 3), 12), (0.1, (4, 2, 3), 18), (0.95, (2, 3, 4), 12)):
        masked, removed = draw(share=share, grid=grid)
        np.testing.assert_array_equal(masked, np.arange(24) >= first)
        assert not removed.any()
    for share, grid, message in ((1.0, (4, 2, 3), "mask.share = 1.0"), (0.5, (1, 4, 6), "at least 2 times")):
        with pytest.raises(ConfigError, match=message):
            draw(share=share, grid=grid)


def source(**options):
    return Guided(size=32, frames=8, count=4, **options)


def test_the_outcome_is_the_places_at_the_end_of_each_part():
    guided, plain = source(objects=8), Balls(size=32, frames=8, count=4)
    for i in range(4):
        scene, wanted = guided[i], plain[i]["states"]
        assert scene["embedding"].shape == (2, 8 * 18) and (scene["video"] == plain[i]["video"]).all()
        known = scene["embedding"].reshape(2, 8, 2, 9)
        for step, frame in ((0, 3), (1, 7)):
            for k, state in enumerate(wanted[frame]):
                place = state[[Balls.state_names.index(f"position/{axis}") for axis in "xy"]]
                np.testing.assert_array_equal(known[step, k, :, 0], place * state[0])
                np.testing.assert_allclose(known[step, k, :, 2], np.sin(2 * np.pi * place) * state[0], atol=1e-5)
            assert not known[step, wanted.shape[1] :].any()
    mixed = source(shuffled=True)
    partners = [mixed.partner(i) for i in range(4)]
    assert all(0 <= j < 4 and j != i for i, j in enumerate(partners))
    np.testing.assert_array_equal(mixed[0]["embedding"], source()[partners[0]]["embedding"])


def test_embeddings_come_from_a_file_row_by_row_up_to_the_model(tmp_path):
    rows = np.random.default_rng(0).standard_normal((5, 3, 7)).astype(np.float16)
    np.save(tmp_path / "train.npy", rows)
    guided = source(embeddings=str(tmp_path))
    np.testing.assert_array_equal(guided[3]["embedding"], rows[3].astype(np.float32))
    options = dict(size=32, max_objects=2, intervened="none", seed=0, frames=8)
    prepared = pipeline.SceneMap(guided, future.draw, 8, 2, **options)
    plain = dataclasses.replace(prepared, source=guided.source)
    assert prepared.cost[0] - plain.cost[0] == 4 * 3 * 7 and prepared.cost[1]["embedding (S E)"] == 21
    arrays = batching.collate([prepared(2, 0), prepared(1, 0)])
    np.testing.assert_array_equal(arrays["embedding"], rows[[2, 1]].astype(np.float32))


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros((3, 2, 7)), "train.npy: has 3 rows: must have one for each of the 4 scenes"),
     (np.zeros((4, 7)), r"must be floats \[n, S, E\]"), (np.zeros((4, 2, 7), int), r"must be floats \[n, S, E\]"),
     (np.zeros((4, 300, 1)), "S is at most 256"), (np.zeros((4, 3, 349526), np.float16), "S E at most 1048576"),
     (np.array([{}] * 4), "not an array of numbers"), (None, "No such file")],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused_in_one_line(array, message, tmp_path):
    if array is not None:
        np.save(tmp_path / "train.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message) as error:
        source(embeddings=str(tmp_path))
    assert "\n" not in str(error.value)


def test_more_rows_than_scenes_are_refused_where_none_was_left_out(tmp_path):
    """The scenes may then be other ones than those of the rows."""
    np.save(tmp_path / "train.npy", np.zeros((9, 2, 7)))
    assert source(embeddings=str(tmp_path)).embedding_shape == (2, 7)  # 4 of more scenes
    with pytest.raises(DataError, match="has 9 rows: must have one for each of the 4 scenes"):
        dataclasses.replace(source(embeddings=str(tmp_path)), of=f"{__name__}:Bare", count=0)


def test_an_outcome_is_not_cropped():
    config = ConfigDict(dict(data=dict(crop=True, intervened="none", size=32)))
    with pytest.raises(ConfigError, match="data.crop = True: must be False for an outcome"):
        kinds.make(config, source(), 8, 2)


@pytest.mark.parametrize("value", [np.nan, 1e200])
def test_numbers_that_are_not_finite_are_refused(value, tmp_path):
    rows = np.zeros((4, 2, 7))
    rows[2, 1, 3] = value
    np.save(tmp_path / "train.npy", rows)
    guided = source(embeddings=str(tmp_path))
    assert guided[1]["embedding"].shape == (2, 7)
    with pytest.raises(DataError, match="train.npy: row 2 is not finite"):
        guided[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(condition="adaln"), "objective.condition = 'adaln': must be film or none"),
     (dict(causal_weight=0.5), "objective.causal_weight = 0.5: must be 0"),
     (dict(guide=dict(depth=2)), "objective.guide.depth = 2: there is no such option"),
     (dict(guide=dict(width="a")), "objective.guide.width = 'a': must be a whole number"),
     (dict(encoder_input="zeroed"), "objective.encoder_input = 'zeroed'"),
     (dict(predictor=SMALL["predictor"] | dict(attention="cross")), "objective.predictor.attention = 'cross'")],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Thinking(**SMALL | options, steps=10)


def test_what_gives_no_embedding_is_refused():
    with pytest.raises(ConfigError, match="objective.condition = 'film': the source gives no embedding"):
        made()[0].init(jax.random.key(0), replaced(embedding=None))
    with pytest.raises(ConfigError, match="an embedding has 5 steps: must be at most the 4 times"):
        made()[0].init(jax.random.key(0), replaced(embedding=jnp.zeros((3, 5, 7))))
    for options, message in ((dict(steps=9), "steps is 9: must be at most 8"), (dict(objects=0), "objects is 0"),
                             (dict(shuffled=1), "shuffled = 1"), (dict(embeddings=3), "embeddings = 3"),
                             (dict(of=f"{__name__}:Bare"), "Bare has no states with present, position/x")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            source(**options)


class Bare:
    """A source without states."""

    def __init__(self, **_):
        self.label_names, self.can_rerender = (), False
        self.state_names = ("position/x", "position/y")  # but not whether the object is there

    def __len__(self):
        return 4
