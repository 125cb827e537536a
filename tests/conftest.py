"""Settings that must stand before JAX starts: eight CPU devices, quick compilation, shapes checked at every call."""

import faulthandler
import gc
import importlib.util
import os
import pathlib

import pytest

from tests import QUICK

pytest.register_assert_rewrite("cjepa_jax.data.worlds.promises")

# Files that take over ten seconds come first: none of them begins when the other worker has nothing left to do.
LONG = (
    "train resume jepa configs training evaluate three_steps encoder predictor effects bench train_step damage losses "
    "mae inspect parity export questions interventional cell world stored_sums"
).split()


def _prepare():
    """What must stand before a test module is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["CJEPA_CPU_KERNEL"] = "0"  # what this user has built would change the last digits
    given, blas = os.environ.get("XLA_FLAGS", ""), os.environ.get("OPENBLAS_NUM_THREADS")
    # Threads of OpenBLAS wait for work in a loop, on the core of pytest's other worker.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # until all is imported: nearly everything stays, and looking through it takes a third of the time
    os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count=8 {QUICK}".strip()

    import hypothesis
    import jax
    import scipy.linalg  # noqa: F401  # brings a second OpenBLAS, beside that of NumPy
    from absl import flags
    from jaxtyping import install_import_hook

    assert jax.device_count() == 8  # JAX has read the flags;
    os.environ["XLA_FLAGS"] = given  # commands that tests start run as a user's do
    if blas is None:
        del os.environ["OPENBLAS_NUM_THREADS"]
    flags.FLAGS.mark_as_parsed()
    # The same examples in every run, as every draw has a seed: a run that passes passes again.
    slow = [hypothesis.HealthCheck.too_slow]  # by the clock, so it fails where other work has the CPU
    hypothesis.settings.register_profile("same", derandomize=True, suppress_health_check=slow)
    hypothesis.settings.load_profile("same")
    if "PYTEST_XDIST_WORKER" in os.environ:
        _tell_of_its_end()
    # Every function annotated with shapes checks its arguments and its result. In production they cost nothing.
    install_import_hook(
        ["cjepa_jax.losses", "cjepa_jax.positions", "cjepa_jax.masks", "cjepa_jax.models"], "beartype.beartype"
    )


def _tell_of_its_end():
    """Makes os._exit print the stacks of this worker. A call by the code under test would end the worker silently."""
    own, stderr, end = os.getpid(), os.dup(2), os._exit  # what tests write to 2 is captured

    def tell(code):
        if os.getpid() == own and code:
            faulthandler.dump_traceback(stderr)
        end(code)

    os._exit = tell


def pytest_addoption(parser):
    parser.addoption("--require", default="", help="optional packages, comma separated, without which nothing is run")
    parser.addoption("--needing", default="", help="run only tests that need one of these optional packages")


def _absent(package):
    """Why tests that need this optional package cannot run here, or ""."""
    if package == "phyre":
        named = os.environ.get("CJEPA_PHYRE_PYTHON")
        return "" if named else "CJEPA_PHYRE_PYTHON names no interpreter (docs/DATA.md)"
    if package == "slurm":
        from tests.launch import cluster

        return cluster.missing()
    return "" if importlib.util.find_spec(package) else "it is not installed"


def _names(config, option):
    return [name for name in config.getoption(option).split(",") if name]


def pytest_configure(config):
    for package in _names(config, "--require"):
        if reason := _absent(package):
            raise pytest.UsageError(f"--require={package}: {reason}")
    if config.option.collectonly or not config.getoption("numprocesses", None):  # else its workers import the tests
        if "PYTEST_XDIST_WORKER" in os.environ and config.option.basetemp:
            os.environ["TESTS_COMPILED"] = str(pathlib.Path(config.option.basetemp).parent / "compiled")
        _prepare()


def _backwards():
    """Whether this is every other one of pytest's workers."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2 == 1


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Two workers look through the files from both ends. So each rewrites the assertions of half of them, and finds
    those of the rest already written."""
    report = yield
    if _backwards() and isinstance(collector, pytest.Directory):
        report.result.reverse()
    return report


def pytest_collection_finish():
    """What is imported by now stays: looking through it again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 10, 10)
    gc.enable()


def pytest_collection_modifyitems(config, items):
    wanted = set(_names(config, "--needing"))
    if wanted:
        asked = {item: not wanted.isdisjoint(mark.args[0] for mark in item.iter_markers("needs")) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not asked[item]])
        items[:] = [item for item in items if asked[item]]
    if "PYTEST_XDIST_WORKER" in os.environ:  # in the same order for all, which the workers take from
        items.sort(key=lambda item: (item.path.stem.removeprefix("test_") not in LONG, str(item.path)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """running.finished, of which there is one for all files and workers."""
    from tests import running

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
