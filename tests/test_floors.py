"""Imports go down only and never in a circle. JAX and flax stay where they belong. Read from the sources with ast."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "cjepa_jax"
FLOORS = {
    1: "types errors losses positions schedules optim sharding masks configuration host numerics",
    2: "models data weights runtime",
    3: "objectives",
    4: "evals planning",
    5: "train_step microbatch experiment loading reports monitors",
}
TOP = 6  # commands, the API, and the folders that serve one command: everything not named above
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
HIGHER = {"runtime/loop.py": 5}  # files above their folder's floor
HIGHER |= dict.fromkeys((f"planning/{name}.py" for name in ("__main__", "players", "slot_encoder")), 6)
COMMANDS = (
    "data/build.py",
    "data/segment.py",
    "data/show.py",
    "data/bench.py",
    "data/inspect.py",
    "data/slot_files.py",
)
STRANGERS = ({"models", "data"}, {"evals", "models"}, {"planning", "models"})  # they do not know each other
HOST_ONLY = ("data", "masks", "configuration", "host", "weights", "cli.py", "errors.py") + tuple(
    f"runtime/{name}.py"
    for name in (*("command", "ending", "foreign", "goodput", "preemption", "run_manifest", "watchdog", "workdir"),)
)  # run without starting JAX
LATE_JAX = ("runtime/run_manifest.py",)  # import it inside a function, for the trainer only
TORCH = ("weights/torch_pickle.py", "export/modeling_cjepa.py", "export/onnx.py")  # PyTorch is theirs alone
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_IN_THE_ROOT = 16  # files, without aliases of five lines


def module(file):
    """The file's dotted name below the package; "" for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


@functools.cache
def imports(file):
    """Dotted names that a file imports, anywhere in it: "package.module" and "package.module.name" alike."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(file):
    """Modules of the package that a file imports."""
    names = {name.removeprefix("cjepa_jax").lstrip(".") for name in imports(file) if name.split(".")[0] == "cjepa_jax"}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} - {""}


def floor(name):
    """The floor of a module, by its file or by its first folder."""
    file = str(MODULES[name].relative_to(PACKAGE))
    return TOP if file in COMMANDS else HIGHER.get(file, FLOOR.get(name.split(".")[0], TOP))


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down_only(name):
    used = uses(MODULES[name])
    strangers = ("configs", "tests", "launch", "cjepa_jax.configs", "cjepa_jax.launch")
    assert not [other for other in imports(MODULES[name]) if f"{other}.".startswith(tuple(f"{s}." for s in strangers))]
    above = sorted(other for other in used if floor(other) > floor(name))
    assert not above, f"{name} (floor {floor(name)}) imports {above}"
    for pair in STRANGERS:
        unit, others = name.split(".")[0], {other.split(".")[0] for other in used}
        assert not (unit in pair and others & (pair - {unit}) and (unit, "models") != ("objectives", "models")), name


def test_the_package_imports_nothing_heavy():
    assert not {name.split(".")[0] for name in imports(PACKAGE / "__init__.py")} - {"cjepa_jax"}


def test_no_imports_in_a_circle():
    """Modules that use nothing that is left, or that nothing left uses, are removed again and again."""
    left = {name: (uses(file) & MODULES.keys()) - {name} for name, file in MODULES.items()}
    while True:
        used = set().union(*left.values())
        ends = [name for name, own in left.items() if not own & left.keys() or name not in used]
        if not ends:
            break
        left = {name: own - set(ends) for name, own in left.items() if name not in ends}
    assert not left, f"circles among {sorted(left)}"


def test_the_root_holds_what_a_method_is_made_of_and_what_is_run():
    long = [file.name for file in PACKAGE.glob("*.py") if len(file.read_text().splitlines()) > 6]
    assert len(long) <= MOST_IN_THE_ROOT, sorted(long)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_flax_in_models_only_and_no_jax_on_the_host_side(file):
    own = str(file.relative_to(PACKAGE))
    packages = {name.split(".")[0] for name in imports(file)}
    if own.split("/")[0] != "models":
        assert "flax" not in packages
    host = tuple(name if name.endswith(".py") else f"{name}/" for name in HOST_ONLY)
    if own.startswith(host) and own not in LATE_JAX:
        assert not packages & {"jax", "jaxlib", "optax", "orbax"}
    if own not in TORCH:
        assert not packages & {"torch", "tensorflow", "transformers", "onnx", "onnxruntime"}


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.py")), ids=lambda file: file.name)
def test_configs_import_only_ml_collections_and_configs(file):
    kinds = {
        "cjepa_jax.configs" if name.startswith("cjepa_jax.configs.") else name.split(".")[0] for name in imports(file)
    }
    assert kinds <= {"ml_collections", "cjepa_jax.configs"}
