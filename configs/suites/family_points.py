"""The family on point clouds: Point-JEPA, and 3D-JEPA with either decoder, with equal compute and three seeds.

    python -m cjepa_jax.compare --suite=configs/suites/family_points.py --workdir=runs/family-points --jobs=2

Eight kinds of surfaces, the encoder of family/point_jepa.py, as many operations as its 300 steps. Features of a cloud
are the mean of its tokens, and, as in Point-JEPA's published probe, mean and maximum side by side. Results:
docs/RESULTS_FAMILY.md.
"""

JOINT = {"objective.predictor.attention": "joint"}
FLOPS = 5.17e12  # 300 steps of Point-JEPA


def get_suite():
    return {
        "about": "surfaces of 512 points in 32 groups of 16, width 96, one CPU core a cell",
        "flops": FLOPS,
        "seeds": (1, 2, 3),
        "shared": {
            "data.workers": 0,
            "data.threads": 1,
            "probe.every": 0,
            "log.report": False,
            "log.tensorboard": False,
        },
        "worlds": {"shapes": {"label": "Shapes", "overrides": {}}},
        "methods": {
            "random": {"label": "random init", "config": "family/point_jepa", "steps": 0},
            "point_jepa": {"label": "Point-JEPA", "config": "family/point_jepa"},
            "threed": {"label": "3D-JEPA", "config": "family/threed_jepa"},
            "threed_joint": {"label": "3D-JEPA, joint decoder", "config": "family/threed_jepa", "overrides": JOINT},
        },
        "tuning": {"key": "optim.peak", "values": (2.5e-4, 5e-4, 1e-3), "share": 0.4, "seed": 0, "world": "shapes"},
        "evals": {
            "fit": 1024,
            "test": 1024,
            "random_inits": 1,
            "protocols": {
                "classify": {
                    "type": "cjepa_jax.evals.classify:Classify",
                    "classes": 8,
                    "low_shot": 0.0,
                    "attentive": False,
                },
                "published": {
                    "type": "cjepa_jax.evals.classify:Classify",
                    "classes": 8,
                    "low_shot": 0.0,
                    "attentive": False,
                    "pooling": "mean+max",
                },
                "collapse": {"type": "cjepa_jax.evals.collapse:Collapse", "scenes": 256, "views": 0},
            },
        },
        "columns": {
            "linear": ("classify", "accuracy/linear"),
            "20-NN": ("classify", "accuracy/k-NN"),
            "linear, mean and max": ("published", "accuracy/linear"),
            "20-NN, mean and max": ("published", "accuracy/k-NN"),
            "RankMe": ("collapse", "rankme"),
        },
        "contrasts": [
            ("point_jepa", "random"),
            ("threed", "random"),
            ("threed_joint", "random"),
            ("threed", "threed_joint"),
        ],
    }
