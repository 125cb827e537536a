"""Imports go down only, JAX and flax stay where they belong. Read from the sources, so nothing is imported."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "cjepa_jax"
FLOORS = {
    0: "types build errors sizes door seeds catalogue clock paths memory",
    1: "losses positions schedules optim sharding checkpoint metrics window config config_files workdir masks signals"
    " timing processes watchdog manifest trees goodput alarms weights foreign"
    " ending",
    2: "models data",
    3: "objectives",
    4: "evals",
    5: "train_step",
    6: "experiment",
    7: "restored opened initial",
}
TOP = 8  # entry points and what only they use: whatever is not named above
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
HOST_ONLY = (
    "data",
    "masks",
    "config",
    "config_files",
    "cli",
    "ending",
    "clock",
    "paths",
    "memory",
    "build",
    "door",
    "catalogue",
    "foreign",
    "errors",
    "workdir",
    "signals",
    "watchdog",
    "goodput",
    "weights",
    "seeds",
)  # run without starting JAX
TORCH = ("weights/pickled.py", "exporting/modeling_cjepa.py", "exporting/onnx.py")  # PyTorch is theirs alone
COMMANDS = ("data/build.py", "data/segment.py", "data/show.py", "data/bench.py")  # entry points, beside what they serve
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file):
    """Dotted names that a file imports, "package.module" and "package.module.name" alike, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit(file):
    """The file's own name at the package's root, or its folder's."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    own = unit(file)
    if own == "__init__":
        assert not imports(file)
        return
    for name in imports(file):
        package, *rest = name.split(".")
        assert package not in ("configs", "tests") and rest[:1] not in (["configs"], ["launch"]), (
            f"{file} imports {name}"
        )
        if package == "cjepa_jax" and rest and rest[0] != "__version__":
            other = rest[0]
            floor = TOP if str(file.relative_to(PACKAGE)) in COMMANDS else FLOOR.get(own, TOP)
            down = FLOOR.get(other, TOP) < floor or (floor == TOP and other == "cli")
            assert down or other == own or _siblings(own, other), f"{own} imports {other}"


def _siblings(own, other):
    """On one floor, files of the root may use each other; models/ and data/ may not."""
    return FLOOR.get(own, TOP) == FLOOR.get(other, TOP) and not {own, other} & {"models", "data"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_flax_in_models_only_and_no_jax_on_the_host_side(file):
    packages = {name.split(".")[0] for name in imports(file)}
    if unit(file) != "models":
        assert "flax" not in packages
    if unit(file) in HOST_ONLY:
        assert not packages & {"jax", "jaxlib", "optax", "orbax"}
    if str(file.relative_to(PACKAGE)) not in TORCH:
        assert not packages & {"torch", "tensorflow", "transformers", "onnx", "onnxruntime"}


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.py")), ids=lambda file: file.name)
def test_configs_import_only_ml_collections_and_configs(file):
    kinds = {
        "cjepa_jax.configs" if name.startswith("cjepa_jax.configs.") else name.split(".")[0] for name in imports(file)
    }
    assert kinds <= {"ml_collections", "cjepa_jax.configs"}


def test_models_and_data_do_not_know_each_other():
    for own, other in (("models", "data"), ("data", "models"), ("evals", "models")):
        for file in (PACKAGE / own).rglob("*.py"):
            assert not any(name.startswith(f"cjepa_jax.{other}") for name in imports(file)), file
