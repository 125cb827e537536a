"""A world model with a short-term memory: the first frames of an episode stay in view of the predictor.

It is the world model of configs/family/jepa2022.py. docs/WORLD_MODELS.md has the equations.
"""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp

from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives.world import World
from cjepa_jax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Remembering(World):
    """As World, on the first `memory` frames of a clip and a window that starts anywhere after the first of them.

    The predictor sees [memory, window] as one sequence, with actions 0 at the memory, and predicts the window's frames
    from the second on. So what only the first frames show is still known long after them, and training has any gap
    between the memory and what is seen now. Clips are as long as the longest gap, and only memory and window are
    encoded.

    Args:
      memory: number of first frames that are kept, m. 0 is a control that remembers nothing but its window.
      window: consecutive frames of one scene and step, w. The predictor's history is at least m + w - 1.
    Raises: ConfigError for options that do not fit.
    """

    memory: int = 2  # type: ignore[misc]  # a field here, and a constant of World
    window: int = 4

    method = "a world model with a memory: latents of the next frame, predicted from latents, actions and first frames"

    def __post_init__(self):
        super().__post_init__()
        most = self.networks["predictor"].history
        for good, name, limit in (
            (self.memory >= 0, "memory", "0 or more"),
            (self.window >= 2, "window", "at least 2"),
            (self.memory + self.window - 1 <= most, "window", f"at most predictor.history + 1 - memory, {most}"),
            (self.rollout_weight == 0, "rollout_weight", "0 with a memory"),
            (not self.proprio, "proprio", "False with a memory"),
        ):
            if not good:
                raise ConfigError(f"objective.{name} = {getattr(self, name)}: must be {limit}")

    @functools.cached_property
    def history(self) -> int:  # type: ignore[override]
        """All frames: the first ones are the memory."""
        return sys.maxsize

    @property
    def recent(self) -> int:
        """See World."""
        return self.window - 1

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """See World. Raises ConfigError for shorter clips."""
        least = max(self.memory - 1, 0) + self.window
        if batch.video.shape[1] < least:
            raise ConfigError(
                f"data.frames = {batch.video.shape[1]}: must be at least {least} with this memory and window"
            )
        return super().init(key, batch)

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See World. Each scene's window is drawn with the step's key."""
        start = self.starts(jax.random.fold_in(key, 1), *batch.video.shape[:2])
        return super().loss(params, target, extra, batch=self.cut(batch, start), key=key, step=step)

    def starts(self, key: Array, scenes: int, times: int) -> Array:
        """The first frame of each scene's window, int32 [B], within max(memory - 1, 0) and times - window."""
        return jax.random.randint(key, (scenes,), max(self.memory - 1, 0), times - self.window + 1)

    def cut(self, batch: Batch, start: Array) -> Batch:
        """The batch with [memory, window] as its frames, and the actions of the window."""
        kept = jnp.broadcast_to(jnp.arange(self.memory), (len(start), self.memory))
        rows = jnp.concatenate([kept, start[:, None] + jnp.arange(self.window)], axis=1)
        take = jax.vmap(lambda array, own: array[own])
        actions = take(jnp.asarray(batch.actions), rows).at[:, : self.memory].set(0)
        return dataclasses.replace(batch, video=take(jnp.asarray(batch.video), rows), actions=actions)

    def predict(
        self, params: Params, extra: Params, latents: Array, actions: Array, proprio: Array | None = None
    ) -> Array:
        """See objectives.base.World. The first `memory` latents are the memory, also in a longer sequence.

        If there are fewer latents, the last one stands for those that are missing.
        """
        m, last = self.memory, latents.shape[1] - 1
        first = min(m, last)  # of what may be the window
        kept = latents[:, jnp.minimum(jnp.arange(m), last)]
        window, actions = (x[:, first:][:, -self.recent :] for x in (latents, actions))
        seen = jnp.concatenate([kept, window], axis=1)
        actions = jnp.concatenate([jnp.zeros((len(actions), m, actions.shape[-1]), actions.dtype), actions], axis=1)
        return self._next(params, extra.get("batch_stats", {}), seen, actions, None, train=False)[0][:, -1]
