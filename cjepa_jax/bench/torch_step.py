"""The training step of `objectives.jepa.Jepa` in PyTorch, as its users write it, as a reference for speed.

Float32 or bfloat16 autocast, scaled_dot_product_attention, fused AdamW, context rows padded to the batch's length, the
predictor on the whole grid. It does less than our step: no monitors, no guard against non-finite steps.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cjepa_jax import schedules
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.host import optional
from cjepa_jax.models import encoder, predictor
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.positions import sincos

torch: Any = optional.need("torch", "torch", "--against=torch")
nn, functional = torch.nn, torch.nn.functional

OURS = {  # the names of our modules where they differ
    "projection": "tokenizer.projection",
    "qkv": "attention.qkv",
    "out": "attention.out",
    r"mlp\.0": "mlp.up",
    r"mlp\.2": "mlp.down",
}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, heads: int, gelu: str, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(approximate="tanh" if gelu == "tanh" else "none"),
            nn.Linear(hidden, width),
        )

    def forward(self, x, mask):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Blocks, then a norm."""

    def __init__(self, width: int, depth: int, heads: int, gelu: str, hidden: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, gelu, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, mask=None):
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class Encoder(nn.Module):
    """[B, T, H, W, C] pixels -> tokens [B, N, D], or only the tokens `index` [B, L], of which `real` exist."""

    def __init__(self, ours: encoder.Encoder, grid: tuple[int, int, int], frames: int):
        super().__init__()
        size = parse(ours.variant)
        width, self.patch = size.width, size.patch
        self.grid, self.frames = grid, frames // grid[0]
        self.projection = nn.Linear(self.frames * self.patch**2 * 3, width)
        self.stack = Transformer(width, ours.depth or size.depth, size.heads, ours.gelu, size.hidden)
        self.register_buffer("positions", torch.tensor(sincos(grid, width)))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(ours, name)))

    def forward(self, video, index=None, real=None):
        times, rows, cols = self.grid
        pixels = (video.float() / 255 - self.mean) / self.std
        boxes = pixels.reshape((len(video), times, self.frames, rows, self.patch, cols, self.patch, 3))
        x = self.projection(boxes.permute((0, 1, 3, 5, 2, 4, 6, 7)).flatten(4).flatten(1, 3)) + self.positions
        if index is None:
            return self.stack(x)
        wide = index[..., None].expand(-1, -1, x.shape[-1])
        encoded = self.stack(x.gather(1, wide), real[:, None, None]) * real[..., None]
        return torch.zeros_like(x, dtype=encoded.dtype).scatter_add(1, wide, encoded)


class Predictor(nn.Module):
    """Context tokens at their places, mask tokens at the others -> predicted tokens and predicted change."""

    def __init__(self, ours: predictor.Predictor, grid: tuple[int, int, int]):
        super().__init__()
        width, out, self.max_objects = ours.width, ours.out, ours.max_objects
        self.embed = nn.Linear(out, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.object_embedding = nn.Parameter(torch.zeros(self.max_objects, width))
        self.stack = Transformer(width, ours.depth, ours.heads, ours.gelu, 4 * width)
        self.prediction, self.residual = nn.Linear(width, out), nn.Linear(width, out)
        self.register_buffer("positions", torch.tensor(sincos(grid, width)))

    def forward(self, tokens, context, covers, mask):
        masked = self.mask_token + covers @ self.object_embedding
        x = torch.where(context[..., None], self.embed(tokens), masked) + self.positions
        x = self.stack(x, mask)
        return _wide(self.prediction, x), _wide(self.residual, x)


def _wide(layer, x):
    """A linear layer whose float32 sums are not rounded to the narrow type of its operands, as our heads are."""
    weight = layer.weight
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x, weight = (each.to(torch.get_autocast_dtype(kind)).float() for each in (x, weight))
    with torch.autocast(kind, enabled=False):
        return functional.linear(x, weight, layer.bias)


class Twin:
    """Encoder, target, predictor, AdamW and EMA.

    Args:
      objective: ours. optim: config.optim. state: the TrainState whose weights it starts with.
      arrays: a batch of the loader's, not packed (data.pack = 0), for its shapes.
      compiled: by torch.compile. device: where it computes, "cpu" or "cuda".
    The precision is that of the objective. Raises ConfigError for settings without a counterpart here.
    """

    def __init__(
        self, objective: Jepa, optim: Any, state: Any, arrays: dict, compiled: bool = False, device: str = "cpu"
    ):
        require(objective, optim)
        frames, height, width = arrays["video"].shape[1:4]
        times = frames // (1 if frames == 1 else objective.tubelet)
        grid = times, height // objective.patch, width // objective.patch
        self.objective, self.steps, self.bf16 = objective, 0, objective.dtype == "bfloat16"
        ours = encoder.Encoder(**objective.encoder)
        self.encoder, self.target = Encoder(ours, grid, frames), Encoder(ours, grid, frames)
        self.predictor = Predictor(predictor.Predictor(**objective.predictor, out=ours.width), grid)
        for module, params in (
            (self.encoder, state.params["encoder"]),
            (self.target, state.target),
            (self.predictor, state.params["predictor"]),
        ):
            copy(module, params)
            module.to(device)
        self.device = device
        self.target.requires_grad_(False)
        trained = [*self.encoder.parameters(), *self.predictor.parameters()]
        matrices = [p for p in trained if p.ndim >= 2 and p is not self.predictor.object_embedding]
        vectors = [p for p in trained if all(p is not matrix for matrix in matrices)]
        groups = [
            {"params": matrices, "weight_decay": optim.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=0.0, betas=(optim.b1, optim.b2), eps=optim.eps, fused=True)
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def step(self, arrays: dict, rate: float) -> float:
        """One step at this learning rate: forward, backward, AdamW, EMA. Returns the loss."""
        return self.update(self.put(arrays), rate).item()

    def update(self, batch: dict, rate: float) -> Any:
        """`step` of a batch of tensors. Returns the loss as a tensor, which may not be computed yet."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            loss = self.loss(batch)
        self.adam.zero_grad()
        loss.backward()
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        tau = float(schedules.ema_momentum(self.steps, self.objective.steps, *self.objective.ema))
        with torch.no_grad():
            torch._foreach_lerp_([*self.target.parameters()], [*self.encoder.parameters()], 1 - tau)
        self.steps += 1
        return loss.detach()

    def put(self, arrays: dict) -> dict:
        """A loader's arrays as tensors, with what the loss derives from masks alone."""
        tokens = arrays["context"].shape[1]
        names = ("video", "context", "intervened", "intervened_valid")
        batch = {name: torch.from_numpy(np.asarray(arrays[name])) for name in names if name in arrays}
        index, real = (arrays["rows"][name].reshape(len(arrays["video"]), -1) for name in ("index", "segment"))
        batch["index"], batch["real"] = torch.from_numpy(index % tokens).long(), torch.from_numpy(real != 0)
        batch["hidden"] = torch.from_numpy(arrays["hidden"]) if "hidden" in arrays else ~batch["context"]
        batch["attend"] = (batch["context"] | batch["hidden"])[:, None, None] if "hidden" in arrays else None
        covers = _covers(arrays["object_patches"], arrays["removed"], self.predictor.max_objects)
        own = torch.from_numpy(np.einsum("bkn,bk->bn", arrays["object_patches"], arrays["removed"]))
        remaining = self.objective.causal_tokens == "remaining"
        batch["counted"] = batch["context"] & ~own if remaining else batch["context"]
        batch["covers"] = torch.from_numpy(covers)
        return {name: x if x is None else x.to(self.device) for name, x in batch.items()}

    def _loss(self, batch: dict):
        config, hidden, context = self.objective, batch["hidden"], batch["context"]
        rows = batch["index"], batch["real"]
        with torch.no_grad():
            full = self.target(batch["video"]).float()
            if config.causal_weight:
                other = (batch["intervened"],) if "intervened" in batch else (batch["video"], *rows)
                change = full - self.target(*other).float()
        tokens = self.encoder(batch["video"], *rows)
        prediction, residual = self.predictor(tokens, context, batch["covers"], batch["attend"])

        wanted = functional.layer_norm(full, full.shape[-1:], eps=1e-6) if config.target_norm == "layer_norm" else full
        loss = _scene_mean(LOSSES[config.prediction_loss](prediction.float() - wanted, config.beta), hidden)
        pooled = _masked_mean(tokens.float(), context[..., None])
        share = functional.normalize(torch.linalg.svdvals(pooled - pooled.mean(0)), p=1, dim=0)
        loss = loss + config.sigreg_weight * (np.log(pooled.shape[-1]) + torch.special.xlogy(share, share).sum())
        if config.causal_weight:
            error = (residual.float() - change).square().sum(-1)
            loss = loss + config.causal_weight * _scene_mean(error, batch["counted"], batch.get("intervened_valid"))
        return loss


def _huber(error, beta: float):
    return functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=beta)


LOSSES = {  # by the names of losses.LOSSES: each token's error from its difference [B, N, D] and beta -> [B, N]
    "smooth_l1": lambda difference, beta: _huber(torch.linalg.vector_norm(difference, dim=-1), beta),
    "elementwise": lambda difference, beta: _huber(difference, beta).mean(-1),
    "l1": lambda difference, beta: difference.abs().mean(-1),
    "mse": lambda difference, beta: difference.square().mean(-1),
}


def _masked_mean(x, mask):
    return (x * mask).sum(1) / mask.sum(1).clamp(min=1)


def _scene_mean(values, mask, valid=None):
    per_scene = _masked_mean(values, mask)
    return per_scene.mean() if valid is None else _masked_mean(per_scene[None], valid[None])[0]


def _covers(object_patches: np.ndarray, removed: np.ndarray, count: int) -> np.ndarray:
    """Which removed objects, by rank, cover each token: [B, K, N], [B, K] -> float32 [B, N, M]."""
    order = np.asarray(predictor.ranks(object_patches, removed))[..., None] == np.arange(count)  # [B, K, M]
    return np.einsum("bkn,bkm->bnm", object_patches, order).astype(np.float32)


def copy(module: nn.Module, params: Mapping, without: str = "-") -> None:
    """Copies our parameters into the module of the same shape: kernels transposed, stacked layers split.

    Parameters whose names begin with `without` are left unchanged.
    """
    flat = dict(_flatten(params))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith(without):
                continue
            *path, leaf = name.split(".")
            layer = int(path.pop(2)) if path[:2] == ["stack", "blocks"] else None
            path = ".".join(path)
            for theirs, ours in OURS.items():
                path = re.sub(rf"(^|\.){theirs}$", rf"\1{ours}", path)
            leaf = {"weight": "scale" if "norm" in path else "kernel"}.get(leaf, leaf)
            array = np.asarray(flat[f"{path}.{leaf}".lstrip(".")])
            array = array if layer is None else array[layer]
            parameter.copy_(torch.tensor(array.T if leaf == "kernel" else array))


def _flatten(tree: Mapping, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def require(objective: Any, optim: Any) -> None:
    """Raises ConfigError for settings without a counterpart here."""
    wanted = {
        "objective.type": (isinstance(objective, Jepa), True),
        "objective.prediction_loss": (getattr(objective, "prediction_loss", ""), tuple(LOSSES)),
        "objective.sigreg_kind": (getattr(objective, "sigreg_kind", ""), "kl"),
        "objective.encoder_input": (getattr(objective, "encoder_input", ""), "context"),
        "objective.ema_kind": (getattr(objective, "ema_kind", ""), "cosine"),
        "objective.predictor.attention": (getattr(objective, "predictor", {}).get("attention"), "joint"),
        "optim.clip": (optim.clip, 0.0),
    }
    for part in ("encoder", "predictor"):
        for key, default in (("positions", "sincos"), ("epsilon", 1e-6)):
            wanted[f"objective.{part}.{key}"] = getattr(objective, part, {}).get(key, default), default
    for key, (value, allowed) in wanted.items():
        if value not in (allowed if isinstance(allowed, tuple) else (allowed,)):
            shown = "" if key == "objective.type" else f" = {value!r}"
            raise ConfigError(f"{key}{shown}: --against=torch knows {allowed!r} only")
