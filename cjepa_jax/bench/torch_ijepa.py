"""The step of I-JEPA (arXiv 2301.08243) as its public code computes it, in PyTorch, as a reference for speed.

Each image has one context and four target blocks. The encoder sees the context's tokens alone, cut to the batch's
fewest. An EMA encoder sees the whole image, and its tokens are layer-normed. The predictor runs once for each target,
on the context and the target's mask tokens, as a batch of four times the images. The loss is the smooth l1 of each
component. It is on the same images as our step, with the same sizes of encoder and predictor, but it is another
algorithm: no objects, no causal term, no second view of the scene, no spectrum.
"""

from typing import Any

import numpy as np

from cjepa_jax.bench import torch_step
from cjepa_jax.bench.torch_step import Transformer, functional, nn, torch
from cjepa_jax.configuration import seeds
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import multiblock
from cjepa_jax.masks.grid import rectangle, sides
from cjepa_jax.models import encoder, predictor
from cjepa_jax.objectives.jepa import Jepa
from cjepa_jax.positions import sincos

TARGETS, TARGET, CONTEXT, ASPECT, KEEP = 4, (0.15, 0.2), (0.85, 1.0), (0.75, 1.5), 10  # as published


class Encoder(nn.Module):
    """[B, 3, H, W] -> [B, N, D], or only the tokens `index` [B, L]."""

    def __init__(self, ours: encoder.Encoder, grid: tuple[int, int, int]):
        super().__init__()
        size = parse(ours.variant)
        self.projection = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.stack = Transformer(size.width, ours.depth or size.depth, size.heads, "none", size.hidden)
        self.register_buffer("positions", torch.tensor(sincos(grid, size.width)))

    def forward(self, images, index=None):
        x = self.projection(images).flatten(2).transpose(1, 2) + self.positions
        return self.stack(x if index is None else taken(x, index))


class Predictor(nn.Module):
    """Context [B, L, D] at its places, and the places of each target [B, M] x 4 -> its tokens [4 B, M, D]."""

    def __init__(self, ours: predictor.Predictor, out: int, grid: tuple[int, int, int]):
        super().__init__()
        self.embed, self.mask_token = nn.Linear(out, ours.width), nn.Parameter(torch.zeros(ours.width))
        self.stack = Transformer(ours.width, ours.depth, ours.heads, "none", 4 * ours.width)
        self.prediction = nn.Linear(ours.width, out)
        self.register_buffer("positions", torch.tensor(sincos(grid, ours.width)))

    def forward(self, tokens, context, targets):
        x = (self.embed(tokens) + self.positions[context]).repeat(len(targets), 1, 1)
        masked = torch.cat([self.mask_token + self.positions[target] for target in targets])
        return self.prediction(self.stack(torch.cat([x, masked], 1))[:, x.shape[1] :])


class Twin:
    """Encoder, target encoder, predictor, AdamW and EMA, on one CPU.

    Args:
      objective: whose sizes and precision it has. optim: config.optim. state: the TrainState whose encoder it starts
        with. batches: of the loader, whose images it takes. seed: of the masks.
    Raises: ConfigError for clips, and for settings that torch_step refuses.
    """

    def __init__(self, objective: Jepa, optim: Any, state: Any, batches: list[dict], seed: int):
        torch_step.require(objective, optim)
        frames, height, width = batches[0]["video"].shape[1:4]
        if frames != 1:
            raise ConfigError(f"data.frames = {frames}: must be 1 with --against=ijepa")
        grid = 1, height // objective.patch, width // objective.patch
        ours, size = encoder.Encoder(**objective.encoder), parse(objective.encoder["variant"])
        self.objective, self.bf16 = objective, objective.dtype == "bfloat16"
        self.encoder, self.target = Encoder(ours, grid), Encoder(ours, grid)
        for module, params in ((self.encoder, state.params["encoder"]), (self.target, state.target)):
            torch_step.copy(module, params, without="projection")
            ours_too = params["tokenizer"]["projection"]
            kernel = np.asarray(ours_too["kernel"]).reshape(size.patch, size.patch, 3, -1)
            with torch.no_grad():
                module.projection.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
                module.projection.bias.copy_(torch.tensor(np.asarray(ours_too["bias"])))
        self.predictor = Predictor(predictor.Predictor(**objective.predictor, out=ours.width), ours.width, grid)
        self.target.requires_grad_(False)
        trained = [*self.encoder.parameters(), *self.predictor.parameters()]
        groups = [{"params": [p for p in trained if p.ndim >= 2], "weight_decay": optim.weight_decay},
                  {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
        self.adam = torch.optim.AdamW(groups, lr=0.0, betas=(optim.b1, optim.b2), eps=optim.eps, fused=True)
        mean, std = (np.asarray(getattr(ours, name), np.float32) for name in ("mean", "std"))
        self.batches = []
        for number, arrays in enumerate(batches):
            images = (arrays["video"][:, 0].astype(np.float32) / 255 - mean) / std
            masks = drawn(seeds.generator(seed, "masks of a peer", number), len(images), *grid[1:])
            self.batches.append((torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), *masks))
        lengths = [(masks[0].shape[1], masks[1][0].shape[1]) for _, *masks in self.batches]
        self.about = f"context and target tokens by batch: {', '.join(f'{c} + 4 x {t}' for c, t in lengths)}"

    def step(self, number: int, rate: float) -> float:
        """One step on the batch of this number, at this learning rate. Returns the loss."""
        images, context, targets = self.batches[number]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                full = self.target(images)
                full = functional.layer_norm(full, full.shape[-1:])
                wanted = torch.cat([taken(full, target) for target in targets])
            loss = functional.smooth_l1_loss(self.predictor(self.encoder(images, context), context, targets), wanted)
        self.adam.zero_grad()
        loss.backward()
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_([*self.target.parameters()], [*self.encoder.parameters()], 1 - 0.996)
        return loss.item()


def taken(x, index):
    """The tokens `index` [B, L] of x [B, N, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def drawn(rng: np.random.Generator, images: int, rows: int, cols: int) -> tuple[Any, list[Any]]:
    """Indices of the context's tokens [B, L], and of each target's [B, M], four of them, for a batch.

    As published: a batch has one size of targets and one of contexts, and contexts are cut to the batch's fewest.
    """
    height, width = multiblock.tied_sides(rng.random(), TARGET, ASPECT, rows, cols)
    square = sides(int(rng.uniform(*CONTEXT) * rows * cols), 1.0, rows - 1, cols - 1)
    contexts, targets = [], []
    for _ in range(images):
        blocks = [rectangle(rng, height, width, rows, cols, last=False) for _ in range(TARGETS)]
        contexts.append(np.flatnonzero(multiblock.context_block(rng, blocks, square, KEEP, False)))
        targets.append([np.flatnonzero(block) for block in blocks])
    least = min(map(len, contexts))
    cut = torch.from_numpy(np.stack([each[:least] for each in contexts]))
    return cut, [torch.from_numpy(np.stack(block)) for block in zip(*targets, strict=True)]
