"""Do the controls of the study learn the effects later? `named`, `met` and Causal-JEPA with four times the budget.

    python -m cjepa_jax.compare --suite=configs/suites/effects_long.py --workdir=runs/effects_long --jobs=2

Everything else is that of the suite `effects`: seeds, scenes, scores, and the peak rates that were tuned there.
docs/EVALUATION.md, "The study", has the decision rule (H2c).
"""

from cjepa_jax.configs.suites import effects, motion

RATES = {"cjepa": 4e-3, "named": 8e-3, "met": 4e-3}


def get_suite():
    suite = effects.get_suite()
    rows = {name: suite["methods"][name] for name in RATES}
    for name, row in rows.items():
        rows[name] = motion.settled(row, optim__peak=RATES[name]) | {"label": f"{row['label']}, 2,800 steps"}
    return suite | {
        "flops": 4 * suite["flops"],
        "methods": {"random": suite["methods"]["random"]} | rows,
        "tuning": {},
        "contrasts": [("cjepa", "named"), ("cjepa", "met"), ("met", "named"), ("named", "random")],
    }
