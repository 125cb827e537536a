"""Writes a model as a folder that PyTorch reads: weights, settings, a model card and the code.

    python -m cjepa_jax.export --checkpoint=runs/tiny --out=DIR [--onnx]
    python -m cjepa_jax.export --checkpoint=runs/tiny --out=DIR --layout=timm     (ijepa: under I-JEPA's names)

--checkpoint names a run's folder, an export, or public weights (docs/PYTORCH.md). A damaged newest checkpoint is
refused, and --out never holds half of an export. Exit codes: 4 for unusable weights, 2 for the command line.
"""

import pathlib
import shlex
import sys

from cjepa_jax import cli
from cjepa_jax.errors import ConfigError

LAYOUTS = ("cjepa_jax", "timm", "ijepa")


def main(argv: list[str]) -> int:
    """Raises ConfigError or CheckpointError, one line, before anything is written to --out."""
    parser = cli.Parser(prog="python -m cjepa_jax.export", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=cli.path_argument, required=True, metavar="RUN_OR_EXPORT_OR_WEIGHTS")
    parser.add_argument(
        "--out", type=cli.path_argument, required=True, metavar="DIR", help="a folder that is new or empty"
    )
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="whose names the weights get")
    for name, (_, default, text) in cli.READING.items():
        how = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", help=text, **how)
    parser.add_argument("--step", type=int, help="that checkpoint of the run; by default the newest")
    parser.add_argument("--part", default="", help='which encoder, such as "target" of a run (with --layout=timm)')
    parser.add_argument("--onnx", action="store_true", help="the encoder as ONNX too (pip install 'cjepa_jax[onnx]')")
    parser.add_argument("--licence", default="", help="of the weights, such as MIT: of runs of your own")
    parser.add_argument("--trust", default="", metavar="PACKAGES", help=cli.TRUST)
    parser.add_argument("--overwrite", action="store_true", help="replace the export that --out holds")
    arguments = parser.parse_args(argv)
    cli.set_up_logging("warning")
    cli.keep_compiled_code()
    return export(arguments, shlex.join(["python", "-m", "cjepa_jax.export", *argv]))


def export(arguments, command: str) -> int:
    """Opens the weights, then writes. See `main`."""
    from cjepa_jax.export import bundle, onnx

    out = pathlib.Path(arguments.out)
    bundle.require_free(out, arguments.overwrite)
    if arguments.onnx:
        if arguments.layout != LAYOUTS[0]:
            raise ConfigError(f"--onnx: goes with --layout={LAYOUTS[0]}, not {arguments.layout}")
        onnx.require()
    model = _licensed(_opened(arguments), arguments.licence)
    print(model.summary(), flush=True)
    with bundle.whole(out, arguments.overwrite) as folder:
        _write(model, folder, arguments)
        size = sum(file.stat().st_size for file in folder.iterdir())
        names = ", ".join(sorted(file.name for file in folder.iterdir()))
    print(f"{out}: {names} ({size / 2**20:.1f} MiB)\n{command}")
    return 0


def _opened(arguments):
    """The Pretrained. A part of public weights is chosen on reading, a part of our weights on writing."""
    from cjepa_jax.loading import pretrained
    from cjepa_jax.weights import read

    path = pathlib.Path(arguments.checkpoint)
    given = {field: getattr(arguments, name.replace("-", "_")) for name, (field, _, _) in cli.READING.items()}
    reading = read.Reading(**given)
    ours = (path / "checkpoints").is_dir() or path.name == "checkpoints"
    if arguments.part and not ours and path.exists() and arguments.step is None:
        model = read.read(path, "" if arguments.part == "target" else arguments.part, **reading._asdict())
    else:
        model = pretrained.load_weights(path, arguments.step, strict=True, trust=arguments.trust, reading=reading)
    if _part_written(model, arguments) and arguments.layout != "timm":
        raise ConfigError(f"--part={arguments.part}: goes with --layout=timm; the others hold every part")
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
    config = {}
    if layout == "timm":
        part = _part_written(model, arguments) or "encoder"
        arrays, config = other_layouts.timm(model, part)
        bundle.write_json(folder / bundle.CONFIG, bundle.plain(config))
    else:
        part, arrays = "", other_layouts.ijepa(model)
    bundle.write_weights(folder, arrays)
    bundle.write_texts(folder, model, card.text(model, name, other_layouts.use(model, layout, name, part, config)))


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
