"""Errors of SIGReg's gradient, by the way its singular values are computed. docs/PERFORMANCE.md

XLA_FLAGS=--xla_force_host_platform_device_count=8 python docs/figures/sigreg_errors.py
"""

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax import losses, sharding
from cjepa_jax.numerics import singular

ROWS, WIDTH = 256, 16


def features(decades, seed):
    """Features [B, D] whose singular values fall by this number of decades, and which scenes count."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(side, WIDTH)))[0] for side in (ROWS, WIDTH))
    return np.float32((u * np.logspace(0, -decades, WIDTH)) @ v.T), rng.random(ROWS) < 0.8


def exact(x, valid):
    """The gradient in float64, by NumPy's decomposition."""
    x, gradient = x.astype(np.float64), np.zeros(x.shape)
    u, sigma, vt = np.linalg.svd(x[valid] - x[valid].mean(0), full_matrices=False)
    logs = np.log(sigma / sigma.sum())
    inner = (u * ((logs - (sigma * logs).sum() / sigma.sum()) / sigma.sum())) @ vt
    gradient[valid] = inner - inner.mean(0)
    return gradient


def of_gram(x, valid):
    """SIGReg by the square roots of the Gram matrix's eigenvalues."""
    mean = jnp.where(valid[:, None], x, 0).sum(0) / valid.sum()
    centred = jnp.where(valid[:, None], x - mean, 0)
    sigma = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(centred.T @ centred), 1e-30))
    share = sigma / sigma.sum()
    return jnp.log(WIDTH) + (share * jnp.log(share)).sum()


def on(devices):
    """SIGReg's gradient for features whose scenes are divided among devices."""
    mesh = sharding.make_mesh({}, ROWS, devices=jax.devices()[:devices])
    divided = sharding.by_scene(mesh)
    return jax.jit(sharding.on_mesh(mesh, jax.grad(losses.sigreg)), in_shardings=(divided, divided))


def by_qr(x, valid):
    with singular.only("qr"):
        return jax.jit(lambda *given: jax.grad(losses.sigreg)(*given))(x, valid)


def main():
    ways = {"one device": on(1), "eight devices": on(8), "QR": by_qr, "Gram matrix": jax.jit(jax.grad(of_gram))}
    for decades in (1, 3, 5):
        for name, way in ways.items():
            errors = []
            for seed in range(3):
                x, valid = features(decades, seed)
                wanted = exact(x, valid)
                errors.append(np.linalg.norm(np.asarray(way(x, valid)) - wanted) / np.linalg.norm(wanted))
            print(f"{decades} decades, {name}: " + " ".join(f"{error:.1e}" for error in sorted(errors)))


if __name__ == "__main__":
    main()
