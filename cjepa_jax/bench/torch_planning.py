"""The search of `bench --planning` in PyTorch: LeWorldModel's predictor, and CEM as in stable-worldmodel's solver."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cjepa_jax.host import optional

torch: Any = optional.need("torch", "torch", "--against=torch")
functional = torch.nn.functional
MEMORY = 3  # latents that the predictor sees


class Predictor:
    """`models.dynamics.Causal` with its weights, without gradients."""

    def __init__(self, weights: Mapping, sizes: Mapping[str, int]):
        self.sizes, self.weights = sizes, _tensors(weights)

    def __call__(self, latents: Any, actions: Any) -> Any:
        """[B, t, D], [B, t, A] -> the next latent [B, D]."""
        weights, code = self.weights, self.weights["action"]
        x = _linear(code["mix"], actions)
        condition = functional.silu(_linear(code["down"], functional.silu(_linear(code["up"], x))))
        x = latents + weights["positions"][:, : latents.shape[1]]
        for index in range(self.sizes["depth"]):
            x = self._block(weights[f"block{index}"], x, condition)
        return _norm(weights["norm"], x)[:, -1]

    def _block(self, block: Mapping, x: Any, condition: Any) -> Any:
        parts = (condition @ block["modulation_kernel"] + block["modulation_bias"]).chunk(6, -1)
        shift, scale, gate, shift2, scale2, gate2 = parts
        y = _norm(block["norm1"], _standard(x) * (1 + scale) + shift) @ block["qkv_kernel"]
        q, k, v = y.unflatten(-1, (3, self.sizes["heads"], -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + gate * _linear(block["out"], seen)
        y = _norm(block["norm2"], _standard(x) * (1 + scale2) + shift2)
        return x + gate2 * _linear(block["down"], functional.gelu(_linear(block["up"], y)))


class Solver:
    """CEM in environments that have starts and goals [E, D]."""

    def __init__(self, sizes: Mapping[str, int], weights: Mapping, places: tuple[np.ndarray, np.ndarray]):
        self.sizes, self.model = sizes, Predictor(weights, sizes)
        self.starts, self.goals = (torch.from_numpy(each) for each in places)

    def __call__(self, what: str, batch: int, given: Any) -> Any:
        """Plans [E, H, A], `batch` environments at a time (0: all). With "plan", `given` is the noise [I, S, H, A].
        Otherwise it is a seed, and nothing is returned."""
        environments = self.sizes["environments"]
        noise = torch.from_numpy(given) if what == "plan" else None
        generator = None if what == "plan" else torch.Generator().manual_seed(given)
        size = batch or environments
        with torch.inference_mode():
            parts = [self._search(slice(i, i + size), noise, generator) for i in range(0, environments, size)]
            plans = torch.cat(parts)
        return plans.numpy() if what == "plan" else None

    def _search(self, which: slice, noise: Any, generator: Any) -> Any:
        sizes, goals = self.sizes, self.goals[which]
        mean = torch.zeros(len(goals), sizes["horizon"], sizes["actions"])
        std = torch.ones_like(mean)
        for step in range(sizes["iterations"]):
            shape = len(goals), sizes["samples"], *mean.shape[1:]
            drawn = torch.randn(shape, generator=generator) if noise is None else noise[step]
            candidates = mean[:, None] + std[:, None] * drawn
            candidates[:, 0] = mean
            costs = (self._rollout(self.starts[which], candidates) - goals[:, None]).square().mean(-1)
            best = costs.topk(sizes["elites"], largest=False).indices
            chosen = candidates.gather(1, best[..., None, None].expand(-1, -1, *mean.shape[1:]))
            mean, std = chosen.mean(1), chosen.std(1)
        return mean

    def _rollout(self, starts: Any, candidates: Any) -> Any:
        """The last latents [E, S, D] of candidates [E, S, H, A]."""
        actions = candidates.flatten(0, 1)
        latents = starts.repeat_interleave(candidates.shape[1], 0)[:, None]
        for step in range(actions.shape[1]):
            seen = latents[:, -MEMORY:]
            new = self.model(seen, actions[:, step + 1 - seen.shape[1] : step + 1])
            latents = torch.cat([latents, new[:, None]], 1)
        return latents[:, -1].unflatten(0, candidates.shape[:2])


def serve(sizes: Mapping[str, int], weights: Mapping, places: tuple[np.ndarray, np.ndarray]) -> tuple[int, Callable]:
    """In the other process: its number of threads, and the solver."""
    return torch.get_num_threads(), Solver(sizes, weights, places)


def _tensors(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _tensors(value) for name, value in tree.items()}
    return torch.tensor(np.asarray(tree))


def _linear(layer: Mapping, x: Any) -> Any:
    return x @ layer["kernel"] + layer["bias"]


def _norm(layer: Mapping, x: Any) -> Any:
    return functional.layer_norm(x, x.shape[-1:], layer["scale"], layer["bias"], 1e-5)


def _standard(x: Any) -> Any:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)
