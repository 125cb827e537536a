"""The ablations of the description on its own objective, configs/ablations, at micro's size.

    python -m cjepa_jax.compare --suite=configs/suites/ablations.py --workdir=runs/ablations --jobs=2

Not run yet. Every row is compared with `full`, from which it differs in one thing, and nothing is tuned: every row has
full's learning rate. Superpixels are left out, because their scenes have no objects to ask about. Train them by their
config and score the run as a model of the world, with --config=configs/evals/worlds.py.
"""

from cjepa_jax.configs.suites import micro

ROWS = (
    "full", "random_patches", "no_causal", "no_sigreg", "predictor_wide", "predictor_narrow", "ema_fixed", "one_object",
    "five_objects", "slots", "zeroed_input", "deep_predictor", "mse",
)  # fmt: skip


def get_suite():
    suite = micro.get_suite()
    untrained = suite["methods"]["random"]
    suite["methods"] = {"random": untrained} | {
        name: {"label": name.replace("_", " "), "config": f"ablations/{name}"} for name in ROWS
    }
    suite["about"] = "ablations, " + suite["about"]
    suite["tuning"] = {}
    suite["contrasts"] = [(name, "full") for name in ROWS[1:]]
    return suite
