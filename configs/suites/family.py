"""The family on clips: sixteen methods, with equal compute and three seeds.

    python -m cjepa_jax.compare --suite=configs/suites/family.py --workdir=runs/family --jobs=2

The encoder, world and budget of micro's balls. About five hours of one core. Results: docs/RESULTS_FAMILY.md. Point
clouds and sounds: family_points.py and family_sounds.py.

Not in a suite: those that are given actions or an expert (LeWorldModel, PLDM, V-JEPA 2-AC, ACT-JEPA, JEPA 2022:
docs/WORLD_MODELS.md and docs/PLANNING.md), MC-JEPA, which sees pairs of frames (its encoder is a pyramid of other size,
and its score is optical flow), and ThinkJEPA, which is given the clip's outcome.
"""

from cjepa_jax.configs.suites import micro

METHODS = {
    "ijepa": ("I-JEPA", "baselines/ijepa"),
    "hjepa": ("H-JEPA", "family/hjepa"),
    "hjepa_averages": ("H-JEPA without a pyramid", "family/hjepa"),
    "vjepa": ("V-JEPA", "baselines/vjepa"),
    "vjepa_both": ("V-JEPA, both masks", "baselines/vjepa_both"),
    "vjepa2": ("V-JEPA 2", "family/vjepa2"),
    "vjepa2_1": ("V-JEPA 2.1", "family/vjepa2_1"),
    "vjepa2_1_hidden": ("V-JEPA 2.1, hidden tokens alone", "family/vjepa2_1"),
    "factored": ("two predictors", "family/mcjepa_factored"),
    "lejepa": ("LeJEPA", "family/lejepa"),
    "vicreg": ("VICReg", "baselines/vicreg"),
    "simclr": ("SimCLR", "baselines/simclr"),
    "dino": ("DINO", "baselines/dino"),
    "byol": ("BYOL", "baselines/byol"),
    "mae": ("MAE", "baselines/mae"),
}


def get_suite():
    suite = micro.get_suite()
    suite["worlds"] = {"balls": suite["worlds"]["balls"]}
    kept = {name: suite["methods"][name] for name in ("random", "cjepa_anchor")}
    added = {name: {"label": label, "config": config} for name, (label, config) in METHODS.items()}
    added["hjepa_averages"]["overrides"] = {"objective.fusion": "none"}
    added["vjepa2_1"]["overrides"] = {"objective.ramp": (20, 40)}
    added["vjepa2_1_hidden"]["overrides"] = {"objective.context_weight": 0.0}
    for name in ("lejepa", "dino"):
        added[name]["overrides"] = {"objective.views.small_size": 24}
    suite["methods"] = kept | added
    protocols = suite["evals"]["protocols"]
    protocols.pop("interventional")
    protocols["tokens"] = {"type": "cjepa_jax.evals.tokens:Tokens"}
    columns = {name: where for name, where in suite["columns"].items() if where[0] != "interventional"}
    tokens = {"object IoU": "token/objects", "row R²": "token/row", "depth order": "token/depth order"}
    suite["columns"] = columns | {name: ("tokens", metric) for name, metric in tokens.items()}
    suite["contrasts"] = [(name, "random") for name in ("cjepa_anchor", *METHODS)]
    suite["contrasts"] += [("vjepa_both", "vjepa"), ("hjepa", "ijepa"), ("hjepa", "hjepa_averages")]
    suite["contrasts"] += [("vjepa2_1", "vjepa2"), ("vjepa2_1", "vjepa2_1_hidden")]
    return suite
