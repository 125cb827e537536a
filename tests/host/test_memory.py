"""What needs more memory than there is, is refused before anything is allocated."""

import dataclasses
import os
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from cjepa_jax import experiment
from cjepa_jax.data import worlds
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import memory
from cjepa_jax.sharding import make_mesh
from tests import run_folders
from tests.data.test_pipeline import loader


def test_amounts_in_words():
    for count, text in ((0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (16 * 2**40, "16.0 TiB")):
        assert memory.in_words(count) == text
    assert memory.in_words(2.0**90).endswith(" EiB")


def test_only_what_cannot_be_is_refused(monkeypatch):
    memory.require(memory.total(), "a batch")
    with pytest.raises(ConfigError, match="^a batch takes 4.0 EiB of memory or more, and there are .* GiB$"):
        memory.require(2**62, "a batch")
    with pytest.raises(ConfigError, match="takes 2.0 KiB of memory or more, and there are 1.0 KiB"):
        memory.require(2048, "a batch", 1024)


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "GROUPS", (str(limit),))
    machine = memory.total()
    limit.write_text("max\n")
    assert memory.total() == machine > 2**28
    limit.write_text("65536\n")
    assert memory.total() == 65536


def test_scenes_and_batches_that_cannot_be_are_named_by_their_keys():
    with pytest.raises(ConfigError, match="data.size = 8000000 with data.frames = 16: one scene takes .* PiB"):
        worlds.Balls(size=8_000_000, frames=16)
    with pytest.raises(ConfigError, match="data.frames = 4000000000: one scene takes"):
        worlds.Balls(size=64, frames=4_000_000_000)
    one = loader()
    with pytest.raises(ConfigError, match="train.batch = 1000000000000, data.size = .*: a batch takes"):
        dataclasses.replace(one, batch=10**12)
    with pytest.raises(ConfigError, match="data.max_objects = 1000000000000: a batch takes"):
        dataclasses.replace(one, scenes=dataclasses.replace(one.scenes, max_objects=10**12))


def test_a_model_that_cannot_be_is_refused():
    mesh = make_mesh(run_folders.config().sharding, 8, 1)
    state = {"small": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    experiment._require_memory(state, mesh)
    state |= {"large": jax.ShapeDtypeStruct((2**30, 2**20), jnp.bfloat16)}
    with pytest.raises(
        ConfigError, match="objective: parameters and optimiser's state takes 2.0 PiB of memory or more"
    ):
        experiment._require_memory(state, mesh)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_processes_that_start_inside_have_the_allocators_settings(monkeypatch):
    monkeypatch.delenv(memory.TUNABLES, raising=False)
    seen = [sys.executable, "-c", f"import os; print(os.environ.get({memory.TUNABLES!r}))"]

    def started():
        return subprocess.run(seen, capture_output=True, text=True).stdout.strip()

    with memory.heaps_kept():
        assert started() == memory.ALLOCATOR
    assert started() == "None"
    for given, inside in (
        ("glibc.malloc.check=0", f"glibc.malloc.check=0:{memory.ALLOCATOR}"),
        ("glibc.malloc.hugetlb=2", "glibc.malloc.hugetlb=2"),  # the user's choice
    ):
        monkeypatch.setenv(memory.TUNABLES, given)
        with memory.heaps_kept():
            assert os.environ[memory.TUNABLES] == inside
        assert os.environ[memory.TUNABLES] == given


HOLES = """
import ctypes, sys
from cjepa_jax.host import memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = memory._Info
below = lambda: libc.mallinfo2().fordblks - libc.mallinfo2().keepcost
before = below()
large = libc.malloc(8 << 20)
pieces = [libc.malloc(5000 + 40 * (i % 1000)) for i in range(8000)]
for i, piece in enumerate(pieces):
    ctypes.memset(piece, i % 251, 5000)
for piece in [*pieces[::2], large]:
    libc.free(piece)
left = below() - before
taken = memory.set_aside()
whole = all(ctypes.string_at(piece, 5000) == bytes([(2 * i + 1) % 251]) * 5000 for i, piece in enumerate(pieces[1::2]))
print(left >> 20, taken >> 20, (below() - before) >> 20, whole, memory.set_aside() >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc here")
@pytest.mark.parametrize("settings", [memory.ALLOCATOR, ""])
def test_small_holes_of_the_heap_are_set_aside_and_what_is_used_stays(settings):
    """4,000 holes of 5 to 45 KB between pieces that are used, and one of 8 MiB, which may be used again."""
    environment = os.environ | {memory.TUNABLES: settings}
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, env=environment)
    assert not done.stderr
    left, taken, below, whole, again = done.stdout.split()
    assert whole == "True" and 90 <= int(left) <= 120
    if settings:
        assert 80 <= int(taken) <= 110 and 6 <= int(below) <= 12 and int(again) <= 1
    else:
        assert taken == again == "0" and below == left
