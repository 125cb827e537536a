"""The slots that a question is asked about: an encoder's, a model's rollouts, or a simulator's."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cjepa_jax.evals.base import Model, Scenes, require
from cjepa_jax.evals.benchmarks.language_head import Items
from cjepa_jax.evals.rollout import foreseer, rolled

OBSERVED, SIMULATED = "observed slots", "simulated"
AT_ONCE = 256  # clips of which rollouts are made at a time


class Inputs(NamedTuple):
    """What Q items see.

    clips: the encoder's slots of the scenes, float32 [n, F, K, D]. more: other clips, [m, F, K, D].
    row: int [Q], each item's clip, from n on those of `more`. number: int [Q], its question. seen: False if no slot is.
    """

    clips: np.ndarray
    more: np.ndarray
    row: np.ndarray
    number: np.ndarray
    seen: bool = True

    @classmethod
    def of(cls, scenes: Scenes, items: Items) -> "Inputs":
        """The encoder's slots."""
        clips = scenes.arrays["video"][:, :, 0]
        return cls(clips, clips[:0], items.row, items.number)

    def frames(self, items: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Frames int [B, T] of the clips of items int [B]: float32 [B, T, K, D]."""
        row, count = self.row[items], len(self.clips)
        out = self.clips[np.minimum(row, count - 1)[:, None], frames]
        where = row >= count
        out[where] = self.more[row[where, None] - count, frames[where]]
        return out

    def clip(self, row: int) -> np.ndarray:
        """[F, K, D]."""
        return self.clips[row] if row < len(self.clips) else self.more[row - len(self.clips)]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which types of questions see what. See the protocol Aloe."""

    rolled: Sequence[str]
    rollout: int
    do: Sequence[str]
    history: int
    future: int
    skip: int

    @property
    def given(self) -> int:
        """Frames at the start of a clip from which it is predicted without an object."""
        return self.history * self.skip

    def check(self, items: Items, scenes: Scenes) -> None:
        """Raises ConfigError for types that no question has, and where `do` cannot know which slot is removed."""
        for name in (*self.rolled, *self.do):
            require(name in items.kind, "Aloe", f"questions of the type {name!r}, which rolled or do names")
        source, slots = type(scenes.source).__name__, scenes.arrays["video"].shape[3]
        missing = f"questions whose `removed` is a slot, for do = {tuple(self.do)}: {source} does not say which slot"
        require(not len(self.do) or bool(self._without(items).any()), "Aloe", f"{missing} holds the removed object")
        most = int(removed(items).max())
        require(
            not len(self.do) or most < slots, "Aloe", f"slots below {slots} as `removed`, and a question has {most}"
        )

    def inputs(self, scenes: Scenes, items: Items, observed: Inputs, future: Any) -> Inputs:
        """The inputs of all items. future: Foreseen or Simulated."""
        clips, row, after, without = observed.clips, observed.row.copy(), self._after(items), self._without(items)
        scene, of_after = np.unique(items.row[after], return_inverse=True)
        pairs = np.stack([items.row, removed(items)], 1)[without]
        pairs, of_pairs = np.unique(pairs, axis=0, return_inverse=True)
        row[after] = len(clips) + of_after
        row[without] = len(clips) + len(scene) + of_pairs.reshape(-1)
        more = np.empty((len(scene) + len(pairs), *clips.shape[1:]), np.float32)  # filled in place: it is large
        for part, out in _chunks(scene, more[: len(scene)]):
            out[:, : -self.rollout] = clips[part, self.rollout :]
            out[:, -self.rollout :] = future.after(scenes, clips, part)
        for part, out in _chunks(pairs, more[len(scene) :]):
            out[:] = future.without(scenes, clips, *part.T)
        return Inputs(clips, more, row, observed.number)

    def remarks(self, items: Sequence[Items]) -> list[str]:
        """How many items of the types in `do` name no slot."""
        count = int(sum((np.isin(of.kind, self.do) & ~self._without(of)).sum() for of in items))
        text = "questions or options of types in `do` do not name a removed slot. They see the observed clip"
        return [f"{count} {text}"] if count else []

    def _after(self, items: Items) -> np.ndarray:
        return np.isin(items.kind, self.rolled)

    def _without(self, items: Items) -> np.ndarray:
        return np.isin(items.kind, self.do) & (removed(items) >= 0)


@dataclasses.dataclass(frozen=True)
class Foreseen:
    """A model's rollouts. No simulator is asked."""

    model: Model
    plan: Plan

    def after(self, scenes: Scenes, clips: np.ndarray, scene: np.ndarray) -> np.ndarray:
        """The frames after the clips of these scenes, from their last ones, [n, rollout, K, D]."""
        there = self._there(scenes, clips)[scene]
        return self._rolled(clips[scene][:, -self.plan.given :], there, self.plan.rollout)

    def without(self, scenes: Scenes, clips: np.ndarray, scene: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """The clips of these scenes without a slot [n], [n, F, K, D], from their first frames without it.

        The first frames are the observed ones with that slot empty. The other slots show what the object did before.
        """
        there = self._there(scenes, clips)[scene] & (np.arange(clips.shape[2]) != slot[:, None])
        given = np.where(there[:, None, :, None], clips[scene][:, : self.plan.given], 0)
        return np.concatenate([given, self._rolled(given, there, clips.shape[1] - self.plan.given)], 1)

    def _there(self, scenes: Scenes, clips: np.ndarray) -> np.ndarray:
        """Which slots hold an object, bool [n, K]."""
        return scenes.arrays["object_valid"][:, : clips.shape[2]]

    def _rolled(self, given: np.ndarray, there: np.ndarray, frames: int) -> np.ndarray:
        predict = foreseer(self.model, there, self.plan.future, "Aloe")
        made = rolled(predict, given, frames, self.plan.history, self.plan.skip)
        return np.where(there[:, None, :, None], made, 0)


@dataclasses.dataclass(frozen=True)
class Simulated:
    """The true continuation, and the true clip without an object, of a source that simulates its scenes."""

    plan: Plan

    def after(self, scenes: Scenes, clips: np.ndarray, scene: np.ndarray) -> np.ndarray:
        """As Foreseen.after."""
        source: Any = scenes.source
        source = dataclasses.replace(source, frames=clips.shape[1] + self.plan.rollout)
        numbers = scenes.arrays["scene"][scene].tolist()
        return np.stack([source[number]["video"][clips.shape[1] :, 0] for number in numbers])

    def without(self, scenes: Scenes, clips: np.ndarray, scene: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """As Foreseen.without, all frames simulated. The object is gone from frame 0 on, and so are all its effects."""
        source: Any = scenes.source
        pairs = zip(scenes.arrays["scene"][scene].tolist(), np.eye(clips.shape[2], dtype=bool)[slot], strict=True)
        return np.stack([source.intervene(number, gone)[:, 0] for number, gone in pairs])


def removed(items: Items) -> np.ndarray:
    """The slot that each item's question removes, int [Q]. -1: none, or unknown."""
    found = [question.get("removed", -1) for question in items.source]
    return np.array([k if isinstance(k, int) and not isinstance(k, bool) and 0 <= k < 2**31 else -1 for k in found])


def identities(inputs: Inputs, scenes: Scenes, items: Items) -> list[str]:
    """For each type of question, whether the items see the encoder's slots, to the bit."""
    observed, notes = Inputs.of(scenes, items), []
    for kind in np.unique(items.kind).tolist():
        where = np.flatnonzero(items.kind == kind)
        other = len(where) - identical(inputs, observed, where)
        text = "the encoder's slots, identical to the bit for every model"
        if other:
            text = f"rollouts of the model in {other} of {len(where)} test items, the rest the encoder's slots"
        notes.append(f"{kind}: {text}")
    return notes


def identical(one: Inputs, other: Inputs, where: np.ndarray) -> int:
    """How many of the items `where` see the same bits in both."""
    pairs, count = np.unique(np.stack([one.row[where], other.row[where]], 1), axis=0, return_counts=True)
    same = [one.clip(a).tobytes() == other.clip(b).tobytes() for a, b in pairs.tolist()]
    return int(count[np.array(same)].sum())


def _chunks(rows: np.ndarray, out: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """AT_ONCE rows at a time, and their part of `out`."""
    return ((rows[i : i + AT_ONCE], out[i : i + AT_ONCE]) for i in range(0, len(rows), AT_ONCE))
