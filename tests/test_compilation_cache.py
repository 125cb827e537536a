"""Where compiled code is kept, when it cannot be, and that a second process uses it."""

import os
import subprocess
import sys

import pytest

from cjepa_jax import cli
from tests import running

NAME = "JAX_COMPILATION_CACHE_DIR"


def chosen(**environment):
    cli.keep_compiled_code(environment)
    return environment.get(NAME)


def test_it_is_kept_in_the_users_cache_by_kind_of_cpu(tmp_path):
    under_home = chosen(HOME=str(tmp_path))
    assert under_home.startswith(f"{tmp_path}/.cache/cjepa_jax/compiled/") and os.path.isdir(under_home)
    assert chosen(HOME=str(tmp_path)) == under_home
    assert chosen(HOME="/nowhere", XDG_CACHE_HOME=str(tmp_path / "x")).startswith(f"{tmp_path}/x/cjepa_jax/compiled/")
    assert chosen(HOME=str(tmp_path), XDG_CACHE_HOME="relative") == under_home


def test_the_environment_wins(tmp_path):
    assert chosen(HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR="/elsewhere") == "/elsewhere"
    assert chosen(HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR="") == ""
    assert not list(tmp_path.iterdir())


def test_without_a_place_nothing_is_kept(tmp_path):
    assert chosen() is None and chosen(HOME="") is None and chosen(HOME="relative") is None
    (tmp_path / "file").touch()
    assert chosen(HOME=str(tmp_path / "file")) is None


def test_an_older_cpu_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    here = chosen(HOME=str(tmp_path))
    monkeypatch.setattr(cli.pathlib.Path, "read_text", lambda path: "flags : fpu sse2\n")
    there = chosen(HOME=str(tmp_path))
    assert there != here and os.path.dirname(there) == os.path.dirname(here)


SCRIPT = """
from cjepa_jax import cli
cli.prepare_process()
import jax
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
print(float(jax.jit(lambda x: jax.numpy.cos(x).sum())(jax.numpy.ones(8))), len(hits) > 0)
"""


@pytest.mark.slow
def test_a_second_process_loads_instead_of_compiling(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != NAME} | {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": "",
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def outcome():
        argv = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(argv, cwd=running.ROOT, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    first, second = outcome(), outcome()
    assert first[1] == "False" and list(tmp_path.glob(".cache/cjepa_jax/compiled/*/jit_*"))
    assert second == [first[0], "True"]
