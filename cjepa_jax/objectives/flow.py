"""Motion and content by one encoder: optical flow without labels beside VICReg, as in MC-JEPA (arXiv 2307.12698)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cjepa_jax import losses
from cjepa_jax.configuration import build
from cjepa_jax.errors import ConfigError
from cjepa_jax.models import warping
from cjepa_jax.models.heads import Projector
from cjepa_jax.models.pyramid import FlowHead, Pyramid
from cjepa_jax.objectives import options, photometric, siamese
from cjepa_jax.objectives.views import Views
from cjepa_jax.types import Array, Batch, Params

MOTION = {
    "reconstruction": 1.0,
    "regression": 0.05,
    "smoothness": 0.02,
    "cycle": 0.02,
    "level_variance": 0.05,
    "level_covariance": 0.002,
}
CONTENT = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}  # VICReg's own
WEIGHTS = MOTION | CONTENT
"""The weight of each term where `weights` has none."""


@dataclasses.dataclass(frozen=True)
class MotionContent:
    """L = motion_weight L_motion + content_weight L_content, both of one pyramid of convolutions. Our reading.

    L_motion is of each pair of consecutive frames, in both directions, the sum of these terms by `weights`:
      reconstruction: a frame against the next one, warped by the flow (photometric.reconstruction, `pixels`).
      regression: the same of the maps at every level of the pyramid, squared error, mean over levels.
      smoothness: change of the flow, less at edges (photometric.smoothness, `edge`).
      cycle: distance of each point from its start after the flow and the flow back.
      level_variance, level_covariance: VICReg's terms of the vectors of each level's map, mean over levels.
    If `occlusion` is set, reconstruction counts the pixels that the next frame shows (photometric.visible), and cycle
    those whose place is in the frame, whether or not they come back.

    L_content is VICReg of two views of each clip's first frame: invariance, variance and covariance.

    `weights` are of these nine terms. A term without one has that of WEIGHTS.

    L_motion counts from step `motion_start` on, and its weight rises to the full one in as many steps again. `encoder`
    and `head` name models.pyramid.Pyramid and FlowHead with their keyword arguments. `projector` and `views` are those
    of models.heads.Projector and objectives.views.Views. `extra` holds the projector's running statistics. `steps` is
    not used. `dtype` is the compute type.
    """

    encoder: Mapping
    head: Mapping
    projector: Mapping
    steps: int
    views: Mapping = dataclasses.field(default_factory=dict)
    weights: Mapping = dataclasses.field(default_factory=dict)
    pixels: tuple[float, float, float] = (0.15, 0.15, 0.85)
    edge: float = 10.0
    occlusion: bool = True
    motion_weight: float = 1.0
    content_weight: float = 0.01
    motion_start: int = 0
    dtype: str = "float32"

    max_removed = 0  # nothing is removed, so any number may be
    method = "MC-JEPA: optical flow without labels and VICReg, by one encoder"

    def __post_init__(self):
        name = "objective.encoder"
        widths, blocks = self._encoder.widths, self._encoder.blocks
        if not 1 <= len(widths) <= 8 or len(blocks) != len(widths):
            raise ConfigError(f"{name}.widths = {widths}, blocks = {blocks}: must be 1 to 8 levels, as many of each")
        for key, values in ((f"{name}.widths", widths), ("objective.head.hidden", self._head.hidden)):
            for value in values:
                options.whole(key, value)
        for value in blocks:
            options.whole(f"{name}.blocks", value, 0)
        options.whole("objective.head.radius", self._head.radius)
        options.number("objective.head.limit", self._head.limit, 1e-3, limit="above 0, pixels")
        kernel = self._encoder.kernel
        if not isinstance(kernel, int) or kernel < 1 or not kernel % 2:
            raise ConfigError(f"{name}.kernel = {kernel!r}: must be an odd number of pixels")
        for key, weight in self.weights.items():
            if key not in WEIGHTS:
                raise ConfigError(f"objective.weights.{key} = {weight}: must be one of {', '.join(WEIGHTS)}")
            options.number(f"objective.weights.{key}", weight, 0.0, limit="0 or more")
        if len(self.pixels) != 3:
            raise ConfigError(f"objective.pixels = {self.pixels}: must be the weights of l1, l2 and SSIM")
        for weight in self.pixels:
            options.number("objective.pixels", weight, 0.0, limit="0 or more")
        for key in ("edge", "motion_weight", "content_weight"):
            options.number(f"objective.{key}", getattr(self, key), 0.0, limit="0 or more")
        options.whole("objective.motion_start", self.motion_start, 0)
        siamese.require_two(self._views, "MC-JEPA")
        _ = self._projector  # refused when built, not at the first step

    @functools.cached_property
    def _encoder(self) -> Pyramid:
        return self._module("encoder", "widths", "blocks")

    @functools.cached_property
    def _head(self) -> FlowHead:
        return self._module("head", "hidden")

    def _module(self, name: str, *tuples: str) -> Any:
        """The network of a section. Sequences become tuples, which flax can hash."""
        section = build.plain(getattr(self, name))
        section |= {key: tuple(section[key]) for key in tuples if key in section}
        return build.build(section, f"objective.{name}", dtype=jnp.dtype(self.dtype))

    @functools.cached_property
    def _projector(self) -> Projector:
        return siamese.projector("projector", self.projector, self.dtype)

    @functools.cached_property
    def _views(self) -> Views:
        return Views(**self.views)

    @property
    def patch(self) -> int:
        return self._encoder.patch

    @property
    def tubelet(self) -> int:
        return 1

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Fresh encoder, head and projector. There is no target. Raises: ConfigError for images, which do not move."""
        frames = batch.video.shape[1]
        if frames < 2:
            raise ConfigError(f"data.frames = {frames}: must be at least 2, between which things move")
        encoder_key, head_key, projector_key = jax.random.split(key, 3)
        levels, encoder = self._encoder.init_with_output(encoder_key, batch.video[:, 0])
        head = self._head.init(head_key, levels, levels)["params"]
        projector = self._projector.init(projector_key, levels[-1].mean((1, 2)), batch.valid)
        params = {"encoder": encoder["params"], "head": head, "projector": projector["params"]}
        return params, {}, {"batch_stats": {"projector": projector.get("batch_stats", {})}}

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See objectives.base.Objective."""
        motion, per_scene, monitors = self._motion(params, batch)
        content, pooled, projected, stats = self._content(params, extra, batch, key)
        rise = (jnp.asarray(step, jnp.float32) - self.motion_start) / max(self.motion_start, 1)
        share = jnp.clip(rise, 0.0, 1.0) if self.motion_start else 1.0
        terms = motion | content
        weighted = {name: self._weight(name) * value for name, value in terms.items()}
        total = share * self.motion_weight * sum(weighted[name] for name in motion)
        total = total + self.content_weight * sum(weighted[name] for name in content)
        unit = losses.unit(projected) * self._projector.out**0.5
        metrics = monitors | siamese.monitors(pooled, unit, batch.valid) | {"loss": total, "per_scene": per_scene}
        metrics |= {f"loss/{name}": value for name, value in terms.items()}
        return total, (metrics, extra | {"batch_stats": stats})

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """There is none."""
        return target

    def encode(self, params: Params, video: Array) -> Array:
        """The coarsest map of each frame as tokens, [B, T, H, W, C] -> [B, N, D], time-major."""
        scenes, frames = video.shape[:2]
        coarsest = self._levels(params, video.reshape(-1, *video.shape[2:]))[-1]
        return coarsest.reshape(scenes, -1, coarsest.shape[-1])

    def flow(self, params: Params, pairs: Array) -> Array:
        """See objectives.base.Flow."""
        one, other = (self._levels(params, pairs[:, index]) for index in range(2))
        return warping.enlarge(self._head.apply({"params": params["head"]}, one, other)[0], 2)

    def _levels(self, params: Params, frames: Array) -> list[Array]:
        return self._encoder.apply({"params": params["encoder"]}, frames)

    def _weight(self, name: str) -> float:
        return float(self.weights.get(name, WEIGHTS[name]))

    def _motion(self, params: Params, batch: Batch) -> tuple[dict[str, Array], Array, dict[str, Array]]:
        """(terms, the reconstruction of each scene [B], monitors) of all pairs of consecutive frames, both ways."""
        video, valid = batch.video.astype(jnp.float32) / 255.0, batch.valid
        scenes, frames = video.shape[:2]
        levels = self._levels(params, batch.video.reshape(-1, *video.shape[2:]))
        clips = [
            maps.reshape(scenes, frames, *maps.shape[1:]) for maps in (video.reshape(-1, *video.shape[2:]), *levels)
        ]
        (here, *one), (there, *other) = zip(*map(_both_ways, clips), strict=True)
        flows = self._head.apply({"params": params["head"]}, one, other)
        flow = warping.enlarge(flows[0], 2)
        back = jnp.roll(flow, len(flow) // 2, axis=0)  # the other half has the pairs in the other direction
        seen = inside = jnp.ones(flow.shape[:3], bool)
        if self.occlusion:
            seen, inside = photometric.visible(flow, back), warping.inside(jax.lax.stop_gradient(flow))
        away = losses.norm(photometric.round_trip(flow, back))
        regression = [
            jnp.square(a - warping.warp(b, f)).mean((1, 2, 3)) for a, b, f in zip(one, other, flows, strict=True)
        ]
        per_pair = {
            "reconstruction": photometric.reconstruction(here, warping.warp(there, flow), seen, self.pixels),
            "regression": sum(regression) / len(regression),
            "smoothness": photometric.smoothness(flow, here, self.edge),
            "cycle": losses.masked_mean(away, inside, photometric.PER_PIXEL),
            "flow_size": jax.lax.stop_gradient(losses.norm(flow)).mean((1, 2)),
            "flow_seen": seen.mean((1, 2)),
        }
        per_scene = {name: value.reshape(2, scenes, -1).mean((0, 2)) for name, value in per_pair.items()}
        means = {name: losses.masked_mean(value, valid) for name, value in per_scene.items()}
        monitors = {name: means.pop(name) for name in ("flow_size", "flow_seen")}
        vectors = [maps.reshape(-1, maps.shape[-1]) for maps in levels]
        rows = [jnp.repeat(valid, len(x) // scenes) for x in vectors]
        means["level_variance"] = sum(map(losses.variance_hinge, vectors, rows)) / len(levels)
        means["level_covariance"] = sum(map(losses.covariance, vectors, rows)) / len(levels)
        return means, jax.lax.stop_gradient(per_scene["reconstruction"]), monitors

    def _content(self, params: Params, extra: Params, batch: Batch, key: Array) -> tuple:
        """(VICReg's terms, pooled [B, D] and projected [B, P] features of the first view, statistics)."""
        views, stats = self._views(key, batch.video[:, :1])[:, :, 0], extra["batch_stats"]
        coarsest = self._levels(params, views.reshape(-1, *views.shape[2:]))[-1]
        pooled = coarsest.mean((1, 2)).reshape(*views.shape[:2], -1)
        projected, new = siamese.by_view(self._projector, params["projector"], stats["projector"], pooled, batch.valid)
        _, terms = losses.vicreg(projected[:, 0], projected[:, 1], batch.valid)
        return terms, pooled[:, 0], projected[:, 0], stats | {"projector": new}


def _both_ways(clips: Array) -> tuple[Array, Array]:
    """(from, to) of all pairs of consecutive frames, forward and then backward: [B, T, ...] -> [2 B (T - 1), ...]."""
    first, second = (x.reshape(-1, *clips.shape[2:]) for x in (clips[:, :-1], clips[:, 1:]))
    return jnp.concatenate([first, second]), jnp.concatenate([second, first])
