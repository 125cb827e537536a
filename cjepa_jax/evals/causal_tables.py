"""Tables and curves of causal states, from the arrays of evals/causal_layer.py. No model runs here."""

from typing import Any

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.evals import subspaces
from cjepa_jax.evals.base import RANDOM, TRAINED, Result, Score, binomial, mean, over_inits
from cjepa_jax.evals.causal_layer import CONTROLS

FLOORS = {
    "random": "random subspace",
    "variance": "same variance",
    "shuffled": "shuffled labels",
    "nuisance": "nuisance",
}
UNDEFINED = "not defined"
DESCRIBED = ("sas of halves", "sparse share")  # larger is not better, although there are values to read them beside
Found = dict[str, np.ndarray]


def result(
    found: dict[str, dict[int, Found]], studies: dict[str, Any], options: Any, seed: int, images: dict
) -> Result:
    """The scores of all layers. The first model of `found` is the one that is scored, the others are random.

    found: name of the model -> layer -> arrays. studies: name -> causal_layer.Study.
    """
    layers = {name: {at: Table(one, options, seed) for at, one in own.items()} for name, own in found.items()}
    (first, tables), *others = layers.items()
    study, rest = studies[first], [own for _, own in others]
    count = len(study.clips.of)
    scores = [Score("readout", TRAINED, study.accuracy, binomial(study.accuracy, count), count)]
    if rest:
        scores.append(over_inits("readout", [studies[name].accuracy for name, _ in others], count))
    chance = float(np.bincount(study.clips.of).max() / count)
    scores.append(Score("readout", "chance", chance, count=count, kind="floor"))
    for metric in dict.fromkeys(metric for table in tables.values() for metric in table.values):
        for at, table in tables.items():
            scores += _rows(f"{metric}/layer {at}", table, [own[at] for own in rest], metric, count)
    scores += _correlations(studies, seed)
    curves = _curves({TRAINED: tables} | {name: own for name, own in others}, options)
    return Result(scores, images, curves, _notes(study, tables, options))


class Table:
    """One layer's numbers: metric -> (value, half of its interval), and floors and ceilings of a metric by row."""

    def __init__(self, found: Found, options: Any, seed: int):
        self.found, self.options = found, options
        self.rng = seeds.generator(seed, "causal states", 2**32)  # the same resamples for all
        self.values: dict[str, tuple[float, float]] = {}
        self.floors: dict[str, dict[str, tuple[float, float]]] = {}
        self.ceilings: dict[str, dict[str, tuple[float, float]]] = {}
        self.ratios: dict[str, subspaces.Ratio] = {}
        for name in options.extractors:
            self._effect(name)
        for name in options.controlled:
            self._ratio(name)
        self._halves()
        self._shares()
        self._moves()

    def _effect(self, name):
        found = self.found
        effect = found[f"effect.{name}"]
        self.values[f"effect/{name}"] = _mean(effect)
        self.values[f"accuracy drop/{name}"] = _mean(found["correct"].astype(float) - found[f"hits.{name}"])
        floors = {}
        for control in CONTROLS:
            if f"control.{name}.{control}" in found:
                floors[FLOORS[control]] = _mean(found[f"control.{name}.{control}"].mean(0))
        self.floors[f"effect/{name}"] = floors

    def _ratio(self, name):
        effect, controls = self.found[f"effect.{name}"], self.controls(name)
        worst = self.ratios[name] = subspaces.ratio(effect, controls, self.rng)
        for metric, value in (("", worst.ratio), (" from", worst.ratio_low), (" to", worst.ratio_high)):
            self.values[f"ratio{metric}/{name}"] = value, float("nan")
        half = (worst.difference_high - worst.difference_low) / 2
        self.values[f"difference/{name}"] = worst.difference, half
        for control, draws in controls.items():
            one = subspaces.ratio(effect, {control: draws}, self.rng)
            self.values[f"ratio to {FLOORS[control]}/{name}"] = one.ratio, float("nan")

    def controls(self, name):
        """Effects of each control, [draws, m]."""
        known = {control: f"control.{name}.{control}" for control in CONTROLS}
        return {control: self.found[key] for control, key in known.items() if key in self.found}

    def _halves(self):
        found, name = self.found, self.options.controlled[0]
        self.values["sas of halves"] = float(found["sas"]), float("nan")
        self.floors["sas of halves"] = {"chance": (float(found["chance"]), float("nan"))}
        retained = subspaces.rce(found["half.own"], found["half.moved"], self.controls(name), self.rng)
        value, low, high = retained or (float("nan"),) * 3
        self.values["rce of halves"] = value, (high - low) / 2

    def _shares(self):
        found = self.found
        self.values["probe"] = _mean(found["probe"])
        for name in self.options.extractors:
            self.values[f"variance/{name}"] = float(found[f"variance.{name}"]), float("nan")
        self.values["sparse share"] = float(found["sparse"]), float("nan")
        self.floors["sparse share"] = {FLOORS["shuffled"]: (float(found["sparse.shuffled"]), float("nan"))}

    def _moves(self):
        found = self.found
        for name in self.options.extractors:
            if f"swap.{name}" in found:
                metric = f"interchange/{name}"
                self.values[metric] = _mean(found[f"swap.{name}"])
                self.floors[metric] = {FLOORS["random"]: _mean(found[f"swap.{name}.random"].mean(0))}
                self.ceilings[metric] = {"all of the twin": _mean(found["swap.all"])}
        for i, strength in enumerate(self.options.strengths):
            metric = f"steering, a = {strength:g}"
            self.values[metric] = _mean(found["steer.true"][i])
            self.floors[metric] = {FLOORS["shuffled"]: _mean(found["steer.shuffled"][i])}


def _mean(values: np.ndarray) -> tuple[float, float]:
    """The mean over clips, and half of its 95 % interval."""
    return mean(np.asarray(values, float))


def _rows(title: str, table: Table, rest: list[Table], metric: str, count: int) -> list[Score]:
    """One metric at one layer: the model, random initialisations, floors, ceilings.

    Only what has controls, and the probe, has floors. Ratios, shares and effects without controls describe.
    """
    judged = metric == "probe" or (bool(table.floors.get(metric)) and metric not in DESCRIBED)
    value, half = table.values[metric]
    scores = [Score(title, TRAINED, value, half, count)]
    if rest:
        scores.append(_over_inits(title, [own.values[metric][0] for own in rest], count))
    for kind, groups in (("floor", table.floors), ("ceiling", table.ceilings)):
        rows = groups.get(metric, {}).items()
        scores += [Score(title, row, value, half, count=count, kind=kind) for row, (value, half) in rows]
    return scores if judged else [score._replace(kind="result") for score in scores]


def _over_inits(title: str, values: list[float], count: int) -> Score:
    """base.over_inits, without an interval where a ratio is infinite or not defined."""
    if np.isfinite(values).all():
        return over_inits(title, values, count)
    return Score(title, RANDOM, float(np.mean(values)), count=count, kind="floor", of="inits")


def _correlations(studies: dict[str, Any], seed: int) -> list[Score]:
    """CCA of the model's output with that of the first random initialisation, fitted on the fitting clips."""
    (_, model), *others = studies.items()
    if not others:
        return []
    random, fit = others[0][1], len(model.features)
    x, y = (np.concatenate([one.features, one.output]) for one in (model, random))
    found = subspaces.cca(x, y, fit, seeds.generator(seed, "causal states", 2**32 + 1), model.rank)
    metric, count = "cca with a random init, held out", len(model.output)
    return [
        Score(metric, TRAINED, found.held_out, count=count),
        Score(metric, "permuted pairs", found.permuted, count=count, kind="floor"),
        Score(metric, "on the fitted clips", found.fitted, count=fit, kind="ceiling"),
    ]


def _curves(models: dict[str, dict[int, Table]], options: Any) -> dict[str, dict]:
    """Effect and ratio by layer, principal angles of halves, steering by strength."""
    name, tables = options.controlled[0], models[TRAINED]
    layers = np.array(list(tables))

    def line(own, pick):
        return layers, np.array([pick(table) for table in own.values()])

    effect, metric = {}, f"effect/{name}"
    for row, own in models.items():
        effect[row] = line(own, lambda table: table.values[metric][0])
    for row in tables[layers[0]].floors[metric]:
        effect[row] = line(tables, lambda table, row=row: table.floors[metric][row][0])
    ratios = {
        row: line(tables, lambda table, row=row: table.values[f"ratio to {row}/{name}"][0])
        for row in tables[layers[0]].floors[metric]
    }
    angles = {
        f"layer {at}": (np.arange(1, 1 + len(table.found["angles"])), table.found["angles"])
        for at, table in tables.items()
    }
    strengths, last = np.array(options.strengths, float), tables[layers[-1]].found
    steering = {
        TRAINED: (strengths, last["steer.true"].mean(1)),
        FLOORS["shuffled"]: (strengths, last["steer.shuffled"].mean(1)),
    }
    return {
        f"effect of ablation by layer, nats ({name})": effect,
        f"ratio to each control by layer ({name})": ratios,
        "principal angles of two halves, degrees": angles,
        f"steering at layer {layers[-1]} by strength": steering,
    }


def _notes(study: Any, tables: dict[int, Table], options: Any) -> list[str]:
    """What the tables do not say."""
    clips, name = study.clips, options.controlled[0]
    notes = [
        f"{clips.classes} classes. Regression and subspaces are fitted on {len(clips.y)} clips and scored on "
        f"{len(clips.of)}. {options.draws} draws of each control. Definitions: docs/STATES.md."
    ]
    for at, table in tables.items():
        own = table.ratios[name]
        retained = table.values["rce of halves"][0]
        notes.append(
            f"layer {at}: {name} {own.effect:.2f} nats [{own.low:.2f}, {own.high:.2f}], {own.ratio:.1f} times the "
            f"worst control ({FLOORS[own.worst]}) [{own.ratio_low:.1f}, {own.ratio_high:.1f}], rce of halves "
            f"{f'{retained:.2f}' if np.isfinite(retained) else UNDEFINED}."
        )
    if clips.twins is None:
        notes.append("No interchange: the source has no twins of a clip with another class.")
    if not clips.nuisances:
        notes.append("No nuisance control: no label of the source is cut into as many classes as the variable.")
    else:
        notes.append(f"Nuisances: {', '.join(clips.named)}.")
    return notes
