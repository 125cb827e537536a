"""The layers of a frozen encoder on a set of clips: pooled tokens, readouts of edited tokens, and gradients."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from cjepa_jax.evals import subspaces
from cjepa_jax.evals.base import Inside


class Layers:
    """One encoder and its grid of tokens. Clips are taken `batch` at a time, and the last batch is padded."""

    def __init__(self, inside: Inside, grid: tuple[int, int, int], batch: int):
        self.inside, self.grid, self.batch = inside, tuple(grid), batch
        self._before, self._edited, self._slopes = _programs(inside.before, inside.after, self.grid)

    def means(self, tokens: list[jax.Array], count: int) -> np.ndarray:
        """Mean tokens of each time of `count` clips, float32 [count, times, D], from `tokens`."""
        each = (np.asarray(own, np.float32) for own in tokens)
        return np.concatenate([x.reshape(len(x), self.grid[0], -1, x.shape[-1]).mean(2) for x in each])[:count]

    def tokens(self, video: np.ndarray, layer: int) -> list[jax.Array]:
        """The tokens of a layer, a device array [batch, N, D] for each batch of clips."""
        params, at = self.inside.params, np.int32(layer)
        return [self._before(params, _filled(video[rows], self.batch), at) for rows in self._of(video)]

    def read(
        self,
        tokens: list[jax.Array],
        count: int,
        layer: int,
        u: np.ndarray,
        aim: np.ndarray | list[jax.Array] | None = None,
    ) -> np.ndarray:
        """The encoder's mean output [count, D] if the part in U of each token is that of `aim`.

        aim: [D] for all tokens, [count, D] for all tokens of a clip, or tokens like `tokens`. None: nothing changes, in
        the same program, so the result has the same bits as with a U of zeros.
        """
        u = np.zeros_like(u) if aim is None else u
        parts = []
        for number, rows in enumerate(_rows(count, self.batch)):
            own = tokens[number]
            to: jax.Array | np.ndarray
            if isinstance(aim, list):
                to = aim[number]
            else:
                given = np.zeros(own.shape[-1]) if aim is None else np.asarray(aim)
                given = np.broadcast_to(given, (count, own.shape[-1]))[rows]
                to = _filled(np.asarray(given, np.float32), self.batch)[:, None]
            out = self._edited(self.inside.params, own, to, np.asarray(u, np.float32), np.int32(layer))
            parts.append(np.asarray(out)[: rows.stop - rows.start])
        return np.concatenate(parts)

    def shifted(self, tokens: list[jax.Array], shift: np.ndarray) -> list[jax.Array]:
        """`tokens` plus a shift for each clip, [n, D]."""
        batches = zip(tokens, _rows(len(shift), self.batch), strict=True)
        return [own + _filled(np.asarray(shift[rows], np.float32), self.batch)[:, None] for own, rows in batches]

    def slopes(self, tokens: list[jax.Array], layer: int, pulled: np.ndarray) -> np.ndarray:
        """The gradient by a common shift of a clip's tokens: [n, D], from that by its mean output, `pulled` [n, D]."""
        parts = []
        for number, rows in enumerate(_rows(len(pulled), self.batch)):
            given = _filled(np.asarray(pulled[rows], np.float32), self.batch)
            out = self._slopes(self.inside.params, tokens[number], given, np.int32(layer))
            parts.append(np.asarray(out)[: rows.stop - rows.start])
        return np.concatenate(parts)

    def _of(self, video: np.ndarray) -> Iterator[slice]:
        return _rows(len(video), self.batch)


def _rows(count: int, batch: int) -> Iterator[slice]:
    for start in range(0, count, batch):
        yield slice(start, min(start + batch, count))


def _filled(array: np.ndarray, batch: int) -> np.ndarray:
    """`batch` rows: the first one is repeated after the last."""
    missing = batch - len(array)
    return np.concatenate([array, np.repeat(array[:1], missing, 0)]) if missing else array


@functools.lru_cache(maxsize=4)
def _programs(before: Callable, after: Callable, grid: tuple[int, int, int]) -> tuple[Callable, ...]:
    """Compiled for all layers, and for all parameters of one encoder."""

    def mean(params, tokens, layer):
        return after(params, tokens, layer, grid).astype(jnp.float32).mean(1)

    def edited(params, tokens, aim, u, layer):
        with jax.default_matmul_precision("float32"):
            moved = subspaces.interchange(tokens, aim, u)
        return mean(params, moved, layer)

    def slopes(params, tokens, pulled, layer):
        shift = jnp.zeros((len(tokens), 1, tokens.shape[-1]))
        return jax.vjp(lambda shift: mean(params, tokens + shift, layer), shift)[1](pulled)[0][:, 0]

    return jax.jit(before), jax.jit(edited), jax.jit(slopes)
