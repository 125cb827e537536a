"""In which layer is the direction of motion a variable that the encoder uses? docs/STATES.md

    python -m cjepa_jax.compare --suite=configs/suites/motion.py --workdir=runs/states --jobs=2

Clips of 16 frames of 32 pixels of the world `Motion`: one object moves in front of a plain ground, and in half of the
scenes another one rests. The 128 tokens are two times of 8 x 8: a token sees 8 frames of 4 x 4 pixels. Every method has
the encoder, the scenes and the operations of Causal-JEPA. Each method's rate is chosen by the direction that a linear
probe finds in validation scenes.
The columns are of the last layer. Each cell's report has all layers.
"""

LAST = 4  # layers of the encoder


def masks_alone(label, config):
    """A row that differs from `objects` in which tokens are hidden, as many in each scene."""
    return {"label": label, "config": f"ablations/clips/{config}", "tuned_as": "cjepa"}


def settled(row, **overrides):
    """A row that is not tuned, with these overrides, whose keys have __ for the dot. Other suites use it."""
    more = {key.replace("__", "."): value for key, value in overrides.items()}
    row = {key: value for key, value in row.items() if key != "tuned_as"}
    return row | {"overrides": row.get("overrides", {}) | more}


def get_suite():
    return {
        "about": "Motion, 16 frames of 32 pixels, width 64, one CPU core a cell",
        "flops": 4.12e12,  # 300 steps of Causal-JEPA
        "seeds": (1, 2, 3),
        "shared": {
            "data.size": 32,
            "data.frames": 16,
            "data.workers": 0,
            "data.threads": 1,
            "objective.encoder.variant": "64x4x4x256/4",
            "objective.encoder.tubelet": 8,
            "probe.every": 10_000,  # at the end
            "checkpoint.every": 1000,
            "log.report": False,
            "log.tensorboard": False,
        },
        "worlds": {
            "motion": {
                "label": "Motion",
                "overrides": {
                    "data.source": "cjepa_jax.data.worlds:Motion",
                    "data.options.objects": (1, 2),
                    "data.options.ground": "plain",
                },
            },
        },
        "methods": {
            "random": {"label": "random init", "config": "clips", "steps": 0},
            "cjepa": {"label": "Causal-JEPA", "config": "clips"},
            "objects": {
                "label": "objects hidden, no causal term",
                "config": "clips",
                "overrides": {"objective.causal_weight": 0.0, "data.intervened": "none"},
                "tuned_as": "cjepa",
            },
            "tubes": masks_alone("tubes hidden, no causal term", "tube_tokens"),
            "displaced": masks_alone("displaced shapes hidden, no causal term", "displaced_objects"),
            "ijepa": {"label": "I-JEPA", "config": "baselines/ijepa"},
            "vjepa": {"label": "V-JEPA", "config": "baselines/vjepa"},
            "mae": {"label": "MAE", "config": "baselines/mae"},
            "lejepa": {"label": "LeJEPA", "config": "baselines/lejepa"},
        },
        "tuning": {
            "key": "optim.peak",
            "values": (5e-4, 1e-3, 2e-3, 4e-3),
            "share": 0.4,
            "seed": 0,
            "world": "motion",
            "metric": "probe/direction_r2",
        },
        "evals": {
            "fit": 200,
            "test": 200,
            "batch": 100,
            "random_inits": 1,
            "protocols": {
                "causal_states": {
                    "type": "cjepa_jax.evals.causal_states:CausalStates",
                    "cache": "{folder}/layers",
                },
            },
        },
        "columns": {
            "readout": ("causal_states", "readout"),
            "effect, nats": ("causal_states", f"effect/means/layer {LAST}"),
            # Not the ratios: one that is infinite, because a control has no effect, would be missing from a mean.
            "effect less the worst control's": ("causal_states", f"difference/means/layer {LAST}"),
            "the same at layer 1": ("causal_states", "difference/means/layer 1"),
            "the same at layer 2": ("causal_states", "difference/means/layer 2"),
            "the same at layer 3": ("causal_states", "difference/means/layer 3"),
            "interchange": ("causal_states", f"interchange/means/layer {LAST}"),
            "all of the twin": ("causal_states", f"interchange/means/layer {LAST}", "all of the twin"),
        },
        "contrasts": [
            ("cjepa", "vjepa"),
            ("cjepa", "ijepa"),
            ("cjepa", "objects"),
            ("objects", "tubes"),
            ("objects", "displaced"),
            ("objects", "vjepa"),
            ("cjepa", "random"),
        ],
    }
