"""Singular values by each algorithm and on many devices, against NumPy's in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cjepa_jax import losses, sharding
from cjepa_jax.errors import ConfigError
from cjepa_jax.numerics import singular
from tests.test_losses import SINGULAR

B, D = 256, 16


def features(decades, seed=0):
    """Features [B, D] whose singular values fall by this number of decades, and which scenes count."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(side, D)))[0] for side in (B, D))
    return (u * np.logspace(0, -decades, D)) @ v.T, rng.random(B) < 0.8


def exact(x, valid):
    """SIGReg of the scenes that count, and its gradient, in float64 from NumPy's decomposition."""
    x, gradient = x.astype(np.float32).astype(np.float64), np.zeros(x.shape)
    u, sigma, vt = np.linalg.svd(x[valid] - x[valid].mean(0), full_matrices=False)
    share = sigma / sigma.sum()
    value = np.log(x.shape[1]) + (share * np.log(share)).sum()
    slope = (np.log(share) - (share * np.log(share)).sum()) / sigma.sum()
    inner = (u * slope) @ vt
    gradient[valid] = inner - inner.mean(0)
    return value, gradient


def on(devices, **axes):
    """SIGReg and its gradient, compiled for features whose scenes are divided among devices."""
    mesh = sharding.make_mesh(axes, B, devices=jax.devices()[:devices])
    divided = sharding.by_scene(mesh)
    return jax.jit(sharding.on_mesh(mesh, jax.value_and_grad(losses.sigreg)), in_shardings=(divided, divided))


def errors(found, x, valid):
    value, gradient = exact(x, valid)
    return abs(found[0] - value), np.linalg.norm(found[1] - gradient) / np.linalg.norm(gradient)


def sigreg_traced_again():
    """SIGReg and its gradient as a new function, which JAX has not traced with another algorithm."""
    return jax.jit(lambda *features: jax.value_and_grad(losses.sigreg)(*features))


TOLERANCE = {1: 3e-6, 3: 4e-5, 5: 3e-3}  # decades -> of the gradient's norm, for all ways of computing it


@pytest.mark.parametrize("decades", TOLERANCE)
@pytest.mark.parametrize("axes", [{}, {"fsdp": 2, "tensor": 2}], ids=str)
def test_devices_that_reduce_their_own_rows_find_the_exact_value_and_gradient(decades, axes):
    x, valid = features(decades)
    assert singular.reduces(B, D, 8) and singular.reduces(B, D, 4)
    value, gradient = errors(jax.device_get(on(8, **axes)(x.astype(np.float32), valid)), x, valid)
    assert value < 2e-6 and gradient < TOLERANCE[decades]


def test_under_pmap_each_device_decomposes_the_rows_that_it_has_gathered():
    x, valid = features(1)

    def one(*parts):
        assert sharding.parts() == 1
        x, valid = (jax.lax.all_gather(part, "data", tiled=True) for part in parts)
        return jax.value_and_grad(losses.sigreg)(sharding.hold(x, sharding.SCENES), valid)

    split = x.astype(np.float32).reshape(8, -1, D), valid.reshape(8, -1)
    found = jax.device_get(jax.pmap(one, "data", devices=jax.devices()[:8])(*split))
    value, gradient = errors([each[3] for each in found], x, valid)
    assert value < 2e-6 and gradient < TOLERANCE[1]


@pytest.mark.parametrize("name", ["zero", "constant", "equal and zero sigma", "rank one", "huge", "tiny"])
def test_the_gradient_of_reduced_rows_is_finite(name):
    x = np.resize(SINGULAR[name], (B, 8)).astype(np.float32)
    value, gradient = on(8)(x, np.arange(B) < B // 2)
    assert np.isfinite(value) and np.isfinite(gradient).all() and -1e-5 <= value <= np.log(8) + 1e-5


def test_no_device_decomposes_all_rows_where_fewer_are_enough():
    x, valid = features(1)
    text = on(8).lower(x.astype(np.float32), valid).compile().as_text()
    assert re.findall(r"\(f32\[(\d+),(\d+)\][^=]*custom-call\([^\n]*gesdd", text) == [(str(D), str(D))]
    gathered = re.findall(r"f32\[(\d+),(\d+)\]\S* all-gather", text)
    assert gathered == [(str(8 * D), str(D))]


@pytest.mark.parametrize(("rows", "width", "shards", "expected"), [
    (1024, 1024, 32, False),  # the reference run: 32 scenes a device are fewer than the width
    (1024, 1024, 1, False),
    (8192, 384, 8, True),  # 1024 + 3072 rows, not 8192
    (4096, 384, 8, True),
    (3072, 384, 8, False),
    (4096, 384, 2, True),
    (1000, 8, 3, False),
])  # fmt: skip
def test_rows_are_reduced_where_that_leaves_fewer(rows, width, shards, expected):
    assert singular.reduces(rows, width, shards) == expected


@pytest.mark.parametrize(("device", "asked", "expected"), [
    (("cpu", 1024, 1024), "", "default"),
    (("tpu", 1024, 1024), "auto", "default"),
    (("gpu", 1024, 1024), "", "qr"),
    (("gpu", 1024, 256), "", "default"),
    (("gpu", 32, 1024), "", "default"),
    (("gpu", 32, 1024), "qr", "qr"),
    (("gpu", 1024, 1024), "polar", "polar"),
    (("gpu", 1024, 1024), "default", "default"),
    (("cpu", 1024, 1024), "qr", "qr"),
])  # fmt: skip
def test_the_algorithm_suits_the_device_or_is_the_one_asked_for(monkeypatch, device, asked, expected):
    monkeypatch.setenv("CJEPA_SVD", asked)
    assert singular.choose(*device) == expected


def test_an_algorithm_that_the_device_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("CJEPA_SVD", "jacobi")
    with pytest.raises(ConfigError, match="^CJEPA_SVD = 'jacobi': must be auto or one of default, qr on a cpu$"):
        losses.sigreg(jnp.eye(3))


@pytest.mark.parametrize("algorithm", ["default", "qr"])
@pytest.mark.parametrize("decades", TOLERANCE)
def test_one_device_finds_the_exact_value_and_gradient(decades, algorithm):
    x, valid = features(decades)
    with singular.only(algorithm):
        found = sigreg_traced_again()(x.astype(np.float32), valid)
    value, gradient = errors(jax.device_get(found), x, valid)
    assert value < 2e-6 and gradient < TOLERANCE[decades]


@pytest.mark.parametrize("name", SINGULAR)
def test_the_qr_algorithm_is_finite_at_singular_features(name):
    with singular.only("qr"):
        value, gradient = sigreg_traced_again()(SINGULAR[name].astype(np.float32))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(("algorithm", "call"), [
    ("default", "cusolver_gesvdj_ffi"), ("qr", "cusolver_gesvd_ffi"), ("polar", "cusolver_gesvdp_ffi"),
])  # fmt: skip
def test_each_algorithm_is_translated_for_cuda(algorithm, call):
    with singular.only(algorithm):
        allowed = [export.DisabledSafetyCheck.custom_call("cusolver_gesvdp_ffi")]
        exported = export.export(sigreg_traced_again(), platforms=["cuda"], disabled_checks=allowed)
        text = exported(jax.ShapeDtypeStruct((512, 300), jnp.float32))
    calls = set(re.findall(r"@(cusolver_gesvd\w*)", text.mlir_module()))
    assert calls == {call}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_reduced_rows_are_translated_for_accelerators(platform):
    x = jax.ShapeDtypeStruct((B, D), jnp.float32), jax.ShapeDtypeStruct((B,), bool)
    assert "all_gather" in export.export(on(8), platforms=[platform])(*x).mlir_module()
