"""The cost of a config's step on many chips, from shapes: FLOPs, memory, bytes sent, and the limit set by
communication.

python -m cjepa_jax.bench.scaling --config=configs/vitl.py --chips=32 [--size=1408,40,6144] [--peak=459 --link=600]
XLA_FLAGS=--xla_force_host_platform_device_count=64 python -m cjepa_jax.bench.scaling --config=configs/vitl.py --hlo ...

The first needs no chips. config.sharding.fsdp is the number of chips that divide the parameters. The second compiles
the real step for the available devices, without running it, and counts the communication in XLA's program. Both are for
objective.type Jepa with targets in two passes (data.intervened "zero_pixels" or "rerender").
"""


def _flags():
    from absl import flags

    flags.DEFINE_integer("chips", 32, "chips that share the step", lower_bound=1)
    flags.DEFINE_string("size", "", "the encoder's width, blocks and MLP units, instead of the config's variant")
    flags.DEFINE_float("context", 1.0, "length of the context rows, as a share of the grid")
    flags.DEFINE_float("peak", 989.4, "a chip's dense bfloat16 peak, TFLOP/s")
    flags.DEFINE_float("share", 0.5, "the share of that peak which the products reach")
    flags.DEFINE_float("link", 400.0, "what a chip can send, GB/s")
    flags.DEFINE_bool("hlo", False, "compile for the devices at hand and count instead")


if __name__ == "__main__":
    from cjepa_jax import cli

    raise SystemExit(cli.run("cjepa_jax.bench.scaling", _flags))

import collections
import dataclasses
import math
import re

import jax
from absl import flags

from cjepa_jax import experiment, sharding
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import paths
from cjepa_jax.numerics import singular

GB = 1e9
BYTES = {"pred": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
OPERATION = re.compile(rf" = (\S.*?) ({'|'.join(KINDS)})(?:-start)?\(")


@dataclasses.dataclass(frozen=True)
class Stack:
    """`depth` blocks of `width` with `hidden` MLP units."""

    width: int
    depth: int
    hidden: int

    @property
    def kernels(self) -> int:
        """Elements of the blocks' matrices."""
        return self.depth * (4 * self.width**2 + 2 * self.width * self.hidden)

    @property
    def vectors(self) -> int:
        """Elements of the blocks' biases and norms, and of the last norm."""
        return self.depth * (9 * self.width + self.hidden) + 2 * self.width

    def flops(self, tokens: int, row: int) -> int:
        """FLOPs of one forward pass over `tokens` tokens in rows of length `row`."""
        return 2 * tokens * self.kernels + 4 * tokens * row * self.width * self.depth


@dataclasses.dataclass(frozen=True)
class Model:
    """Causal-JEPA's networks and one scene: `tokens` of the grid, `row` of them in context rows, `box` numbers each.

    `tables`: elements of the encoder's and of the predictor's stored positions, which are not trained.
    """

    encoder: Stack
    predictor: Stack
    tokens: int
    row: int
    box: int
    objects: int
    tables: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, config, size: str = "", context: float = 1.0) -> "Model":
        """Networks of a config. `size` "width,blocks,MLP units" replaces the encoder's. Raises ConfigError if it is
        invalid."""
        for part, key in (("encoder", "variant"), ("predictor", "width")):
            if key not in (config.objective.get(part) or {}):
                raise ConfigError(
                    f"objective.{part}.{key} is missing: the formulas are those of Causal-JEPA's networks"
                )
        found = parse(config.objective.encoder.variant)
        encoder = Stack(found.width, config.objective.encoder.depth or found.depth, found.hidden)
        if size:
            if not re.fullmatch(r"[1-9]\d{0,8}(,[1-9]\d{0,8}){2}", size, re.ASCII):
                raise ConfigError(f"--size={paths.shown(size)}: must be three numbers from 1: width, blocks, MLP units")
            encoder = Stack(*map(int, size.split(",")))
        predictor = config.objective.predictor
        frames = 1 if config.data.frames == 1 else config.objective.encoder.tubelet
        tokens = (config.data.frames // frames) * (config.data.size // found.patch) ** 2
        narrow = Stack(predictor.width, predictor.depth, 4 * predictor.width)
        row = math.ceil(context * tokens)
        tables = [
            math.prod(part.position_grid) * stack.width if part.get("positions") == "table" else 0
            for part, stack in ((config.objective.encoder, encoder), (predictor, narrow))
        ]
        box = frames * found.patch**2 * 3
        return cls(encoder, narrow, tokens, row=row, box=box, objects=predictor.max_objects, tables=tuple(tables))

    @property
    def kernels(self) -> tuple[int, int]:
        """Elements of the encoder's and of the predictor's matrices."""
        width, narrow = self.encoder.width, self.predictor.width
        return self.encoder.kernels + self.box * width, self.predictor.kernels + 3 * width * narrow

    @property
    def params(self) -> tuple[int, int]:
        """Elements of the encoder and of the predictor."""
        width, narrow = self.encoder.width, self.predictor.width
        encoder, predictor = self.kernels
        extra = narrow + 2 * width + narrow * (1 + self.objects)  # biases of the ends, mask and object embeddings
        vectors = self.encoder.vectors + width, self.predictor.vectors + extra
        return tuple(map(sum, zip((encoder, predictor), vectors, self.tables, strict=True)))

    @property
    def flops(self) -> int:
        """FLOPs of a scene's step: two target passes, context encoder and predictor forwards, and twice that
        backwards."""
        n, width, narrow = self.tokens, self.encoder.width, self.predictor.width
        pixels = 2 * n * self.box * width  # the pixels get no gradient
        targets = 2 * (pixels + self.encoder.flops(n, n))
        context = 2 * pixels + 3 * self.encoder.flops(self.row, self.row)
        return targets + context + 3 * (self.predictor.flops(n, n) + 6 * n * width * narrow)

    @property
    def state_bytes(self) -> int:
        """float32: parameters, two moments of each, and the encoder's moving average."""
        return 4 * (3 * sum(self.params) + self.params[0])


def payload(model: Model, batch: int, fsdp: int, slices: int = 1, chips: int = 1) -> dict[str, float]:
    """Output bytes of a step's collectives on each chip. `chips`: those among which scenes are divided.

    The blocks' kernels are gathered in the encoder's three passes, the predictor's one and both backward passes.
    Kernels at the ends are gathered once, and the tokenizer's for the trained encoder and the target. All are gathered
    in float32, for every type of the products. Several `slices` (train.accumulate under "jit") gather the blocks'
    kernels and add the gradients up for each slice, because the sum is inside the loop. A pass of the context encoder
    before them computes the features, with kernels gathered twice.
    """
    encoder, predictor = model.kernels
    first = slices > 1
    blocks = (4 + first) * model.encoder.kernels + 2 * model.predictor.kernels
    ends = (2 + first) * (encoder - model.encoder.kernels) + predictor - model.predictor.kernels
    gathered = 4 * (slices * blocks + ends) if fsdp > 1 else 0
    width = model.encoder.width
    pooled = 4 * width * (chips * width if singular.reduces(batch, width, chips) else batch)
    trained = sum(model.params) - sum(model.tables)
    return {"gradients": 4 * slices * trained, "parameters": gathered, "SIGReg": (1 + first) * pooled}


def sent(model: Model, batch: int, data: int, fsdp: int, slices: int = 1) -> float:
    """Bytes that a chip sends in a step, by rings: to gather X bytes, each of n chips sends X (n-1)/n. Reduce-scatter
    sends the same, all-reduce twice as many."""
    amounts, n = payload(model, batch, fsdp, slices, data * fsdp), data * fsdp
    total = amounts["parameters"] * (fsdp - 1) / fsdp + amounts["SIGReg"] * (n - 1) / n
    shard = amounts["gradients"] / fsdp
    return total + shard * (fsdp - 1) + 2 * shard * (data - 1) / data


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """kind -> (number of executions, output bytes on each device), from a compiled program's text, with loops
    multiplied out. Small ones of scalars and vectors are included."""
    bodies, name = collections.defaultdict(list), ""
    for line in hlo.splitlines():
        start = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if start:
            name = "ENTRY" if start[1] else start[2]
        bodies[name].append(line)
    found = collections.defaultdict(lambda: (0, 0))

    def visit(name: str, times: int) -> None:
        for line in bodies[name]:
            operation = OPERATION.search(line) if any(kind in line for kind in KINDS) else None
            if operation:
                count, size = found[operation[2]]
                found[operation[2]] = count + times, size + times * _bytes(operation[1])
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            for called in re.findall(r"(?:body|calls|to_apply|computation)=%?([\w.-]+)", line):
                visit(called, times * int(trips[1]) if trips else times)

    visit("ENTRY", 1)
    return dict(found)


def _bytes(shapes: str) -> int:
    """Bytes of the arrays in a text like (f32[96,16]{1,0}, f32[])."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    return sum(BYTES[kind] * math.prod(map(int, filter(None, sizes.split(",")))) for kind, sizes in arrays)


def main(config, _) -> None:
    """Prints one line per number. Nothing is written, nothing runs."""
    given = flags.FLAGS
    report = compiled(config) if given.hlo else on_paper(config, given)
    for name, value in report.items():
        print(f"{name:22} {value}")


def on_paper(config, given) -> dict[str, str]:
    """From shapes and a chip's numbers."""
    for name in ("context", "peak", "share", "link"):
        if not 0 < given[name].value < math.inf:
            raise ConfigError(f"--{name}={given[name].value}: must be a number above 0")
    chips, fsdp, batch, slices = given.chips, config.sharding.fsdp, config.train.batch, config.train.accumulate
    if chips % fsdp or batch % (chips * slices):
        raise ConfigError(
            f"--chips={chips}: must be a multiple of sharding.fsdp = {fsdp},"
            f" and train.batch = {batch} one of chips x train.accumulate = {chips * slices}"
        )
    model = Model.of(config, given.size, given.context)
    amount = sent(model, batch, chips // fsdp, fsdp, slices if config.sharding.mode == "jit" else 1)
    flops = model.flops * batch
    speed = given.peak * 1e12 * given.share
    compute, talk = flops / chips / speed, amount / (given.link * GB)
    return {
        "parameters": f"{sum(model.params) / 1e6:.1f} M, of which the encoder {model.params[0] / 1e6:.1f} M",
        "chips": f"{chips} = data {chips // fsdp} x fsdp {fsdp}, {batch // chips} scenes each",
        "FLOPs": f"{flops / 1e12:.1f} T a step, {model.flops / 1e9:.1f} G a scene, {flops / chips / 1e12:.2f} T a chip",
        "state": f"{model.state_bytes / fsdp / GB:.2f} GB a chip",
        "sent": f"{amount / GB:.2f} GB a chip and step",
        "computing": f"{1e3 * compute:.1f} ms",
        "sending": f"{1e3 * talk:.1f} ms: {talk / compute:.2f} of the computing",
        "equal at": f"{talk * speed / model.flops:.1f} scenes a chip, {batch * model.flops / (talk * speed):.0f} chips",
    }


def compiled(config) -> dict[str, str]:
    """From XLA's program of the step for the available devices, next to the values that `payload` expects."""
    if config.sharding.mode != "jit":
        raise ConfigError(f"sharding.mode = {config.sharding.mode!r}: must be 'jit' with --hlo")
    model, slices = Model.of(config), config.train.accumulate
    run = experiment.assemble(config)
    shards = sharding.shards(run.mesh) * slices
    batch = experiment.shapes(run.scenes, config.train.batch, run.loader.shapes[-1], shards)
    text = run.step.lower(jax.eval_shape(run.init, batch), batch).compile().as_text()
    report = {"devices": f"{run.mesh.size}: {dict(run.mesh.shape)}"}
    for kind, (count, size) in sorted(collectives(text).items()):
        report[kind] = f"{size / 1e6:.2f} MB in {count}"
    fsdp, chips = run.mesh.shape["fsdp"], sharding.shards(run.mesh)
    for kind, size in payload(model, config.train.batch, fsdp, slices, chips).items():
        report[f"expected {kind}"] = f"{size / 1e6:.2f} MB"
    return report
