"""The family on clips: ten methods, with equal compute and three seeds.

    python -m cjepa_jax.compare --suite=configs/suites/family.py --workdir=runs/family --jobs=2

The encoder, world and budget of micro's balls. Hours on two cores. It has not been run. Points and sounds have one
method each, which configs/evals/points.py and sounds.py score (docs/FAMILY.md).
"""

from cjepa_jax.configs.suites import micro

METHODS = {
    "ijepa": ("I-JEPA", "baselines/ijepa"),
    "vjepa": ("V-JEPA", "baselines/vjepa"),
    "vjepa2": ("V-JEPA 2", "family/vjepa2"),
    "vjepa2_1": ("V-JEPA 2.1", "family/vjepa2_1"),
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
    added["vjepa2_1"]["overrides"] = {"objective.ramp": (20, 40)}
    for name in ("lejepa", "dino"):
        added[name]["overrides"] = {"objective.views.small_size": 24}
    suite["methods"] = kept | added
    suite["evals"]["protocols"].pop("interventional")
    suite["columns"] = {name: where for name, where in suite["columns"].items() if where[0] != "interventional"}
    suite["contrasts"] = [(name, "random") for name in ("cjepa_anchor", *METHODS)]
    return suite
