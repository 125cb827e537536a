"""Settings that must stand before JAX starts: eight CPU devices, quick compilation, shapes checked at every call."""

import os

from tests import QUICK

os.environ["JAX_PLATFORMS"] = "cpu"
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count=8 {QUICK}".strip()

import gc
import importlib.util

import jax
import pytest
from absl import flags
from jaxtyping import install_import_hook

from tests import running
from tests.launch import cluster

assert jax.device_count() == 8  # JAX has read the flags;
os.environ["XLA_FLAGS"] = given  # commands that tests start run as a user's do
flags.FLAGS.mark_as_parsed()
# Every function annotated with shapes checks its arguments and its result; in production they cost nothing.
install_import_hook(
    ["cjepa_jax.losses", "cjepa_jax.positions", "cjepa_jax.masks", "cjepa_jax.models"], "beartype.beartype"
)


def pytest_addoption(parser):
    parser.addoption("--require", default="", help="optional packages, comma separated, without which nothing is run")
    parser.addoption("--needing", default="", help="run only tests that need one of these optional packages")


def _absent(package):
    """Why tests that need this optional package cannot run here, or ""."""
    if package == "phyre":
        named = os.environ.get("CJEPA_PHYRE_PYTHON")
        return "" if named else "CJEPA_PHYRE_PYTHON names no interpreter (docs/DATA.md)"
    if package == "slurm":
        return cluster.missing()
    return "" if importlib.util.find_spec(package) else "it is not installed"


def _names(config, option):
    return [name for name in config.getoption(option).split(",") if name]


def pytest_configure(config):
    for package in _names(config, "--require"):
        if reason := _absent(package):
            raise pytest.UsageError(f"--require={package}: {reason}")


def pytest_collection_finish():
    """What is imported by now stays: looking through it again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_collection_modifyitems(config, items):
    wanted = set(_names(config, "--needing"))
    if wanted:
        asked = {item: not wanted.isdisjoint(mark.args[0] for mark in item.iter_markers("needs")) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not asked[item]])
        items[:] = [item for item in items if asked[item]]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """running.finished, of which there is one for all files and workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    return running.finished(folder)


def pytest_runtest_setup(item):
    """`@pytest.mark.needs("package")` skips a test where an optional package is missing."""
    for mark in item.iter_markers("needs"):
        (package,) = mark.args
        if reason := _absent(package):
            pytest.skip(f"needs {package}: {reason}")
