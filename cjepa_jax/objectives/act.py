"""Imitate episodes: predict the next actions and, in latents, the next frames. ACT-JEPA, our reading of its paper.

docs/FAMILY.md has the equations and the source.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.configuration.sizes import parse
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import layers
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.queries import Context, Queries
from cjepa_jax.objectives import options
from cjepa_jax.objectives.jepa import layer_norm
from cjepa_jax.schedules import ema_momentum
from cjepa_jax.types import Array, Batch, Params

LAST, NONE = "last", "none"
DISTANCES = {"l1": jnp.abs, "mse": jnp.square}


@dataclasses.dataclass(frozen=True)
class Act:
    """L = error of the next `chunk` actions + `latent_weight` x error of the latents of the next `chunk` frames.

    Each step draws the present frame of each episode. The context is this frame, the goal and perhaps the agent's
    state. Both predictions start from it alone, so actions are outputs and no inputs.

    Args:
      encoder: keyword arguments of models.encoder.Encoder. It encodes each frame on its own.
      context: keyword arguments of models.queries.Context. heads: by default the encoder's.
      predictor, decoder: keyword arguments of models.queries.Queries but `out` and `grid`, for latents and for actions.
      steps, dtype: given by the trainer.
      chunk: actions and frames that are predicted, n.
      latent_weight: of the second term. With 0 neither its network nor the moving average exists.
      goal: "last" (the clip's last frame is shown as the goal), or "none" (all episodes do the same task).
      proprio: whether the agent's state is in the context.
      action_distance, latent_distance: "l1" or "mse", mean over components.
      ema: momentum of the target encoder, at the first and after the last step, linear.
    Raises: ConfigError for options that cannot work.
    """

    encoder: Mapping
    steps: int
    dtype: str = "float32"
    context: Mapping = dataclasses.field(default_factory=dict)
    predictor: Mapping = dataclasses.field(default_factory=dict)
    decoder: Mapping = dataclasses.field(default_factory=dict)
    chunk: int = 8
    latent_weight: float = 1.0
    goal: str = LAST
    proprio: bool = False
    action_distance: str = "l1"
    latent_distance: str = "l1"
    ema: tuple[float, float] = (0.996, 1.0)

    max_removed = 0
    tubelet = 1
    framewise = True
    kinds = ("episodes",)
    method = "imitation: the next actions and the latents of the next frames, predicted from the present frame"

    def __post_init__(self):
        options.whole("objective.chunk", self.chunk)
        options.number("objective.latent_weight", self.latent_weight, 0.0, limit="0 or more")
        options.flags("objective", {"proprio": self.proprio}, "proprio")
        for name, choices in (("goal", (LAST, NONE)), *((f"{of}_distance", DISTANCES) for of in ("action", "latent"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"objective.{name} = {getattr(self, name)!r}: must be one of {', '.join(choices)}")
        own = {"width": self._encoder.width, "heads": parse(self._encoder.variant).heads}
        for name, module in (("context", Context), ("predictor", Queries), ("decoder", Queries)):
            given = getattr(self, name)
            options.keywords(f"objective.{name}", given, module, "out", "grid")
            options.blocks(f"objective.{name}", given, module, **(own if name == "context" else {}))

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(**build.plain(self.encoder), dtype=jnp.dtype(self.dtype))

    @functools.cached_property
    def _context(self) -> Context:
        heads = parse(self._encoder.variant).heads
        return Context(**{"heads": heads, **self.context}, dtype=jnp.dtype(self.dtype))

    @property
    def patch(self) -> int:
        return self._encoder.patch

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh networks. The target is a copy of the encoder, or nothing without the latent term. Raises ConfigError
        for episodes that are too short, or that lack actions or the agent's state."""
        if batch.actions is None:
            raise ConfigError("data.source: imitation needs episodes with actions")
        if batch.video.shape[1] < 3:
            raise ConfigError(f"data.frames = {batch.video.shape[1]}: must be at least 3 for imitation")
        if self.proprio and batch.proprio is None:
            raise ConfigError("objective.proprio = True: the source gives no state of the agent")
        keys, few = jax.random.split(key, 4), jax.tree.map(lambda x: x[:1], batch)
        encoder = self._encoder.init(keys[0], few.video[:, :1])["params"]
        tokens = self._tokens(encoder, few.video[:, : 1 + (self.goal == LAST)])
        own = few.proprio[:, 0].astype(jnp.float32) if self.proprio else None
        known, made = self._context.init_with_output(keys[1], tokens, own)
        params = {"encoder": encoder, "context": made["params"]}
        params["decoder"] = self._decoder(batch.actions.shape[-1]).init(keys[2], known)["params"]
        if self.latent_weight:
            params["predictor"] = self._predictor(batch.video.shape[2:4]).init(keys[3], known)["params"]
        params |= {name: _by_inputs(part) for name, part in params.items() if name != "encoder"}
        return params, jax.tree.map(jnp.copy, encoder) if self.latent_weight else {}, {}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See objectives.base.Objective. Each scene's present frame is drawn with the step's key."""
        scenes, times = batch.video.shape[:2]
        start, valid = self.starts(key, scenes, times), batch.valid
        now = start[:, None] + jnp.arange(self.chunk)  # [B, n], the frame before each action
        video, given = jnp.asarray(batch.video), jnp.asarray(batch.actions).astype(jnp.float32)
        own = None if batch.proprio is None else _take(batch.proprio, start[:, None])[:, 0]
        known, seen = self._known(params, _take(video, start[:, None])[:, 0], video[:, -1], own)

        said = self._decoder(given.shape[-1]).apply({"params": params["decoder"]}, known)
        wanted = _take(given, jnp.minimum(now, times - 2))
        error = DISTANCES[self.action_distance](said - wanted).mean(-1)
        real = (now < times - 1) & valid[:, None]  # the last action leads out of the clip
        terms = {"action": losses.masked_mean(error, real)}
        metrics = {"per_scene": losses.masked_mean(error, real, axis=1)}
        if self.latent_weight:
            # A goal that is shown need not be predicted.
            real = (now + 1 < times - (self.goal == LAST)) & valid[:, None]
            frames = _take(video, jnp.minimum(now + 1, times - 1))
            future = self._wanted(target, frames)
            predicted = self._predictor(video.shape[2:4]).apply({"params": params["predictor"]}, known)
            distance = DISTANCES[self.latent_distance]
            terms["latent"] = losses.masked_mean(distance(predicted.reshape(future.shape) - future).mean((2, 3)), real)
            floors = {"copy_error": _take(video, start[:, None])}
            floors |= {"goal_error": video[:, -1:]} if self.goal == LAST else {}
            for name, frame in floors.items():
                copied = distance(self._wanted(target, frame) - future).mean((2, 3))
                metrics[name] = losses.masked_mean(copied, real)
        total = terms["action"] + self.latent_weight * terms.get("latent", 0.0)
        metrics |= {f"loss/{name}": value for name, value in terms.items()}
        metrics |= {"loss": total, **losses.collapse_monitors(seen.mean(1), valid)}
        return total, (metrics, extra)

    def starts(self, key: Array, scenes: int, times: int) -> Array:
        """The present frame of each episode, int32 [B], 0 .. T - 2: at least one action follows it."""
        return jax.random.randint(key, (scenes,), 0, times - 1)

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """The moving average of the encoder, with the latent term."""
        if not self.latent_weight:
            return target
        tau = ema_momentum(step, self.steps, *self.ema, "linear")
        return jax.tree.map(lambda old, new: old + (1.0 - tau) * (new - old), target, params["encoder"])

    def encode(self, params: Params, video: Array) -> Array:
        """Tokens of a clip, frame by frame: [B, T, H, W, C] -> [B, T M, D]."""
        tokens = self._tokens(params.get("encoder", params), video)
        return tokens.reshape(len(tokens), -1, tokens.shape[-1])

    def sizes(self, params: Params) -> tuple[int, int]:
        """See objectives.base.Imitator."""
        state = params["context"]["state"]["kernel"].shape[0] if self.proprio else 0
        return params["decoder"]["out"]["bias"].shape[-1], state

    def act(self, params: Params, frames: Array, goals: Array, proprio: Array | None = None) -> Array:
        """See objectives.base.Imitator."""
        known, _ = self._known(params, frames, goals, proprio)
        return self._decoder(self.sizes(params)[0]).apply({"params": params["decoder"]}, known)

    def _known(self, params: Params, frames: Array, goals: Array, proprio: Array | None) -> tuple[Array, Array]:
        """The context s_x [B, L, D] of frames, goals [B, H, W, C] and states [B, S], and the frames' tokens."""
        shown = jnp.stack([frames, goals], axis=1) if self.goal == LAST else frames[:, None]
        tokens = self._tokens(params["encoder"], shown)
        own: Any = proprio if self.proprio else None
        own = None if own is None else own.astype(jnp.float32)
        return self._context.apply({"params": params["context"]}, tokens, own), tokens[:, 0]

    def _tokens(self, encoder: Params, frames: Array) -> Array:
        """[B, T, H, W, C] -> float32 [B, T, M, D], frame by frame."""
        scenes, times = frames.shape[:2]
        tokens = self._encoder.apply({"params": encoder}, frames.reshape(-1, 1, *frames.shape[2:]))
        return tokens.astype(jnp.float32).reshape(scenes, times, *tokens.shape[1:])

    def _wanted(self, target: Params, frames: Array) -> Array:
        """Targets [B, T, M, D]: the tokens, of zero mean and unit variance over D, without gradient."""
        return jax.lax.stop_gradient(layer_norm(self._tokens(target, frames)))

    def _predictor(self, size: tuple[int, ...]) -> Queries:
        """Of the tokens of `chunk` frames of (height, width) pixels."""
        grid = (self.chunk, size[0] // self.patch, size[1] // self.patch)
        return Queries(**self.predictor, out=self._encoder.width, grid=grid, dtype=jnp.dtype(self.dtype))

    def _decoder(self, actions: int) -> Queries:
        return Queries(**self.decoder, out=actions, grid=(self.chunk, 1, 1), dtype=jnp.dtype(self.dtype))


def _by_inputs(params: Params) -> Params:
    """Kernels drawn from layers.NORMAL, a truncated normal 0.02, as a truncated normal 1 / sqrt(inputs).

    In blocks as narrow as these, 0.02 leaves of a query's answer little but the query: the actions became constant.
    """

    def scaled(path, value):
        return value * (value.shape[-2] ** -0.5 / layers.DEVIATION) if path[-1].key == "kernel" else value

    return jax.tree_util.tree_map_with_path(scaled, params)


def _take(array: Array, rows: Array) -> Array:
    """array [B, T, ...], rows int [B, n] -> [B, n, ...]."""
    return jax.vmap(lambda one, own: one[own])(jnp.asarray(array), rows)
