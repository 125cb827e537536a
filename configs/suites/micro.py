"""Does hiding whole objects beat hiding patches, tubes and nothing? Small enough for two laptop cores.

    python -m cjepa_jax.compare --suite=configs/suites/micro.py --workdir=runs/micro --jobs=2

Clips of 6 frames of 48 pixels, a ViT of width 96, about 165 steps of 32 scenes. Two worlds: discs that collide, where
the answers cannot be guessed from the question or the first places, and blocks that rest on each other, where first
places say much. Both rows of Causal-JEPA also train on the re-simulated scene without the removed objects, which no
other row sees. `objects` and `displaced` are one pair: whole objects, and the same shapes elsewhere, hidden in
otherwise equal training runs without a causal term and without telling the predictor which objects are hidden.
"""

# A ResNet-50 takes minutes for what takes the others seconds: its smoke cell is judged on few scenes.
FEW = {
    "probe.train": 64,
    "probe.test": 64,
    "evals.fit": 64,
    "evals.test": 64,
    "evals.protocols.interventional.questions_fit": 40,
    "evals.protocols.interventional.questions_test": 40,
    "evals.protocols.interventional.response": 16,
    "evals.protocols.collapse.scenes": 32,
}
CONTROL = {"mask.anchor": 1, "objective.causal_weight": 0.0, "data.intervened": "none"}


def get_suite():
    return {
        "about": "48-pixel clips of 6 frames, width 96, one CPU core a cell",
        "flops": 3.375e12,
        "seeds": (1, 2, 3),
        "shared": {
            "data.size": 48,
            "data.frames": 6,
            "data.workers": 0,
            "data.threads": 1,
            "probe.every": 0,
            "probe.train": 512,
            "probe.test": 512,
            "log.report": False,
            "log.tensorboard": False,
        },
        "worlds": {
            "balls": {
                "label": "Balls",
                "overrides": {
                    "data.source": "cjepa_jax.data.worlds:Balls",
                    "data.options.dt": 0.15,
                    "data.options.objects": (3, 4),
                    "data.options.foreground": 0.0,
                    "data.options.boxes": 0.0,
                    "data.options.gravity": False,
                    "data.options.walls": True,
                    "data.options.radius": (0.1, 0.16),
                },
            },
            "blocks": {
                "label": "Blocks",
                "overrides": {"data.source": "cjepa_jax.data.worlds:Blocks", "data.options.dt": 0.2},
            },
        },
        "methods": {
            "random": {"label": "random init", "config": "clips", "steps": 0},
            "cjepa": {"label": "Causal-JEPA", "config": "clips", "overrides": {"mask.anchor": 0}},
            "cjepa_anchor": {"label": "Causal-JEPA, anchor", "config": "clips", "overrides": {"mask.anchor": 1}},
            "ijepa": {"label": "I-JEPA", "config": "baselines/ijepa"},
            "vjepa": {"label": "V-JEPA", "config": "baselines/vjepa"},
            "lejepa": {"label": "LeJEPA", "config": "baselines/lejepa"},
            "objects": {
                "label": "objects hidden, no causal term",
                "config": "clips",
                "overrides": CONTROL | {"mask.type": "cjepa_jax.masks.displaced:in_place"},
                "tuned_as": "cjepa_anchor",
            },
            "displaced": {
                "label": "their shapes displaced",
                "config": "clips",
                "overrides": CONTROL | {"mask.type": "cjepa_jax.masks.displaced:draw"},
                "tuned_as": "cjepa_anchor",
            },
            "mae": {"label": "MAE", "config": "baselines/mae", "steps": 60},
            "byol": {"label": "BYOL", "config": "baselines/byol", "steps": 60},
            "supervised": {
                "label": "Supervised ResNet-50",
                "config": "baselines/supervised",
                "overrides": FEW | {"data.size": 64},  # its patches are 32 pixels
                "steps": 3,
            },
        },
        "tuning": {"key": "optim.peak", "values": (5e-4, 1e-3, 2e-3), "share": 0.4, "seed": 0, "world": "balls"},
        "evals": {
            "fit": 1024,
            "test": 512,
            "random_inits": 1,
            "protocols": {
                "interventional": {
                    "type": "cjepa_jax.evals.interventional:Interventional",
                    "heads": ("linear",),
                    "cache": "{folder}/questions",  # the same for all cells of a world
                },
                "states": {"type": "cjepa_jax.evals.states:States"},
                "collapse": {"type": "cjepa_jax.evals.collapse:Collapse", "scenes": 256, "views": 4},
            },
        },
        "columns": {
            "factual": ("interventional", "accuracy/factual/linear"),
            "blanked": ("interventional", "accuracy/blanked/linear"),
            "context": ("interventional", "accuracy/context/linear"),
            "masked": ("interventional", "accuracy/masked/linear"),
            "counterfactual": ("interventional", "accuracy/counterfactual/linear"),
            "both": ("interventional", "accuracy/both/linear"),
            "wrong object": ("interventional", "accuracy/masked/linear", "wrong object"),
            "true change": ("interventional", "accuracy/context/linear", "true change"),
            "true removal": ("interventional", "accuracy/factual/linear", "true removal"),
            "response": ("interventional", "response"),
            "explained": ("interventional", "explained"),
            "count R²": ("states", "scene/count"),
            "position R²": ("states", "scene/position"),
            "object velocity R²": ("states", "object/velocity"),
            "RankMe": ("collapse", "rankme"),
        },
        "contrasts": [
            ("cjepa_anchor", "cjepa"),
            ("cjepa_anchor", "ijepa"),
            ("cjepa_anchor", "vjepa"),
            ("cjepa_anchor", "lejepa"),
            ("cjepa_anchor", "random"),
            ("objects", "displaced"),
        ],
    }
