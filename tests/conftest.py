"""Settings that must stand before JAX starts: eight CPU devices, quick compilation, shapes checked at every call."""

import os

from tests import QUICK

os.environ["JAX_PLATFORMS"] = "cpu"
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count=8 {QUICK}".strip()

import importlib.util

import jax
import pytest
from absl import flags
from jaxtyping import install_import_hook

assert jax.device_count() == 8  # JAX has read the flags;
os.environ["XLA_FLAGS"] = given  # commands that tests start run as a user's do
flags.FLAGS.mark_as_parsed()
# Every function annotated with shapes checks its arguments and its result; in production they cost nothing.
install_import_hook(
    ["cjepa_jax.losses", "cjepa_jax.positions", "cjepa_jax.masks", "cjepa_jax.models"], "beartype.beartype"
)


def pytest_addoption(parser):
    parser.addoption("--require", default="", help="optional packages, comma separated, whose tests must not skip")


def pytest_runtest_setup(item):
    """`@pytest.mark.needs("package")` skips a test where an optional package is missing, unless --require names it."""
    for mark in item.iter_markers("needs"):
        (package,) = mark.args
        if importlib.util.find_spec(package) is None:
            fail = package in item.config.getoption("--require").split(",")
            (pytest.fail if fail else pytest.skip)(f"needs {package}: pip install -e '.[{package}]'")
