"""Every value of the reference config, and every mask of the others, against tables of this file alone.

The tables do not use the package. Their values come from the method's description (its section 5 and Algorithms 1 and
2) and from the papers that the baselines follow.
"""

import importlib
import pathlib

import pytest

from configs import vitl

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENT = {  # the description's table of hyper-parameters, row by row, then the values that its text fixes
    "objective.encoder.variant": "L/16",  # 24 layers, 16 heads, D = 1024, patches of 16: tests/models/test_encoder.py
    "objective.encoder.depth": 0,  # as the variant says
    "objective.predictor.depth": 6,
    "objective.predictor.heads": 8,
    "objective.predictor.width": 384,
    "data.size": 224,
    "data.frames": 1,  # images. Clips of 16: vitl_video.py
    "optim.b1": 0.9,
    "optim.b2": 0.95,
    "optim.weight_decay": 0.05,
    "optim.base": 1.5e-4,
    "optim.peak": 0.0,  # by the linear rule
    "optim.warmup_epochs": 40.0,
    "optim.warmup_share": 0.0,
    "optim.cooldown": 0.0,  # a cosine over all steps
    "train.batch": 1024,
    "train.epochs": 300,
    "train.steps": 0,  # by epochs
    "objective.ema": (0.996, 1.0),
    "objective.ema_kind": "cosine",
    "mask.max_objects": 3,
    "objective.predictor.max_objects": 3,
    "mask.area": (0.05, 0.40),
    "objective.causal_weight": 0.5,
    "objective.sigreg_weight": 0.01,
    "objective.beta": 1.0,
    "mask.type": "cjepa_jax.masks.objects:draw",  # Algorithm 2
    "mask.anchor": 0,
    "objective.type": "cjepa_jax.objectives.jepa:Jepa",  # Algorithm 1
    "objective.prediction_loss": "smooth_l1",  # of the token's norm
    "objective.target_norm": "none",
    "objective.causal_tokens": "remaining",
    "objective.sigreg_kind": "kl",
    "objective.encoder_input": "context",
    "objective.predictor.attention": "joint",
    "data.intervened": "zero_pixels",  # step 3 of the description's training iteration
}
OURS = {  # values that the method's description does not fix
    "seed": 0,
    "init_from": "",
    "dtype": "auto",
    "train.accumulate": 1,
    "train.nonfinite_budget": 3,
    "train.watchdog": 1800.0,
    "train.heartbeat": 30.0,
    "train.collapse": "warn",
    "sharding.mode": "jit",
    "sharding.data": 0,
    "sharding.fsdp": 1,
    "sharding.tensor": 1,
    "sharding.rules": (),
    "data.source": "cjepa_jax.data.worlds:Balls",
    "data.path": "",
    "data.count": 100_000,
    "data.eval_count": 2048,
    "data.eval_split": "eval",
    "data.crop": False,
    "data.max_objects": 8,
    "data.row_lengths": (0.5, 0.7, 0.85, 1.0),
    "data.pack": 0,
    "data.workers": 4,
    "data.threads": 4,
    "data.prefetch": 4,
    "data.max_replaced": 0.001,
    "objective.encoder.tubelet": 2,  # V-JEPA's
    "objective.encoder.gelu": "exact",
    "objective.encoder.remat": "none",
    "objective.encoder.positions": "sincos",
    "objective.encoder.position_grid": (),
    "objective.encoder.epsilon": 1e-6,
    "objective.encoder.channels": 3,
    "objective.encoder.scale": 255.0,
    "objective.encoder.mean": (0.485, 0.456, 0.406),  # ImageNet's, as in I-JEPA and V-JEPA
    "objective.encoder.std": (0.229, 0.224, 0.225),
    "objective.predictor.gelu": "exact",
    "objective.predictor.remat": "none",
    "objective.predictor.positions": "sincos",
    "objective.predictor.position_grid": (),
    "objective.predictor.epsilon": 1e-6,
    "optim.eps": 1e-8,
    "optim.clip": 0.0,
    "optim.layer_decay": 1.0,
    "optim.freeze": (),
    "checkpoint.every": 1000,
    "checkpoint.keep": 2,
    "checkpoint.best": "probe/count_r2",
    "probe.every": 5000,
    "probe.train": 1024,
    "probe.test": 1024,
    "probe.batch": 64,
    "evals.seed": 1000,
    "evals.fit": 2048,
    "evals.fit_split": "train",
    "evals.test": 1024,
    "evals.test_split": "test",
    "evals.random_inits": 3,
    "evals.batch": 32,
    "log.every": 50,
    "log.level": "info",
    "log.tensorboard": True,
    "log.wandb": False,
    "log.report": True,
}
EMPTY = {"data.options", "evals.protocols"}  # sections for keys of other names

OBJECTS = {"type": "cjepa_jax.masks.objects:draw", "max_objects": 3, "area": (0.05, 0.40), "anchor": 0}
SHOWN_ONCE = OBJECTS | {"anchor": 1}  # clips.py's
BASELINES = {  # all that each changes of clips.py; ... takes away
    "ijepa": {  # arXiv 2301.08243, appendix A.1
        "data.intervened": "none",
        "data.row_lengths": (0.6, 1.0),
        "mask.type": "cjepa_jax.masks.multiblock:draw",
        "mask.targets": 4,
        "mask.target_scale": (0.15, 0.2),
        "mask.aspect": (0.75, 1.5),
        "mask.context_scale": (0.85, 1.0),
        "mask.min_keep": 10,
        "mask.tied": False,
        "mask.corner": False,
        "mask.batch": 1,
        "mask.max_objects": ...,
        "mask.area": ...,
        "mask.anchor": ...,
        "objective.causal_weight": 0.0,
        "objective.sigreg_weight": 0.0,
        "objective.ema_kind": "linear",
    },
    "vjepa": {  # arXiv 2404.08471, section 3.2 and appendix C
        "data.intervened": "none",
        "data.row_lengths": (0.6, 1.0),
        "mask.type": "cjepa_jax.masks.tubes:draw",
        "mask.kinds": ((8, 0.15), (2, 0.7)),
        "mask.aspect": (0.75, 1.5),
        "mask.batch": 1,
        "mask.both": False,
        "mask.max_objects": ...,
        "mask.area": ...,
        "mask.anchor": ...,
        "objective.prediction_loss": "l1",
        "objective.causal_weight": 0.0,
        "objective.sigreg_weight": 0.0,
        "objective.ema": (0.998, 1.0),
        "objective.ema_kind": "linear",
    },
}


def flat(section, name=""):
    """Values by dotted key. An empty section is none."""
    leaves = {}
    for key, value in section.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{name}{key}.")
        else:
            leaves[name + key] = value
    return leaves


def get(name):
    return flat(importlib.import_module(f"configs.{name}").get_config().to_dict())


def changes(config, base):
    """What differs, by key; ... for what is taken away."""
    keys = config.keys() | base.keys()
    return {key: config.get(key, ...) for key in keys if repr(config.get(key, ...)) != repr(base.get(key, ...))}


def test_vitl_is_the_documents_table_and_ours_and_nothing_else():
    found, expected = get("vitl"), DOCUMENT | OURS
    assert not DOCUMENT.keys() & OURS.keys()
    assert changes(found, expected) == {}  # by repr: 1 is not 1.0, nor True
    sections = vitl.get_config()
    assert all(sections[a][b].to_dict() == {} for a, b in (key.split(".") for key in EMPTY))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("vitl_natural", {"train.epochs": 600, "data.crop": True}),
        ("vitl_video", {"data.frames": 16, "objective.encoder.remat": "dots", "objective.predictor.remat": "dots"}),
        *((f"baselines.{name}", expected) for name, expected in BASELINES.items()),
    ],
)
def test_a_variant_changes_this_and_nothing_else(name, expected):
    base = get("clips" if name.startswith("baselines") else "vitl")
    assert changes(get(name), base) == expected


ABLATIONS = ("full", "superpixels", "no_causal", "no_sigreg", "predictor_wide", "predictor_narrow", "ema_fixed",
             "slots", "zeroed_input", "deep_predictor", "mse")  # fmt: skip
TUBES = {
    "type": "cjepa_jax.masks.tubes:draw",
    "kinds": ((8, 0.15), (2, 0.7)),
    "aspect": (0.75, 1.5),
    "batch": 1,
    "both": False,
}
SHADOWS = OBJECTS | {"anchor": 0, "max_objects": 2}  # tiny.py's
EFFECTS = {
    "tiny": {},
    "effects.named": {"type": "cjepa_jax.masks.displaced:named"},
    "effects.met": {"type": "cjepa_jax.masks.displaced:named", "meet": 0.67},
    "effects.blocks": {"type": "cjepa_jax.masks.random:matched_blocks", "pair": "drawn"},
    "effects.tokens": {"type": "cjepa_jax.masks.random:matched", "pair": "drawn"},
}
SLOTS = {"type": "cjepa_jax.masks.slots:draw", "history": 3, "least": 0, "most": 3, "constant": -1,
         "kind": "object", "share": 0.25, "span": 2}  # fmt: skip
MASKS = {  # of the configs whose mask is not that of clips.py
    **dict.fromkeys(("vitl", "vitl_natural", "vitl_video", "folder"), OBJECTS),
    **dict.fromkeys(("data.coco", "data.imagenet", "data.cifar10", "data.imagenette"), OBJECTS),
    "data.clevrer": OBJECTS | {"area": (0.005, 0.40)},  # small objects
    "data.cophy": OBJECTS | {"area": (0.01, 0.40)},
    "data.craft": OBJECTS | {"area": (0.01, 0.40)},
    "data.phyre": SHOWN_ONCE | {"area": (0.002, 0.40)},
    **dict.fromkeys(["family.hjepa"], {key.removeprefix("mask."): value for key, value in BASELINES["ijepa"].items()
                                       if key.startswith("mask.") and value is not ...}),
    "baselines.ijepa": {key.removeprefix("mask."): value for key, value in BASELINES["ijepa"].items()
                        if key.startswith("mask.") and value is not ...},
    **dict.fromkeys(("baselines.vjepa", "data.videos", "family.vjepa2", "family.vjepa2_1"), TUBES),
    "baselines.vjepa_both": TUBES | {"both": True},
    "baselines.mae": {"type": "cjepa_jax.masks.random:draw", "ratio": 0.75},
    **dict.fromkeys((f"ablations.{name}" for name in ABLATIONS), OBJECTS),
    "ablations.one_object": OBJECTS | {"max_objects": 1},
    "ablations.five_objects": OBJECTS | {"max_objects": 5},
    "ablations.random_patches": OBJECTS | {"type": "cjepa_jax.masks.random:matched_blocks"},
    **{name: SHADOWS | mask for name, mask in EFFECTS.items()},
    **dict.fromkeys(("family.act_jepa", "family.jepa2022", "family.lewm", "family.lewm_published", "family.pldm",
                     "family.vjepa2_ac", "family.dino_wm", "family.eb_jepa_video",
                     "family.jepa2022_press"),
                    SHOWN_ONCE | {"anchor": 0}),
    "family.mcjepa_factored": {"type": "cjepa_jax.masks.factored:draw", "motion": 0.5, "places": 0.5, "times": 0.5},
    "family.think_jepa": {"type": "cjepa_jax.masks.future:draw", "share": 0.5},
    **dict.fromkeys(
        ("family.point_jepa", "family.point_jepa_published"),
        {"type": "cjepa_jax.masks.runs:draw", "targets": 4, "target": (0.15, 0.2), "context": (0.4, 0.75)},
    ),
    "family.threed_jepa": {"type": "cjepa_jax.masks.runs:draw", "targets": 4, "target": (0.15, 0.2),
                           "context": (0.85, 1.0)},
    **dict.fromkeys(("family.audio_jepa", "family.audio_jepa_published"),
                    {"type": "cjepa_jax.masks.random:share", "ratio": (0.4, 0.6)}),
    "family.audio_jepa_blocks": {
        "type": "cjepa_jax.masks.multiblock:draw", "targets": 3, "target_scale": (0.15, 0.2), "aspect": (0.5, 2.0),
        "context_scale": (0.8, 1.0), "min_keep": 10, "tied": False, "corner": False, "batch": 1,
    },
    **dict.fromkeys(("slots.balls", "slots.craft", "slots.ctt"), SLOTS),
    "slots.push": SLOTS | {"most": 0},
    "slots.clevrer": SLOTS | {"history": 6, "most": 4, "constant": 42},
    "slots.pusht": SLOTS | {"most": 1, "constant": 42},
    "ablations.clips.one_object": SHOWN_ONCE | {"max_objects": 1},
    "ablations.clips.five_objects": SHOWN_ONCE | {"max_objects": 5},
    "ablations.clips.random_patches": {"type": "cjepa_jax.masks.blocks:draw", "count": 4, "scale": (0.15, 0.2),
                                 "aspect": (0.75, 1.5), "anchor": 1},
    "ablations.clips.named": SHOWN_ONCE | {"type": "cjepa_jax.masks.displaced:named"},
    "ablations.clips.displaced_objects": SHOWN_ONCE | {"type": "cjepa_jax.masks.displaced:draw"},
    "ablations.clips.random_tokens": SHOWN_ONCE | {"type": "cjepa_jax.masks.random:matched", "tubes": False},
    "ablations.clips.tube_tokens": SHOWN_ONCE | {"type": "cjepa_jax.masks.random:matched", "tubes": True},
}  # fmt: skip
NAMES = sorted(
    ".".join(path.relative_to(ROOT / "configs").with_suffix("").parts)
    for path in (ROOT / "configs").rglob("*.py")
    if path.stem != "__init__" and path.parent.name not in ("suites", "evals")  # which have no mask
)


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_of_every_config(name):
    c = importlib.import_module(f"configs.{name}").get_config()
    assert changes(flat(c.mask.to_dict()), MASKS.get(name, SHOWN_ONCE)) == {}


def test_every_mask_of_the_table_is_of_a_config():
    assert MASKS.keys() <= set(NAMES)


@pytest.mark.parametrize("folder", ["ablations", "ablations.clips"])
def test_the_superpixels_of_the_ablation(folder):
    options = importlib.import_module(f"configs.{folder}.superpixels").get_config().data.options.to_dict()
    assert options == {"of": "cjepa_jax.data.worlds:Balls", "of_options": {}, "segments": 16, "compactness": 10.0}
