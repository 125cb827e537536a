"""Does hiding whole objects teach what happens without them? docs/EVALUATION.md, "The study", has the decision rule.

    python -m cjepa_jax.compare --suite=configs/suites/effects.py --workdir=runs/effects --jobs=2

The world and the model are tiny's: `Shadows`, one frame of 48 pixels, an encoder of width 64. Objects are removed from
the scene by simulation. A row's name says what is hidden, and which scene is the counterpart in the causal term.
"""

DISPLACED = "cjepa_jax.masks.displaced"
UNNAMED = {"data__intervened": "none"}


def row(label, config="tiny", weight=0.1, **overrides):
    """A row of a config with this lambda, and overrides whose keys have __ for the dot."""
    found = {key.replace("__", "."): value for key, value in overrides.items()}
    return {"label": label, "config": config, "overrides": {"objective.causal_weight": weight} | found}


def get_suite():
    scene = {
        "data.source": "cjepa_jax.data.worlds:Shadows",
        "data.options.objects": (3, 5),
        "data.options.radius": (0.09, 0.15),
        "data.options.lights": (1, 1),
        "data.options.height": (0.2, 0.6),
    }
    return {
        "about": "Shadows, one frame of 48 pixels, width 64, one CPU core a cell",
        "flops": 3.207e12,  # 700 steps of Causal-JEPA
        "seeds": (11, 12, 13, 14, 15),
        "shared": {
            "data.size": 48,
            "data.frames": 1,
            "data.count": 40_000,
            "data.workers": 0,
            "data.threads": 1,
            "objective.encoder.variant": "64x3x2x256/6",
            "probe.every": 0,
            "checkpoint.every": 1000,
            "log.report": False,
            "log.tensorboard": False,
        },
        "worlds": {"shadows": {"label": "Shadows", "overrides": scene}},
        "methods": {
            "random": {"label": "random init", "config": "tiny", "steps": 0},
            "cjepa": row("Causal-JEPA, λ = .1"),
            "cjepa_005": row("Causal-JEPA, λ = .005", weight=0.005),
            "cjepa_02": row("Causal-JEPA, λ = .02", weight=0.02),
            "cjepa_5": row("Causal-JEPA, λ = .5", weight=0.5),
            "nolink": row("no link", data__intervened="rerender_other"),
            "second_view": row("second view", data__intervened="second_view"),
            "named_02": row("named, λ = .02", "effects/named", weight=0.02),
            "named": row("named, λ = .1", "effects/named"),
            "named_5": row("named, λ = .5", "effects/named", weight=0.5),
            "met": row("named, shapes that meet", "effects/met"),
            "blocks": row("blocks, drawn pairs", "effects/blocks"),
            "tokens": row("tokens, drawn pairs", "effects/tokens"),
            "blocks_other": row("blocks, other pairs", "effects/blocks", data__intervened="rerender_other"),
            "objects": row("objects, no causal term", weight=0.0, **UNNAMED, mask__type=f"{DISPLACED}:in_place"),
            "displaced": row("displaced, no causal term", weight=0.0, **UNNAMED, mask__type=f"{DISPLACED}:draw")
            | {"tuned_as": "objects"},
            "ijepa": {"label": "I-JEPA", "config": "baselines/ijepa"},
            "lejepa": {"label": "LeJEPA", "config": "baselines/lejepa", "overrides": {"mask.anchor": 0}},
        },
        "tuning": {
            "key": "optim.peak",
            "values": (2e-3, 4e-3, 8e-3),
            "share": 1.0,
            "seed": 0,
            "world": "shadows",
            "metric": "removals/do_contrast",
        },
        "evals": {
            "seed": 4711,
            "fit": 1024,
            "test": 1024,
            "random_inits": 1,
            "protocols": {
                "effects": {
                    "type": "cjepa_jax.evals.counterfactual.effects:Effects",
                    "anchor": -1,
                    "cache": "{folder}/pairs",  # the same for all cells
                },
                "states": {"type": "cjepa_jax.evals.states:States"},
                "collapse": {"type": "cjepa_jax.evals.collapse:Collapse", "scenes": 256, "views": 4},
            },
        },
        "columns": {
            "do-contrast R²": ("effects", "contrast/picture"),
            "do-contrast R², scaled": ("effects", "contrast/picture, scaled"),
            "do-contrast R², features": ("effects", "contrast/features"),
            "2AFC": ("effects", "2afc/picture"),
            "effect R²": ("effects", "effect/picture"),
            "effect R², wrong object": ("effects", "effect/picture", "wrong object"),
            "do-contrast R², near": ("effects", "contrast/picture/near"),
            "do-contrast R², far": ("effects", "contrast/picture/far"),
            "true change": ("effects", "contrast/picture", "true change"),
            "encoder only": ("effects", "contrast/encoder only"),
            "encoder + local pixels": ("effects", "contrast/encoder + local pixels"),
            "do-probe, n = 300": ("effects", "do-probe/effect, n = 300"),
            "do-probe, n = 1500": ("effects", "do-probe/effect, n = 1500"),
            "do-probe, do-contrast, n = 1500": ("effects", "do-probe/contrast, n = 1500"),
            "count R²": ("states", "scene/count"),
            "position R²": ("states", "scene/position"),
            "RankMe": ("collapse", "rankme"),
        },
        "contrasts": [
            ("cjepa", "nolink"),
            ("cjepa", "second_view"),
            ("cjepa", "named"),
            ("cjepa", "named_02"),
            ("cjepa", "named_5"),
            ("cjepa", "met"),
            ("met", "named"),
            ("cjepa", "blocks"),
            ("blocks", "named"),
            ("cjepa", "tokens"),
            ("tokens", "named"),
            ("blocks", "blocks_other"),
            ("objects", "displaced"),
            ("cjepa", "objects"),
            ("cjepa", "random"),
        ],
    }
