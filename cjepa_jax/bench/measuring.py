"""What the sections of `bench --report` share: times, names of kernels, errors that are results."""

import collections
import contextlib
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax import losses
from cjepa_jax.bench.accelerator_report import Report
from cjepa_jax.models import attention
from cjepa_jax.numerics import singular
from cjepa_jax.types import Batch

KERNELS = {  # kinds of kernels, by what their names hold
    "attention": r"fmha|flash|sdpa",
    "decomposition": r"gesv|syev|geqr|orgqr|ormqr|larf|jacobi|svd|bidiag|householder",
    "product": r"gemm|cublas|cutlass|nvjet|xmma|dot|matmul|convolution",
    "copy": r"memcpy|memset|copy|transpose|concatenate|gather|scatter",
    "reduction": r"reduce|norm|softmax",
    "elementwise": r"fusion|loop|wrapped|add|multiply|convert|select|exp|erf|tanh",
}


def no_time(report: Report, seconds: float) -> bool:
    """Whether less time is left, which the report then says."""
    if short := report.left() < seconds:
        report.say("left out", why=f"less than {seconds:g} s are left")
    return short


@contextlib.contextmanager
def recorded(report: Report, **about: Any) -> Iterator[None]:
    """What JAX raises inside is a line of the report, and the section continues."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError, TypeError) as error:
        report.say("failed", **about, error=f"{type(error).__name__}: {str(error)[:300]}")


def with_gradient(kernel: str, dtype: Any) -> Callable:
    """A function of q, k, v and ids or lengths: ((a scalar of the output, the output), gradients of q, k, v)."""

    def scalar(q, k, v, segment):
        with attention.only(kernel):
            out = attention.attention(*(x.astype(dtype) for x in (q, k, v)), segment, segment)
        return jnp.sin(out.astype(jnp.float32)).sum(), out

    return jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))


def median(function: Callable, *args: Any, count: int = 20, first: int = 2) -> float:
    """Seconds of a call, after `first` that compile and warm up."""
    seconds = [once(functools.partial(function, *args)) for _ in range(first + count)]
    return float(np.median(seconds[first:]))


def in_a_row(function: Callable, *args: Any, count: int = 20) -> float:
    """Seconds of a call of many that are waited for together, without the time of starting each. The best of 3."""
    jax.block_until_ready(function(*args))
    best = math.inf
    for _ in range(3):
        best = min(best, once(lambda: [function(*args) for _ in range(count)][-1]) / count)
    return best


def memory(step: Any) -> float | None:
    """GiB that a compiled step needs by XLA's own count."""
    found = step.memory_analysis()
    if found is None:
        return None
    size = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return (size - found.alias_size_in_bytes) / 2**30


def once(function: Callable) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def steps(step: Callable, state: Any, batch: Batch, count: int) -> tuple[Any, float, float, float]:
    """The last state, median seconds of a step, seconds of a step of those that are not waited for, the first loss."""
    state, metrics = step(state, batch)
    first, seconds = float(metrics["loss"]), []
    for _ in range(count):
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(count):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    return state, float(np.median(seconds)), (time.perf_counter() - began) / count, first


def normal(*shape: int, dtype: Any = jnp.float32, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)


def distance(a: jax.Array, b: jax.Array) -> float:
    """The norm of the difference, relative to b's."""
    a, b = (x.astype(jnp.float32) for x in (a, b))
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def steep(rows: int, width: int, decades: float = 5.0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features whose singular values fall by these decades, their SIGReg and its gradient, computed in float64."""
    rank = min(rows, width)
    drawn = (np.asarray(normal(side, rank, seed=seed), np.float64) for seed, side in enumerate((rows, width)))
    left, right = (np.linalg.qr(each)[0] for each in drawn)
    x = np.float32((left * np.logspace(0, -decades, rank)) @ right.T)
    centred = x - x.mean(0, dtype=np.float64)
    left, sigma, right = np.linalg.svd(centred, full_matrices=False)
    share = sigma / sigma.sum()
    logs = np.log(np.maximum(share, 1e-300))
    slope = (left * ((logs - (share * logs).sum()) / sigma.sum())) @ right
    value = np.log(width) + (share * logs).sum()
    return jnp.asarray(x), jnp.asarray(value, jnp.float32), jnp.asarray(slope - slope.mean(0), jnp.float32)


def sigreg_by(algorithm: str) -> Callable:
    """SIGReg and its gradient by an algorithm of `singular`, compiled."""

    def both(x):
        with singular.only(algorithm):
            return jax.value_and_grad(losses.sigreg)(x)

    return jax.jit(both)


def of_the_triangle(algorithm: str) -> Callable:
    """Singular values and vectors of the longer side's QR decomposition, which may be faster than those of the matrix.

    Raises: NotImplementedError when it is called, if the device lacks the algorithm.
    """

    def decompose(x):
        longer = x if x.shape[0] >= x.shape[1] else x.T
        own, triangle = jnp.linalg.qr(longer)
        chosen = singular.ALGORITHMS[algorithm]
        left, sigma, right = jax.lax.linalg.svd(triangle, full_matrices=False, algorithm=chosen)
        return own @ left, sigma, right

    return jax.jit(decompose)


def kernels(folder: pathlib.Path) -> collections.Counter[str]:
    """Milliseconds by the names of a profile's events on the device."""
    found = collections.Counter[str]()
    on_cpu = jax.default_backend() == "cpu"
    for file in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            wanted = "/host:CPU" in plane.name if on_cpu else "/device:" in plane.name
            for line in plane.lines if wanted else ():
                if line.name.startswith("tf_XLA") if on_cpu else ("Stream" in line.name or line.name == "XLA Ops"):
                    for event in line.events:
                        if not event.name.startswith("ThunkExecutor"):  # waits for others
                            found[event.name[:80]] += event.duration_ns / 1e6
    return found
