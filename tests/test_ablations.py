"""configs/ablations: each differs from the reference in what it says; four kinds of hidden tokens, of one amount."""

import importlib
import pathlib

import numpy as np
import pytest

from cjepa_jax import config
from cjepa_jax.data import assemble

FOLDER = pathlib.Path(__file__).parents[1] / "configs/ablations"
TOKENS = ("object_tokens", "displaced_objects", "random_tokens", "tube_tokens")
CAUSAL = "data.intervened: rerender -> none", "objective.causal_weight: 0.005 -> 0.0"
CHANGES = {
    "full": (),
    "elementwise_loss": (),
    "rerender": (),
    "no_causal": CAUSAL,
    "no_sigreg": ("objective.sigreg_weight: 0.01 -> 0.0",),
    "predictor_wide": ("objective.predictor.width: 48 -> 96",),
    "predictor_narrow": ("objective.predictor.width: 48 -> 24",),
    "deep_predictor": ("objective.predictor.depth: 2 -> 4",),
    "ema_fixed": ("objective.ema: [0.996, 1.0] -> [0.999, 0.999]",),
    "one_object": ("mask.max_objects: 3 -> 1", "objective.predictor.max_objects: 3 -> 1"),
    "five_objects": ("mask.max_objects: 3 -> 5", "objective.predictor.max_objects: 3 -> 5"),
    "zeroed_input": ("objective.encoder_input: context -> zeroed",),
    "mse": ("objective.prediction_loss: elementwise -> mse",),
    "vector_loss": ("objective.prediction_loss: elementwise -> smooth_l1",),
    "cross_attention": ("objective.predictor.attention: joint -> cross",),
    "zero_pixels": ("data.intervened: rerender -> zero_pixels",),
    "drop_tokens": ("data.intervened: rerender -> drop_tokens",),
    "epps_pulley": ("objective.sigreg_kind: kl -> epps_pulley",),
    "object_tokens": ("data.frames: 4 -> 6", *CAUSAL),
    "random_patches": CAUSAL,
    "superpixels": (
        "data.intervened: rerender -> zero_pixels",
        "data.max_objects: 8 -> 16",
        "data.source: cjepa_jax.data.worlds:Balls -> cjepa_jax.data.superpixels:Superpixels",
    ),
}
OWN = {"random_patches": "mask.*", "superpixels": "data.options.*"}  # sections that are wholly others


def get(name):
    return importlib.import_module(f"configs.ablations.{name}").get_config()


@pytest.mark.parametrize("name", CHANGES)
def test_an_ablation_changes_what_it_says_of_the_reference(name):
    tiny = importlib.import_module("configs.tiny").get_config()
    assert tuple(config.differences(tiny, get(name), ignore=(OWN.get(name, ""),))) == CHANGES[name]


def test_the_kinds_of_hidden_tokens_differ_in_no_amount_and_little_else():
    hidden = {}
    for name in TOKENS:
        c = get(name)
        assert not config.differences(get("object_tokens"), c, ignore=("mask.type", "mask.tubes"))
        scenes = assemble.make_scenes(c, assemble.make_source(c, "train"), *assemble.patch_and_tubelet(c))
        hidden[name] = np.array([~scenes(i, 0)["context"] for i in range(12)])
    objects, displaced, tokens, tubes = (hidden[name] for name in TOKENS)
    assert (displaced.sum(1) == objects.sum(1)).all() and (tokens.sum(1) == objects.sum(1)).all()
    assert np.abs(tubes.sum(1) - objects.sum(1)).max() <= 1  # two times: half a tube is a token
    for one, two in ((objects, displaced), (objects, tokens), (tokens, tubes)):
        assert (one != two).any(1).all()


def test_every_ablation_is_checked_here():
    names = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "slots"}
    assert names == {*CHANGES, *TOKENS}
