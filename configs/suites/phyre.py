"""AUCCESS in PHYRE's simulator, of a small encoder that was trained on its rollouts. docs/EVALUATION.md

    export CJEPA_PHYRE_PYTHON=~/phyre/bin/python
    python -m cjepa_jax.compare --suite=configs/suites/phyre.py --workdir=runs/phyre_suite --jobs=2

Fold 0 of both setups of one ball: within templates, and across them. Masks and do(remove) are the simulator's.
Features are frozen, and a linear ranker orders candidate actions. `Effects` asks what follows from a removal. 100 tasks
of 500 are tried, with 200 candidates each, so values are not PHYRE's own, which need all tasks and ten folds.
"""

from cjepa_jax.configs.suites import motion


def setup(name):
    return {
        "data.source": "cjepa_jax.data.sources.phyre:Phyre",
        "data.options.setup": name,
        "data.options.fold": 0,
        "data.options.stride": 15,  # 4 frames a second
    }


def get_suite():
    methods = motion.get_suite()["methods"]
    return {
        "about": "PHYRE, 4 frames of 64 pixels, Mu/8, one CPU core a cell",
        "flops": 1.2e13,  # 468 steps of Causal-JEPA
        "seeds": (1, 2, 3),
        "shared": {
            "data.count": 40_000,
            "data.workers": 0,
            "data.threads": 1,
            "data.max_objects": 16,
            "mask.area": (0.002, 0.40),  # PHYRE's objects are small
            "probe.every": 0,
            "checkpoint.every": 1000,
            "log.report": False,
            "log.tensorboard": False,
        },
        "worlds": {
            "within": {"label": "within templates, fold 0", "overrides": setup("ball_within_template")},
            "cross": {"label": "across templates, fold 0", "overrides": setup("ball_cross_template")},
        },
        "methods": {name: methods[name] for name in ("random", "cjepa")}
        | {"objects": motion.settled(methods["objects"])},
        "tuning": {},
        "evals": {
            "fit": 512,
            "test": 512,
            "test_split": "test",
            "random_inits": 1,
            "protocols": {
                "phyre": {
                    "type": "cjepa_jax.evals.benchmarks.phyre:PhyreAgent",
                    "tasks_fit": 100,
                    "actions_fit": 32,
                    "tasks_test": 100,
                    "candidates": 200,
                },
                "effects": {
                    "type": "cjepa_jax.evals.counterfactual.effects:Effects",
                    "anchor": -1,
                    "cache": "{folder}/pairs",
                },
            },
        },
        "columns": {
            "AUCCESS": ("phyre", "auccess/linear"),
            "random agent": ("phyre", "auccess/linear", "random agent"),
            "action alone": ("phyre", "auccess/linear", "action alone"),
            "pixel PCA": ("phyre", "auccess/linear", "pixel PCA"),
            "any candidate": ("phyre", "auccess/linear", "any candidate"),
            "do-contrast R²": ("effects", "contrast/picture"),
            "2AFC": ("effects", "2afc/picture"),
            "effect R²": ("effects", "effect/picture"),
            "effect R², wrong object": ("effects", "effect/picture", "wrong object"),
            "true change": ("effects", "contrast/picture", "true change"),
        },
        "contrasts": [("cjepa", "random"), ("cjepa", "objects")],
    }
