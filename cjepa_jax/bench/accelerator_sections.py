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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax import losses, optim, train_step
from cjepa_jax.bench import flops, measuring
from cjepa_jax.bench.accelerator_report import Report
from cjepa_jax.configuration import seeds
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.data import batching
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import objects
from cjepa_jax.models import attention
from cjepa_jax.numerics import singular
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.types import Batch, batch_of

SECTIONS = (*("device", "attention", "step", "svd", "profile", "parts", "optimizer", "transfer", "variants", "torch"),)
OPTIM = argparse.Namespace(clip=0.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.05, freeze=())
RATE = 1e-4
OBJECTS = 4  # in each made-up scene


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
        self.kept: tuple[Any, ...] | None = None  # the smallest step: objective, state's init, step, batch
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
            x = measuring.normal(self.large, self.large, dtype=dtype)
            product = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
            rate = 2 * self.large**3 / measuring.in_a_row(product, x, x)
            if dtype == jnp.bfloat16:
                self.peak = rate
            report.say("square product", type=jnp.dtype(dtype).name, n=self.large, tflop_s=rate / 1e12)
        x = jnp.zeros(self.large**2 * 4, jnp.float32)
        report.say("copy", gb_s=2 * x.nbytes / measuring.in_a_row(jax.jit(lambda a: a + 1.0), x) / 1e9)
        size, tokens = parse(self.variant), self.batch * (self.size // parse(self.variant).patch) ** 2
        shapes = {
            "qkv": (size.width, 3 * size.width),
            "up": (size.width, size.hidden),
            "down": (size.hidden, size.width),
        }
        for name, (inner, outer) in shapes.items():
            a, b = (
                measuring.normal(tokens, inner, dtype=jnp.bfloat16),
                measuring.normal(inner, outer, dtype=jnp.bfloat16),
            )
            seconds = [
                measuring.in_a_row(jax.jit(functools.partial(jnp.dot, preferred_element_type=out)), a, b)
                for out in (jnp.float32, jnp.bfloat16)
            ]
            wide, narrow = (2 * tokens * inner * outer / each / 1e12 for each in seconds)
            report.say("layer's product", layer=name, tflop_s_to_float32=wide, tflop_s_to_bfloat16=narrow)

    def attention(self, report: Report) -> None:
        """The chosen kernel against plain products: error, and time. Rows of several scenes, and of one (lengths)."""
        patch, heads = parse(self.variant).patch, parse(self.variant).heads
        width, grid = parse(self.variant).width // heads, (self.size // patch) ** 2
        for tokens in (grid, grid - grid // 6 // 2 * 2, 8 * grid):
            if measuring.no_time(report, 60):
                return
            scenes = max(1, self.batch * grid // tokens)
            q, k, v = (measuring.normal(scenes, heads, tokens, width, dtype=jnp.bfloat16, seed=i) for i in range(3))
            ids = jax.random.randint(jax.random.key(3), (scenes, tokens), 0, 3)
            lengths = jax.random.randint(jax.random.key(4), (scenes,), tokens // 2, tokens + 1)
            for rows, segment in {"several scenes": ids, "one scene": lengths}.items():
                self._attention(report, rows, (q, k, v, segment))

    def _attention(self, report: Report, rows: str, operands: tuple[jax.Array, ...]) -> None:
        """One line of `attention`. The error is the largest of the output's and the gradients', padding included."""
        scenes, _, tokens, width = operands[0].shape
        device = {"backend": jax.default_backend(), "capability": attention.compute_capability()}
        chosen = attention.choose(**device, dtype=operands[0].dtype, queries=tokens, keys=tokens, width=width)
        with measuring.recorded(report, kernel=chosen, tokens=tokens, rows=rows):
            function, plain = (measuring.with_gradient(kernel, jnp.bfloat16) for kernel in (chosen, "einsum"))
            (_, out), gradients = function(*operands)
            with jax.default_matmul_precision("highest"):
                (_, wanted), exact = measuring.with_gradient("einsum", jnp.float32)(*operands)
            errors = [measuring.distance(a, b) for a, b in zip((out, *gradients), (wanted, *exact), strict=True)]
            report.say(
                "forward and backward", kernel=chosen, rows=rows, scenes=scenes, tokens=tokens,
                relative_error=float(np.max(errors)),  # which is NaN if one is
                ms=1e3 * measuring.median(function, *operands), plain_ms=1e3 * measuring.median(plain, *operands),
            )  # fmt: skip

    def step(self, report: Report) -> None:
        """The whole step at growing batches, until memory or time is used up."""
        if math.isnan(self.peak):
            with measuring.recorded(report):
                x = measuring.normal(self.large, self.large, dtype=jnp.bfloat16)
                self.peak = 2 * self.large**3 / measuring.in_a_row(jax.jit(jnp.dot), x, x)
        batch, kernel = self.batch, ""
        while not measuring.no_time(report, 90):
            try:
                self._measured(report, "step", batch, kernel=kernel, useful=True)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" in str(error):
                    report.say("out of memory", batch=batch)
                    return
                if kernel:
                    raise
                report.say("failed", error=str(error)[:300], instead="plain attention")
                kernel = "einsum"
                continue
            if jax.default_backend() == "cpu" and batch >= 4 * self.batch:
                return
            batch *= 2

    def svd(self, report: Report) -> None:
        """SIGReg by each algorithm at batches around the width, and its error where the spectrum is steep."""
        width = parse(self.variant).width
        for rows in (self.batch, max(width // 4, 8), width):
            if measuring.no_time(report, 60):
                return
            x, (steep, *exact) = measuring.normal(rows, width), measuring.steep(rows, width)
            gram, on_host = x @ x.T if rows < width else x.T @ x, np.asarray(x)
            report.say(
                "SIGReg", rows=rows, width=width, algorithm=singular.choose(jax.default_backend(), rows, width),
                value_ms=1e3 * measuring.median(jax.jit(losses.sigreg), x, count=5),
                gram_eigenvalues_ms=1e3 * measuring.median(jax.jit(lambda a: jnp.linalg.eigh(a)[0]), gram, count=5),
                on_the_host_ms=1e3 * measuring.once(functools.partial(np.linalg.svd, on_host, full_matrices=False)),
            )  # fmt: skip
            for algorithm in singular.ALGORITHMS:
                try:
                    function, triangle = measuring.sigreg_by(algorithm), measuring.of_the_triangle(algorithm)
                    ms = 1e3 * measuring.median(function, x, count=3)
                    value, gradient = map(measuring.distance, function(steep), exact)
                    report.say(
                        "algorithm", of=algorithm, rows=rows, with_gradient_ms=ms,
                        of_the_triangle_ms=1e3 * measuring.median(triangle, x, count=3),
                        value_error=value, gradient_error=gradient,
                    )  # fmt: skip
                except (NotImplementedError, ValueError, jax.errors.JaxRuntimeError) as error:
                    report.say("no algorithm", of=algorithm, rows=rows, error=str(error)[:100])

    def profile(self, report: Report) -> None:
        """Kernels of three steps by kind, and the longest ones by name."""
        _, state, step, batch = self._kept()
        state, _ = step(state, batch)  # which compiles
        jax.block_until_ready(state)
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                for _ in range(3):
                    state, _ = step(state, batch)
                jax.block_until_ready(state)
            by_name = measuring.kernels(pathlib.Path(folder))
        total = sum(by_name.values())
        if not total:
            report.say("nothing recorded", planes=0)
            return
        kinds = collections.Counter[str]()
        for name, ms in by_name.items():
            kinds[next((k for k, words in measuring.KERNELS.items() if re.search(words, name, re.I)), "other")] += ms
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
            report.say(name, batch=self.batch, ms=1e3 * measuring.median(jax.jit(function), state, batch, count=8))

    def optimizer(self, report: Report) -> None:
        """AdamW and the EMA on ready gradients."""
        objective, state, _, _ = self._kept()
        optimizer = optim.make(OPTIM)

        def update(state):
            gradient = jax.tree.map(lambda x: 1e-3 * x, state.params)
            updates, moments = optimizer.update(gradient, state.opt_state, state.params)
            params = jax.tree.map(lambda p, u: p - RATE * u, state.params, updates)
            return params, moments, objective.next_target(params, state.target, state.step)

        count = sum(x.size for x in jax.tree.leaves(state.params))
        report.say("AdamW and EMA", parameters=count, ms=1e3 * measuring.median(jax.jit(update), state, count=8))

    def transfer(self, report: Report) -> None:
        """A batch from NumPy arrays to the device."""
        arrays = jax.device_get(self._batch(self.batch)[0])
        size = sum(x.nbytes for x in jax.tree.leaves(arrays))
        seconds = measuring.median(lambda: jax.device_put(arrays), count=8)
        report.say("batch", batch=self.batch, mb=size / 1e6, ms=1e3 * seconds, gb_s=size / seconds / 1e9)

    def torch(self, report: Report) -> None:
        """PyTorch's step of the same algorithm and weights, eager and compiled, in bfloat16 by autocast."""
        if importlib.util.find_spec("torch") is None:
            report.say("left out", why="torch is not installed")
            return
        from cjepa_jax.bench import torch_step

        torch, backend = torch_step.torch, jax.default_backend()
        device = {"cpu": "cpu", "gpu": "cuda"}.get(backend, "")
        if not device or (device == "cuda" and not torch.cuda.is_available()):
            report.say("left out", why=f"torch has no {backend} here")
            return
        objective, (batch, arrays) = self._objective(), self._batch(self.batch)
        state = jax.jit(functools.partial(train_step.init_state, objective, optim.make(OPTIM), 0))(batch)
        weights = types.SimpleNamespace(**jax.device_get({"params": state.params, "target": state.target}))
        del state, batch
        for compiled in (False, True):
            if measuring.no_time(report, 60):
                return
            twin = torch_step.Twin(objective, OPTIM, weights, arrays, compiled, device=device)
            placed = twin.put(arrays)
            losses_of = [twin.update(placed, RATE).item() for _ in range(3)]  # the first ones compile
            began = time.perf_counter()
            last = [twin.update(placed, RATE) for _ in range(10)][-1].item()  # waits for all
            seconds = (time.perf_counter() - began) / 10
            report.say(
                f"PyTorch {torch.__version__}, {'compiled' if compiled else 'eager'}", on=device, batch=self.batch,
                in_a_row_ms=1e3 * seconds, images_s=self.batch / seconds, first_loss=losses_of[0], last_loss=last,
            )  # fmt: skip
            del twin, placed
            if device == "cuda":
                torch.cuda.empty_cache()

    def variants(self, report: Report) -> None:
        """One change each."""
        changes: dict[str, dict[str, Any]] = {
            "unchanged": {},
            "plain attention": {"kernel": "einsum"},
            "GELU by tanh": {"encoder": {"gelu": "tanh"}, "predictor": {"gelu": "tanh"}},
            "without the causal term": {"causal_weight": 0.0},
            "products kept, the rest recomputed": {"encoder": {"remat": "dots"}},
            "float32": {"dtype": "float32"},
        }
        for name, change in changes.items():
            if measuring.no_time(report, 60):
                return
            with measuring.recorded(report, variant=name):
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
        arrays: dict[str, Any] = dict(
            scene=zero, epoch=zero, video=video, object_patches=patches, object_valid=patches.any(2), removed=removed,
            context=context, valid=np.ones(scenes, bool), intervened=video // 2, intervened_valid=np.ones(scenes, bool),
        )  # fmt: skip
        arrays |= {"rows": {"index": index, "segment": segment}}
        return jax.device_put(batch_of(arrays)), arrays

    def _measured(self, report: Report, name: str, scenes: int, kernel="", useful=False, **changes) -> None:
        objective, (batch, arrays) = self._objective(**changes), self._batch(scenes)
        optimizer, began = optim.make(OPTIM), time.perf_counter()
        with attention.only(kernel) if kernel else contextlib.nullcontext():
            init = jax.jit(functools.partial(train_step.init_state, objective, optimizer, 0))
            state = init(batch)
            made = train_step.make(objective, optimizer, lambda _: RATE, 0)
            step = jax.jit(made, donate_argnums=0).lower(state, batch).compile()
        compiling = time.perf_counter() - began
        work = flops.useful_step_flops(objective, state, batch, arrays["context"]) if useful else 0
        state, seconds, row, loss = measuring.steps(step, state, batch, 10)
        found = {"encoder": self.variant, "batch": scenes, "ms": 1e3 * seconds, "in_a_row_ms": 1e3 * row}
        found["images_s"] = scenes / row
        if work:
            mfu = work / row / self.peak
            found |= {"gflop_image": work / scenes / 1e9, "mfu": None if math.isnan(mfu) else mfu}
        report.say(name, **found, first_loss=loss, compile_s=compiling, memory_gib=measuring.memory(step))
        if useful and self.kept is None:  # without the state, which would take memory from larger batches
            self.kept = objective, init, step, batch

    def _kept(self) -> tuple[Any, ...]:
        """The smallest step, made if no section has: objective, a fresh state, step, batch."""
        if self.kept is None:
            objective, (batch, _) = self._objective(), self._batch(self.batch)
            optimizer = optim.make(OPTIM)
            init = jax.jit(functools.partial(train_step.init_state, objective, optimizer, 0))
            step = jax.jit(train_step.make(objective, optimizer, lambda _: RATE, 0), donate_argnums=0)
            self.kept = objective, init, step, batch
        objective, init, step, batch = self.kept
        return objective, init(batch), step, batch
