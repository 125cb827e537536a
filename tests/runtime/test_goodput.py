"""Where a run's time went, with a clock that the test moves, and in a real run that was stopped and resumed."""

import json

import pytest

from cjepa_jax.runtime.goodput import KINDS, Goodput


class Time:
    seconds = 1000.0

    def __call__(self):
        return self.seconds


def test_every_second_is_booked_once(tmp_path):
    time = Time()
    goodput = Goodput(tmp_path / "goodput.json", time)
    time.seconds += 7
    goodput.spent("init")
    time.seconds += 5
    goodput.stepped(1, waited=1.0, compiled=True)
    for step in (2, 3):
        time.seconds += 2
        goodput.stepped(step, waited=0.5)
    time.seconds += 0.25
    with goodput.spending("probe"):
        time.seconds += 4
    with pytest.raises(KeyError), goodput.spending("checkpoint"):
        time.seconds += 1
        raise KeyError
    time.seconds += 0.5
    goodput.save()
    wanted = {"init": 7, "compile": 4, "data": 2, "step": 3, "checkpoint": 1, "probe": 4, "replay": 0, "other": 0.75}
    assert goodput.seconds == wanted and tuple(wanted) == KINDS
    assert goodput.total == time.seconds - 1000
    assert goodput.share == 3 / 21.75


def test_the_next_process_adds_to_it_and_steps_done_before_are_replay(tmp_path):
    file, time = tmp_path / "goodput.json", Time()
    goodput = Goodput(file, time)
    for step in (1, 2, 3, 4):
        time.seconds += 1
        goodput.stepped(step)
    goodput.save()
    assert json.loads(file.read_text())["reached"] == 4

    again = Goodput(file, time)  # killed, and resumed at step 2
    for step in (3, 4, 5):
        time.seconds += 1
        again.stepped(step)
    again.save()
    assert (again.seconds["step"], again.seconds["replay"], again.total) == (5, 2, 7)
    assert json.loads(file.read_text())["reached"] == 5


@pytest.mark.parametrize("kept", ['{"step": 3', "5", "null", "[]", '{"step": null}', '{"step": 3, "reached": 1e999}'])
def test_waiting_is_at_most_the_step_and_a_damaged_file_is_forgone(tmp_path, kept):
    file, time = tmp_path / "goodput.json", Time()
    file.write_text(kept)
    goodput = Goodput(file, time)
    assert goodput.share == 0
    time.seconds += 1
    goodput.stepped(1, waited=5.0)
    assert (goodput.seconds["step"], goodput.seconds["data"]) == (0, 1)
