"""Writes a model as a folder that PyTorch reads: weights, settings, a model card and the code.

    python -m cjepa_jax.export --checkpoint=runs/tiny --out=DIR [--onnx]
    python -m cjepa_jax.export --checkpoint=runs/tiny --out=DIR --layout=timm     (ijepa: under I-JEPA's names)
    python -m cjepa_jax.export --checkpoint=runs/tiny --out=DIR --layout=transformers     (Hugging Face's models)

--checkpoint names a run's folder, an export, or public weights, also as hf://OWNER/NAME@REVISION (docs/PYTORCH.md). A
damaged newest checkpoint is refused, and --out never holds half of an export. Exit codes: 4 for unusable weights, 2 for
the command line.
"""

import pathlib
import shlex
import sys

from cjepa_jax import cli
from cjepa_jax.errors import ConfigError

LAYOUTS = ("cjepa_jax", "timm", "ijepa", "transformers")
ONE_PART = ("timm", "transformers")  # layouts that can hold one encoder alone


def main(argv: list[str]) -> int:
    """Raises ConfigError or CheckpointError, one line, before anything is written to --out."""
    parser = cli.Parser(prog="python -m cjepa_jax.export", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=_weights_argument, required=True, metavar="RUN_OR_EXPORT_OR_WEIGHTS")
    parser.add_argument(
        "--out", type=cli.path_argument, required=True, metavar="DIR", help="a folder that is new or empty"
    )
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="whose names the weights get")
    for name, (_, default, text) in cli.READING.items():
        how = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", help=text, **how)
    parser.add_argument("--step", type=int, help="that checkpoint of the run. By default the newest")
    parser.add_argument(
        "--part", default="", help='which encoder, such as "target" of a run (with --layout=timm or transformers)'
    )
    parser.add_argument("--onnx", action="store_true", help="the encoder as ONNX too (pip install 'cjepa_jax[onnx]')")
    parser.add_argument("--licence", default="", help="of the weights, such as MIT, for your own runs")
    parser.add_argument("--trust", default="", metavar="PACKAGES", help=cli.TRUST)
    parser.add_argument("--overwrite", action="store_true", help="replace the export that --out holds")
    parser.add_argument(
        "--push", default="", metavar="OWNER/NAME", help="upload the export to the Hugging Face Hub too"
    )
    arguments = parser.parse_args(argv)
    cli.set_up_logging("warning")
    cli.keep_compiled_code()
    return export(arguments, shlex.join(["python", "-m", "cjepa_jax.export", *argv]))


def _weights_argument(text: str):
    """A path, or an address on the hub."""
    from cjepa_jax.weights import hub

    return text if hub.is_address(text) else cli.path_argument(text)


def export(arguments, command: str) -> int:
    """Opens the weights, then writes. See `main`."""
    from cjepa_jax.export import bundle, onnx
    from cjepa_jax.weights import hub

    out = pathlib.Path(arguments.out)
    bundle.require_free(out, arguments.overwrite)
    if arguments.onnx:
        if arguments.layout != LAYOUTS[0]:
            raise ConfigError(f"--onnx: goes with --layout={LAYOUTS[0]}, not {arguments.layout}")
        onnx.require()
    if arguments.push:
        hub.check_push(arguments.push)
    model = bundle.exportable(_licensed(_opened(arguments), arguments.licence))
    print(model.summary(), flush=True)
    with bundle.whole(out, arguments.overwrite) as folder:
        _write(model, folder, arguments)
        size = sum(file.stat().st_size for file in folder.iterdir())
        names = ", ".join(sorted(file.name for file in folder.iterdir()))
    print(f"{out}: {names} ({size / 2**20:.1f} MiB)\n{command}", flush=True)
    if arguments.push:
        print(f"pushed: {hub.push(out, arguments.push, sorted(bundle.OWN - {'__pycache__'}))}")
    return 0


def _opened(arguments):
    """The Pretrained. A part of public weights is chosen on reading, a part of our weights on writing."""
    from cjepa_jax.loading import pretrained
    from cjepa_jax.weights import hub, read

    given, on_reading = arguments.checkpoint, "" if arguments.part == "target" else arguments.part
    path = pathlib.Path(given)
    said = {field: getattr(arguments, name.replace("-", "_")) for name, (field, _, _) in cli.READING.items()}
    reading = read.Reading(**said)
    ours = (path / "checkpoints").is_dir() or path.name == "checkpoints"
    if on_reading and hub.is_address(given) and arguments.step is None:
        model = hub.read(given, on_reading, reading=reading)
    elif arguments.part and not ours and path.exists() and arguments.step is None:
        model = read.read(path, on_reading, **reading._asdict())
    else:
        model = pretrained.load_weights(given, arguments.step, strict=True, trust=arguments.trust, reading=reading)
    if _part_written(model, arguments) and arguments.layout not in ONE_PART:
        text = f"goes with --layout={' or '.join(ONE_PART)}. The others hold every part"
        raise ConfigError(f"--part={arguments.part}: {text}")
    return model


def _part_written(model, arguments) -> str:
    """--part, or "" if it was chosen on reading."""
    return arguments.part if model.layout == LAYOUTS[0] or arguments.part == "target" else ""


def _licensed(model, licence: str):
    """Sets the user's licence for weights without one. Raises ConfigError for weights with a licence."""
    import dataclasses

    from cjepa_jax.weights import licences

    if not licence or licence == model.licence:
        return model
    if model.licence not in ("unspecified", "unknown"):
        raise ConfigError(f"--licence={licence}: these weights are under {model.licence}, which stays with them")
    if licences.canonical(licence) == "unknown":
        raise ConfigError(f"--licence: must be a name of at most {licences.MOST} letters, such as Apache-2.0")
    return dataclasses.replace(model, licence=licence)


def _write(model, folder: pathlib.Path, arguments) -> None:
    from cjepa_jax.export import bundle, card, onnx, other_layouts

    name, layout = pathlib.Path(arguments.out).absolute().name, arguments.layout
    if layout == LAYOUTS[0]:
        bundle.write(folder, model, card.text(model, name))
        if arguments.onnx:
            onnx.write(folder, bundle.scene_shape(model))
        return
    if layout == "transformers":
        _write_transformers(model, folder, arguments, name)
        return
    config = {}
    if layout == "timm":
        part = _part_written(model, arguments) or "encoder"
        arrays, config = other_layouts.timm(model, part)
        bundle.write_json(folder / bundle.CONFIG, bundle.plain(config))
    else:
        part, arrays = "", other_layouts.ijepa(model)
    bundle.write_weights(folder, arrays)
    bundle.write_texts(folder, model, card.text(model, name, other_layouts.use(model, layout, name, part, config)))


def _write_transformers(model, folder: pathlib.Path, arguments, name: str) -> None:
    from cjepa_jax.export import bundle, card, huggingface

    # Of public weights the part was chosen on reading, and is the encoder.
    part = _part_written(model, arguments) or (arguments.part and "encoder")
    found = huggingface.folder(model, part)
    bundle.write_weights(folder, found.arrays, huggingface.METADATA)
    bundle.write_json(folder / bundle.CONFIG, bundle.plain(found.config))
    bundle.write_json(folder / found.processor[0], bundle.plain(found.processor[1]))
    text = card.text(found.model, name, huggingface.use(found, name, part), library="transformers")
    bundle.write_texts(folder, model, text)


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
