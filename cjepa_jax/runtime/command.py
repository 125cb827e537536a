"""The command cjepa: `cjepa train --config=tiny` runs what `python -m cjepa_jax.train --config=tiny` runs.

This module is imported before every command, so it imports nothing heavy.
"""

import contextlib
import os
import runpy
import sys
from collections.abc import Sequence

from cjepa_jax import __version__
from cjepa_jax.errors import ConfigError, did_you_mean

COMMANDS = {  # the words of a command: its module and what it does
    "train": ("cjepa_jax.train", "train what a config describes, or resume its run"),
    "evaluate": ("cjepa_jax.evaluate", "score a checkpoint by a config's protocols"),
    "planning": ("cjepa_jax.planning", "play the tasks of a world by planning with a trained model"),
    "compare": ("cjepa_jax.compare", "train and score the methods of a suite at equal compute"),
    "export": ("cjepa_jax.export", "write a model for PyTorch, timm or ONNX"),
    "doctor": ("cjepa_jax.doctor", "diagnose a run's folder"),
    "report": ("cjepa_jax.report", "rebuild a run's report.html"),
    "bench": ("cjepa_jax.bench", "time the training step of a config on this machine"),
    "kernel": ("cjepa_jax.bench.kernel", "compile an attention kernel for this CPU (optional)"),
    "scaling": ("cjepa_jax.bench.scaling", "estimate what a step costs on many chips"),
    "launch": ("cjepa_jax.launch", "put a run onto SLURM, Cloud TPU or SkyPilot"),
    "extract": ("cjepa_jax.extract", "write the slots of videos by a slot encoder"),
    "data build": ("cjepa_jax.data.build", "write a simulated world to disk"),
    "data inspect": ("cjepa_jax.data.inspect", "read every scene of a config. Say what is wrong and what to set"),
    "data show": ("cjepa_jax.data.show", "draw scenes of a config beside their counterfactuals"),
    "data segment": ("cjepa_jax.data.segment", "segment images into instance maps"),
    "data bench": ("cjepa_jax.data.bench", "time the scenes of a config"),
}


def script() -> int:
    """The console script. Modules in the working directory can be imported, as under `python -m`."""
    if not sys.flags.safe_path:
        with contextlib.suppress(FileNotFoundError):  # it has been deleted, so nothing in it can be imported
            sys.path[0] = os.getcwd()
    return main(sys.argv[1:])


def main(argv: Sequence[str]) -> int:
    """Runs the command that `argv` begins with, as `python -m` does. The command ends the process.

    Returns the exit code 0 of --help and --version, 2 of an unknown command.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"cjepa_jax {__version__}")
        return 0
    try:
        words = split(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    module, _ = COMMANDS[words]
    sys.argv[1:] = argv[len(words.split()) :]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def split(argv: Sequence[str]) -> str:
    """The words at the beginning of `argv` that are a command. Raises ConfigError, with the nearest command."""
    for length in (2, 1):
        if (words := " ".join(argv[:length])) in COMMANDS:
            return words
    group = [name for name in COMMANDS if name.startswith(f"{argv[0]} ")]
    if group and (len(argv) == 1 or argv[1].startswith("-")):
        raise ConfigError(f"{argv[0]}: must be followed by {' or '.join(name.split()[1] for name in group)}")
    typed = " ".join(argv[: 2 if group else 1])
    raise ConfigError(f"{typed}: there is no such command{did_you_mean(typed, group or COMMANDS)}")


def usage() -> str:
    """The text of --help: every command with a line of what it does."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"    {name:{width}}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: cjepa COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "cjepa COMMAND --help tells more. Each is also a module: python -m cjepa_jax.COMMAND",
        ]
    )
