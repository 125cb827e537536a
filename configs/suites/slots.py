"""Do hidden objects help prediction where objects touch? Do causal terms help, and with which graph? docs/SLOTS.md

    python -m cjepa_jax.compare --suite=configs/suites/slots.py --workdir=runs/slots_suite --jobs=2

`Balls` as slots of true states, 3 frames given and 5 predicted. Every row has the same predictor, and most have the
same operations. A step with causal terms predicts several times, so those rows have fewer steps. Their terms begin
after about a third of them. Rows without such terms, with as few steps, are compared with them. That is too few to
learn much, so each graph also has a row with the steps of the others, for 2.3 to 5.4 times their operations. Nothing is
tuned: the rate is that of configs/slots/balls.py, which was chosen on other seeds. The rows with gates and with
do(remove) differ in more than the terms: gates multiply all attention, and the others see re-simulated scenes.
"""

LONG = {"published": "published graph", "attention": "attention", "effects": "effects", "gates": "gates"}
FEW = ("effects", "contacts", "gates", "intervened")  # rows with causal terms, whose numbers of steps differ


def hiding(label, config="slots/balls", **overrides):
    """A row with another mask, by the mask's fields."""
    return {"label": label, "config": config, "overrides": {f"mask.{key}": value for key, value in overrides.items()}}


def causal(label, graph, start, strength=1.0, **overrides):
    """A row with the terms of Causal Transformation Theory on a graph, from this epoch on, at this share of their
    default weights."""
    own = {"objective.graph": graph, "objective.start_epoch": start}
    own |= {"objective.invariance": 0.2 * strength, "objective.sufficiency": 0.1 * strength}
    return {"label": label, "config": "slots/ctt", "overrides": own | overrides}


def get_suite():
    return {
        "about": "Balls as 7 slots of width 48, 3 frames given and 5 predicted, one CPU core a cell",
        "flops": 2.0e12,
        "seeds": (1, 2, 3),
        "shared": {
            "data.workers": 0,
            "data.threads": 1,
            "checkpoint.every": 1000,
            "log.report": False,
            "log.tensorboard": False,
        },
        "worlds": {"balls": {"label": "Balls", "overrides": {}}},
        "methods": {
            "random": {"label": "random init", "config": "slots/balls", "steps": 0},
            "m0": hiding("M = 0", most=0),
            "m1": hiding("M = 1", least=1, most=1),
            "m2": hiding("M = 2", least=2, most=2),
            "m3": hiding("M = 3", least=3, most=3),
            "m4": hiding("M = 4", least=4, most=4),
            "mixed": hiding("M uniform over 0 to 3"),
            **{
                f"mixed_as_{name}": hiding(f"M uniform over 0 to 3, the steps of {name}") | {"steps_of": name}
                for name in FEW
            },
            "fixed": hiding("M = 2, the same slots in every scene", most=2, constant=42),
            "token": hiding("tokens", kind="token"),
            "tube": hiding("tubes", kind="tube"),
            "published": causal("causal terms, published graph", "published", 2),
            "attention": causal("causal terms, attention", "attention", 2),
            "effects": causal("causal terms, effects", "effects", 1),
            "effects_02": causal("causal terms, effects, weights / 10", "effects", 1, 0.1),
            "effects_002": causal("causal terms, effects, weights / 100", "effects", 1, 0.01),
            "gates": causal("causal terms, gates", "gates", 2),
            "contacts": causal("causal terms, true contacts", "true", 2),
            "contacts_long": causal("causal terms, true contacts, the steps of mixed", "true", 7)
            | {"steps_of": "mixed"},
            **{
                f"{name}_long": causal(f"causal terms, {label}, the steps of mixed", name, 7) | {"steps_of": "mixed"}
                for name, label in LONG.items()
            },
            "intervened": causal("causal terms, do(remove)", "intervened", 3, **{"data.intervened": "rerender"}),
            "intervened_long": causal(
                "causal terms, do(remove), the steps of mixed", "intervened", 7, **{"data.intervened": "rerender"}
            )
            | {"steps_of": "mixed"},
        },
        "tuning": {},
        "evals": {
            "test": 512,
            "random_inits": 1,
            "protocols": {
                "rollout": {"type": "cjepa_jax.evals.rollout:Rollout", "history": 3, "future": 5, "horizon": 0},
                "rollout_long": {"type": "cjepa_jax.evals.rollout:Rollout", "history": 3, "future": 5, "horizon": 15},
                "influence": {
                    "type": "cjepa_jax.evals.influence:Influence",
                    "history": 3,
                    "future": 5,
                    "least": 0.01,
                    "strata": 4,
                },
            },
        },
        "columns": {
            "RMSE, 5 frames": ("rollout", "rmse/position"),
            "where objects touch": ("rollout", "rmse/position touching"),
            "where they do not": ("rollout", "rmse/position free"),
            "RMSE, 15 frames": ("rollout_long", "rmse/position"),
            "copy, 5 frames": ("rollout", "rmse/position", "copy"),
            "constant velocity, 5 frames": ("rollout", "rmse/position", "constant velocity"),
            "AUROC of effects, attention": ("influence", "auroc/effect/attention"),
            "AUROC of effects, dropping": ("influence", "auroc/effect/dropping"),
            "AUROC of effects, learned DAG": ("influence", "auroc/effect/learned DAG"),
            "best geometry": ("influence", "auroc/effect/dropping", "extrapolated distance within a layer"),
            "AUROC of contacts, dropping": ("influence", "auroc/contact/dropping"),
        },
        "contrasts": [
            ("m0", "mixed"),
            ("m0", "m2"),
            ("m2", "fixed"),
            ("mixed", "token"),
            ("mixed", "tube"),
            ("mixed", "contacts_long"),
            *(("mixed", f"{name}_long") for name in (*LONG, "intervened")),
            ("mixed_as_contacts", "published"),
            ("mixed_as_contacts", "attention"),
            ("mixed_as_contacts", "contacts"),
            ("mixed_as_gates", "gates"),
            ("mixed_as_intervened", "intervened"),
            ("mixed_as_effects", "effects"),
            ("mixed_as_effects", "effects_02"),
            ("mixed_as_effects", "effects_002"),
        ],
    }
