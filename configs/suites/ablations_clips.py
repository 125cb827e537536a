"""The ablations of clips.py's settings, configs/ablations/clips, at micro's size: the effect of each change.

    python -m cjepa_jax.compare --suite=configs/suites/ablations_clips.py --workdir=runs/ablations_clips --jobs=2

Not run yet. Rows that hide other amounts than `full` say so in their configs. Nothing is tuned: every row has full's
learning rate. Superpixels are left out, because their scenes have no objects to ask about. Train them by their config
and score the run as a model of the world, with --config=configs/evals/worlds.py.
"""

from cjepa_jax.configs.suites import micro

OTHER = {  # what a row is compared with, if not full: the row from which it differs in one thing
    "random_patches": "no_causal",
    "slots": "zero_pixels",
    "displaced_objects": "object_tokens",
    "tube_tokens": "object_tokens",
    "random_tokens": "object_tokens",
}
ROWS = (
    "full", "random_patches", "no_causal", "no_sigreg", "predictor_wide", "predictor_narrow", "ema_fixed", "one_object",
    "five_objects", "slots", "zeroed_input", "deep_predictor", "mse", "cross_attention", "zero_pixels", "drop_tokens",
    "vector_loss", "epps_pulley", "object_tokens", "displaced_objects", "tube_tokens", "random_tokens",
)  # fmt: skip


def get_suite():
    suite = micro.get_suite()
    untrained = suite["methods"]["random"]
    suite["methods"] = {"random": untrained} | {
        name: {"label": name.replace("_", " "), "config": f"ablations/clips/{name}"} for name in ROWS
    }
    suite["about"] = "ablations of clips.py, " + suite["about"]
    suite["tuning"] = {}
    suite["contrasts"] = [(name, OTHER.get(name, "full")) for name in ROWS[1:]]
    return suite
