"""The family's networks in plain PyTorch, with parameters of the published names, to hold imports to."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def axis(width, places):
    angle = np.outer(places, 10000.0 ** (-np.arange(width // 2) / (width / 2)))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def table_2d(width, side):
    """I-JEPA's positions [side^2, width]: the column in the first half, the row in the second."""
    rows, cols = (each.ravel() for each in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    return np.concatenate([axis(width // 2, cols), axis(width // 2, rows)], axis=1)


def table_3d(width, side, times):
    """V-JEPA's [times side^2, width], "uniform power": a third each to time, row and column, cut at the width."""
    places = np.meshgrid(np.arange(times), np.arange(side), np.arange(side), indexing="ij")
    share = math.ceil(width / 6) * 2
    return np.concatenate([axis(share, each.ravel()) for each in places], axis=1)[:, :width]


def turned(x, places, tile):
    """Rotary positions of one axis: x [B, H, N, d] at `places` [N]; `tile` as V-JEPA 2, else as 2.1."""
    half = x.shape[-1] // 2
    angle = places[:, None] * 10000.0 ** (-torch.arange(half) / half)
    angle = angle.repeat(1, 2) if tile else angle.repeat_interleave(2, 1)
    pairs = x.unflatten(-1, (-1, 2))
    other = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    return x * angle.cos() + other * angle.sin()


class Rotary:
    """Turns queries and keys: kind "tile" or "interleave"; `span` rescales rows and columns to 0..span."""

    def __init__(self, kind, grid, span=None):
        t, r, c = (each.ravel() for each in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
        scales = [1.0, *(1.0 if span is None else span / (n - 1) for n in grid[1:])]
        self.places = [place * scale for place, scale in zip((t, r, c), scales, strict=True)]
        self.tile = kind == "tile"

    def __call__(self, x, ids):
        size = 2 * (x.shape[-1] // 3 // 2)
        parts = [
            turned(x[..., i * size : (i + 1) * size], place[ids], self.tile) for i, place in enumerate(self.places)
        ]
        return torch.cat([*parts, x[..., 3 * size :]], -1)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, rotary=None, ids=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary:
            q, k = rotary(q, ids), rotary(k, ids)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x, rotary=None, ids=None):
        x = x + self.attn(self.norm1(x), rotary, ids)
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class Vit(nn.Module):
    """An encoder, [B, 3, (T,) H, W] -> [B, N, D]: of images, or of clips with a tubelet. With positions or rotary."""

    def __init__(self, width, depth, heads, hidden, patch, positions=None, tubelet=0):
        super().__init__()
        size = (tubelet, patch, patch) if tubelet else patch
        conv = (nn.Conv3d if tubelet else nn.Conv2d)(3, width, size, size)
        self.patch_embed = nn.ModuleDict({"proj": conv})
        if positions is not None:
            self.pos_embed = nn.Parameter(torch.tensor(positions, dtype=torch.float32)[None], requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, rotary=None):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        if rotary is None:
            x = x + self.pos_embed
        for block in self.blocks:
            x = block(x, rotary, torch.arange(x.shape[1]))
        return self.norm(x)


class Predictor(nn.Module):
    """Context tokens [B, C, D] and where they stand, [C], to predictions at `targets` [T]: [B, T, D]."""

    def __init__(self, out, width, depth, heads, positions=None, mask_tokens=0):
        super().__init__()
        self.predictor_embed, self.predictor_proj = nn.Linear(out, width), nn.Linear(width, out)
        if mask_tokens:
            self.mask_tokens = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, width)) for _ in range(mask_tokens))
        else:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        if positions is not None:
            table = torch.tensor(positions, dtype=torch.float32)[None]
            self.predictor_pos_embed = nn.Parameter(table, requires_grad=False)
        self.predictor_blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(depth))
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, context, places, targets, mask_token=None, rotary=None):
        token = self.mask_token if mask_token is None else self.mask_tokens[mask_token]
        x = torch.cat([self.predictor_embed(context), token.expand(len(context), len(targets), -1)], 1)
        ids = torch.cat([places, targets])
        if rotary is None:
            x = x + self.predictor_pos_embed[:, ids]
        for block in self.predictor_blocks:
            x = block(x, rotary, ids)
        return self.predictor_proj(self.predictor_norm(x)[:, len(places) :])


def shaken(module, seed=0):
    """Every parameter but stored positions drawn again: what is zero or one at the start would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "pos_embed" not in name and "position_embeddings" not in name:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()
