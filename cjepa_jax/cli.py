"""The command line of every entry module: `--config=FILE`, `--config.a.b=value`, `--workdir`, `--log`.

An entry module begins like this. It is imported, with JAX, only after the command line and the config were checked:

    if __name__ == "__main__":
        from cjepa_jax import cli
        raise SystemExit(cli.run("cjepa_jax.train"))

    import jax

    def main(config, workdir): ...
"""

import ast
import functools
import gc
import importlib
import importlib.util
import logging
import os
import pathlib
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

from cjepa_jax.configuration import check as config_lib
from cjepa_jax.configuration import locate
from cjepa_jax.errors import ConfigError, did_you_mean, one_line
from cjepa_jax.host import cpu, memory, paths
from cjepa_jax.runtime import foreign, preemption
from cjepa_jax.runtime.ending import (  # noqa: F401 (for the commands)
    Parser,
    guard,
    line_of,
    path_argument,
    storage_error,
)

if TYPE_CHECKING:
    from cjepa_jax.weights.read import Reading

TRUST = "your own packages that a run's folder may name for its masks, source, objective, monitors and protocols"
Complete = Callable[[ConfigDict, Callable[[str], str], Callable[[str], ConfigDict]], ConfigDict]
LEVELS = config_lib.CHOICES["log.level"]
UNREADABLE = (flags.Error, ValueError, TypeError, AttributeError, KeyError, SyntaxError, RecursionError, MemoryError)
_defined: set[str] = set()  # the flags that `parse` has defined in this process
ACCELERATORS = ("nvidia[0-9]*", "accel*", "vfio/[0-9]*", "kfd", "dxg")  # files in /dev: NVIDIA, TPU (two), AMD, WSL


def run(module_name: str, extra_flags: Callable[[], None] | None = None, complete: Complete | None = None) -> int:
    """Parses sys.argv, then calls `main(config, workdir)` of the module and returns the process's exit code.

    Args:
      module_name: the module whose `main` runs; it returns None (0) or an exit code.
      extra_flags: defines further absl flags; `main` reads them from `absl.flags.FLAGS`.
      complete: see `parse`.

    Every problem is one line on stderr, "error: ...", and the exit code of its class (`cjepa_jax/errors.py`):
    2 for the command line and the config. A fault in the program itself keeps its traceback.
    """

    preemption.end_with_parent()

    def work() -> int:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(_usage(extra_flags))
            return 0
        config, workdir = parse(sys.argv, extra_flags, complete)
        set_up_logging(config.log.level)
        restart_with_huge_pages(module_name)
        prepare_process()
        main = importlib.import_module(module_name).main
        gc.freeze()  # what is imported stays: looking through it again and again takes a twentieth of a start
        return main(config, workdir) or 0

    return guard(work)


def parse(
    argv: list[str], extra_flags: Callable[[], None] | None = None, complete: Complete | None = None
) -> tuple[ConfigDict, str]:
    """The checked, locked config and the run folder.

    The flags are absl's own, because Grain's worker processes look for parsed absl flags.

    Args:
      complete: makes a whole config of what the file says, before the command line's overrides. Its arguments are the
        file's config, a function that gives the text of a flag ("" if it is not given), and one that loads a config.
    Raises ConfigError for every fault in the command line, the config file or a value.
    """
    _define_flags(extra_flags)
    word = _config_word(argv)
    file = locate.find(word)
    config = _load(word)
    if complete:
        config = complete(config, functools.partial(_word, argv), _load)
        flags.FLAGS["config"].parser = _Ready(config)
    if "log" not in config:
        raise ConfigError(f"--config={word}: the section log is missing: start from vitl.get_config()")
    _check_overrides(config, argv)
    source = _source(config)
    try:
        rest = flags.FLAGS(_with_file(argv, word, file))[1:]
    except UNREADABLE as error:
        raise ConfigError(paths.shown(line_of(error).removeprefix("flag "), 500)) from error
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r}: write --flag=value")
    config = flags.FLAGS.config
    if _source(config) != source and not any(re.match(r"--?config\.data\.options\b", word) for word in argv):
        with config.unlocked():
            config.data.options = ConfigDict()  # they are of the source that the command line replaces
    if flags.FLAGS.log:
        config.log.level = flags.FLAGS.log
    config_lib.check(config)
    folder = f"runs/{file.stem}" if flags.FLAGS.workdir is None else flags.FLAGS.workdir
    return config, str(paths.given(folder, "--workdir"))


def _source(config: ConfigDict) -> str | None:
    return getattr(config.get("data"), "source", None)


def _define_flags(extra_flags: Callable[[], None] | None) -> None:
    """A command's flags; absl defines a flag once, so those of an earlier call in this process are forgotten first."""
    for name in [name for name in flags.FLAGS if name.split(".")[0] in _defined]:
        delattr(flags.FLAGS, name)
    before = set(flags.FLAGS)
    try:
        config_flags.DEFINE_config_file("config", None, "the experiment's config: a file, or a name such as tiny")
    except UNREADABLE as error:  # it already reads the files of absl's --flagfile
        raise ConfigError(f"--flagfile: {paths.shown(line_of(error), 500)}") from error
    flags.DEFINE_string("workdir", None, "the run's folder. Default: runs/<name of the config file>")
    flags.DEFINE_enum("log", None, LEVELS, "how much to print. Overrides log.level of the config")
    flags.DEFINE_string("trust", "", f"{TRUST}, with commas between")
    if extra_flags:
        extra_flags()
    _defined.update(set(flags.FLAGS) - before)


def trust() -> tuple[str, ...]:
    """The packages that --trust names. Raises ConfigError for an invalid name."""
    return foreign.trusted(flags.FLAGS.trust if "trust" in flags.FLAGS else "")


READING = {  # flags about published weights -> field of weights.read.Reading, default, help
    "from-layout": ("layout", "", "of published weights that do not show it: ijepa, vjepa, vjepa2, vjepa2.1 or timm"),
    "from-heads": ("heads", 0, "attention heads of a published encoder of an unpublished width"),
    "from-frames": ("frames", 0, "frames of the clips that published positions are for"),
    "from-images": ("images", False, "published weights of clips: converted to an encoder of images"),
    "from-levels": ("levels", False, "V-JEPA 2.1: all levels and the predictor, not its last level as a plain encoder"),
}


def define_reading() -> None:
    """Defines the flags of READING."""
    for name, (_, default, text) in READING.items():
        kind = {str: flags.DEFINE_string, int: flags.DEFINE_integer, bool: flags.DEFINE_boolean}[type(default)]
        kind(name, default, text)


def reading() -> "Reading":
    """What the flags of READING say. Their defaults if the command does not define them."""
    from cjepa_jax.weights.read import Reading

    given = {field: flags.FLAGS[name].value for name, (field, _, _) in READING.items() if name in flags.FLAGS}
    return Reading(**given)


def _usage(extra_flags: Callable[[], None] | None) -> str:
    _define_flags(extra_flags)
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), ""]
    skip = set(flags.FLAGS.flags_by_module_dict().get("absl.logging", []))
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.split(".")[0] not in ("absl", "grain"):
            lines += [f"  --{flag.name}: {flag.help}" for flag in defined if flag not in skip]
    return "\n".join([*lines, "  --config.a.b=value: overrides a value of the config file"])


class _Ready(flags.ArgumentParser):
    """Gives a config that was already completed, instead of loading its file."""

    def __init__(self, config: ConfigDict):
        self.config = config

    def parse(self, argument: str) -> ConfigDict:
        return self.config


def _word(argv: list[str], flag: str) -> str:
    """The text of a flag before flags are parsed; "" if it is not given."""
    found = ""
    for index, word in enumerate(argv):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == flag:
            found = value if equals else "".join(argv[index + 1 : index + 2])
    return found


def _config_word(argv: list[str]) -> str:
    """What --config names."""
    path = _word(argv, "config")
    if not path:
        raise ConfigError("--config is missing: name a config, such as --config=tiny, or your own config file")
    if ":" in path:
        raise ConfigError(f"--config={path}: configs take no argument after ':'")
    return path


def _with_file(argv: list[str], word: str, file: pathlib.Path) -> list[str]:
    """The command line with the config's file instead of its name."""
    changed, after_flag = [], False
    for text in argv:
        if after_flag and text == word:
            text = str(file)
        elif text in (f"-config={word}", f"--config={word}"):
            text = f"--config={file}"
        after_flag = text in ("-config", "--config")
        changed.append(text)
    return changed


def _load(word: str) -> ConfigDict:
    """The config that its file returns. A config file is a program, so every exception is reported in one line."""
    file = locate.find(word)
    locate.make_importable(file)
    try:
        spec = importlib.util.spec_from_file_location("config", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "configs"
        hint = ". The package's own are cjepa_jax.configs" if missing else ""
        raise ConfigError(f"--config={word}: {line_of(error)}{hint}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"--config={word}: get_config() must return a ConfigDict, not {type(config).__name__}")
    return config


def _check_overrides(config: ConfigDict, argv: list[str]) -> None:
    keys = [key for key, _ in config_lib.flatten(config)]
    sections = {".".join(key.split(".")[:depth]) for key in keys for depth in (1, 2)} | {"data.options"}
    for word in argv:
        match = re.match(r"--?(?:no)?config\.([^=]*)", word)
        key = match[1] if match else ""
        if not match or key in keys or key in sections:
            continue
        if key.startswith("data.options."):
            raise ConfigError(f"--config.{key}: write --config.data.options={_as_dict('data.options', [word])}")
        section = key.rpartition(".")[0]
        if f"{section}.type" in keys and any(re.match(rf"--?config\.{section}\.type=", other) for other in argv):
            whole = f"--config.{section}={_as_dict(section, argv)}"
            raise ConfigError(f"--config.{key}: unknown key. A section of another type is given as a whole: {whole}")
        same_leaf = [other for other in keys if other.split(".")[-1] == key.split(".")[-1]]
        raise ConfigError(f"--config.{key}: unknown key{did_you_mean(key, same_leaf or keys)}")


def _as_dict(section: str, argv: list[str]) -> str:
    """The values that the command line gives to keys of a section, as a dictionary in the quotes of a shell."""
    found = (re.match(rf"--?config\.{section}\.([^=]+)(?:=(.*))?$", word, re.DOTALL) for word in argv)
    pairs = (f"{match[1]!r}: {_literal(match[2]) if match[2] else 'value'}" for match in found if match)
    text = f"{{{', '.join(pairs)}}}"
    return shlex.quote(text) if set(text) & set('"$`\\') else f'"{text}"'


def _literal(text: str) -> str:
    """A value as Python writes it: a text that is not a number, a tuple or another literal in quotes."""
    try:
        return repr(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return repr(text)


def set_up_logging(level: str) -> None:
    """Python logging to stderr. Messages of libraries are silenced, except at level debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lowercase("%(levelname)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for library in ("jax", "matplotlib"):
            logging.getLogger(library).setLevel(logging.WARNING)
        # Orbax and Grain log through absl, also the traceback of each error that they raise. asyncio logs each failed
        # write of a checkpoint. The error itself is reported once, by `guard`.
        for library in ("absl", "asyncio"):
            logging.getLogger(library).setLevel(logging.CRITICAL)


class _Lowercase(logging.Formatter):
    """ "warning: ..." rather than "WARNING: ...". Renaming the levels would break JAX's flags.

    Messages of this package may quote foreign files, so they are made one line without control characters.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        if record.name.partition(".")[0] == "cjepa_jax":
            record.message = one_line(record.message)
        return super().formatMessage(record)


def prepare_process() -> None:
    """Process settings that must precede JAX's threads and the spawning of data workers."""
    # A spawned data worker imports its parent's __main__ again, and thereby JAX, which it does not need. It imports
    # nothing if __main__ has no spec and no file.
    main = sys.modules["__main__"]
    main.__spec__ = None
    if hasattr(main, "__file__"):
        del main.__file__
    # Python's tracker frees the shared memory of a killed data worker. Its warning does not concern the user.
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker")))
    sys.unraisablehook = _report_unraisable
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # Orbax, when the disk is full
    keep_compiled_code()


def keep_compiled_code(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets JAX's compilation cache, so that the next run with the same shapes starts sooner.

    The folder is cjepa_jax/compiled in $XDG_CACHE_HOME or ~/.cache. A JAX_COMPILATION_CACHE_DIR that is set, even to
    "", is not changed. Without a writable home there is no cache.
    """
    folder = None if "JAX_COMPILATION_CACHE_DIR" in environment else cpu.folder("compiled", environment)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK | os.X_OK):
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)


def restart_with_huge_pages(module_name: str) -> None:
    """Executes this command again, in the same process, with the settings of host/memory.py's ALLOCATOR.

    XLA:CPU allocates its scratch memory again at each step. For configs/tiny.py this causes some 90,000 page faults a
    step with pages of 4 KiB, 300 with huge pages, and none if the heap keeps the memory, which saves up to a fifth of a
    step. glibc reads its settings only when a process starts. Does nothing if there is an accelerator, outside Linux,
    unless the command was `python -m module_name`, or if GLIBC_TUNABLES already sets huge pages.
    """
    typed = getattr(sys.modules["__main__"].__spec__, "name", None) == module_name
    wanted = memory.tunables(os.environ.get(memory.TUNABLES, ""))
    if wanted is None or not typed or not runs_on_cpu():
        return
    os.environ[memory.TUNABLES] = wanted
    preemption.hold_back()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def runs_on_cpu(environment: Mapping[str, str] = os.environ, devices: str = "/dev") -> bool:
    """Whether JAX, which is not imported yet, will compute on the CPU.

    True if JAX_PLATFORMS names the CPU first, or if it is not set and no accelerator is found.
    """
    wanted = environment.get("JAX_PLATFORMS")
    if wanted:
        return wanted.split(",")[0].strip().lower() == "cpu"
    found = (name for pattern in ACCELERATORS for name in pathlib.Path(devices).glob(pattern))
    ours = "TPU_SKIP_MDS_QUERY"  # JAX sets it itself, wherever it is imported
    told = (name for name in environment if name.startswith("TPU_") and name != ours)
    return next(found, None) is None and next(told, None) is None


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    # If the write of one array fails, one of these is reported for each array that is still being written.
    text = str(unraisable.exc_value)
    if text != "Event loop is closed" and not re.fullmatch("TaskGroup .* is shutting down", text, re.DOTALL):
        sys.__unraisablehook__(unraisable)
