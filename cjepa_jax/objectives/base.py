"""The contract between an objective and everything that runs it."""

from typing import Protocol

from cjepa_jax.types import Array, Batch, Params


class Objective(Protocol):
    """Built from config.objective (+ dtype and the total number of steps); frozen, so it can be closed over by jit."""

    patch: int  # pixels per token side and
    tubelet: int  # frames per token, for the data pipeline

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Trained parameters, the EMA target's and other state ({} for none)."""

    def loss(
        self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, tuple[dict[str, Array], Params]]:
        """The scalar to minimise, diagnostics by name, and the next `extra`.

        Diagnostics are scalars, but for "per_scene" [B]: each scene's own loss, to name the scene that is not finite.
        """

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """The target after the optimiser's step."""

    def encode(self, params: Params, video: Array) -> Array:
        """Features of whole scenes, [B, T, H, W, C] -> [B, N, D]: what probes see."""
