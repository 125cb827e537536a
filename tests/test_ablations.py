"""configs/ablations: each row differs from its reference in exactly the keys that it is about, and all train.

There are two sets: the ablations of the method's description, on its objective, and, in the folder clips, those of the
settings of clips.py.
"""

import importlib
import itertools
import pathlib

import jax
import numpy as np
import pytest

from cjepa_jax import experiment, sharding
from cjepa_jax.configuration import check
from cjepa_jax.data import assemble
from tests.running import SMALL

FOLDER = pathlib.Path(__file__).parents[1] / "configs/ablations"
TOKENS = ("object_tokens", "displaced_objects", "random_tokens", "tube_tokens")
CAUSAL = "data.intervened: rerender -> none", "objective.causal_weight: 0.005 -> 0.0"
SCALE = (  # what makes vitl tiny: scenes, network, budget, and how often something is written
    "checkpoint.every", "data.count", "data.frames", "data.row_lengths", "data.size", "data.threads", "data.workers",
    "log.every", "objective.encoder.variant", "objective.predictor.depth", "objective.predictor.heads",
    "objective.predictor.width", "optim.peak", "optim.warmup_share", "probe.every", "train.batch", "train.steps",
)  # fmt: skip
DOCUMENT = {  # the rows of the description's table, then ablations without a row: the keys that differ from "full"
    "random_patches": ("mask.type: cjepa_jax.masks.objects:draw -> cjepa_jax.masks.random:matched_blocks",),
    "superpixels": (
        "data.max_objects: 8 -> 16",
        "data.options.compactness: (absent) -> 10.0",
        "data.options.of: (absent) -> cjepa_jax.data.worlds:Balls",
        "data.options.segments: (absent) -> 16",
        "data.source: cjepa_jax.data.worlds:Balls -> cjepa_jax.data.sources.superpixels:Superpixels",
    ),
    "no_causal": ("objective.causal_weight: 0.5 -> 0.0",),
    "no_sigreg": ("objective.sigreg_weight: 0.01 -> 0.0",),
    "predictor_wide": ("objective.predictor.width: 48 -> 96",),
    "predictor_narrow": ("objective.predictor.width: 48 -> 24",),
    "ema_fixed": ("objective.ema: [0.996, 1.0] -> [0.999, 0.999]",),
    "one_object": ("mask.max_objects: 3 -> 1", "objective.predictor.max_objects: 3 -> 1"),
    "five_objects": ("mask.max_objects: 3 -> 5", "objective.predictor.max_objects: 3 -> 5"),
    "slots": (
        "data.row_lengths: [0.8, 1.0] -> [1.0]",
        "objective.anchor: (absent) -> 0",
        "objective.area: (absent) -> [0.05, 0.4]",
        "objective.fallback: (absent) -> 0.5",
        *(
            f"objective.slots.{name}: (absent) -> {value}"
            for name, value in (("count", 7), ("hidden", 128), ("iterations", 3), ("layers", 3), ("width", 64))
        ),
        "objective.slots_weight: (absent) -> 1.0",
        "objective.type: cjepa_jax.objectives.jepa:Jepa -> cjepa_jax.objectives.joint:Joint",
    ),
    "zeroed_input": ("objective.encoder_input: context -> zeroed",),
    "deep_predictor": ("objective.predictor.depth: 2 -> 4",),
    "mse": ("objective.prediction_loss: smooth_l1 -> mse",),
}
CHANGES = {  # of clips.py
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
    "named": (
        "mask.type: cjepa_jax.masks.objects:draw -> cjepa_jax.masks.displaced:named",
        "objective.predictor.name_context: (absent) -> True",
    ),
    "object_tokens": ("data.frames: 4 -> 6", *CAUSAL),
    "random_patches": CAUSAL,
    "superpixels": (
        "data.intervened: rerender -> zero_pixels",
        "data.max_objects: 8 -> 16",
        "data.source: cjepa_jax.data.worlds:Balls -> cjepa_jax.data.sources.superpixels:Superpixels",
    ),
}
WHOLE = {"random_patches": "mask.*", "superpixels": "data.options.*"}  # sections that are wholly others


def get(name):
    return importlib.import_module(f"configs.ablations.{name}").get_config()


def own(name):
    return get(f"clips.{name}")


def test_the_reference_is_the_documents_method_at_tinys_size():
    vitl, tiny = (importlib.import_module(f"configs.{name}").get_config() for name in ("vitl", "clips"))
    assert {line.partition(":")[0] for line in check.differences(vitl, get("full"), ignore=())} == set(SCALE)
    here, scale = dict(check.flatten(get("full"))), dict(check.flatten(tiny))
    assert all(here[key] == scale[key] for key in SCALE)


@pytest.mark.parametrize("name", DOCUMENT)
def test_a_row_of_the_document_changes_one_thing(name):
    assert tuple(check.differences(get("full"), get(name), ignore=())) == DOCUMENT[name]


def test_random_patches_hide_as_much_of_each_scene_and_keep_the_causal_term():
    full, random = (
        assemble.make_scenes(c, assemble.make_source(c, "train"), *assemble.patch_and_tubelet(c))
        for c in (get("full"), get("random_patches"))
    )
    for i in range(12):
        one, two = full(i, 0), random(i, 0)
        assert one["context"].sum() == two["context"].sum() and (one["context"] != two["context"]).any()
        assert two["intervened_valid"] and not two["removed"].any()
        black = np.repeat(np.repeat(np.repeat(~two["context"].reshape(2, 8, 8), 2, 0), 8, 1), 8, 2)
        np.testing.assert_array_equal(two["intervened"], np.where(black[..., None], 0, two["video"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", *DOCUMENT])
def test_every_row_of_the_document_trains(name, monkeypatch):
    """Two steps at the smallest size: finite, nothing skipped, and every term that has a weight is above 0."""
    if name == "superpixels":
        pytest.importorskip("skimage")
    make_mesh, one = sharding.make_mesh, jax.devices()[:1]
    monkeypatch.setattr(sharding, "make_mesh", lambda *a, **options: make_mesh(*a, **options | {"devices": one}))
    c = get(name)
    kept = ("data.size", "data.count", "train", "probe")
    small = {key: value for key, value in SMALL.items() if key.startswith(kept)}
    c.update_from_flattened_dict(small | {"data.workers": 0, "data.threads": 1, "objective.encoder.depth": 1})
    run = experiment.assemble(c)
    state = run.init(run.example())
    for arrays in itertools.islice(run.loader.iterate(0, 2), 2):
        state, metrics = run.step(state, sharding.put_batch(run.mesh, arrays))
    assert int(state.skipped) == 0 and all(np.isfinite(value).all() for value in metrics.values())
    assert float(metrics["loss/prediction"]) > 0 and ("loss/causal" in metrics) == (name != "no_causal")
    assert name == "no_causal" or float(metrics["loss/causal"]) > 0


@pytest.mark.parametrize("name", CHANGES)
def test_an_ablation_changes_what_it_says_of_the_reference(name):
    tiny = importlib.import_module("configs.clips").get_config()
    assert tuple(check.differences(tiny, own(name), ignore=(WHOLE.get(name, ""),))) == CHANGES[name]


def test_the_kinds_of_hidden_tokens_differ_in_no_amount_and_little_else():
    hidden = {}
    for name in TOKENS:
        c = own(name)
        assert not check.differences(own("object_tokens"), c, ignore=("mask.type", "mask.tubes"))
        scenes = assemble.make_scenes(c, assemble.make_source(c, "train"), *assemble.patch_and_tubelet(c))
        hidden[name] = np.array([~scenes(i, 0)["context"] for i in range(12)])
    objects, displaced, tokens, tubes = (hidden[name] for name in TOKENS)
    assert (displaced.sum(1) == objects.sum(1)).all() and (tokens.sum(1) == objects.sum(1)).all()
    assert np.abs(tubes.sum(1) - objects.sum(1)).max() <= 1  # two times: half a tube is a token
    for one, two in ((objects, displaced), (objects, tokens), (tokens, tubes)):
        assert (one != two).any(1).all()


def test_every_ablation_is_checked_here():
    def there(folder):
        return {path.stem for path in folder.glob("*.py")} - {"__init__"}

    assert there(FOLDER) == {"full", *DOCUMENT}
    assert there(FOLDER / "clips") - {"slots"} == {*CHANGES, *TOKENS}
