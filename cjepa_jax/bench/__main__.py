"""Measures the training step of a config on this machine: time, scenes/s, waiting for data, FLOP/s, memory, faults.

python -m cjepa_jax.bench --config=configs/tiny.py [--steps=30] [--config.train.batch=8 ...]
python -m cjepa_jax.bench --config=configs/tiny.py --against=torch,torch-compile,ijepa
python -m cjepa_jax.bench --config=configs/tiny.py --against=padded
python -m cjepa_jax.bench --config=configs/tiny.py --timeline=threads.svg    what each thread of the CPU does in a step
python -m cjepa_jax.bench --report                   an accelerator's report, to read and to send back (--report --help)
python -m cjepa_jax.bench --planning [--against=torch]        plans per second with a world model (--planning --help)

The step is the real one on the config's real data. FLOPs are those of the model's matrix products, counted from shapes
without rematerialisation. Useful FLOPs are those of real tokens. Their rate is printed with the best rate of one large
matrix product measured here. With --against, other implementations alternate with ours: the same algorithm in
PyTorch, eager or compiled, the public I-JEPA code's step, or ours with everything padded (see bench/paired.py).
"""


def _flags():
    from absl import flags

    flags.DEFINE_integer("steps", 30, "steps to time, after those that compile", lower_bound=3)
    flags.DEFINE_string("timeline", "", "draw what each thread of the CPU does in a step into this .svg file, instead")
    from cjepa_jax.bench.peer import PEERS

    flags.DEFINE_list("against", "", f"what to compare the step with, instead of describing it: {', '.join(PEERS)}")
    limit = f"must be one or more of {','.join(PEERS)}"
    flags.register_validator("against", lambda names: set(names) <= set(PEERS) and len(set(names)) == len(names), limit)


if __name__ == "__main__":
    import importlib
    import sys

    for option, module in (("--report", "accelerator"), ("--planning", "planning")):
        if option in sys.argv[1:]:
            other = importlib.import_module(f"cjepa_jax.bench.{module}")
            raise SystemExit(other.main([text for text in sys.argv[1:] if text != option]))
    from cjepa_jax import cli

    raise SystemExit(cli.run("cjepa_jax.bench.__main__", _flags))

import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from cjepa_jax import experiment, sharding
from cjepa_jax.bench import paired, timeline
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import memory
from cjepa_jax.runtime import timing


def main(config, _) -> int:
    """Prints one line per measurement. Nothing is written but the picture of --timeline."""
    arguments = flags.FLAGS
    if arguments.timeline and arguments.against:
        raise ConfigError(f"--timeline={arguments.timeline}: not with --against={','.join(arguments.against)}")
    if arguments.timeline:
        report = timeline.describe(config, arguments.steps, arguments.timeline)
    elif arguments.against:
        report = paired.compare(config, arguments.against, arguments.steps)
    else:
        report = describe(config, arguments.steps)
    for name, value in report.items():
        print(f"{name:24} {value}")
    return 0


def describe(config, count: int) -> dict[str, str]:
    """Runs `count` steps, and those that compile, and returns a line per finding."""
    run = experiment.assemble(config)
    batches = run.loader.iterate(0, 10**6)
    arrays = next(batches)
    batch = sharding.put_batch(run.mesh, arrays)
    state = run.init(batch)

    report = {"device": f"{run.mesh.size} x {jax.devices()[0].device_kind}", "jax": jax.__version__}
    seen = {_rows(batch): arrays}  # one compiled step for each
    state, compiled = _timed(run.step, state, batch)
    report["first step"] = f"{compiled:.1f} s, its program made, or loaded if it was kept"
    compiling = compiled
    memory.set_aside()  # as the loop of a training does
    seconds, transfers, waits, padded, faults = {}, [], [], [], []
    while len(waits) < count:
        start = time.perf_counter()
        arrays = next(batches)
        wait = time.perf_counter() - start
        batch, transfer = _put(run.mesh, arrays)
        shape, known, before = _rows(batch), timing.compilations(run.step), _faults()
        state, taken = _timed(run.step, state, batch)
        if shape not in seen or timing.compilations(run.step) > known:
            compiling += taken
            seen[shape] = arrays
            memory.set_aside()
            continue  # this step compiled
        faults.append(_faults() - before)
        seconds.setdefault(shape, []).append(taken)
        transfers.append(transfer)
        waits.append(wait)
        padded.append(1 - (arrays["rows"]["segment"] != 0).mean())
    batches.close()
    working = sum(map(sum, seconds.values())) + sum(transfers)
    common = max(seconds, key=lambda shape: len(seconds[shape]))
    alike = seconds[common]
    median, percentile = float(np.median(alike)), np.percentile(alike, 95)
    report["step"] = (
        f"{_ms(median)} median, {_ms(min(alike))} min, {_ms(percentile)} p95, n {len(alike)} of {count}: "
        f"{common[0]} rows of {common[1]} tokens, the most frequent layout"
    )
    report["transfer to device"] = f"{1e3 * np.median(transfers):.2f} ms median, before each step"
    report["scenes/s"] = f"{config.train.batch * count / working:.1f} over all layouts, transfer included"
    report["waiting for data"] = f"{100 * sum(waits) / (sum(waits) + working):.1f} % of the time"
    report["data alone"] = _data_rate(run.loader, max(5, count // 3), working / count)
    report["padding in context rows"] = f"{100 * np.mean(padded):.1f} % of their tokens"
    report["compiled shapes"] = f"{len(seen)}, made or loaded in {compiling:.1f} s, their first steps included"
    report |= _rates(config, run, state, seen[common], median)
    minor, major = np.median(faults, axis=0)
    report["page faults"] = f"{minor:.0f} minor, {major:.0f} major a step, median"
    unit = 1 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    report["peak memory"] = f"{peak:.2f} GiB of this process"
    on_device = jax.devices()[0].memory_stats()
    if on_device:
        report["peak device memory"] = f"{on_device['peak_bytes_in_use'] / 2**30:.2f} GiB"
    return report


def _put(mesh, arrays):
    """A loader's arrays on the devices: (batch, seconds)."""
    start = time.perf_counter()
    batch = jax.block_until_ready(sharding.put_batch(mesh, arrays))
    return batch, time.perf_counter() - start


def _rows(batch) -> tuple[int, int]:
    """(rows, tokens of each) of all shards."""
    shards, rows, length = batch.rows.segment.shape
    return shards * rows, length


def _faults() -> np.ndarray:
    """Minor and major page faults of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([usage.ru_minflt, usage.ru_majflt])


def _timed(step, state, batch):
    """One step from arrays on the device to its last result: (state, seconds)."""
    jax.block_until_ready((state, batch))
    start = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    return state, time.perf_counter() - start


def _data_rate(loader, count: int, step_seconds: float) -> str:
    """How fast batches come when nothing else runs, from the second that a fresh loader yields."""
    batches = loader.iterate(0, 10**6)
    next(batches)
    start = time.perf_counter()
    count += loader.prefetch * max(loader.workers, 1)  # prefetched batches should not count much
    for _ in range(count):
        next(batches)
    taken = (time.perf_counter() - start) / count
    batches.close()
    return f"{loader.batch / taken:.0f} scenes/s, {step_seconds / taken:.1f} times what the step eats"


def _rates(config, run, state, arrays, seconds: float) -> dict[str, str]:
    """FLOP/s of a step on these arrays, which takes `seconds`, and the machine's best rate."""
    useful, padded = paired.count_flops(config, run.mesh, state, arrays)
    dtype = jnp.dtype(getattr(run.objective, "dtype", "float32"))
    size = 2048 if jax.default_backend() == "cpu" else 8192  # a small product leaves an accelerator idle
    # A CPU's simulated devices share its cores: a product on any of them uses all cores.
    devices = jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()
    peak = _matmul_rate(dtype, size) * devices
    return {
        "useful FLOPs per step": f"{useful / 1e9:.1f} G (matrix products of real tokens)",
        "FLOPs per step": f"{padded / 1e9:.1f} G (matrix products, padding included)",
        "useful FLOP/s": f"{useful / seconds / 1e9:.0f} G",
        "matmul peak here": f"{peak / 1e9:.0f} G FLOP/s ({dtype}, {size}^3, best of 10, x {devices})",
        "share of that peak": f"{100 * useful / seconds / peak:.0f} % (MFU: useful FLOPs only)",
    }


def _matmul_rate(dtype, size: int) -> float:
    """The best FLOP/s of one size^3 product on the first device."""
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
    product(x, x).block_until_ready()
    best = np.inf
    for _ in range(10):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms"
