"""Masks of slots: what is always visible and always hidden, and how much of the rest."""

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.masks import slots

TIMES, SLOTS, HISTORY = 6, 5, 4
PATCHES = np.tile(np.eye(SLOTS, dtype=bool), TIMES)  # object k is slot k
VALID = np.array([True, True, False, True, True])


def draws(count=200, valid=VALID, **options):
    patches = PATCHES & valid[:, None]
    section = dict(history=HISTORY, grid=(TIMES, 1, SLOTS)) | options
    for i in range(count):
        masked, removed, dropped = slots.draw(np.random.default_rng(i), patches, valid, **section)
        yield masked.reshape(TIMES, SLOTS), removed, dropped.reshape(TIMES, SLOTS)


@pytest.mark.parametrize("kind", slots.KINDS)
def test_the_first_frame_is_visible_the_future_hidden_and_what_is_not_there_neither(kind):
    for masked, removed, dropped in draws(kind=kind, share=0.5):
        assert not masked[0].any() and masked[HISTORY:, VALID].all()
        assert (dropped == ~VALID).all() and not (masked & dropped).any()
        if kind == "object":
            assert (masked[1:HISTORY] == removed).all()
        else:
            assert not removed.any()


def test_the_number_of_objects_is_uniform_and_never_more_than_there_are():
    counts = np.bincount([removed.sum() for _, removed, _ in draws(800, most=3)], minlength=4)
    assert len(counts) == 4 and np.abs(counts / 800 - 0.25).max() < 0.06
    assert {int(removed.sum()) for _, removed, _ in draws(most=9, least=5)} == {4}
    chosen = np.mean([removed for _, removed, _ in draws(800, most=1, least=1)], 0)
    assert chosen[2] == 0 and np.abs(chosen[VALID] - 0.25).max() < 0.06
    assert not any(removed.any() for _, removed, _ in draws(most=0))


def test_tokens_and_tubes_hide_their_share_and_tubes_are_runs():
    inside, pairs = (HISTORY - 1) * VALID.sum(), {}
    for kind in ("token", "tube"):
        pairs[kind] = []
        for masked, *_ in draws(kind=kind, share=0.5, span=3):
            hidden = masked[1:HISTORY]
            assert hidden.sum() == round(0.5 * inside)
            pairs[kind].append((hidden[1:] & hidden[:-1]).sum())  # successive frames of a slot, both hidden
    assert abs(np.mean(pairs["token"]) - 8 * 6 * 5 / (12 * 11)) < 0.2  # 8 pairs, 6 of 12 tokens
    assert np.mean(pairs["tube"]) > np.mean(pairs["token"]) + 0.8


def test_a_scene_without_objects_hides_its_future_only():
    for masked, removed, dropped in draws(10, valid=np.zeros(SLOTS, bool)):
        assert masked[HISTORY:].all() and not masked[:HISTORY].any() and not removed.any() and not dropped.any()


def test_the_fixed_set_is_of_the_slots_that_are_there():
    for _, removed, _ in draws(10, most=3, constant=42):  # [0, 1, 4] of 5 slots
        wanted = np.random.RandomState(42).choice(SLOTS, 3, replace=False)
        assert set(np.flatnonzero(removed)) == set(wanted) - {2}


@pytest.mark.parametrize(
    "option, value, text",
    [
        ("history", 6, "mask.history = 6: must be below the 6 frames of the scenes"),
        ("history", 0, "mask.history = 0: must be a whole number, at least 1"),
        ("least", 4, "mask.least = 4: must not exceed mask.most = 3"),
        ("kind", "cube", "mask.kind = 'cube': must be one of object, token, tube"),
        ("share", 1.5, "mask.share = 1.5: must be in [0, 1]"),
        ("span", 0, "mask.span = 0: must be a whole number, at least 1"),
    ],
)
def test_wrong_options_are_refused(option, value, text):
    with pytest.raises(ConfigError) as error:
        next(draws(**{option: value}))
    assert str(error.value) == text
