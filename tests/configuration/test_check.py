"""Impossible values are refused in one line. Configs compare key by key."""

import importlib
import json
import pathlib

import pytest

from cjepa_jax.configuration.check import CHOICES, MAY_CHANGE, RULES, check, differences, flatten, resolve
from cjepa_jax.errors import ConfigError
from configs import clips, vitl

NAMES = sorted(path.stem for path in pathlib.Path(clips.__file__).parent.glob("[!_]*.py"))


def changed(**values):
    """tiny with values by dotted key, set past the type checks of ConfigDict."""
    config = clips.get_config().copy_and_resolve_references().unlock()
    for key, value in values.items():
        *sections, leaf = key.split("__")
        section = config
        for name in sections:
            section = section[name]
        with section.ignore_type():
            section[leaf] = value
    return config


@pytest.mark.parametrize("name", NAMES)
def test_every_config_passes_and_is_json(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    check(config)
    assert differences(json.loads(json.dumps(resolve(config))), config, ignore=()) == []


def test_every_key_of_the_schema_has_a_rule():
    ruled = {key for _, _, keys in RULES for key in keys.split()} | set(CHOICES)
    assert {key for key, _ in flatten(vitl.get_config())} == ruled


REFUSED = [
    (
        dict(data__size=60),
        r"^data.size = 60: must be a multiple of the patch size 8 \(objective.encoder.variant = 'Mu/8'",
    ),
    (dict(data__frames=5), "data.frames = 5: must be 1 or a multiple of objective.encoder.tubelet = 2"),
    (dict(mask__area=(0.4, 0.05)), "mask.area = .*lower bound first"),
    (dict(mask__area=(-0.1, 0.5)), "mask.area"),
    (dict(mask__area=(0.1, 1.5)), "mask.area"),
    (dict(mask__area=(0.1, 0.2, 0.3)), "mask.area"),
    (dict(mask__area=("a", 1)), "mask.area"),
    (dict(mask__max_objects=0), "mask.max_objects = 0: must be a whole number, at least 1"),
    (dict(mask__max_objects=4), "objective.predictor.max_objects = 3: must not be below mask.max_objects = 4"),
    (
        dict(objective__predictor__positions="rope", objective__predictor__width=20, objective__predictor__heads=4),
        "objective.predictor.width = 20: rotary positions need 6 per head",
    ),
    (dict(objective__encoder__positions="table"), r"objective.encoder.position_grid = \(\): must be the table's"),
    (dict(objective__encoder__position_grid=(1, 2)), "objective.encoder.position_grid = .*three whole numbers"),
    (dict(objective__encoder__epsilon=0.0), "objective.encoder.epsilon = 0.0: must be above 0"),
    (dict(optim__freeze="encoder"), "optim.freeze = 'encoder': must be names"),
    (
        dict(mask__anchor=2),
        "mask.anchor = 2: must be below the clip's number of tubelets, 2 .data.frames = 4, objective.encoder.tube",
    ),
    (dict(train__batch=0), "train.batch = 0"),
    (dict(train__batch=-3), "train.batch = -3"),
    (dict(train__batch=True), "train.batch = True"),
    (dict(train__batch="8"), "train.batch = '8'"),
    (dict(train__batch=8.0), "train.batch = 8.0"),
    (dict(train__steps=-1), "train.steps = -1"),
    (dict(train__epochs=0), "train.epochs = 0: must be above 0"),
    (dict(data__count=-1), "data.count"),
    (dict(data__workers=-1), "data.workers = -1"),
    (dict(data__crop=1), "data.crop = 1: must be True or False"),
    (dict(data__source="folder"), "data.source = 'folder': must be 'module:Name'"),
    (dict(data__max_replaced=1.5), "data.max_replaced"),
    (dict(data__row_lengths=(0.5, 0.4, 1.0)), "data.row_lengths"),
    (dict(data__row_lengths=(0.5, 0.9)), "data.row_lengths"),
    (dict(data__row_lengths=(0.2, 0.4, 0.6, 0.8, 1.0)), "data.row_lengths = .*1 to 4"),
    (dict(data__row_lengths=()), "data.row_lengths"),
    (dict(data__row_lengths=(0.0, 1.0)), "data.row_lengths"),
    (
        dict(objective__graph="intervened", data__intervened="second_view"),
        "data.intervened = 'second_view': must be 'rerender' with objective.graph = 'intervened'",
    ),
    (dict(data__intervened="rerendr"), "data.intervened = 'rerendr': .*; did you mean 'rerender'"),
    (
        dict(objective__prediction_loss="smooth-l1"),
        "must be one of smooth_l1, elementwise, l1, mse.* or 'module:function'; did you mean 'smooth_l1'",
    ),
    (dict(objective__prediction_loss="mine:"), "objective.prediction_loss = 'mine:': must be one of"),
    (dict(objective__target_norm="mine:norm"), "objective.target_norm = 'mine:norm': must be one of"),
    (dict(objective__target_norm="layernorm"), "did you mean 'layer_norm'"),
    (dict(objective__encoder_input="zero"), "did you mean 'zeroed'"),
    (dict(objective__predictor__attention="crss"), "did you mean 'cross'"),
    (dict(objective__encoder__gelu="tan"), "did you mean 'tanh'"),
    (dict(objective__encoder__remat="dot"), "did you mean 'dots'"),
    (dict(objective__encoder__variant="L16"), "objective.encoder.variant = 'L16': must be a size"),
    (dict(objective__encoder__variant="L/0"), "objective.encoder.variant"),
    (dict(objective__predictor__width=50), "objective.predictor.width = 50: must be a multiple of .*heads = 4"),
    (dict(objective__ema=(1.0, 0.9)), "objective.ema"),
    (dict(objective__ema=(0.9, 1.1)), "objective.ema"),
    (dict(objective__causal_weight=-0.5), "objective.causal_weight = -0.5: must be 0 or more"),
    (dict(objective__beta=0.0), "objective.beta"),
    (dict(optim__warmup_share=1.0), r"optim.warmup_share = 1.0: must be in \[0, 1\)"),
    (dict(optim__peak=float("nan")), "optim.peak = nan: must be finite"),
    (dict(optim__peak=float("inf")), "optim.peak = inf: must be finite"),
    (dict(optim__b2=1.0), "optim.b2"),
    (dict(dtype="bf16"), "dtype = 'bf16': must be one of auto, float32, bfloat16; did you mean 'bfloat16'"),
    (dict(log__level="inof"), "did you mean 'info'"),
    (dict(probe__train=2000), r"probe.train \+ probe.test = 3024: must not exceed data.eval_count = 2048"),
    (dict(checkpoint__keep=0), "checkpoint.keep"),
    (dict(seed=-1), "seed = -1"),
]


@pytest.mark.parametrize("values,text", REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_impossible_values_are_refused_in_one_line(values, text):
    with pytest.raises(ConfigError, match=text) as caught:
        check(changed(**values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        dict(data__frames=1, mask__anchor=0),
        dict(data__size=96),
        dict(objective__causal_weight=0),
        dict(probe__every=0),
        dict(data__row_lengths=(1.0,)),
        dict(data__count=0, data__workers=0),
        dict(mask__anchor=1),
    ],
    ids=str,
)
def test_possible_values_pass(values):
    check(changed(**values))


def test_a_variant_with_its_own_sections_passes():
    config = changed()
    del config.mask, config.objective
    config.objective = {"type": "mine:Objective", "depth": -3}
    check(config)


def test_differences_name_every_key():
    saved = resolve(clips.get_config())
    now = changed(train__batch=64, mask__area=(0.1, 0.2), data__workers=9, log__every=1, checkpoint__keep=5)
    now.probe.every = 7
    assert differences(saved, now) == ["mask.area: [0.05, 0.4] -> [0.1, 0.2]", "train.batch: 32 -> 64"]
    assert len(differences(saved, now, ignore=())) == 6


def test_a_run_that_used_up_its_budget_may_go_on_with_a_larger_one():
    assert differences(resolve(clips.get_config()), changed(train__nonfinite_budget=10**6)) == []


def test_differences_name_absent_keys():
    assert differences({"a": 1}, {"b": {"c": 2}}) == ["a: 1 -> (absent)", "b.c: (absent) -> 2"]


def test_what_may_change_exists():
    config = vitl.get_config()
    keys = [key for key, _ in flatten(config)]
    keys += [f"{name}." for name, section in config.items() if hasattr(section, "items") and not section]  # monitors
    for pattern in MAY_CHANGE:
        assert any(key == pattern or key.startswith(pattern.rstrip("*")) for key in keys), pattern
