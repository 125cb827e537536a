"""ViT-S/16 on clips of 8 frames of 224 pixels: for one GPU of 80 GB and about a day.

    python -m cjepa_jax.compare --suite=configs/suites/vits.py --workdir=runs/vits

Not run by us yet. The budget is an estimate from operations: 1.5e17 of them are about 10 minutes at 250 TFLOP/s.
"""

from cjepa_jax.configs.suites import worlds


def get_suite():
    suite = worlds.get_suite()
    suite["about"] = "ViT-S/16, 224-pixel clips of 8 frames"
    suite["flops"] = 1.5e17
    suite["shared"] |= {
        "data.size": 224,
        "data.count": 100_000,
        "data.workers": 12,
        "data.threads": 2,
        "train.batch": 128,
        "checkpoint.every": 1000,
        "log.every": 50,
    }
    encoder = {"objective.encoder.variant": "S/16"}
    predictor = {"objective.predictor.depth": 6, "objective.predictor.width": 192, "objective.predictor.heads": 6}
    decoder = {key.replace("predictor", "decoder"): value for key, value in predictor.items()}
    for name, method in suite["methods"].items():
        if name != "supervised":  # a ResNet-50 is what it is
            has_predictor = method["config"] in ("clips", "baselines/ijepa", "baselines/vjepa")
            own = predictor if has_predictor else decoder if name == "mae" else {}
            method["overrides"] = method.get("overrides", {}) | encoder | own
    suite["worlds"] = {name: suite["worlds"][name] for name in ("balls", "blocks")}
    suite["tuning"] |= {"values": (3e-4, 6e-4, 1.2e-3), "share": 0.1}
    return suite
