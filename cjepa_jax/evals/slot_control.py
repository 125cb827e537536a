"""Policies that plan with a slot predictor: what it sees of the frames, and how much of it is remembered."""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import numpy as np

from cjepa_jax.configuration import seeds
from cjepa_jax.data.formats.resize import resize
from cjepa_jax.data.sources.true_slots import small
from cjepa_jax.data.worlds.acting.base import Acting
from cjepa_jax.evals.control import Tasks, as_recorded
from cjepa_jax.planning.mpc import MPC, Controller, WorldModel, of_slots

Seen = dict[str, np.ndarray]  # "slots" float32 [E,K,D] and "proprio" [E,P] of one frame of E environments


class Encoder(NamedTuple):
    """A slot encoder that plays.

    recurrent: its functions for several videos at once, an extract.encoders.Recurrent. size: side of its frames. about:
    what it is, for the report.
    """

    recurrent: Any
    size: int
    about: str


class Sight(Protocol):
    """What frames show. They are looked at one after the other, each one once."""

    def begin(self, tasks: Tasks) -> None:
        """New tasks."""

    def look(self, states: np.ndarray) -> Seen:
        """What the next frames show, those of states [E,D]."""

    def goal(self) -> Seen:
        """What the goals show after the last frames."""


@dataclasses.dataclass
class OfStates:
    """The slots of true states, those of data.sources.true_slots:TrueSlots (`source`)."""

    world: Acting
    source: Any

    def begin(self, tasks: Tasks) -> None:
        """See Sight."""
        self.goals = tasks.goals

    def look(self, states: np.ndarray) -> Seen:
        """See Sight. No picture is used."""
        shown = small(self.world).scene(states, np.zeros(self.world.objects, bool))
        return {"slots": self.source.seen(shown["states"])[:, 0], "proprio": shown["proprio"]}

    def goal(self) -> Seen:
        """See Sight. It depends on no frame."""
        return self.look(self.goals)


@dataclasses.dataclass
class OfPictures:
    """The slots that an encoder gives of the world's pictures.

    They are carried from frame to frame, as in the extraction of whole clips. Slots of the goals start from those of
    the last frames, so that slot k of both is likely to be the same object. What the encoder draws derives from `seed`
    and the task's number.

    source: the data.sources.slot_files:SlotFiles that the predictor was trained on, for the units of the agent's state.
    """

    world: Acting
    encoder: Encoder
    source: Any
    seed: int

    def begin(self, tasks: Tasks) -> None:
        """See Sight."""
        seed = int(seeds.generator(self.seed, "slots of a task's pictures").integers(2**31))
        self.frame, self.goals = 0, self._pictures(tasks.goals, -1)
        self.own = self._felt(tasks.goals)
        self.state = self.encoder.recurrent.first(seed, tasks.number)

    def look(self, states: np.ndarray) -> Seen:
        """See Sight."""
        pictures = self._pictures(states, self.frame)
        self.slots, self.state = self.encoder.recurrent.step(pictures, self.state)  # slots: of the last frames
        self.frame += 1
        return {"slots": np.asarray(self.slots), "proprio": self._felt(states)}

    def goal(self) -> Seen:
        """See Sight."""
        recurrent = self.encoder.recurrent
        slots, _ = recurrent.step(self.goals, recurrent.beside(self.slots, self.state))
        return {"slots": np.asarray(slots), "proprio": self.own}

    def _pictures(self, states: np.ndarray, frame: int) -> np.ndarray:
        """uint8 [E,size,size,3] as the encoder takes them: drawn as large as those of training, and reduced."""
        drawn, size = self.world.seen(states, frame), self.encoder.size
        return drawn if drawn.shape[1] == size else np.stack([resize(image, (size, size)) for image in drawn])

    def _felt(self, states: np.ndarray) -> np.ndarray:
        mean, deviation = self.source.spreads.get("proprio", (0.0, 1.0))
        return np.asarray((small(self.world).felt(states) - mean) / deviation, np.float32)


@dataclasses.dataclass
class Remembering:
    """A policy that plans from `memory` frames, `stride` apart, and the actions between them.

    Before the first frame the world is taken to have rested: it is repeated, with actions of 0. The goal is looked at
    before each plan.
    """

    controller: Controller
    sight: Sight
    memory: int
    stride: int = 1

    def start(self, tasks: Tasks) -> None:
        """Sees the first frame, and the goals after it."""
        self.sight.begin(tasks)
        rest = np.zeros((len(tasks.number), self.controller.size), np.float32)
        self.frames, self.actions = [self.sight.look(tasks.starts)] * (self._before + 1), [rest] * self._before
        self.controller.start(self._seen([self.sight.goal()], []), tasks.number)

    def watch(self, states: np.ndarray, actions: np.ndarray) -> None:
        """Remembers a frame and the action before it, and forgets the oldest ones."""
        self.frames = [*self.frames, self.sight.look(states)][-self._before - 1 :]
        done = [*self.actions, np.asarray(actions, np.float32)]
        self.actions = done[len(done) - self._before :]

    def act(self, states: np.ndarray) -> np.ndarray:
        """The first actions of the plan."""
        self.controller.aim(self._seen([self.sight.goal()], []))
        return self.controller.act(self._seen(self.frames[:: self.stride], self.actions))

    @property
    def _before(self) -> int:
        """Remembered frames before the present one, with those that are not seen."""
        return (self.memory - 1) * self.stride

    def _seen(self, frames: list[Seen], actions: list[np.ndarray]) -> Seen:
        """`frames` with a second axis, and "actions" [E,n,stride A]: each row has those from one frame to the next."""
        found = {name: np.stack([frame[name] for frame in frames], 1) for name in frames[0]}
        count, width = len(found["slots"]), self.stride * self.controller.size
        done = np.stack(actions, 1) if actions else np.zeros((count, 0, width), np.float32)
        return found | {"actions": done.reshape(count, len(actions) // self.stride, width)}


def by_slots(
    world: Acting,
    source: Any,
    objective: Any,
    params: Any,
    *,
    mpc: MPC,
    seed: int,
    memory: int = 0,
    encoder: Encoder | None = None,
) -> Remembering:
    """Planning with a slot predictor.

    Args:
      source: what it was trained on, TrueSlots of this world, or SlotFiles with the slots of `encoder`.
      mpc: has its distance, and its block is the number of frames of an action of `source`.
      memory: the frames that a plan starts from. 0: objective.history. A rollout grows to that in either case.
    """
    model = of_slots(objective, params)
    model = in_units(model, source, world.action_size) if encoder else model
    sight: Sight = OfPictures(world, encoder, source, seed) if encoder else OfStates(world, source)
    controller = Controller(model, mpc, world.action_size, seed)
    return Remembering(controller, sight, memory or objective.history, mpc.block)


def in_units(model: WorldModel, source: Any, size: int) -> WorldModel:
    """A world model of slots whose actions are those of a world, with `size` numbers for a frame, instead of those of
    recorded episodes."""
    units = functools.partial(as_recorded, source, size)

    def encode(params: Any, seen: dict[str, Any]) -> Any:
        return model.encode(params, seen | {"actions": units(seen["actions"])})

    def predict(params: Any, context: Any, actions: Any) -> Any:
        return model.predict(params, context, units(actions))

    return dataclasses.replace(model, encode=encode, predict=predict)
