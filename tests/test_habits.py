"""What surrounds the code: ignored outputs, pinned tools, workflows that call stages that exist, strict modules. And
habits of the code itself: short functions, and few files between a newcomer and the method."""

import ast
import pathlib
import re
import subprocess
import tomllib

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
DOCS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.py")]
WRITTEN = re.compile(r"(?:--(?:out|workdir|records)|cache)=([a-z][\w./-]*)")


PACKAGE = sorted((ROOT / "cjepa_jax").rglob("*.py"))
FIRST_READING = (  # from the front page to a masked token
    "README.md", "configs/vitl.py", "cjepa_jax/train.py", "cjepa_jax/train_step.py", "cjepa_jax/objectives/jepa.py",
    "cjepa_jax/masks/objects.py", "cjepa_jax/models/encoder.py",
)  # fmt: skip
MOST_TO_READ, MOST_OF_A_FUNCTION, MOST_OF_A_FILE = 900, 60, 400  # lines
MOST_POSITIONAL = 5  # arguments of a call, a starred one counted once


def outputs():
    """What commands in the docs and in the configs' docstrings write into the working directory."""
    found = {path for file in DOCS for path in WRITTEN.findall(file.read_text())}
    assert {"ramps.png", "data/balls", "runs/tiny"} <= found
    return sorted(path for path in found if not path.startswith("docs/"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_what_the_docs_commands_write_leaves_the_clone_clean():
    asked = subprocess.run(["git", "check-ignore", *outputs()], cwd=ROOT, capture_output=True, text=True)
    assert set(outputs()) - set(asked.stdout.split()) == set()
    kept = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert kept.stdout == "", "files of the repository are ignored"


def test_the_tools_of_pre_commit_are_those_of_the_extra():
    pinned = set(re.findall(r'"(\w+==[\d.]+)"', (ROOT / "setup.py").read_text()))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = {tool for hook in hooks for tool in hook["additional_dependencies"]}
    assert tools and tools <= pinned


@pytest.mark.parametrize("file", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda file: file.stem)
def test_workflows_call_stages_of_ci(file):
    stages = re.search(r"^all=\((.*)\)", (ROOT / ".ci/run").read_text(), flags=re.M)[1].split()
    jobs = yaml.safe_load(file.read_text())["jobs"].values()
    called = {stage for job in jobs for stage in job["strategy"]["matrix"]["stage"]}
    assert called and called <= set(stages)


def test_the_modules_that_are_checked_strictly_exist():
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    (strict,) = [section["module"] for section in overrides if section.get("disallow_untyped_defs")]
    for name in strict:
        path = ROOT.joinpath(*name.removesuffix(".*").split("."))
        assert path.is_dir() if name.endswith(".*") else path.with_suffix(".py").is_file(), name
    for name in ("losses", "masks", "positions", "schedules", "types", "build"):
        assert any(name in module.split(".") for module in strict), name


def test_the_first_reading_is_short():
    lines = {file: len((ROOT / file).read_text().splitlines()) for file in FIRST_READING}
    assert sum(lines.values()) <= MOST_TO_READ, lines
    assert lines["cjepa_jax/train.py"] < 130 and lines["cjepa_jax/train_step.py"] < 100, lines


@pytest.mark.parametrize("file", PACKAGE, ids=lambda file: str(file.relative_to(ROOT)))
def test_functions_and_files_are_short(file):
    text = file.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: lines for name, lines in long.items() if lines > MOST_OF_A_FUNCTION}
    assert len(text.splitlines()) <= MOST_OF_A_FILE


def test_no_call_passes_six_positional_arguments():
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in (*PACKAGE, *(ROOT / "examples").glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and len(node.args) > MOST_POSITIONAL
    ]
    assert not found, found
