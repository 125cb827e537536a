"""The sections of `bench --report`. Each measures one part of the step on made-up batches."""

import argparse
import collections
import contextlib
import dataclasses
import functools
import importlib.util
import math
import pathlib
import re
import tempfile
import time
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax import losses, optim, train_step
from cjepa_jax.bench import flops
from cjepa_jax.bench.accelerator_report import Report
from cjepa_jax.configuration import seeds
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.data import batching
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import objects
from cjepa_jax.models import attention
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Batch, Rows

SECTIONS = (*("device", "attention", "step", "svd", "profile", "parts", "optimizer", "transfer", "torch", "variants"),)
OPTIM = argparse.Namespace(clip=0.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.05, freeze=())
RATE = 1e-4
OBJECTS = 4  # in each made-up scene
KERNELS = {  # kinds of kernels, by what their names hold
    "attention": r"fmha|flash|sdpa",
    "decomposition": r"gesv|syev|geqr|orgqr|ormqr|larf|jacobi|svd|bidiag|householder",
    "product": r"gemm|cublas|cutlass|nvjet|xmma|dot|matmul|convolution",
    "copy": r"memcpy|memset|copy|transpose|concatenate|gather|scatter",
    "reduction": r"reduce|norm|softmax",
    "elementwise": r"fusion|loop|wrapped|add|multiply|convert|select|exp|erf|tanh",
}


@dataclasses.dataclass
class Subject:
    """The step that is measured: a Causal-JEPA of `variant` on one-frame scenes of `size` pixels.

    batches: the smallest one, and how far it may grow.
    """

    variant: str
    size: int
    batch: int
    large: int  # side of the square product that the device is measured by

    def __post_init__(self):
        self.peak = math.nan  # FLOP/s of that product in bfloat16
        self.kept: tuple[Any, ...] | None = None  # the smallest step: objective, state, step, batch
        patch = parse(self.variant).patch
        if self.size % patch or self.size // patch < 4:
            raise ConfigError(f"--size={self.size}: must be a multiple of the patch {patch}, and at least {4 * patch}")
        if self.batch < 1:
            raise ConfigError(f"--batch={self.batch}: must be at least 1")

    @classmethod
    def default(cls, variant: str, size: int, batch: int) -> "Subject":
        """What suits the device, where the arguments are empty. Raises ConfigError."""
        if jax.default_backend() == "cpu":
            return cls(variant or "Ti/16", size or 64, batch or 8, 512)
        return cls(variant or "L/16", size or 224, batch or 64, 8192)

    def device(self, report: Report) -> None:
        """Ceilings: large products, the products of a layer, copies."""
        device = jax.devices()[0]
        capability = str(getattr(device, "compute_capability", "-"))
        report.say("device", kind=device.device_kind, devices=jax.device_count(), capability=capability)
        report.say("software", jax=jax.__version__, backend=jax.default_backend())
        for dtype in (jnp.bfloat16, jnp.float32):
            x = _normal(self.large, self.large, dtype=dtype)
            product = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
            rate = 2 * self.large**3 / median(product, x, x)
            if dtype == jnp.bfloat16:
                self.peak = rate
            report.say("square product", type=jnp.dtype(dtype).name, n=self.large, tflop_s=rate / 1e12)
        x = jnp.zeros(self.large**2 * 4, jnp.float32)
        report.say("copy", gb_s=2 * x.nbytes / median(jax.jit(lambda a: a + 1.0), x) / 1e9)
        size, tokens = parse(self.variant), self.batch * (self.size // parse(self.variant).patch) ** 2
        shapes = {
            "qkv": (size.width, 3 * size.width),
            "up": (size.width, size.hidden),
            "down": (size.hidden, size.width),
        }
        for name, (inner, outer) in shapes.items():
            a, b = _normal(tokens, inner, dtype=jnp.bfloat16), _normal(inner, outer, dtype=jnp.bfloat16)
            seconds = [
                median(jax.jit(functools.partial(jnp.dot, preferred_element_type=out)), a, b)
                for out in (jnp.float32, jnp.bfloat16)
            ]
            wide, narrow = (2 * tokens * inner * outer / each / 1e12 for each in seconds)
            report.say("layer's product", layer=name, tflop_s_to_float32=wide, tflop_s_to_bfloat16=narrow)

    def attention(self, report: Report) -> None:
        """The chosen kernel against plain products: error, and time."""
        patch, heads = parse(self.variant).patch, parse(self.variant).heads
        width, grid = parse(self.variant).width // heads, (self.size // patch) ** 2
        for tokens in (grid, grid - grid // 6 // 2 * 2, 8 * grid):
            if report.left() < 60 and tokens > grid:
                break
            scenes = max(1, self.batch * grid // tokens)
            q, k, v = (_normal(scenes, heads, tokens, width, dtype=jnp.bfloat16, seed=i) for i in range(3))
            segment = jax.random.randint(jax.random.key(3), (scenes, tokens), 0, 3)
            device = {"backend": jax.default_backend(), "capability": attention.compute_capability()}
            chosen = attention.choose(**device, dtype=q.dtype, queries=tokens, keys=tokens, width=width)
            function = _with_gradient(chosen, jnp.bfloat16)
            operands = q, k, v, segment
            (_, out), gradients = function(*operands)
            plain = _with_gradient("einsum", jnp.bfloat16)
            (_, wanted), wanted_gradients = _with_gradient("einsum", jnp.float32)(*operands)
            worst = max(_distance(a, b) for a, b in zip((out, *gradients), (wanted, *wanted_gradients), strict=True))
            report.say(
                "forward and backward", kernel=chosen, scenes=scenes, tokens=tokens, relative_error=worst,
                ms=1e3 * median(function, *operands), plain_ms=1e3 * median(plain, *operands),
            )  # fmt: skip

    def step(self, report: Report) -> None:
        """The whole step at growing batches, until memory or time is used up."""
        batch = self.batch
        while report.left() > 90:
            try:
                made = self._measured(report, "step", batch, useful=True)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                report.say("out of memory", batch=batch)
                return
            self.kept = self.kept or made
            del made
            if jax.default_backend() == "cpu" and batch >= 4 * self.batch:
                return
            batch *= 2

    def svd(self, report: Report) -> None:
        """SIGReg's decomposition at batches around the width."""
        width = parse(self.variant).width
        for rows in (self.batch, max(width // 4, 8), width):
            if report.left() < 60:
                return
            x = _normal(rows, width)
            gram, on_host = x @ x.T if rows < width else x.T @ x, np.asarray(x)
            report.say(
                "SIGReg", rows=rows, width=width,
                value_ms=1e3 * median(jax.jit(losses.sigreg), x, count=5),
                with_gradient_ms=1e3 * median(jax.jit(jax.value_and_grad(losses.sigreg)), x, count=5),
                gram_eigenvalues_ms=1e3 * median(jax.jit(lambda a: jnp.linalg.eigh(a)[0]), gram, count=5),
                on_the_host_ms=1e3 * _once(functools.partial(np.linalg.svd, on_host, full_matrices=False)),
            )  # fmt: skip
            for algorithm in jax.lax.linalg.SvdAlgorithm:
                function = jax.jit(functools.partial(jax.lax.linalg.svd, full_matrices=False, algorithm=algorithm))
                try:
                    report.say("algorithm", of=algorithm.name, rows=rows, ms=1e3 * median(function, x, count=3))
                except (NotImplementedError, ValueError, jax.errors.JaxRuntimeError) as error:
                    report.say("no algorithm", of=algorithm.name, rows=rows, error=str(error)[:100])

    def profile(self, report: Report) -> None:
        """Kernels of three steps by kind, and the longest ones by name."""
        objective, state, step, batch = self._kept()
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                for _ in range(3):
                    state, _ = step(state, batch)
                jax.block_until_ready(state)
            self.kept = objective, state, step, batch
            by_name = _kernels(pathlib.Path(folder))
        total = sum(by_name.values())
        if not total:
            report.say("nothing recorded", planes=0)
            return
        kinds = collections.Counter[str]()
        for name, ms in by_name.items():
            kinds[next((k for k, words in KERNELS.items() if re.search(words, name, re.I)), "other")] += ms
        for kind, ms in kinds.most_common():
            report.say("kind", of=kind, ms_of_a_step=ms / 3, share=ms / total)
        for name, ms in by_name.most_common(20):
            report.say("kernel", of=name, ms_of_a_step=ms / 3, share=ms / total)

    def parts(self, report: Report) -> None:
        """Targets, forward, and forward with backward."""
        objective, state, _, batch = self._kept()

        def loss(params, state, batch):
            return objective.loss(params, state.target, state.extra, batch, key=jax.random.key(0), step=state.step)

        functions = {
            "targets": lambda state, batch: objective.targets(state.target, batch),
            "forward, targets included": lambda state, batch: loss(state.params, state, batch)[0],
            "and backward": lambda state, batch: jax.value_and_grad(loss, has_aux=True)(state.params, state, batch),
        }
        for name, function in functions.items():
            report.say(name, batch=self.batch, ms=1e3 * median(jax.jit(function), state, batch, count=8))

    def optimizer(self, report: Report) -> None:
        """AdamW and the EMA on gradients that are there."""
        objective, state, _, _ = self._kept()
        optimizer = optim.make(OPTIM)

        def update(state):
            gradient = jax.tree.map(lambda x: 1e-3 * x, state.params)
            updates, moments = optimizer.update(gradient, state.opt_state, state.params)
            params = jax.tree.map(lambda p, u: p - RATE * u, state.params, updates)
            return params, moments, objective.next_target(params, state.target, state.step)

        count = sum(x.size for x in jax.tree.leaves(state.params))
        report.say("AdamW and EMA", parameters=count, ms=1e3 * median(jax.jit(update), state, count=8))

    def transfer(self, report: Report) -> None:
        """A batch from NumPy arrays to the device."""
        arrays = jax.device_get(self._batch(self.batch)[0])
        size = sum(x.nbytes for x in jax.tree.leaves(arrays))
        seconds = median(lambda: jax.device_put(arrays), count=8)
        report.say("batch", batch=self.batch, mb=size / 1e6, ms=1e3 * seconds, gb_s=size / seconds / 1e9)

    def torch(self, report: Report) -> None:
        """PyTorch's step of the same algorithm and weights, eager and compiled, in bfloat16 by autocast."""
        if importlib.util.find_spec("torch") is None:
            report.say("left out", why="torch is not installed")
            return
        from cjepa_jax.bench import torch_step

        torch = torch_step.torch
        device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
        objective, (batch, arrays) = self._objective(), self._batch(self.batch)
        state = jax.jit(functools.partial(train_step.init_state, objective, optim.make(OPTIM), 0))(batch)
        weights = types.SimpleNamespace(**jax.device_get({"params": state.params, "target": state.target}))
        for compiled in (False, True):
            if report.left() < 60:
                return
            twin = torch_step.Twin(objective, OPTIM, weights, arrays, compiled, device=device)
            first = twin.step(arrays, RATE)
            seconds = median(lambda twin=twin: twin.step(arrays, RATE), count=8)
            report.say(
                f"PyTorch {torch.__version__}, {'compiled' if compiled else 'eager'}", on=device, batch=self.batch,
                ms=1e3 * seconds, images_s=self.batch / seconds, first_loss=first,
            )  # fmt: skip

    def variants(self, report: Report) -> None:
        """One change each."""
        changes: dict[str, dict[str, Any]] = {
            "as it is": {},
            "plain attention": {"kernel": "einsum"},
            "GELU by tanh": {"encoder": {"gelu": "tanh"}, "predictor": {"gelu": "tanh"}},
            "without the causal term": {"causal_weight": 0.0},
            "products kept, the rest recomputed": {"encoder": {"remat": "dots"}},
            "float32": {"dtype": "float32"},
        }
        for name, change in changes.items():
            if report.left() < 60:
                return
            self._measured(report, name, self.batch, **change)

    def _objective(self, dtype="bfloat16", encoder=None, predictor=None, **changes) -> Jepa:
        size = parse(self.variant)
        own = {"variant": self.variant, **(encoder or {})}
        narrow = {"depth": 6, "width": max(48, size.width * 3 // 8 // 8 * 8), "heads": 8, **(predictor or {})}
        return Jepa(encoder=own, predictor={"attention": "joint", **narrow}, steps=1000, dtype=dtype, **changes)

    def _batch(self, scenes: int) -> tuple[Batch, dict[str, Any]]:
        """A batch on the device, and a loader's arrays of it. Scenes have rectangles for objects."""
        side = self.size // parse(self.variant).patch
        rng, grid = seeds.generator(0, "scenes of a benchmark"), (1, side, side)
        boxes = np.zeros((scenes, 2 * OBJECTS, *grid), bool)
        for i in np.ndindex(scenes, OBJECTS):
            high, wide = rng.integers(max(1, side // 5), max(2, side // 2), 2)
            top, left = rng.integers(0, side - high + 1), rng.integers(0, side - wide + 1)
            boxes[(*i, 0, slice(top, top + high), slice(left, left + wide))] = True
        patches = boxes.reshape(scenes, 2 * OBJECTS, -1)
        drawn = [objects.draw(rng, each, np.asarray(each.any(1)), grid=grid) for each in patches]
        hidden, removed = (np.stack(each) for each in zip(*drawn, strict=True))
        context = ~hidden
        index, segment = batching.lay_out(context, 1, (scenes, context.shape[1]))
        video = rng.integers(0, 256, (scenes, 1, self.size, self.size, 3), np.uint8)
        zero = np.zeros(scenes, np.int32)
        arrays = dict(
            scene=zero, epoch=zero, video=video, object_patches=patches, object_valid=patches.any(2), removed=removed,
            context=context, valid=np.ones(scenes, bool), intervened=video // 2, intervened_valid=np.ones(scenes, bool),
        )  # fmt: skip
        batch = jax.device_put(Batch(**arrays, rows=Rows(index, segment)))
        return batch, arrays | {"rows": {"index": index, "segment": segment}}

    def _measured(self, report: Report, name: str, scenes: int, kernel="", useful=False, **changes) -> tuple[Any, ...]:
        objective, (batch, arrays) = self._objective(**changes), self._batch(scenes)
        optimizer, began = optim.make(OPTIM), time.perf_counter()
        with attention.only(kernel) if kernel else contextlib.nullcontext():
            state = jax.jit(functools.partial(train_step.init_state, objective, optimizer, 0))(batch)
            made = train_step.make(objective, optimizer, lambda _: RATE, 0)
            step = jax.jit(made, donate_argnums=0).lower(state, batch).compile()
        compiling = time.perf_counter() - began
        work = flops.useful_step_flops(objective, state, batch, arrays["context"]) if useful else 0
        state, seconds, in_a_row, loss = _steps(step, state, batch, 10)
        found = {"encoder": self.variant, "batch": scenes, "ms": 1e3 * seconds, "in_a_row_ms": 1e3 * in_a_row}
        found["images_s"] = scenes / in_a_row
        if work:
            found |= {"gflop_image": work / scenes / 1e9, "mfu": work / in_a_row / self.peak}
        temp = getattr(step.memory_analysis(), "temp_size_in_bytes", 0) / 2**30
        used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30
        report.say(name, **found, first_loss=loss, compile_s=compiling, scratch_gib=temp, peak_gib=used)
        return objective, state, step, batch

    def _kept(self) -> tuple[Any, ...]:
        """The smallest step, made if no section has."""
        if self.kept is None:
            objective, (batch, _) = self._objective(), self._batch(self.batch)
            optimizer = optim.make(OPTIM)
            state = jax.jit(functools.partial(train_step.init_state, objective, optimizer, 0))(batch)
            step = jax.jit(train_step.make(objective, optimizer, lambda _: RATE, 0), donate_argnums=0)
            self.kept = objective, state, step, batch
        return self.kept


def _with_gradient(kernel: str, dtype: Any) -> Callable:
    """A function of q, k, v and segments: ((a scalar of the output, the output), gradients of q, k, v)."""

    def scalar(q, k, v, segment):
        with attention.only(kernel):
            out = attention.attention(*(x.astype(dtype) for x in (q, k, v)), segment, segment)
        return jnp.sin(out.astype(jnp.float32)).sum(), out

    return jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))


def median(function: Callable, *args: Any, count: int = 20, first: int = 2) -> float:
    """Seconds of a call, after `first` that compile and warm up."""
    seconds = [_once(functools.partial(function, *args)) for _ in range(first + count)]
    return float(np.median(seconds[first:]))


def _once(function: Callable) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def _steps(step: Callable, state: Any, batch: Batch, count: int) -> tuple[Any, float, float, float]:
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


def _normal(*shape: int, dtype: Any = jnp.float32, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)


def _distance(a: jax.Array, b: jax.Array) -> float:
    """The norm of the difference, relative to b's."""
    a, b = (x.astype(jnp.float32) for x in (a, b))
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def _kernels(folder: pathlib.Path) -> collections.Counter[str]:
    """Milliseconds by the names of a profile's events on the device."""
    found = collections.Counter[str]()
    on_cpu = jax.default_backend() == "cpu"
    for file in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            wanted = "/host:CPU" in plane.name if on_cpu else "/device:" in plane.name
            for line in plane.lines if wanted else ():
                if line.name.startswith("tf_XLA") if on_cpu else ("Stream" in line.name or "XLA Ops" in line.name):
                    for event in line.events:
                        if not event.name.startswith("ThunkExecutor"):  # waits for others
                            found[event.name[:80]] += event.duration_ns / 1e6
    return found
