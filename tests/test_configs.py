"""Every shipped config: passes its checks, builds, and traces a training step at its true sizes."""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import optim, schedules, train_step
from cjepa_jax.configuration import build, check
from cjepa_jax.data import batching, kinds, pipeline
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import tokenizers
from cjepa_jax.runtime import foreign
from cjepa_jax.types import Batch, Rows
from configs import vitl

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "configs").rglob("*.py")
    # Suites are compare's (tests/compare), protocols are for any run's config (tests/loading/test_eval_config.py).
    if path.stem != "__init__" and path.parent.name not in ("suites", "evals")
)
shape = jax.ShapeDtypeStruct


def grid_of(c, objective):
    """(times, rows, cols) of the config's scenes, and the shape of one without its frames."""
    source = build.locate(c.data.source)
    if kinds.of(source) == "slots":
        options, objects = c.data.options, 4 if c.objective.get("auxiliary", ()) else 7
        slots, width = options.get("slots", objects), options.get("width", 128)  # files say it: the published ones
        return (c.data.frames, 1, slots), (1, slots, width), jnp.float32
    if kinds.of(source) == "points":
        encoder = c.objective.encoder
        return (1, encoder.groups, 1), (encoder.groups, 1 + encoder.neighbours, 3), jnp.float32
    if kinds.of(source) == "spectrogram":
        inner = (c.data.options.times, c.data.options.bands, 1)
        return tokenizers.grid((1, *inner), objective.patch, 1), inner, jnp.float32
    inner = (c.data.size, c.data.size, 3)
    return tokenizers.grid((c.data.frames, *inner), objective.patch, objective.tubelet), inner, jnp.uint8


def abstract_batch(c, objective):
    """The shapes of the config's batch, on one device."""
    b, k = c.train.batch, c.data.max_objects
    grid, inner, dtype = grid_of(c, objective)
    video, n = shape((b, c.data.frames, *inner), dtype), int(np.prod(grid))
    length = batching.row_lengths(c.data.row_lengths, n)[0]
    none = np.zeros((k, n), bool)
    drawn = len(build.bind(c.mask)(np.random.default_rng(0), none, none[:, 0], grid=grid))
    drops = drawn > 2
    rows = Rows(shape((1, b, length), jnp.int32), shape((1, b, length), jnp.int32))
    scene, flag = shape((b,), jnp.int32), shape((b,), bool)
    pixels = c.data.intervened in pipeline.PICTURED
    source, agent = build.locate(c.data.source), {}
    if "action" in c.objective.get("auxiliary", ()) and "of" in c.data.options:  # slots of a world with actions
        source = build.locate(c.data.options.of)
    elif "action" in c.objective.get("auxiliary", ()):  # slots of files, with Push-T's actions and state
        widths = {"actions": 2 * c.data.options.skip, "proprio": 4}
        agent = {name: shape((b, c.data.frames, width), jnp.float32) for name, width in widths.items()}
    if kinds.of(source) == "episodes":
        if hasattr(source, "action_size"):
            widths = {"actions": source.action_size, "proprio": len(source.proprio_names)}
        else:  # files say it themselves: the published ones have two numbers
            widths = {"actions": 2 * c.data.options.stride}
        agent = {name: shape((b, c.data.frames, width), jnp.float32) for name, width in widths.items() if width}
    if drawn > 3:
        agent |= {f"second_{name}": shape((b, n), bool) for name in ("context", "hidden")} | {"second_rows": rows}
    if "embeddings" in c.data.options:  # of Guided's outcome
        agent["embedding"] = shape((b, c.data.options.steps, 18 * c.data.options.objects), jnp.float32)
    return Batch(
        scene=scene, epoch=scene, video=video, object_patches=shape((b, k, n), bool), object_valid=shape((b, k), bool),
        removed=shape((b, k), bool), context=shape((b, n), bool), rows=rows, valid=flag,
        intervened=video if pixels else None, intervened_valid=flag if pixels else None,
        labels=shape((b, 7), jnp.float32), hidden=shape((b, n), bool) if drops else None, **agent,
    )  # fmt: skip


TRACED = set()  # many configs differ in where their data come from only


SLOW = (".ablations.",)  # many, and each a small change of what is traced anyway


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * any(s in n for s in SLOW)) for n in NAMES])
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
def test_every_config_traces_a_step_at_its_true_sizes(name, dtype):
    """In bfloat16, which could leave something in a state that is float32. The slow tests do it in float32 too."""
    c = importlib.import_module(name).get_config()
    check.check(c)
    program = (dtype, c.data.intervened, c.objective.to_json(), c.optim.to_json())
    program += (
        c.mask.get("both", False),
        c.train.batch,
        c.data.frames,
        c.data.size,
        c.data.max_objects,
        c.data.row_lengths,
    )
    if program in TRACED:
        return
    TRACED.add(program)
    objective = build.build(c.objective, steps=1000, dtype=dtype)
    optimizer, batch = optim.make(c.optim), abstract_batch(c, objective)
    rate = functools.partial(schedules.learning_rate, peak=1.0, warmup=10, total=1000)
    state = jax.eval_shape(functools.partial(train_step.init_state, objective, optimizer, c.seed), batch)
    new, metrics = jax.eval_shape(train_step.make(objective, optimizer, rate, c.seed), state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == () and metrics["loss"].dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((state.params, state.target)))


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_locked_documented_and_drawable(name):
    module = importlib.import_module(name)
    c = module.get_config()
    assert c.is_locked and "python -m cjepa_jax" in module.__doc__
    objective = build.build(c.objective, steps=1, dtype="float32")
    grid, *_ = grid_of(c, objective)
    patches = np.zeros((c.data.max_objects, np.prod(grid)), bool)
    masked, removed, *dropped = build.bind(c.mask)(np.random.default_rng(0), patches, patches[:, 0], grid=grid)
    assert 0 < masked.sum() < masked.size and not removed.any()
    assert not any((masked & other).any() for other in dropped[:1])


def test_every_config_is_read_again_from_a_runs_folder(tmp_path):
    for name in NAMES:
        c = importlib.import_module(name).get_config().copy_and_resolve_references()
        (tmp_path / "config.json").write_text(c.to_json())
        assert foreign.read(tmp_path / "config.json", ()).objective.to_json() == c.objective.to_json(), name


def test_vitl_carries_every_hyper_parameter_of_the_document():
    """The table of hyper-parameters of the method's description (its section 5), row by row."""
    c = vitl.get_config()
    objective = build.build(c.objective, steps=1, dtype="float32")
    assert c.objective.encoder.variant == "L/16" and objective.patch == 16 and objective.tubelet == 2
    assert objective._encoder.width == 1024 and c.objective.encoder.depth == 0  # 24 layers, 16 heads: test_encoder
    assert (c.objective.predictor.depth, c.objective.predictor.heads, c.objective.predictor.width) == (6, 8, 384)
    assert c.data.size == 224 and c.data.frames == 1
    assert (c.optim.b1, c.optim.b2, c.optim.weight_decay) == (0.9, 0.95, 0.05)
    assert c.optim.base == 1.5e-4 and c.optim.peak == 0 and optim.peak_rate(c.optim, c.train.batch) == 6e-4
    assert c.optim.warmup_epochs == 40 and c.optim.warmup_share == 0
    assert c.train.batch == 1024 and c.train.epochs == 300 and c.train.steps == 0
    assert c.objective.ema == (0.996, 1.0)
    assert c.mask.max_objects == 3 and c.mask.area == (0.05, 0.40) and c.mask.anchor == 0
    assert (c.objective.causal_weight, c.objective.sigreg_weight, c.objective.beta) == (0.5, 0.01, 1.0)
    assert c.objective.prediction_loss == "smooth_l1" and c.objective.target_norm == "none"
    assert c.objective.encoder_input == "context" and c.data.intervened == "zero_pixels"
    assert c.objective.predictor.attention == "joint" and c.objective.encoder.gelu == "exact"


def test_the_variants_of_vitl():
    natural, video = (importlib.import_module(f"configs.vitl_{name}").get_config() for name in ("natural", "video"))
    assert natural.train.epochs == 600 and natural.data.crop
    assert video.data.frames == 16


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"mask.max_objects": 4, "objective.predictor.max_objects": 3}, "mask.max_objects = 4"),
        ({"data.intervened": "none"}, "objective.causal_weight = 0.5"),
        ({"data.size": 16}, "data.size = 16"),
    ],
)
def test_values_that_would_be_wrong_without_a_word_are_refused(changes, named):
    """More removed objects than have an embedding. A causal term without an intervened scene. One token."""
    c = vitl.get_config().copy_and_resolve_references().unlock()
    c.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=named):
        check.check(c)


def test_raising_m_max_gives_the_predictor_its_embeddings():
    c = vitl.get_config()
    c.mask.max_objects = 5
    assert c.objective.predictor.max_objects == 5
    check.check(c)
    c.objective.causal_weight, c.data.intervened = 0.0, "none"
    check.check(c)
