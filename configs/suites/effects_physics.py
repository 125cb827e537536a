"""The study's question where dynamics decide: Blocks and Balls. docs/EVALUATION.md, "The study", has the decision rule.

    python -m cjepa_jax.compare --suite=configs/suites/effects_physics.py --workdir=runs/effects_physics --jobs=2

The rows are those of the suite `effects` that its hypotheses H1 and H2 need, with λ = .2. A clip has six frames. Blocks
are filmed slowly. In Balls one of the times of a removed object stays visible, since nothing else shows where it moves.
A world whose ceiling is below .5, or where no method reaches a do-contrast of .05, is not decidable at this size.
"""

from cjepa_jax.configs.suites import effects

BLOCKS = {"data.source": "cjepa_jax.data.worlds:Blocks", "data.size": 48, "data.options.dt": 0.2, "mask.anchor": 0}
BALLS = {
    "data.source": "cjepa_jax.data.worlds:Balls",
    "data.size": 40,
    "data.options.objects": (3, 4),
    "data.options.radius": (0.12, 0.17),
    "data.options.speed": (0.5, 1.0),
    "data.options.dt": 0.15,
    "data.options.foreground": 0.0,
    "data.options.boxes": 0.0,
    "data.options.gravity": False,
    "data.options.walls": True,
    "mask.anchor": 1,
}


def get_suite():
    suite = effects.get_suite()
    shared = {
        "data.frames": 6,
        "data.count": 100_000,
        "objective.encoder.variant": "64x3x2x256/8",
        "objective.causal_weight": 0.2,
        "mask.max_objects": 1,
        "optim.peak": 2e-3,
    }
    return suite | {
        "about": "Blocks and Balls, six frames, width 64, one CPU core a cell",
        "flops": 2.4e13,  # 2,673 steps of Causal-JEPA in Blocks, 4,110 in Balls
        "shared": suite["shared"] | shared,
        "worlds": {
            "blocks": {"label": "Blocks", "overrides": BLOCKS},
            "balls": {"label": "Balls", "overrides": BALLS},
        },
        "methods": {
            "random": {"label": "random init", "config": "clips", "steps": 0},
            "cjepa": {"label": "Causal-JEPA, λ = .2", "config": "clips"},
            "nolink": {"label": "no link", "config": "clips", "overrides": {"data.intervened": "rerender_other"}},
            "named": {"label": "named, λ = .2", "config": "ablations/clips/named"},
        },
        "tuning": {},
        "contrasts": [("cjepa", "nolink"), ("cjepa", "named"), ("cjepa", "random")],
    }
