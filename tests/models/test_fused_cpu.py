"""The compiled attention kernel for CPUs against plain products, and the command that builds it."""

import functools
import json
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import cli
from cjepa_jax.bench import kernel
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import cpu
from cjepa_jax.models import fused_cpu
from cjepa_jax.models.attention import attention, einsum, only
from cjepa_jax.runtime import run_manifest
from tests import running

pytestmark = pytest.mark.skipif(not any(map(shutil.which, kernel.COMPILERS)), reason="there is no C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def built(tmp_path_factory):
    """The kernel, compiled and known to this process. It is not where runs look for it."""
    file = kernel.compiled(tmp_path_factory.mktemp("kernel"))
    fused_cpu.register(file)
    return file


def some(*shapes, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def with_gradients(function, segments, q, k, v):
    out, backward = jax.vjp(lambda *qkv: function(*qkv, *segments), q, k, v)
    return out, *backward(jnp.cos(out))


def assert_equal(qkv, segments, atol):
    have, wanted = (
        jax.jit(functools.partial(with_gradients, function, segments))(*qkv) for function in (fused_cpu.fused, einsum)
    )
    for ours, theirs in zip(have, wanted, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), atol=atol)
    return have


@pytest.mark.parametrize("queries, keys, width", [
    (196, 196, 64), (1, 1, 1), (5, 33, 12), (97, 48, 16), (48, 97, 80), (7, 16, 100)
])  # fmt: skip
@pytest.mark.parametrize("dtype, atol", [("float32", 2e-6), ("bfloat16", 0.05)])
def test_it_is_the_same_function(queries, keys, width, dtype, atol):
    qkv = some((2, 3, queries, width), (2, 3, keys, width), (2, 3, keys, width), dtype=dtype)
    assert_equal(qkv, (), atol)
    rng = np.random.default_rng(1)
    segments = [jnp.asarray(rng.integers(0, 4, (2, length)), jnp.int32) for length in (queries, keys)]
    assert_equal(qkv, segments, atol)


def test_a_query_that_sees_no_key_gets_zeros_and_gives_none():
    qkv = some((1, 2, 4, 8), (1, 2, 5, 8), (1, 2, 5, 8))
    segments = jnp.array([[0, 1, 2, 9]]), jnp.array([[1, 2, 0, 1, 0]])
    out, to_q, to_k, to_v = assert_equal(qkv, segments, 2e-6)
    assert (out[:, :, [0, 3]] == 0).all() and (to_q[:, :, [0, 3]] == 0).all()
    assert (to_k[:, :, [2, 4]] == 0).all() and (to_v[:, :, [2, 4]] == 0).all()


def test_unseen_keys_change_no_bit_whatever_they_hold():
    q, k, v = some((1, 2, 7, 8), (1, 2, 20, 8), (1, 2, 20, 8))
    segments = jnp.ones((1, 7), jnp.int32), jnp.array([[1, 2] * 10])
    found = jax.jit(functools.partial(with_gradients, fused_cpu.fused, segments))
    here, there = found(q, k, v), found(q, k.at[:, :, 1::2].set(1e9), v.at[:, :, 1::2].set(-1e9))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_logits_do_not_overflow_and_small_ones_vanish():
    q, k, v = some((1, 1, 6, 16), (1, 1, 40, 16), (1, 1, 40, 16))
    out, *gradients = assert_equal((1e3 * q, 1e3 * k, v), (), 2e-3)
    assert all(np.isfinite(x).all() for x in (out, *gradients))


@pytest.mark.parametrize("spoilt", ["q", "k", "v", "overflow"])
def test_what_is_not_finite_shows(spoilt):
    qkv = some((1, 2, 7, 8), (1, 2, 20, 8), (1, 2, 20, 8))
    segments = jnp.array([[1, 1, 2, 2, 1, 0, 1]]), jnp.array([[1, 1, 1, 2] * 5])
    if spoilt == "overflow":
        qkv = [1e25 * qkv[0], 1e25 * qkv[1], qkv[2]]
    else:  # one query, or one key of segment 1, or its value
        at = "qkv".index(spoilt)
        qkv[at] = qkv[at].at[0, 0, 0, 0].set(jnp.nan)

    def parts(function):
        found = jax.jit(functools.partial(with_gradients, function, segments))(*qkv)
        return [np.asarray(x) for x in found]

    ours, theirs = parts(fused_cpu.fused), parts(einsum)
    assert np.isnan(ours[0]).any() and (np.isnan(ours[0]) >= np.isnan(theirs[0])).all()
    assert all(np.isnan(one).any() == np.isnan(other).any() for one, other in zip(ours, theirs, strict=True))


def test_ids_of_any_integer_type_and_of_all_scenes_at_once():
    qkv = some((3, 2, 6, 8), (3, 2, 6, 8), (3, 2, 6, 8))
    ids = np.array([[1, 1, 0, 1, 0, 1]])
    wanted = einsum(*qkv, jnp.array(ids, jnp.int32), jnp.array(ids, jnp.int32))
    for dtype in (np.uint8, np.int16, bool):
        given = jnp.array(ids, dtype)
        np.testing.assert_allclose(jax.jit(fused_cpu.fused)(*qkv, given, given), wanted, atol=2e-6)


def test_other_types_and_values_of_another_width_are_refused():
    q, k, v = some((1, 1, 4, 8), (1, 1, 4, 8), (1, 1, 4, 8))
    with pytest.raises(ValueError, match="q float16"):
        fused_cpu.fused(*(x.astype("float16") for x in (q, k, v)))
    with pytest.raises(ValueError, match=r"v \(1, 1, 4, 4\)"):
        fused_cpu.fused(q, k, v[..., :4])


def test_the_middle_of_two_halves_of_bfloat16_is_even():
    """Rounding is to the nearest, ties to even, as elsewhere: values v come back unchanged for one key."""
    v = jnp.asarray([1.0, 1.0078125, -3.140625, 2.0**-120, 3e38], jnp.bfloat16)[None, None, None]
    out = jax.jit(fused_cpu.fused)(jnp.zeros_like(v), v, v)
    assert out.tolist() == v.tolist()
    two = jnp.asarray([[1.0, 1.0078125], [1.0078125, 1.015625]], jnp.bfloat16).T[None, None]  # keys x width
    zero = jnp.zeros_like(two)
    assert jax.jit(fused_cpu.fused)(zero, zero, two)[0, 0, 0].tolist() == [1.0, 1.015625]


@pytest.mark.parametrize("batched", [(0, 0, 0), (0, None, None), (None, 0, 0)])
def test_it_is_mapped_over_models(batched):
    shapes = (2, 3, 9, 8), (2, 3, 11, 8), (2, 3, 11, 8)
    qkv = some(*((5, *shape) if axis == 0 else shape for shape, axis in zip(shapes, batched, strict=True)))
    segments = jnp.array([[1, 2, 0] * 3, [1] * 9]), jnp.array([[1, 2, 2, 0, 1, 1, 2, 1, 0, 1, 2], [1] * 11])

    def mapped(function):
        return jax.jit(jax.vmap(functools.partial(with_gradients, function, segments), batched))(*qkv)

    for ours, theirs in zip(mapped(fused_cpu.fused), mapped(einsum), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_causal_masks_are_left_to_plain_products():
    q, k, v = some(*[(1, 1, 6, 8)] * 3)
    time = jnp.arange(6) // 2
    with only("fused"):
        have = attention(q, k, v, time=time)
    np.testing.assert_allclose(have, einsum(q, k, v, time=time), atol=1e-6)


def test_code_that_others_may_change_is_not_used(tmp_path, built, capsys):
    environment = {"HOME": str(tmp_path)}
    assert cpu.kernel(environment) is None and cpu.kernel({}) is None
    place = cpu.place(environment)
    place.parent.mkdir(parents=True, mode=0o700)
    place.write_bytes(built.read_bytes())
    assert cpu.kernel(environment) == place and cpu.kernel(environment | {cpu.KERNEL: "0"}) is None
    place.chmod(0o722)
    assert cpu.kernel(environment) is None
    place.chmod(0o700)
    place.parent.chmod(0o777)
    assert cpu.kernel(environment) is None
    place.parent.chmod(0o700)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")  # what it leads to may be another user's
    assert cpu.kernel(environment) is None


@pytest.mark.parametrize("compiler, message", [
    ("exit 3", "failed on"),
    ("echo 'x.cc:1: error: no such thing' >&2; exit 1", "x.cc:1: error: no such thing"),
])  # fmt: skip
def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch, compiler, message):
    file = tmp_path / "compiler"
    file.write_text(f"#!/bin/sh\n{compiler}\n")
    file.chmod(0o755)
    monkeypatch.setenv("CXX", str(file))
    with pytest.raises(ConfigError, match=message):
        kernel.compiled(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="CXX = 'no-such-compiler': there is no such command"):
        kernel.compiled(tmp_path)


def test_without_a_home_there_is_no_place(monkeypatch, capsys):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kernel.cpu, "place", functools.partial(cpu.place, {}))
    assert cli.guard(lambda: kernel.run(kernel._arguments([]))) == 2
    assert (
        capsys.readouterr().err == "error: HOME is not set: must name the folder in whose .cache the kernel is kept\n"
    )


@pytest.mark.slow
def test_a_wrong_kernel_is_not_kept(tmp_path, monkeypatch):
    """A compiler that writes something else: a library without the functions, and one with a wrong sign."""
    real = next(filter(None, map(shutil.which, kernel.COMPILERS)))
    right, wrong = "where(seen, load(gradient + u) - mean)", "where(seen, load(gradient + u) + mean)"
    assert right in cpu.SOURCE.read_text()
    (tmp_path / "wrong.cc").write_text(cpu.SOURCE.read_text().replace(right, wrong))
    (tmp_path / "empty.cc").touch()
    compiler = tmp_path / "compiler"
    for name, value in {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", "CXX": str(compiler)}.items():
        monkeypatch.setenv(name, value)
    for source in ("wrong.cc", "empty.cc"):
        compiler.write_text(f'#!/bin/bash\nexec {real} "${{@//*.cc/{tmp_path / source}}}"\n')
        compiler.chmod(0o755)
        _, err = running.run([sys.executable, "-m", "cjepa_jax.bench.kernel"], code=2, begin="python")
        assert err.splitlines()[-1].endswith("fails on this CPU (exit code 1), so it is not kept")
    assert not list(tmp_path.rglob("*.so"))


BITS = """
import hashlib, pathlib, sys
import jax, numpy as np
from cjepa_jax.models import fused_cpu
fused_cpu.register(pathlib.Path(sys.argv[1]))
q, k, v = np.random.default_rng(0).normal(size=(3, 4, 3, 150, 32)).astype(np.float32)
out, backward = jax.vjp(jax.jit(fused_cpu.fused), q, k, v)
print(hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in (out, *backward(out)))).hexdigest())
"""


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(built):
    cores, found = sorted(os.sched_getaffinity(0)), []
    for some in (cores[:1], cores):
        os.sched_setaffinity(0, some)  # which the child inherits
        try:
            found.append(running.run([sys.executable, "-c", BITS, str(built)], begin="python")[0])
        finally:
            os.sched_setaffinity(0, cores)
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_run_uses_it_and_its_manifest_says_so(tmp_path, monkeypatch):
    for name, value in {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", cpu.KERNEL: ""}.items():
        monkeypatch.setenv(name, value)
    out, _ = running.run([sys.executable, "-m", "cjepa_jax.bench.kernel"], begin="python")
    (file,) = tmp_path.rglob("attention-*.so")
    assert f"\n{file}\n" in out

    def numbers(name):
        running.run(running.command(tmp_path / name, train__steps=3, log__every=1), begin="python")
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        manifest = json.loads((tmp_path / name / "run_manifest.json").read_text())
        found = [json.loads(line) for line in lines]
        wanted = [line[name] for line in found if "loss" in line for name in ("loss", "grad_norm", "update_norm")]
        return wanted, manifest["starts"][-1]

    fast, before = numbers("fast")
    assert before["packages"]["attention_kernel"] == cpu.label(file)
    monkeypatch.setenv(cpu.KERNEL, "0")
    plain, now = numbers("plain")
    (change,) = run_manifest.changes(before, now)  # a resumed run warns of it
    assert change.startswith("packages changed: attention_kernel")
    assert plain != fast and plain == pytest.approx(fast, rel=1e-4)
    monkeypatch.setenv(cpu.KERNEL, "")
    running.run([sys.executable, "-m", "cjepa_jax.bench.kernel", "--remove"], begin="python")
    assert not file.exists()
