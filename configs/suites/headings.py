"""Which encoder uses the direction in which a ball starts, where balls collide? docs/STATES.md

    python -m cjepa_jax.compare --suite=configs/suites/headings.py --workdir=runs/headings_suite --jobs=2

The suite `motion` in another world, `Headings`. It has one or two balls. One is white and starts in one of eight
directions. It may collide later. Tokens, scores and rates are those of `motion`, the budget is twice as large. Nothing
is tuned here.
"""

from cjepa_jax.configs.suites import motion

# The peak rates that `motion` chose.
RATES = {"cjepa": 2e-3, "objects": 2e-3, "tubes": 2e-3, "ijepa": 1e-3, "vjepa": 5e-4, "mae": 5e-4, "lejepa": 1e-3}


def get_suite():
    suite = motion.get_suite()
    methods = suite["methods"]
    rows = {name: motion.settled(methods[name], optim__peak=rate) for name, rate in RATES.items()}
    world = {"data.source": "cjepa_jax.data.worlds:Headings", "data.options.objects": (1, 2)}
    return suite | {
        "about": "Headings, 16 frames of 32 pixels, width 64, one CPU core a cell",
        "flops": 2 * suite["flops"],  # 600 steps of Causal-JEPA
        "worlds": {"headings": {"label": "Headings", "overrides": world}},
        "methods": {"random": methods["random"]} | rows,
        "tuning": {},
        "contrasts": [("cjepa", "vjepa"), ("cjepa", "objects"), ("objects", "tubes"), ("cjepa", "random")],
    }
