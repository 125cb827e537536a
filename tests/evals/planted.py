"""A world of tokens whose causal subspace is known, for the protocols that look for it."""

from typing import NamedTuple

import numpy as np

from cjepa_jax.evals import subspaces

WIDTH, TOKENS, CLASSES, NUISANCE = 96, 16, 8, 10


class World(NamedTuple):
    """n clips of tokens [n, 16, 96] that hold the class in two places. `features` reads only one of them."""

    tokens: np.ndarray
    y: np.ndarray  # int [n]
    nuisance: np.ndarray  # float [n], a variable that is independent of the class and is read too
    used: np.ndarray  # P [96, 7]: what `features` reads of the class
    copy: np.ndarray  # [96, 7]: the same code, which nothing reads
    mixing: np.ndarray  # [96, 24]

    def features(self, tokens):
        """The rest of the network and its mean token: [n, 16, 96] -> [n, 24]."""
        return np.tanh(tokens @ self.mixing).mean(1)

    def slopes(self, tokens, pulled):
        """Its transpose: d features / d (a common shift of the tokens) times `pulled` [n, 24] -> [n, 96]."""
        return ((1 - np.tanh(tokens @ self.mixing) ** 2).mean(1) * pulled) @ self.mixing.T


def draw(n: int, seed: int) -> World:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    used, copy, other = np.split(basis[:, : 14 + NUISANCE], [7, 14], axis=1)
    corners = subspaces.orthonormal(np.eye(CLASSES) - 1 / CLASSES, 7)
    y = rng.permutation(np.arange(n) % CLASSES)
    code = 1.6 * corners[y] + 0.35 * rng.normal(size=(n, 7))  # one draw for both places: the copy is exact
    loud = 1.5 * rng.normal(size=(n, NUISANCE))
    tokens = (code @ (used + copy).T + loud @ other.T)[:, None] + 0.3 * rng.normal(size=(n, TOKENS, WIDTH))
    rows = np.linalg.qr(rng.normal(size=(24, 7 + NUISANCE)))[0].T  # 17 directions become 24 features
    mixing = used @ rows[:7] + 0.5 * other @ rows[7:]
    mixing -= copy @ (copy.T @ mixing)  # exactly nothing of the copy
    return World(tokens, y, loud[:, 0], used, copy, mixing)
