"""Causal-JEPA in plain PyTorch (2.10 or newer), in one file without other parts of its project.

    from modeling_cjepa import CausalJEPA
    model = CausalJEPA.from_pretrained("FOLDER")         # config.json, model.safetensors and its SHA-256
    tokens = model.encode(video)                         # [B, N, D]
    features = model.features(video)                     # [B, D], their mean: what probes are fitted on
    answer = model.intervene(video, masks, remove=[0])   # what if the first object were absent?

Pixels: uint8 or float in 0..255, RGB, channels last: images [B, H, W, 3], clips [B, T, H, W, 3] (or of the channels and
scale in config.json). They are normalised here. H and W are multiples of the patch, T of the tubelet. N counts times x
rows x columns, in this order. All is differentiable. B scene, K object, N token, D width of the encoder, d of a head.
"""

import hashlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZES = {  # width, depth, heads, units of the MLP
    "Mu": (96, 4, 3, 384), "Ti": (192, 12, 3, 768), "S": (384, 12, 6, 1536), "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096), "H": (1280, 32, 16, 5120), "g": (1408, 40, 16, 6144),
}  # fmt: skip


class Intervention(NamedTuple):
    """Scenes under do(remove): the tokens hidden with the removed objects, and the model's outputs."""

    prediction: Tensor  # [B, N, D] at the hidden tokens, standardised if target_norm = layer_norm, else 0
    change: Tensor | None  # [B, N, D] predicted s_full - s_int at visible tokens, else 0. None: not trained
    hidden: Tensor  # bool [B, N] tokens that the removed objects touch (the others are visible)
    tokens: Tensor  # [B, N, D] the visible ones, encoded without the others, 0 elsewhere
    readouts: dict[str, Tensor]  # masked [B, D]. If change was trained, counterfactual [B, D], both [B, 2 D]


class CausalJEPA(nn.Module):
    """Encoder, its EMA copy (`target`) and predictor, the last two where the weights have them. config: the content of
    config.json. shapes: of the stored tensors, by name. They say which optional parts there are."""

    def __init__(self, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]):
        super().__init__()
        self.config, kernel = dict(config), "patch_embed.proj.weight"
        self.encoder = Encoder(config, shapes[f"encoder.{kernel}"])
        self.target = Encoder(config, shapes[f"target.{kernel}"]) if f"target.{kernel}" in shapes else None
        self.predictor = Predictor(config, shapes, self.encoder.width) if config.get("predictor") else None

    @classmethod
    def from_pretrained(cls, folder: str | pathlib.Path) -> "CausalJEPA":
        """The model in an exported folder, on the CPU, in float32.

        Raises: ValueError for a folder of another format, damaged or with other tensors. OSError for missing files.
        """
        file = pathlib.Path(folder) / "model.safetensors"
        config = json.loads(file.with_name("config.json").read_text(encoding="utf-8"))
        if config.get("format") != "cjepa_jax" or config.get("version") != 1:
            raise ValueError(f"{folder}: config.json is not of the format cjepa_jax, version 1")
        data, expected = bytearray(file.read_bytes()), file.with_name(f"{file.name}.sha256").read_text()[:64]
        if (found := hashlib.sha256(data).hexdigest()) != expected:
            raise ValueError(f"{file}: damaged: its SHA-256 is {found}, {file.name}.sha256 says {expected!r}")
        start, state = 8 + int.from_bytes(data[:8], "little"), {}  # the length of the JSON header, then the numbers
        for name, about in json.loads(data[8:start]).items():
            if name != "__metadata__":
                place = {"count": math.prod(about["shape"]), "offset": start + about["data_offsets"][0]}
                state[name] = torch.frombuffer(data, dtype=torch.float32, **place).reshape(about["shape"])
        try:
            with torch.device("meta"):  # no random initialisation
                model = cls(config, {name: tuple(tensor.shape) for name, tensor in state.items()})
            model.load_state_dict(state, strict=True, assign=True)
        except (KeyError, RuntimeError) as error:  # PyTorch's lists every name that is missing, too many or mis-shaped
            raise ValueError(f"{file} does not fit its config.json: {error}") from error
        return model.eval()

    def forward(self, video: Tensor, target: bool = False) -> Tensor:
        """Tokens of whole scenes: [B, H, W, 3] or [B, T, H, W, 3] -> [B, N, D], by the EMA copy if `target`."""
        if target and self.target is None:
            raise ValueError("encode(target=True): these weights have no target encoder")
        return (self.target if target else self.encoder)(_clips(video, self.encoder))

    encode = forward

    def features(self, video: Tensor) -> Tensor:
        """The mean token of each scene, [B, D]."""
        return self.encode(video).mean(1)

    def encode_context(self, video: Tensor, context: Tensor) -> Tensor:
        """The tokens in `context`, bool [B, N], encoded as if there were no others: [B, N, D], 0 elsewhere."""
        return self.encoder(_clips(video, self.encoder), context)

    def intervene(self, video: Tensor, masks: Tensor, remove: int | Sequence[int] | Tensor) -> Intervention:
        """The scenes without some of their objects, from what stays visible.

        Args:
          masks: the objects' pixels, bool [B, K, H, W] or, of clips, [B, K, T, H, W], or their tokens, [B, K, N].
          remove: the removed objects: their indices in K, the same for all scenes, or bool [K] or [B, K].
        The first `input.anchor` times stay visible, and all if nothing would (the Python API refuses such scenes). The
        readouts are means over tokens. masked: of the prediction at hidden ones. counterfactual: of s_full - change at
        visible ones, s_full being the whole scene as the target encodes it. both: the two side by side.
        """
        if self.predictor is None:
            raise ValueError("intervene: these weights have no predictor")
        clip = _clips(video, self.encoder)
        grid = self.encoder.grid(clip)
        patches = _patches(masks, clip, grid)
        removed = _removed(remove, patches, self.predictor.most)
        first = self.config["input"].get("anchor", 0) * grid[1] * grid[2]
        hidden = (patches & removed[..., None]).any(1) & (torch.arange(patches.shape[2], device=clip.device) >= first)
        hidden = hidden & ~hidden.all(1, keepdim=True)
        tokens = self.encode_context(clip, ~hidden)
        prediction, change = self.predictor(tokens, grid, hidden, patches, removed)
        prediction = torch.where(hidden[..., None], prediction, 0)
        readouts = {"masked": _mean(prediction, hidden)}
        if change is not None:
            change = torch.where(hidden[..., None], 0, change)
            full = self.encode(clip, target=self.target is not None)
            readouts["counterfactual"] = _mean(full - change, ~hidden)
            readouts["both"] = torch.cat([readouts["masked"], readouts["counterfactual"]], -1)
        return Intervention(prediction, change, hidden, tokens, readouts)


class Transformer(nn.Module):
    """Pre-norm blocks, a final norm, and places: codes that are added, or rotations ("rope..") of queries and keys."""

    def __init__(self, options: Mapping[str, Any], width: int, depth: int, heads: int, units: int, cross: bool = False):
        super().__init__()
        self.width, self.head = width, width // heads
        self.positions, self.stored = options.get("positions", "sincos"), tuple(options.get("position_grid", ()))
        if self.positions == "table":
            self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.stored), width))
        self.blocks = nn.ModuleList(Block(width, heads, units, options, cross) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=options.get("epsilon", 1e-6))

    def placed(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """x [B, N, D] + the code of each place."""
        if self.positions == "table":
            return x + resized(self.pos_embed, self.stored, grid).to(x.dtype)
        return x + sincos(grid, self.width, x.device).to(x.dtype) if self.positions == "sincos" else x

    def transformed(self, x: Tensor, grid, mask=None, across=None, order: Tensor | None = None) -> Tensor:
        """x [B, T, D] through all blocks. `order` [B, T]: the token of the grid of each in x (None: all in order)."""
        rotation = None
        if self.positions.startswith("rope"):
            rotation = rotations(grid, self.head, self.positions == "rope_tile", self.stored, x.device)
            rotation = rotation if order is None else tuple(part[order][:, None] for part in rotation)  # [B, 1, T, d]
        for block in self.blocks:
            x = block(x, mask, across, rotation)
        return self.norm(x)


class Encoder(Transformer):
    """A Vision Transformer without class token. `kernel`: its first layer's shape, [D, C, p, p] or [D, C, t, p, p]."""

    def __init__(self, config: Mapping[str, Any], kernel: Sequence[int]):
        options = config["encoder"]
        size, _, patch = options["variant"].partition("/")
        width, depth, heads, units = SIZES[size] if size in SIZES else map(int, size.split("x"))
        super().__init__(options, width, options.get("depth") or depth, heads, units)
        self.patch, self.tubelet, self.scale = int(patch), options.get("tubelet", 2), options.get("scale", 255.0)
        self.zeroed = config["input"].get("encoder_input", "context") == "zeroed"
        size, convolution = (*kernel[2:-2], int(patch), int(patch)), nn.Conv3d if len(kernel) == 5 else nn.Conv2d
        self.frames, self.channels = (1, *size)[-3], kernel[1]
        self.patch_embed = nn.ModuleDict({"proj": convolution(kernel[1], width, size, stride=size)})
        self.register_buffer("mean", torch.tensor(options["mean"], device="cpu"), persistent=False)
        self.register_buffer("std", torch.tensor(options["std"], device="cpu"), persistent=False)

    def forward(self, clip: Tensor, context: Tensor | None = None) -> Tensor:
        """[B, T, H, W, 3] -> [B, N, D]. With `context`, bool [B, N], only its tokens see each other, 0 elsewhere.

        They are gathered into rows as long as the longest needs to be, so that hidden ones cost nothing. Weights that
        were trained so (input.encoder_input = "zeroed") get the whole grid, the hidden tokens as zeros.
        """
        x, grid = self._tokens(clip), self.grid(clip)
        if context is None:
            return self.transformed(x, grid)
        if context.shape != x.shape[:2]:
            raise ValueError(f"context {list(context.shape)}: must be bool {list(x.shape[:2])}")
        if self.zeroed:
            return self.transformed(torch.where(context[..., None], x, 0), grid)
        most = max(context.sum(1).tolist(), default=0)
        order = context.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        wide, real = order[..., None].expand(-1, -1, self.width), context.gather(1, order)
        packed = self.transformed(x.gather(1, wide), grid, None if real.all() else real[:, None, None], order=order)
        return torch.zeros_like(x).to(packed.dtype).scatter(1, wide, torch.where(real[..., None], packed, 0))

    def grid(self, clip: Tensor) -> tuple[int, int, int]:
        """(times, rows, columns) of [B, T, H, W, 3]. Raises ValueError for a size that does not divide."""
        frames, height, width = clip.shape[1:4]
        if (tubelet := 1 if frames == 1 else self.tubelet) != self.frames:
            raise ValueError(f"video {list(clip.shape)}: {frames} frames, the weights are of {self.frames} at a time")
        for name, value, unit in (("T", frames, tubelet), ("H", height, self.patch), ("W", width, self.patch)):
            if value % unit:
                raise ValueError(f"video {list(clip.shape)}: {name} = {value} is not a multiple of {unit}")
        return frames // tubelet, height // self.patch, width // self.patch

    def _tokens(self, clip: Tensor) -> Tensor:
        """[B, N, D]. The convolution's strides are its sizes: one matrix product, rounded to TF32 only if asked for."""
        grid, p, proj = self.grid(clip), self.patch, self.patch_embed["proj"]
        pixels = (clip.float() / self.scale - self.mean.float()) / self.std.float()
        boxes = pixels.reshape((clip.shape[0], grid[0], self.frames, grid[1], p, grid[2], p, self.channels))
        boxes = boxes.permute((0, 1, 3, 5, 7, 2, 4, 6)).flatten(4).flatten(1, 3)  # a box: channel, frame, row, column
        x = functional.linear(boxes.to(proj.weight.dtype), proj.weight.flatten(1), proj.bias)
        return self.placed(x, grid)


class Predictor(Transformer):
    """The narrow Transformer: context tokens in their places, mask tokens in the others.

    A mask token is a learned vector + its position + the embedding, by rank, of each removed object that covers it.
    attention "joint": all see all. "cross": mask tokens see each other, then each kind of token the other kind.
    """

    def __init__(self, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], out: int):
        options, named = config["predictor"], config["input"].get("names_objects", True)
        width, cross = options["width"], options.get("attention", "joint") == "cross"
        super().__init__(options, width, options["depth"], options["heads"], units=4 * width, cross=cross)
        self.cross, self.most = cross, shapes.get("predictor.object_embedding", [0])[0] if named else 0
        self.embed, self.mask_token = nn.Linear(out, width), nn.Parameter(torch.zeros(width))
        if "predictor.object_embedding" in shapes:
            self.object_embedding = nn.Parameter(torch.zeros(shapes["predictor.object_embedding"]))
        self.prediction = nn.Linear(width, out)
        self.residual = nn.Linear(width, out) if "predictor.residual.weight" in shapes else None
        self.foresees = self.residual is not None and config["input"].get("change", True)  # the change: was it trained?

    def forward(self, tokens: Tensor, grid: tuple[int, int, int], hidden: Tensor, patches: Tensor, removed: Tensor):
        """(prediction, which means something at hidden tokens, and change, at all others, or None), each [B, N, D].

        tokens [B, N, D]: the encoded context. hidden [B, N]: what is predicted. patches [B, K, N], removed [B, K].
        """
        masked = self.mask_token.expand(*hidden.shape, -1)
        if self.most:
            order = ranks(patches, removed)[..., None] == torch.arange(self.most, device=patches.device)  # [B, K, M]
            covers = torch.einsum("bkn,bkm->bnm", (patches & removed[..., None]).to(masked), order.to(masked))
            masked = masked + covers @ self.object_embedding
        x = self.placed(torch.where(hidden[..., None], masked, self.embed(tokens)), grid)
        row, column = hidden[:, None, :, None], hidden[:, None, None]  # to [B, 1, N, N]
        x = self.transformed(x, grid, row & column, row ^ column) if self.cross else self.transformed(x, grid)
        return self.prediction(x), self.residual(x) if self.foresees else None


def ranks(patches: Tensor, removed: Tensor) -> Tensor:
    """Each removed object's place, from 0, in the order of its lowest token: bool [B, K, N], [B, K] -> int64 [B, K].

    Ties go to the smaller area, the lower centroid, the narrower object. Objects that stay have the meaningless rank K.
    """
    patches = (patches & removed[..., None]).long()
    index = torch.arange(patches.shape[-1], device=patches.device)
    keys = (patches.argmax(-1), patches.sum(-1), (patches * index).sum(-1), (patches * index * index).sum(-1))
    before = torch.zeros(*removed.shape, removed.shape[-1], dtype=torch.bool, device=removed.device)
    for key in reversed(keys):
        i, j = key[:, :, None], key[:, None]
        before = (j < i) | ((j == i) & before)  # [B, i, j]: object j comes before object i
    return torch.where(removed, (before & removed[:, None]).sum(-1), removed.shape[-1])


class Block(nn.Module):
    """x + attention(norm(x)), with `cross` also x + cross-attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, units: int, options: Mapping[str, Any], cross: bool = False):
        super().__init__()
        epsilon = options.get("epsilon", 1e-6)
        self.heads, self.approximate = heads, "tanh" if options.get("gelu") == "tanh" else "none"
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=epsilon), nn.LayerNorm(width, eps=epsilon)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, units), "fc2": nn.Linear(units, width)})
        if cross:
            self.norm_cross = nn.LayerNorm(width, eps=epsilon)
            self.cross = nn.ModuleDict({k: nn.Linear(width, n * width) for k, n in (("q", 1), ("kv", 2), ("proj", 1))})

    def forward(self, x: Tensor, mask: Tensor | None, across: Tensor | None, rotation) -> Tensor:
        """x [B, T, D]. mask, across: bool [B, 1, T or 1, T], who sees whom in the two attentions, None: all see all."""
        q, k, v = self._heads(self.attn["qkv"](self.norm1(x)), 3)
        x = x + self.attn["proj"](attend(q, k, v, mask, rotation))
        if across is not None:
            y = self.norm_cross(x)
            (q,), (k, v) = self._heads(self.cross["q"](y), 1), self._heads(self.cross["kv"](y), 2)
            x = x + self.cross["proj"](attend(q, k, v, across, rotation))
        hidden = functional.gelu(self.mlp["fc1"](self.norm2(x)), approximate=self.approximate)
        return x + self.mlp["fc2"](hidden)

    def _heads(self, x: Tensor, parts: int):
        """[B, T, parts x heads x d] -> parts of [B, heads, T, d]."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, heads joined: [B, H, T, d] -> [B, T, H d]. A query that sees no key gets zeros.

    With a `rotation`, pairs of components (a, b) of queries and keys become (a cos - b sin, b cos + a sin).
    """
    if rotation is not None:
        cosine, sine = rotation
        turned = [torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) for x in (q, k)]
        q, k = ((x * cosine + t * sine).to(v.dtype) for x, t in zip((q, k), turned, strict=True))
    if mask is None:
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    some = mask.any(-1, keepdim=True)  # a softmax over nothing has no gradient: over everything, then set to zero
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~some)
    return torch.where(some, out, 0).transpose(1, 2).flatten(2)


def rotations(grid, width: int, tile: bool, reference: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """(cosines, sines), each [N, d] float32: time, row and column turn a third of a head's `width` each, made even.

    A `reference` grid scales rows and columns to its own span. `tile` repeats the angles in another order than the
    components that they turn: so V-JEPA 2 was trained, and so its weights need it.
    """
    share = 2 * (width // 3 // 2)
    spans = [(r - 1) / max(n - 1, 1) for r, n in zip(reference or grid, grid, strict=True)]
    angles = _angles(grid, (share,) * 3, device, (1.0, *spans[1:]))
    angle = torch.cat([x.repeat(1, 2) if tile else x.repeat_interleave(2, 1) for x in angles], 1)
    angle = functional.pad(angle, (0, width - 3 * share))
    return angle.cos().float(), angle.sin().float()


def resized(table: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """A table of codes [1, N, D] at another grid: bicubic for images, trilinear for clips."""
    if old == new:
        return table
    planes = table.float().reshape(1, *old, -1).permute(0, 4, 1, 2, 3)
    if old[0] == new[0] == 1:
        return functional.interpolate(planes[:, :, 0], new[1:], mode="bicubic").flatten(2).transpose(1, 2)
    if old[0] == 1:
        raise ValueError(f"video: {new[0]} times, the positions are a table for images")
    return functional.interpolate(planes, new, mode="trilinear").flatten(2).transpose(1, 2)


def sincos(grid: tuple[int, int, int], width: int, device: torch.device) -> Tensor:
    """Fixed codes of a (times, rows, columns) grid, [N, width] float32: of images half of the width for rows and half
    for columns, of clips a quarter for times and the rest for the two. Sines, then cosines, of falling frequencies."""
    times = 0 if grid[0] == 1 else 2 * (width // 8)
    rows = 2 * ((width - times) // 4)
    angles = _angles(grid, (times, rows, width - times - rows), device)
    code = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)
    return functional.pad(code, (0, width % 2)).float()


def _angles(grid: Sequence[int], widths: Sequence[int], device: torch.device, scales=(1.0, 1.0, 1.0)) -> list[Tensor]:
    """Time, row and column of each token, scaled, at width / 2 frequencies each, in float64 if the device has it."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    places = torch.meshgrid(*(torch.arange(side, dtype=dtype, device=device) for side in grid), indexing="ij")
    halves = [torch.arange(width // 2, dtype=dtype, device=device) / max(width // 2, 1) for width in widths]
    return [x.reshape(-1, 1) * s / 10000.0**half for x, half, s in zip(places, halves, scales, strict=True)]


def _clips(video: Any, takes: Encoder) -> Tensor:
    """[B, T, H, W, C] of images or clips. Anything but a tensor goes to the device. Raises ValueError for other shapes,
    and, with a scale of 255, for values outside 0..255, and for floats below 2, which are fractions of white."""
    video = video if isinstance(video, Tensor) else torch.as_tensor(video, device=takes.mean.device)
    video, c = video[:, None] if video.ndim == 4 else video, takes.channels
    if video.ndim != 5 or video.shape[-1] != c:
        raise ValueError(f"video {list(video.shape)}: must be [B, H, W, {c}] or [B, T, H, W, {c}], channels last")
    if video.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise ValueError(f"video: dtype {video.dtype}: must be uint8 or float, values in 0..255")
    if video.dtype != torch.uint8 and not torch.compiler.is_compiling() and video.numel():
        least, most = map(float, (video.min(), video.max()) if video.dtype != torch.uint16 else video.int().aminmax())
        low, top = (0, 255) if takes.scale == 255 else (-3e38, 3e38)
        if not (low <= least and most <= top) or (top == 255 and video.is_floating_point() and 0 < most < 2):  # NaN too
            raise ValueError(f"video: values from {least:g} to {most:g}: pixels must be in {low:g}..{top:g}")
    return video


def _patches(masks: Tensor, clip: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """bool [B, K, N]: the tokens that an object touches with any pixel, in any of a token's frames."""
    masks, (batch, frames, height, width) = torch.as_tensor(masks, device=clip.device) != 0, clip.shape[:4]
    if masks.ndim == 3 and masks.shape[::2] == (batch, math.prod(grid)):
        return masks
    masks = masks[:, :, None] if masks.ndim == 4 and frames == 1 else masks
    if masks.ndim != 5 or (masks.shape[0], *masks.shape[2:]) != (batch, frames, height, width):
        wanted = f"[{batch}, K, {frames}, {height}, {width}] (pixels) or [{batch}, K, {math.prod(grid)}] (tokens)"
        raise ValueError(f"masks {list(masks.shape)}: must be {wanted}")
    times, rows, cols = grid
    boxes = masks.reshape((*masks.shape[:2], times, frames // times, rows, height // rows, cols, width // cols))
    return boxes.any(7).any(5).any(3).flatten(2)


def _removed(remove: Any, patches: Tensor, most: int) -> Tensor:
    """bool [B, K] of a place in K, of several, or of bool [K] or [B, K]. At most `most` at a time, if it is not 0."""
    remove = list(remove) if isinstance(remove, Iterable) and not hasattr(remove, "tolist") else remove
    objects, shown = patches.shape[1], f"{remove.tolist() if hasattr(remove, 'tolist') else remove!s:.60}"
    try:
        given = torch.as_tensor(remove, device=patches.device)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, text, None
        given = torch.zeros(0)
    if "int" in str(given.dtype) and given.ndim < 2 and given.numel() and 0 <= given.min() <= given.max() < objects:
        given = torch.isin(torch.arange(objects, device=given.device), given)
    if given.dtype != torch.bool or tuple(given.shape) not in ((objects,), tuple(patches.shape[:2])):
        raise ValueError(f"remove = {shown}: must be from 0 to {objects - 1}, one or several, or bool [B, K]")
    removed = given.expand(patches.shape[:2])
    if most and (count := max(removed.sum(1).tolist(), default=0)) > most:
        raise ValueError(f"remove: {count} objects at a time, the predictor knows at most {most}")
    return removed


def _mean(x: Tensor, where: Tensor) -> Tensor:
    """The mean over chosen tokens, [B, N, D], bool [B, N] -> [B, D]. 0 where none is chosen."""
    return (x * where[..., None]).sum(1) / where.sum(1, keepdim=True).clamp(min=1)
