"""Threads of a step: spans, who is busy at once, and what runs alone, from events whose sums are known."""

import jax
import jax.numpy as jnp
import pytest

from cjepa_jax.bench import timeline
from cjepa_jax.bench.timeline import DIVIDED, Lane
from tests import running

OPERATION = [("hlo_op", "x")]


def events(*rows):
    return [(start, end, name, OPERATION if operation else []) for start, end, name, operation in rows]


def test_a_thread_is_busy_in_its_tasks_but_for_what_it_waits():
    one = timeline.lane(
        events(
            (0, 0, timeline.TASK, False),
            (2, 8, "dot.1", True),
            (4, 6, "SlinkyThreadPool::Await", False),
            (10, 10, timeline.TASK_END, False),
            (20, 25, "add.2", True),  # by a thread that is not of the pool
            (25, 40, "ThunkExecutor::Execute (wait for completion)", False),
        )
    )
    assert one.busy == [(0, 4), (6, 10), (20, 25)]
    assert one.operations == [(2, 8, "dot.1"), (20, 25, "add.2")]


def test_a_task_that_the_recording_cuts_counts_as_far_as_it_is_seen():
    assert timeline.lane(events((5, 5, timeline.TASK_END, False))).busy == []
    late = timeline.lane(events((3, 3, timeline.TASK, False), (4, 9, "dot.1", True)))
    assert late.busy == [(3, 9)]


def test_spans():
    assert timeline.union([(3, 5), (0, 1), (4, 9), (9, 10), (20, 20)]) == [(0, 1), (3, 10)]
    assert list(timeline.without([(0, 10), (20, 30)], [(-5, 2), (4, 5), (8, 21), (29, 40)])) == [
        (2, 4),
        (5, 8),
        (21, 29),
    ]
    assert list(timeline.without([(0, 10)], [])) == [(0, 10)]
    assert list(timeline.without([(0, 10)], [(0, 10)])) == []


def test_how_many_threads_are_busy_and_what_runs_alone():
    first = Lane([(0, 60), (70, 100)], [(0, 50, "while.1"), (10, 30, "dot.1"), (70, 80, "dot.2")])
    second = Lane([(20, 40), (90, 200)], [(20, 40, "add.1"), (120, 130, "add.2")])
    busy, alone = timeline.crowd([(0, 100)], [first, second])
    assert busy == {0: 10, 1: 60, 2: 30}
    # 0-10 while.1, 10-20 dot.1, 40-50 while.1, 50-60 and 80-90 without a name, 70-80 dot.2
    assert alone == {"while.1": 20, "dot.1": 10, "dot.2": 10, DIVIDED: 20}
    assert timeline.crowd([(0, 50), (80, 100)], [first, second])[0] == {1: 40, 2: 30}


def test_instructions_have_the_pass_and_the_layer_of_their_names():
    program = """
  %dot.1 = f32[2,3]{1,0} dot(%a, %b), metadata={op_name="jit(step)/jvp(Encoder)/stack/closed_call/blocks/mlp/up/mk,kn->mn/dot_general"}
  ROOT %add_fusion.2 = f32[] fusion(%c), metadata={op_name="jit(step)/transpose(jvp(Encoder))/blocks/norm1/mul" id=3}
  copy.3 = f32[] copy(%d)
  %mul.4 = f32[] multiply(%e), metadata={op_name="jit(step)/add"}
"""  # fmt: skip  # noqa: E501
    assert timeline.named(program) == {
        "dot.1": ("forward", "Encoder/mlp/up/dot_general"),
        "add_fusion.2": ("backward", "Encoder/norm1/mul"),
        "mul.4": ("rest", "add"),
    }


def test_a_real_profile_has_its_steps_and_their_operations(tmp_path):
    f = jax.jit(lambda x: jnp.tanh(x @ x) @ x)
    x = jnp.ones((512, 512))
    f(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            with jax.profiler.TraceAnnotation(timeline.ANNOTATION):
                f(x).block_until_ready()
    steps, lanes = timeline.read(tmp_path)
    assert len(steps) == 3 and all(before[1] <= after[0] for before, after in zip(steps, steps[1:], strict=False))
    busy, alone = timeline.crowd(steps, lanes)
    total = sum(end - start for start, end in steps)
    assert sum(busy.values()) == pytest.approx(total) and sum(busy[n] for n in busy if n) > 0.2 * total
    names = {name for one in lanes for *_, name in one.operations}
    assert names & set(timeline.named(f.lower(x).compile().as_text()))
    assert sum(alone.values()) == pytest.approx(busy.get(1, 0))
    svg = timeline.picture(lanes, steps[1], {})
    assert svg.startswith("<?xml") and "milliseconds of the step" in svg


@pytest.mark.slow
def test_the_command_writes_its_picture(tmp_path):
    command = running.command(None, module="cjepa_jax.bench", data__workers=0)
    out, _ = running.run([*command, "--steps=3", f"--timeline={tmp_path}/threads.svg"])
    report = {line[:24].strip(): line[24:].strip() for line in out.splitlines()}
    assert "n 3" in report["step"] and report["1 thread busy"].endswith("% of the time") and report["alone, 1"]
    assert (tmp_path / "threads.svg").read_text().startswith("<?xml")


def test_bad_flags_are_refused(tmp_path):
    command = running.command(None, module="cjepa_jax.bench")
    assert "--timeline=x.png: must end in .svg" in running.error([*command, "--timeline=x.png"], 2)
    nowhere = f"--timeline={tmp_path}/none/x.svg"
    assert f"{nowhere}: its folder does not exist" in running.error([*command, nowhere], 2)
    both = [*command, "--timeline=x.svg", "--against=padded"]
    assert "--timeline=x.svg: not with --against=padded" in running.error(both, 2)
