"""Causal states of a frozen encoder: in which layer is a variable held in a subspace that the encoder uses?

docs/STATES.md derives the measures. The formulas are in evals/subspaces.py, the measurements of a layer in
evals/causal_layer.py.
"""

import dataclasses
import functools
import hashlib
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from cjepa_jax.configuration import seeds
from cjepa_jax.data import kinds, transforms
from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import causal_tables, subspaces
from cjepa_jax.evals.base import Bench, Model, Result, Scenes, integer, number, require
from cjepa_jax.evals.causal_layer import Clips, Options, Study
from cjepa_jax.evals.classify import classes_of
from cjepa_jax.evals.counterfactual.questions import remembered
from cjepa_jax.runtime import trees

FORMAT = 2  # of the cached measurements. Raised when they change
NAMES = (*subspaces.EXTRACTORS, "gradient")
_SUCH = dict(extractors="'means'", controlled="'means'", nuisances="'speed'", layers="2", strengths="1.0")


@dataclasses.dataclass(frozen=True)
class CausalStates:
    """Ablation, interchange and steering of subspaces of each layer, against four matched controls.

    A softmax regression of the class on the encoder's mean output is fitted on the fitting scenes. Subspaces are
    extracted from the pooled tokens of a layer of the same scenes. Everything is scored on the test scenes: the
    encoder's remaining blocks run on edited tokens, and the same regression reads their output.

    Metrics, each at each layer (0: the tokenizer):
      "effect/EXTRACTOR": mean log p(class) lost by ablation to the mean, nats. Floors: the four controls.
      "ratio/EXTRACTOR": the effect as a multiple of the worst control's. The lower and the upper end of its 95 %
        interval over clips and draws are "ratio from" and "ratio to".
      "accuracy drop/EXTRACTOR", "interchange/EXTRACTOR" (the share of clips that are read as their twin's class),
      "steering, a = 1" (the share that is read as the target class. Floor: the same with shuffled labels),
      "probe" (accuracy of the class from the layer's own mean tokens), "variance", "sparse share", "sas of halves",
      "rce of halves" (both of the first of `controlled`). Once for the encoder: "readout", "cca".

    Attributes:
      label: "class" if the source gives each scene's class, otherwise the name or the index of a label that is rounded.
      extractors: of "means", "class_pca", "l1" and "gradient".
      controlled: those whose effect is compared with the controls.
      nuisances: labels of the source that are cut into as many classes as the variable has, for the fourth control.
        Names that the source lacks, and the variable itself, are left out.
      layers: the numbers of layers. (): all.
      draws: of each control, at least 12.
      strengths: of steering.
      per_time: whether extractors see the mean tokens of each time instead of those of the whole clip.
      cache: a folder that keeps each finished layer, so that an evaluation resumes after it. "": none.
    Raises: ConfigError for values outside their limits, for scenes without classes and for a model without layers.
    """

    label: str | int = "class"
    extractors: tuple[str, ...] = NAMES
    controlled: tuple[str, ...] = ("means",)
    nuisances: tuple[str, ...] = ("speed", "size", "hue", "place/x")
    layers: tuple[int, ...] = ()
    draws: int = 12
    strengths: tuple[float, ...] = (1.0, 3.0)
    per_time: bool = False
    cache: str = ""

    kinds: ClassVar[tuple[str, ...]] = kinds.FILMED

    def __post_init__(self):
        for name in ("extractors", "controlled", "nuisances", "layers", "strengths"):
            if not isinstance(getattr(self, name), tuple | list):
                given = f"CausalStates.{name} = {getattr(self, name)!r}"
                raise ConfigError(f"evals.protocols: {given}: must be a tuple, such as ({_SUCH[name]},)")
        for name in self.nuisances:
            if not isinstance(name, str):
                given = f"CausalStates.nuisances = {self.nuisances}"
                raise ConfigError(f"evals.protocols: {given}: must be names of labels")
        for name in ("extractors", "controlled"):
            value = tuple(getattr(self, name))
            known = NAMES if name == "extractors" else tuple(self.extractors)
            if not value or not all(one in known for one in value):
                raise ConfigError(f"evals.protocols: CausalStates.{name} = {value}: must be of {known}")
        if not integer(self.draws, 12):
            raise ConfigError(f"evals.protocols: CausalStates.draws = {self.draws!r}: must be an integer from 12")
        for layer in self.layers:
            if not integer(layer, 0):
                raise ConfigError(f"evals.protocols: CausalStates.layers = {self.layers}: must be integers from 0")
        if not self.strengths or not all(number(a) and np.isfinite(a) for a in self.strengths):
            raise ConfigError(f"evals.protocols: CausalStates.strengths = {self.strengths}: must be numbers")

    def run(self, bench: Bench) -> Result:
        """Measures the model and the random initialisations, layer by layer."""
        inside = bench.model.inside
        require(inside is not None, "CausalStates", "a model whose encoder is a Transformer of this package")
        assert inside is not None  # `require` has raised
        clips, most = self.clips(bench), inside.layers
        above = [layer for layer in self.layers if layer > most]
        require(not above, f"CausalStates.layers = {self.layers}", f"layers up to {most}")
        layers = list(self.layers) or list(range(most + 1))
        studies = {model.name: self.study(model, clips, bench) for model in bench.models}
        found: dict[str, dict[int, dict[str, np.ndarray]]] = {name: {} for name in studies}
        with tqdm(total=len(layers) * len(studies), unit="layer", desc="causal states") as bar:
            for name, study in studies.items():
                key = self._key(study, clips, bench.seed)
                for layer in layers:
                    made = remembered(self.cache, f"{key}-{layer}", functools.partial(_measured, study, layer))
                    found[name][layer] = made
                    bar.update()
        return causal_tables.result(found, studies, self, bench.seed, example(clips))

    def study(self, model: Model, clips: Clips, bench: Bench) -> Study:
        """A model with the fitted regression."""
        options = Options(self.extractors, self.controlled, self.draws, self.strengths, self.per_time)
        return Study(model, clips, options, grid=bench.testing.map.grid, batch=bench.batch, seed=bench.seed)

    def clips(self, bench: Bench) -> Clips:
        """The fitting and the test scenes with classes, nuisances and twins."""
        parts = fitting, testing = bench.fitting, bench.testing
        names = tuple(fitting.source.label_names)
        y, of = (classes_of(part.arrays, names, self.label, "CausalStates") for part in parts)
        classes = int(y.max()) + 1
        counts = np.bincount(y, minlength=classes)
        require(classes > 1 and counts.min() >= 4, "CausalStates", "two classes or more, each in 4 fitting scenes")
        require(of.max() < classes, "CausalStates", "no class in the test scenes that the fitting scenes lack")
        own = names[self.label] if isinstance(self.label, int) else self.label
        known = [name for name in self.nuisances if name in names and name != own]
        columns = [fitting.arrays["labels"][:, names.index(name)] for name in known]
        bins = [subspaces.bins(column, classes) for column in columns]
        kept = [(name, own) for name, own in zip(known, bins, strict=True) if own.max() + 1 == classes]
        rng = seeds.generator(bench.seed, "causal states", 0)
        aims = (of + rng.integers(1, classes, len(of))) % classes
        twins = _twins(testing, aims) if hasattr(testing.source, "twin") and self.label == "class" else None
        return Clips(
            fitting.arrays["video"], y, testing.arrays["video"], of=of, classes=classes, aims=aims, twins=twins,
            nuisances=tuple(own for _, own in kept), named=tuple(name for name, _ in kept),
        )  # fmt: skip

    def _key(self, study: Study, clips: Clips, seed: int) -> str:
        """Of everything that the measurements of a layer depend on."""
        own = dataclasses.asdict(self) | {"cache": "", "layers": ()}
        digest = hashlib.sha256(f"{FORMAT} {sorted(own.items())} {seed} {study.grid} {study.batch}".encode())
        digest.update(trees.digest(study.inside.params).encode())
        how = study.features, study.output  # parameters do not tell the dtype, the heads, the positions
        for array in (*how, clips.video, clips.y, clips.other, clips.of, clips.twins, *clips.nuisances):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return f"causal_states-{digest.hexdigest()[:32]}"


def _measured(study: Study, layer: int) -> dict[str, np.ndarray]:
    return study.measure(layer)


def _twins(scenes: Scenes, aims: np.ndarray) -> np.ndarray:
    """The test scenes under do(class = aims), uint8 [n, T, H, W, 3]."""
    found, twin = [], getattr(scenes.source, "twin")  # noqa: B009  # of worlds that have it
    for index, aim in zip(scenes.arrays["scene"], aims, strict=True):
        raw = twin(int(index), int(aim))
        found.append(transforms.centre_square(*raw.shape[1:3]).frames(raw, scenes.map.size))
    return np.stack(found)


def example(clips: Clips) -> dict[str, Any]:
    """Pictures: a test clip above its twin, some frames from left to right."""
    if clips.twins is None:
        return {}
    frames = clips.other.shape[1]
    shown = np.unique(np.linspace(0, frames - 1, min(8, frames)).round().astype(int))
    pair = clips.other[0], clips.twins[0]
    rows = [np.hstack([np.pad(video[t], ((2, 2), (2, 2), (0, 0))) for t in shown]) for video in pair]
    return {f"a test clip of class {clips.of[0]} above its twin of class {clips.aims[0]}": np.vstack(rows)}
