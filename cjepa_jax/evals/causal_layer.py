"""What is measured at one layer of one encoder for causal states: arrays over test clips, from which tables follow."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.evals import subspaces
from cjepa_jax.evals.base import Model, pooled
from cjepa_jax.evals.layers import Layers

CONTROLS = ("random", "variance", "shuffled", "nuisance")


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """n fitting clips and m test clips of `classes` classes."""

    video: np.ndarray  # uint8 [n, T, H, W, 3], to fit on
    y: np.ndarray  # int [n]
    other: np.ndarray  # uint8 [m, T, H, W, 3], to score
    of: np.ndarray  # int [m]
    classes: int
    aims: np.ndarray  # int [m] another class for each test clip: the twin's, and that of steering
    twins: np.ndarray | None = None  # uint8 [m, T, H, W, 3] the test clips under do(class = aims). None: unknown
    nuisances: tuple[np.ndarray, ...] = ()  # int [n] each: other variables, with as many classes
    named: tuple[str, ...] = ()  # their names


@dataclasses.dataclass(frozen=True)
class Options:
    """See causal_states.CausalStates."""

    extractors: tuple[str, ...]
    controlled: tuple[str, ...]
    draws: int
    strengths: tuple[float, ...]
    per_time: bool


class Study:
    """An encoder, the softmax regression of the class on its mean output, and the clips."""

    def __init__(self, model: Model, clips: Clips, options: Options, grid: tuple[int, int, int], batch: int, seed: int):
        self.clips, self.options, self.grid, self.batch, self.seed = clips, options, tuple(grid), batch, seed
        assert model.inside is not None  # CausalStates asks for it
        self.inside = model.inside
        self.layers = Layers(model.inside, grid, batch)
        self.features = pooled(model, clips.video, batch)  # [n, D]
        self.output = pooled(model, clips.other, batch)  # [m, D]
        self.head = subspaces.readout(self.features, clips.y, clips.classes)
        self.accuracy = float((self.head.logits(self.output).argmax(1) == clips.of).mean())
        self.rank = clips.classes - 1

    def measure(self, layer: int) -> dict[str, np.ndarray]:
        """Arrays by name: effects in nats per clip, hits, and shares. See causal_tables."""
        return Layer(self, layer).measure()


class Layer:
    """The measurements of one layer. m test clips."""

    def __init__(self, study: Study, layer: int):
        self.study, self.layer, self.clips, self.options = study, layer, study.clips, study.options
        self.rng = seeds.generator(study.seed, "causal states", layer + 1)
        layers, clips = study.layers, self.clips
        self.own = layers.tokens(clips.other, layer)
        fitted = layers.tokens(clips.video, layer)
        self.fit = layers.means(fitted, len(clips.y)).astype(np.float64)  # [n, times, D]
        self.test = layers.means(self.own, len(clips.of)).astype(np.float64)  # [m, times, D]
        self.fitted = fitted if "gradient" in self.options.extractors else []  # only the gradient needs all tokens
        self.centre = self.fit.mean((0, 1))
        self.width = self.fit.shape[-1]
        rows = self.fit.mean(1)  # what extractors see, for the share of variance
        if self.options.per_time:
            rows = (self.fit - self.fit.mean(0)).reshape(-1, self.width)
        self.covariance = np.cov(rows.T)
        self.clean = self.output(np.zeros((self.width, 1)), None)

    def measure(self) -> dict[str, np.ndarray]:
        """All arrays of this layer."""
        bases = {name: self.extract(name, self.clips.y) for name in self.options.extractors}
        found = {"clean": self.log_p(self.clean), "correct": self.clean_hits()}
        for name, u in bases.items():
            found |= self.ablated(name, u)
        for name in self.options.controlled:
            for control, drawn in self.controls(name, bases[name]):
                found[f"control.{name}.{control}"] = np.stack([self.effect(u) for u in drawn])
        found |= self.halves() | self.probes(bases) | self.steered()
        return found | (self.interchanged(bases) if self.clips.twins is not None else {})

    def output(self, u: np.ndarray, aim) -> np.ndarray:
        """The encoder's mean output [m, D] with the part in u of each token that of `aim`."""
        most = subspaces.MOST * self.study.rank
        u = np.pad(u, ((0, 0), (0, max(0, most - u.shape[1]))))  # one program for all ranks
        return self.study.layers.read(self.own, len(self.clips.of), self.layer, u, aim)

    def log_p(self, output: np.ndarray) -> np.ndarray:
        return self.study.head.log_p(output, self.clips.of)

    def hits(self, output: np.ndarray, y: np.ndarray, head: subspaces.Readout | None = None) -> np.ndarray:
        return (head or self.study.head).logits(output).argmax(1) == y

    def clean_hits(self) -> np.ndarray:
        return self.hits(self.clean, self.clips.of)

    def effect(self, u: np.ndarray) -> np.ndarray:
        """log p(class) before minus after ablation to the mean, [m]."""
        return self.lost(self.output(u, self.centre))

    def lost(self, output: np.ndarray) -> np.ndarray:
        return self.log_p(self.clean) - self.log_p(output)

    def ablated(self, name: str, u: np.ndarray) -> dict[str, np.ndarray]:
        after = self.output(u, self.centre)
        hits = self.hits(after, self.clips.of)
        return {f"effect.{name}": self.lost(after), f"hits.{name}": hits, f"basis.{name}": u}

    def extract(self, name: str, y: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """The subspace of classes y, of all fitting clips or of these `rows`: [D, r]."""
        if name == "gradient":
            return self.slopes(y, rows)
        x = self.fit if rows is None else self.fit[rows]
        y = y if rows is None else y[rows]
        if name != "l1" and self.options.per_time:
            times = x.shape[1]
            x = (x - x.mean(0)).reshape(-1, self.width)
            y = np.repeat(y, times) * times + np.tile(np.arange(times), len(y))
        else:
            x = x.mean(1)
        return subspaces.EXTRACTORS[name](x, y, self.study.rank)

    def slopes(self, y: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        """The gradient space of a regression of classes y. That of the true classes is the study's."""
        study, rows = self.study, np.arange(len(y)) if rows is None else rows
        head = study.head if y is self.clips.y and len(rows) == len(y) else None
        head = head or self.refitted(y, rows)
        found = study.layers.slopes(self.fitted, self.layer, head.pull(study.features, y))
        return subspaces.gradient(found[rows], study.rank)

    def refitted(self, y: np.ndarray, rows: np.ndarray | slice = slice(None)) -> subspaces.Readout:  # noqa: B008
        """The study's regression for other classes of the fitting clips, with the same strength."""
        features, strength = self.study.features[rows], self.study.head.strength
        return subspaces.readout(features, y[rows], self.clips.classes, strength)

    def controls(self, name: str, u: np.ndarray) -> Iterator[tuple[str, list[np.ndarray]]]:
        """The draws of each matched control of a subspace."""
        rng, draws, rank, y = self.rng, range(self.options.draws), u.shape[1], self.clips.y
        share = subspaces.share_of_variance(u, self.covariance)
        yield "random", [subspaces.random_basis(rng, self.width, rank) for _ in draws]
        yield "variance", [subspaces.matched_basis(rng, self.covariance, rank, share) for _ in draws]
        yield "shuffled", [self.extract(name, rng.permutation(y)) for _ in draws]
        if self.clips.nuisances:
            chosen = [self.clips.nuisances[i % len(self.clips.nuisances)] for i in draws]
            yield "nuisance", [self.extract(name, own, subspaces.bootstrap(rng, own)) for own in chosen]

    def halves(self) -> dict[str, np.ndarray]:
        """Two subspaces of the first controlled extractor, each of one half of the fitting clips: angles, effects."""
        name = self.options.controlled[0]  # RCE compares them with its controls
        order = self.rng.permutation(len(self.clips.y))
        order = order[np.argsort(self.clips.y[order], kind="stable")]  # each class in both halves
        one, other = (self.extract(name, self.clips.y, order[start::2]) for start in (0, 1))
        found = {"sas": np.array(subspaces.sas(one, other)), "angles": subspaces.angles(one, other)}
        found["chance"] = np.array(subspaces.sas_chance(one, other))
        return found | {"half.own": self.effect(one), "half.moved": self.effect(other)}

    def probes(self, bases: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The class from the layer's own mean tokens, the share of variance, and the coordinates of a sparse probe."""
        x, of, y = self.fit.mean(1), self.test.mean(1), self.clips.y
        head = subspaces.readout(x, y, self.clips.classes)
        shares = {name: subspaces.share_of_variance(u, self.covariance) for name, u in bases.items()}
        found = {f"variance.{name}": np.array(share) for name, share in shares.items()}
        for name, labels in (("sparse", y), ("sparse.shuffled", self.rng.permutation(y))):
            found[name] = np.array((subspaces.sparse_probe(x, labels) != 0).any(1).mean())
        return found | {"probe": self.hits(of, self.clips.of, head)}

    def steered(self) -> dict[str, np.ndarray]:
        """Hits [strengths, m] of steering by class means, and the same with shuffled labels throughout."""
        clips, rng, found = self.clips, self.rng, {}
        shuffled, others = rng.permutation(clips.y), rng.permutation(clips.of)
        aims = (others + rng.integers(1, clips.classes, len(others))) % clips.classes
        head = self.refitted(shuffled)
        for name, y, now, to, own in (
            ("true", clips.y, clips.of, clips.aims, self.study.head), ("shuffled", shuffled, others, aims, head),
        ):  # fmt: skip
            x = self.fit.mean(1)
            means = np.stack([x[y == c].mean(0) for c in range(clips.classes)])
            u = subspaces.means(x, y, self.study.rank)
            moved = [
                self.study.layers.shifted(self.own, strength * (means[to] - means[now]))
                for strength in self.options.strengths
            ]
            found[f"steer.{name}"] = np.stack([self.hits(self.output(u, aim), to, own) for aim in moved])
        return found

    def interchanged(self, bases: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Hits [m] of the twin's class, with each subspace, with random ones of its rank, and with all tokens."""
        assert self.clips.twins is not None
        twins = self.study.layers.tokens(self.clips.twins, self.layer)
        aims, found = self.clips.aims, {}
        for name, u in bases.items():
            found[f"swap.{name}"] = self.hits(self.output(u, twins), aims)
            draws = range(self.options.draws)
            drawn = [subspaces.random_basis(self.rng, self.width, u.shape[1]) for _ in draws]
            found[f"swap.{name}.random"] = np.stack([self.hits(self.output(own, twins), aims) for own in drawn])
        nothing = np.zeros((self.width, subspaces.MOST * self.study.rank))
        whole = self.study.layers.read(twins, len(aims), self.layer, nothing)
        return found | {"swap.all": self.hits(whole, aims)}
