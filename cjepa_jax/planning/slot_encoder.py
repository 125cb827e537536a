"""The slot encoder that --encoder names: whether it made the slots of the run, and the world whose pictures it sees."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.configuration import build
from cjepa_jax.data import assemble, slot_writer
from cjepa_jax.data.sources.records import Records
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.data.worlds import acting
from cjepa_jax.data.worlds.acting.base import Acting
from cjepa_jax.errors import ConfigError, DataError, printable
from cjepa_jax.evals.slot_control import Encoder
from cjepa_jax.extract import checkpoint, encoders
from cjepa_jax.planning.mpc import MOST_FRAMES, MPC

FLAGS = ("--encoder", "--backbone")
ROUNDING = 1e-6
LEAST_PIXELS, MOST_PIXELS = 8, 1024  # of a side of a picture, for all tasks of a command at once


class Playing(NamedTuple):
    """An encoder, and the world in which it plays."""

    encoder: Encoder
    world: Acting


def opened(chosen: Any, source: Any, objective: Any, name: str | None) -> Playing:
    """The encoder that made the slots of `source`, on which a run was trained, in the world of its pictures.

    name: the class of data.worlds.acting that --env names, if it names one. Raises ConfigError for an encoder that did
    not make these slots, for a world that is not known, and for actions or states that are not the world's.
    """
    where = f"--checkpoint={chosen.checkpoint}"
    if not isinstance(source, SlotFiles):
        text = f"is for a slot predictor that was trained on SlotFiles, not for one of {type(source).__name__}"
        raise ConfigError(f"--encoder={chosen.encoder}: {text}")
    if not chosen.encoder:
        text = f"{where}: was trained on an encoder's slots, those in data.path = {source.path}"
        raise ConfigError(f"--encoder is missing: {text}: name the encoder that made them")
    made = slot_writer.made_with(Path(source.path))
    with checkpoint.unchanged(chosen.encoder, chosen.backbone or "", flags=FLAGS) as digests:
        _made_them(chosen, source, made, digests)
        given = dict(
            noise=bool(made.get("--noise")), backbone=chosen.backbone or "", trust=chosen.trust, flag="--encoder"
        )
        found, config = encoders.of(chosen.encoder, size=0, seed=0, **given)
    if found.recurrent is None:
        raise ConfigError(f"--encoder={chosen.encoder}: gives {found.about}, no slots")
    start = found.recurrent.first(0, np.zeros(1, int)).start
    if start.shape[1:] != (source.slots, source.width):
        text = f"gives {start.shape[1]} slots of {start.shape[2]} numbers"
        text = f"{text}: must be the {source.slots} of {source.width} in data.path = {source.path}"
        raise ConfigError(f"--encoder={chosen.encoder}: {text}")
    pixels = _pixels(source, made, found.size)
    world = dataclasses.replace(_world(chosen, config, name), size=pixels)
    if (channels := world.picture(world.setup(0).first).shape[-1]) != 3:
        text = f"pictures of {type(world).__name__} have {channels} channels, the encoder takes 3"
        raise ConfigError(f"--encoder={chosen.encoder}: {text}")
    _require_units(where, source, objective, world)
    unknown = f"{source.path} does not record what made its slots, drawn at {pixels} pixels"
    about = f"{chosen.encoder}, {found.about}, {'made the slots' if made else unknown}"
    return Playing(Encoder(found.recurrent, found.size, about), world)


def _pixels(source: SlotFiles, made: dict[str, Any], size: int) -> int:
    """The side of the recorded frames, as the journal says. `size` for slots without a journal. Raises ConfigError."""
    if not made:
        return size
    pixels, where = made.get(slot_writer.PIXELS), f"{source.path}/{slot_writer.JOURNAL}"
    if pixels is None:
        raise ConfigError(f"{where}: does not say how large square frames of an episode were: extract the slots again")
    if isinstance(pixels, bool) or not isinstance(pixels, int) or not LEAST_PIXELS <= pixels <= MOST_PIXELS:
        text = f"must be an integer within {LEAST_PIXELS} and {MOST_PIXELS}"
        raise ConfigError(f"{where}: {slot_writer.PIXELS} = {printable(pixels)[:40]}: {text}")
    return pixels


def _made_them(chosen: Any, source: SlotFiles, made: dict[str, Any], digests: list[str]) -> None:
    """Raises ConfigError for an encoder that is not the one which the folder of slots names, if it names one."""
    pairs = zip(FLAGS, (chosen.encoder, chosen.backbone), (slot_writer.ENCODER, slot_writer.BACKBONE), strict=True)
    for (flag, value, key), digest in zip(pairs, digests, strict=True):
        if key in made and made[key] != digest:
            own = f"{flag}={value}: has SHA-256 {digest}" if value else f"{flag} is missing"
            theirs = printable(made[key] or "none")[:80]
            text = f"the slots in data.path = {source.path} were made with {theirs}: must be the same"
            raise ConfigError(f"{own}, {text}")


def _world(chosen: Any, config: Any, name: str | None) -> Acting:
    """The world on which the encoder was trained, or the one that --env names. Raises ConfigError."""
    own: Any = None
    cls: Any = getattr(acting, name) if name else None
    kind = build.locate(config.data.source, "data.source") if config is not None else None
    if isinstance(kind, type) and issubclass(kind, Acting | Records):
        try:
            trained = assemble.make_source(config, "train")
        except DataError:  # the encoder's own data are not here, and with --env they are not needed
            if not cls:
                raise
            return cls()
        own = getattr(trained, "simulator", trained)
    if not isinstance(own, Acting) and not cls:
        text = f"--encoder={chosen.encoder}: was not trained on a world with actions: name one, such as push"
        raise ConfigError(f"--env is missing: {text}")
    if isinstance(own, Acting) and cls and not isinstance(own, cls):
        text = f"the encoder of --encoder was trained on {type(own).__name__}, where it plays"
        raise ConfigError(f"--env={chosen.env}: {text}")
    return own if isinstance(own, Acting) else cls()


def _require_units(where: str, source: SlotFiles, objective: Any, world: Acting) -> None:
    """Raises ConfigError for recorded actions, or states of the agent, that cannot be those of the world."""
    name, names = type(world).__name__, world.proprio_names
    wanted = {"actions": world.action_size} | ({"proprio": len(names)} if "proprio" in objective.auxiliary else {})
    for array, width in wanted.items():
        rows = source.every(array)
        if rows.shape[1] != width:
            text = f"has {rows.shape[1]} numbers in a row: must be the {width} of {name}"
            raise ConfigError(f"{where}: {source.path}/{array}.npy {text}")
        places = [i for i, each in enumerate(names) if each in ("x", "y")] if array == "proprio" else range(width)
        low, unit = (0, "view widths") if array == "proprio" else (-1, "actions")
        for i in places:
            least, most = float(np.nanmin(rows[:, i])), float(np.nanmax(rows[:, i]))
            if least < low - ROUNDING or most > 1 + ROUNDING:
                text = f"column {i} of {source.path}/{array}.npy is within {least:.4g} and {most:.4g}"
                raise ConfigError(f"{where}: {text}: must be within {low} and 1, the {unit} of {name}")


def blocks(chosen: Any, source: SlotFiles, mpc: MPC) -> MPC:
    """`mpc` for actions of the run, which are `source.skip` frames. With --protocol its horizon is in frames.

    Raises ConfigError for a plan that is too long, and for one that is not a whole number of blocks.
    """
    block = source.skip
    if chosen.protocol:
        for name in ("horizon", "receding"):
            if getattr(mpc, name) % block:
                text = f"must be a multiple of the run's data.options.skip = {block} with --protocol"
                raise ConfigError(f"--{name}={getattr(mpc, name)}: {text}")
        mpc = dataclasses.replace(mpc, horizon=mpc.horizon // block, receding=mpc.receding // block)
    if mpc.horizon * block > MOST_FRAMES:
        text = f"must be at most {MOST_FRAMES // block}, because an action of the run is {block} frames"
        raise ConfigError(f"--horizon={mpc.horizon}: {text}")
    return dataclasses.replace(mpc, block=block)
