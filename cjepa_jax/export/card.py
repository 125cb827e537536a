"""The model card of exported weights. It gives the known facts, and says which facts are unknown."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from cjepa_jax.configuration import build, catalogue
from cjepa_jax.configuration.check import CHANNELS
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import printable
from cjepa_jax.host.paths import shown
from cjepa_jax.weights import hub, licences
from cjepa_jax.weights.read import Pretrained

SETTINGS = (
    ("scenes", "data.source"),
    ("training scenes", "data.count"),
    ("the scene under do(remove)", "data.intervened"),
    ("masks", "mask.type"),
    ("objects removed, at most", "mask.max_objects"),
    ("prediction loss", "objective.prediction_loss"),
    ("target norm", "objective.target_norm"),
    ("weight of the causal term", "objective.causal_weight"),
    ("visible tokens of the causal term", "objective.causal_tokens"),
    ("weight of SIGReg", "objective.sigreg_weight"),
    ("EMA of the target", "objective.ema"),
    ("scenes per step", "train.batch"),
    ("steps of the whole run", "train.steps"),
    ("peak learning rate", "optim.peak"),
    ("weight decay", "optim.weight_decay"),
    ("started from", "init_from"),
    ("seed", "seed"),
)
OURS = """\
In PyTorch 2.10 or newer, with the file `modeling_cjepa.py` of this folder and nothing else:

```python
from modeling_cjepa import CausalJEPA

model = CausalJEPA.from_pretrained("{folder}")   # checks the SHA-256 of the weights
tokens = model.encode(video)                     # {video} {values} -> [B, N, {width}]
features = model.features(video)                 # [B, {width}]{intervene}
```

In JAX:

```python
import cjepa_jax

model = cjepa_jax.load("{folder}")
tokens = model.encode(video)
```
"""
INTERVENE = """
answer = model.intervene(video, masks, remove=[0])  # masks: bool, the objects' pixels"""


def text(model: Pretrained, folder: str, use: str = "", library: str = "pytorch") -> str:
    """The card of weights in `folder`. `use`: how to load them, if not as a bundle of ours. `library`: by the names of
    model hubs."""
    size, training = parse(model.encoder["variant"]), model.about.get("training") or {}
    parts = [
        "\n".join(_front(model, library)),
        f"# {_title(model)}\n\n{_summary(model)}",
        "## Use\n\n" + (use or _use(model, folder)),
        "## Data and method\n\n" + "\n".join(_method(model, training)),
        "## Measured\n\n" + "\n".join(_measured(model, training)),
        "## Limits\n\n" + "\n".join(_limits(model, size.patch)),
        f"## Licence\n\nThe weights: {_licence(model)}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _front(model: Pretrained, library: str) -> Iterator[str]:
    """The front matter for model hubs."""
    yield from ("---", *licences.write(model.licence))
    yield from (f"library_name: {library}", "tags:", "- jepa", "- self-supervised", "- vision-transformer", "---")


def _title(model: Pretrained) -> str:
    return f"{model.encoder['variant']} encoder" + (" and predictor" if model.params.get("predictor") else "")


def _summary(model: Pretrained) -> str:
    frames, size, tubelet = (model.input.get("frames", 1), model.input.get("size"), model.encoder["tubelet"])
    what = f"clips of {frames} frames, {tubelet} to a token," if frames > 1 else "images"
    at = f" at {size} x {size} pixels" if size else ""
    origin = _cell(model.about.get("objective") or model.layout)
    name = _cell(hub.public(model.source))
    return f"For {what}{at}, trained as `{origin}`. From `{name}` (SHA-256 `{_cell(model.digest)}`)."


def _use(model: Pretrained, folder: str) -> str:
    channels = model.encoder.get("channels", CHANNELS)
    video = f"[B, T, H, W, {channels}]" if model.input.get("frames", 1) > 1 else f"[B, H, W, {channels}]"
    intervene = INTERVENE if model.params.get("predictor") else ""
    scale = model.encoder.get("scale", 255.0)
    values = "uint8 or float in 0..255" if scale == 255 else f"numbers, which the model divides by {scale:g}"
    return OURS.format(
        folder=folder, video=video, values=values, width=parse(model.encoder["variant"]).width, intervene=intervene
    )


def _method(model: Pretrained, training: Mapping[str, Any]) -> Iterator[str]:
    kind = str(model.about.get("objective", ""))
    ours = catalogue.keywords("objective", kind) is not None  # checked by name, without an import
    if ours and (method := getattr(build.locate(kind), "method", "")):
        yield f"{method}.\n"
    if not training:
        yield f"These weights are of the layout `{model.layout}`. Those who published them say how they were trained."
    for name, key in SETTINGS:
        value: Any = training
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value not in (None, ""):
            yield f"- {name}: {_cell(value)}"
    for note in model.about.get("notes", ()):
        yield f"- {_cell(note)}"


def _measured(model: Pretrained, training: Mapping[str, Any]) -> Iterator[str]:
    """The last probe's table: the weights, the same network at random, and the pixels' principal components."""
    found = model.about.get("metrics") or {}
    if not found:
        yield "Nothing is known of how these weights score."
        return
    probes = training.get("probe")
    probes = probes if isinstance(probes, Mapping) else {}
    step, seed, train, test = map(
        _cell, (model.about.get("step"), training.get("seed"), probes.get("train"), probes.get("test"))
    )
    yield (
        f"The last probe of the run up to these weights (step {step}, seed {seed}, one run, no spread): frozen "
        f"features of held-out scenes, {train} to fit on, {test} to score.\n"
    )
    yield from ("| probe | trained | random init | pixel PCA |", "|---|---|---|---|")
    rows = [name for name in found if not name.endswith(("_random", "_pixels"))]
    for name in rows:
        cells = [_number(found.get(f"{name}{other}")) for other in ("", "_random", "_pixels")]
        yield f"| {_cell(name)} | {' | '.join(cells)} |"


def _limits(model: Pretrained, patch: int) -> Iterator[str]:
    yield f"- Height and width are multiples of {patch} pixels. Other sizes than the training's run, unmeasured."
    if model.params.get("predictor"):
        if not model.input.get("names_objects", True):
            yield "- The predictor was trained without being told which objects are hidden: it takes any masks as one."
        yield "- What the predictor says of a removed object is a latent, no picture, and no simulation of physics."
    if model.about.get("metrics"):
        yield "- The scores above are of the training's own kind of scenes. Elsewhere they say nothing."


def _licence(model: Pretrained) -> str:
    if model.licence == "unspecified":
        return "unspecified. Whoever trained them has not said under which licence they may be used."
    note = " They may not be used commercially." if "-NC" in model.licence else ""
    return f"{_cell(model.licence)}.{note}"


def _cell(value: Any) -> str:
    """A value from a file, without Markdown or HTML that it may hold."""
    text = printable(", ".join(map(str, value)) if isinstance(value, list | tuple) else value)
    return escape(shown(text), quote=False).replace("|", "\\|").replace("`", "'")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
