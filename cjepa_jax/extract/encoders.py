"""Slot encoders that read one frame after the other: of runs, of published weights, and DINOv2 alone."""

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cjepa_jax.configuration import build, sizes
from cjepa_jax.data import kinds
from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.extract import checkpoint
from cjepa_jax.models import slot_encoders, videosaur
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.objectives import savi
from cjepa_jax.objectives.savi import SaviLoss
from cjepa_jax.objectives.videosaur import VideoSaurLoss
from cjepa_jax.runtime import foreign
from cjepa_jax.types import Batch, Rows
from cjepa_jax.weights import files, name_maps, published, read
from cjepa_jax.weights import slot_encoders as savi_weights
from cjepa_jax.weights import videosaur as saur_weights
from cjepa_jax.weights.read import Pretrained
from cjepa_jax.weights.safety import short

KINDS = (SaviLoss, VideoSaurLoss)
PATCHES = 14  # of a side, as published: 196 pixels of DINOv2's patches of 14
SEEN = 8  # frames of DINOv2 at a time
BESIDE = 2**30  # added to a frame's number, for the noise of another video's first frame
THEIRS = re.compile(r"(?:dinov2\.|model\.)?(?:embeddings|encoder|layer|layernorm)\.")  # names of transformers


class State(NamedTuple):
    """What a slot encoder keeps of the earlier frames of E videos.

    start: where the next frame's slots start from, float32 [E, K, D]. seen: frames so far. keys: of the videos' noise,
    [E].
    """

    start: jax.Array
    seen: int
    keys: jax.Array


class Recurrent(NamedTuple):
    """A slot encoder frame by frame, for E videos at once.

    first(seed, numbers of the videos int [E]) -> the state before their first frames. Noise derives from both.
    step(frames uint8 [E, H, W, 3], state) -> (slots float32 [E, K, D], the state before the next frames).
    """

    first: Callable[[int, np.ndarray], State]
    step: Callable[[np.ndarray, State], tuple[jax.Array, State]]

    def beside(self, slots: jax.Array, state: State) -> State:
        """The state before first frames of other videos, whose slots start from `slots` [E, K, D]. Their noise is not
        that of a frame of the videos of `state`."""
        return State(slots, 0, _folded(state.keys, BESIDE + state.seen))


class Found(NamedTuple):
    """encode(frames uint8 [H, W, 3], number of the video) -> float32 [T, K, D], of frames of `size` x `size`.

    recurrent: the same, frame by frame. None for features of a frame alone.
    """

    size: int
    encode: Callable[[Iterable[np.ndarray], int], np.ndarray]
    about: str
    recurrent: Recurrent | None = None


def of(
    source: str, *, size: int, seed: int, noise: bool, backbone: str, trust: str, flag: str = "--checkpoint"
) -> tuple[Found, ConfigDict | None]:
    """The encoder, and the config of a run (None for weights). flag: what names `source`, for messages.

    Raises: ConfigError for a flag that does not belong to it. CheckpointError for unusable weights.
    """
    path, folder = checkpoint.located(source, flag)
    if backbone and (folder or path.is_dir()):
        raise ConfigError(f"--backbone={backbone}: only for weights of VideoSAUR or SlotContrast")
    if folder:
        _unused(size=size)
        return _run(folder, seed, noise, foreign.trusted(trust))
    if path.is_dir():
        _unused(noise=noise)
        return _features(_dinov2(path), size), None
    _unused(size=size)
    tensors = files.tensors(path)
    names = [savi_weights.PREFIX.sub("", name, count=1) for name in tensors]
    if any(name.startswith("processor.module.") for name in names):
        _unused(noise=noise)
        return _videosaur(tensors, str(path), seed, backbone), None
    if any(name.startswith("slot_attention.") for name in names):
        if backbone:
            raise ConfigError(f"--backbone={backbone}: SAVi has none")
        weights = savi_weights.savi(tensors, str(path))
        model = slot_encoders.Savi(**weights.sizes, strides=(*[2] * (len(weights.sizes["decoder"]) - 1), 1))
        return _savi(model, weights.params, seed, noise), None
    raise CheckpointError(f"{path}: is none of StoSAVi, VideoSAUR and SlotContrast")


def _unused(**flags: Any) -> None:
    for name, value in flags.items():
        if value:
            text = "for DINOv2 alone" if name == "size" else "for SAVi alone"
            raise ConfigError(f"--{name}{f'={value}' if value is not True else ''}: {text}")


def _run(folder: Path, seed: int, noise: bool, trust: tuple[str, ...]) -> tuple[Found, ConfigDict]:
    config = foreign.read(folder / "config.json", trust)
    if build.locate(config.objective.type, "objective.type") not in KINDS:
        text = f"objective.type = {config.objective.type!r}"
        raise ConfigError(f"{folder}: {text}: must be a slot encoder, {' or '.join(kind.__name__ for kind in KINDS)}")
    if kinds.of(build.locate(config.data.source, "data.source")) == "features":
        text = f"data.source = {config.data.source!r}: was trained on features, and has no image encoder for videos"
        raise ConfigError(f"{folder}: {text}")
    objective = checkpoint.built(config)
    step, found = checkpoint.restored(folder, config, objective, _shapes(config))
    about = f"step {step} of {folder}"
    if isinstance(objective, SaviLoss):
        if noise and not objective.model.noise:
            raise ConfigError(f"--noise: {folder} has objective.savi.noise = False: must be a run that drew its slots")
        return _savi(objective.model, found.params["savi"], seed, noise, about), config
    _unused(noise=noise)
    features = jax.jit(lambda frames: objective.patches(frames[None])[0])
    return _saur(
        objective.model, found.params["videosaur"], features, seed, 1, size=config.data.size, about=about
    ), config


def _shapes(config: ConfigDict) -> Batch:
    """The shapes of a scene."""
    of = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
    data, flag, number, row = config.data, of(bool, 1), of(jnp.int32, 1), of(jnp.int32, 1, 1, 4)
    video = of(jnp.uint8, 1, data.frames, *(data.size, data.size, 3))
    tokens = of(bool, 1, 1, 4)
    return Batch(
        scene=number,
        epoch=number,
        video=video,
        object_patches=tokens,
        object_valid=of(bool, 1, 1),
        removed=of(bool, 1, 1),
        context=of(bool, 1, 4),
        rows=Rows(row, row),
        valid=flag,
    )


def _savi(model: slot_encoders.Savi, params: Mapping, seed: int, noise: bool, about: str = "StoSAVi") -> Found:
    size = slot_encoders.START * math.prod(model.strides)

    @jax.jit
    def apply(frames, start, keys):
        drawn = _drawn(keys, start.shape[1:]) if noise and model.noise else None
        return model.apply({"params": params}, savi.scaled(frames), start, drawn, method="step")[:2]

    def first(seed: int, numbers: np.ndarray) -> State:
        start = jnp.repeat(jnp.asarray(params["latents"])[None], len(numbers), 0)
        return State(start, 0, _keys(seed, numbers))

    def step(frames: np.ndarray, state: State) -> tuple[jax.Array, State]:
        slots, start = apply(frames, state.start, _folded(state.keys, state.seen))
        return slots, state._replace(start=start, seen=state.seen + 1)

    def encode(frames: Iterable[np.ndarray], number: int) -> np.ndarray:
        state, out = first(seed, np.array([number])), []
        for frame in frames:
            slots, state = step(frame[None], state)
            out.append(np.asarray(slots[0]))
        return _joined(out)

    return Found(size, encode, about, Recurrent(first, step))


def _videosaur(tensors: files.Tensors, source: str, seed: int, backbone: str) -> Found:
    inner = name_maps.only(_bare(tensors), saur_weights.BACKBONE)
    state = {name: tensors[name] for name in tensors if f".{saur_weights.BACKBONE}" not in f".{name}"}
    weights = saur_weights.read(state, source)
    if other := next((name for name in inner if not THEIRS.match(name)), ""):
        text = f"{short(saur_weights.BACKBONE + other)} is not a name of transformers' Dinov2Model"
        raise CheckpointError(
            f"{source}: {text}: slots that were trained on timm's features, which are taken before the last norm, do "
            "not fit those of transformers, which are taken after it"
        )
    if not backbone and not inner:
        raise ConfigError(f"--backbone is missing: {source} does not hold its image encoder")
    model, params = videosaur.VideoSaur(**weights.sizes), weights.params
    image = _dinov2(Path(backbone)) if backbone else _inside(inner)
    places, patch = len(params[model.decoder]["positions"]), sizes.parse(image[0].variant).patch
    side = math.isqrt(places)
    if side**2 != places or image[0].width != len(params["up"]["kernel"]):
        text = f"{places} places of features of {len(params['up']['kernel'])}"
        raise CheckpointError(f"{source}: {text}: the image encoder has a width of {image[0].width} and square grids")
    about = f"{'SlotContrast' if model.fixed else 'VideoSAUR'} on {image[0].variant}"
    return _saur(model, params, _of_images(*image), seed, SEEN, size=side * patch, about=about)


def _saur(
    model: videosaur.VideoSaur,
    params: Mapping,
    features: Callable[[np.ndarray], Any],
    seed: int,
    several: int,
    *,
    size: int,
    about: str,
) -> Found:
    """features: uint8 frames [n, H, W, 3] -> [n, P, F]. `encode` asks for those of `several` frames at a time."""
    apply = jax.jit(functools.partial(videosaur.next_slots, model), static_argnums=3)

    def first(seed: int, numbers: np.ndarray) -> State:
        keys = _keys(seed, numbers)
        noise = _drawn(keys, (model.slots, model.width))
        return State(videosaur.first_slots(model, params, noise), 0, keys)

    def after(seen: jax.Array, state: State) -> tuple[jax.Array, State]:
        slots, start = apply(params, seen, state.start, model.iterations if state.seen else model.first)
        return slots, state._replace(start=start, seen=state.seen + 1)

    def encode(frames: Iterable[np.ndarray], number: int) -> np.ndarray:
        state, out = first(seed, np.array([number])), []
        for part, count in _parts(frames, several):
            for seen in features(part)[:count]:
                slots, state = after(seen[None], state)
                out.append(np.asarray(slots[0]))
        return _joined(out)

    def step(frames: np.ndarray, state: State) -> tuple[jax.Array, State]:
        seen = [features(part)[:count] for part, count in _parts(frames, SEEN)]  # an image encoder's memory is bounded
        return after(jnp.concatenate(seen), state)

    return Found(size, encode, about, Recurrent(first, step))


def _keys(seed: int, numbers: np.ndarray) -> jax.Array:
    """A key for each of these videos, [E]."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(numbers))


@jax.jit
def _folded(keys: jax.Array, number: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _drawn(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers [E, *shape]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _dinov2(folder: Path) -> tuple[Encoder, Mapping]:
    found: Pretrained = read.read(folder)
    if found.layout != published.DINOV2.name:
        raise CheckpointError(f"{folder}: {found.layout}: must be a folder of transformers' Dinov2Model")
    return Encoder(**found.encoder), found.params["encoder"]


def _inside(tensors: files.Tensors) -> tuple[Encoder, Mapping]:
    """DINOv2 of transformers' names, without its config: as published."""
    view = name_maps.huggingface(tensors, published.DINOV2.name)["encoder"]
    options, params, _ = published.encoder(view, published.DINOV2)
    return Encoder(**options), params


def _bare(tensors: files.Tensors) -> files.Tensors:
    """Under the published names, without prefixes."""
    names = {savi_weights.PREFIX.sub("", name, count=1): name for name in tensors}
    shapes = {name: tensors.shapes[stored] for name, stored in names.items()}
    return files.Tensors(tensors.source, shapes, lambda name: tensors[names[name]])


def _features(image: tuple[Encoder, Mapping], size: int) -> Found:
    patch = sizes.parse(image[0].variant).patch
    size = size or PATCHES * patch
    if size % patch:
        raise ConfigError(f"--size={size}: must be a multiple of the patches' {patch} pixels")
    features = _of_images(*image)

    def encode(frames: Iterable[np.ndarray], number: int) -> np.ndarray:
        return _joined([np.asarray(x) for part, count in _parts(frames, SEEN) for x in features(part)[:count]])

    return Found(size, encode, f"features of {image[0].variant}, {size // patch} x {size // patch} of each frame")


def _of_images(encoder: Encoder, params: Mapping) -> Callable[[np.ndarray], Any]:
    return jax.jit(lambda frames: encoder.apply({"params": params}, frames[:, None]))


def _parts(frames: Iterable[np.ndarray], several: int) -> Iterator[tuple[np.ndarray, int]]:
    """(`several` frames, how many of them are of the video): the last part is filled up with its first frame."""
    held: list[np.ndarray] = []
    for frame in frames:
        held.append(frame)
        if len(held) == several:
            yield np.stack(held), several
            held = []
    if held:
        yield np.stack(held + held[:1] * (several - len(held))), len(held)


def _joined(frames: list[np.ndarray]) -> np.ndarray:
    return np.stack(frames) if frames else np.zeros((0, 1, 1), np.float32)
