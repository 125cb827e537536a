"""Nothing hostile in a name, a path or an override is misread by bash, sbatch's options, YAML or ssh."""

import dataclasses
import json
import os
import random
import shlex
import subprocess

import pytest
import yaml

from cjepa_jax.errors import ConfigError
from launch import sky, slurm, tpu
from launch.job import Job
from tests.launch.hostile import text

SEED = 0
MANY = [300, pytest.param(10_000, marks=pytest.mark.slow)]
IN_BASH = [16, pytest.param(300, marks=pytest.mark.slow)]
IN_YAML = [50, pytest.param(300, marks=pytest.mark.slow)]
# Stands for srun and for the interpreter: what it was given, each word ended by a NUL.
RECORDER = '#!/bin/bash\nprintf "%s\\0" "$@" > "$RECORD"\nexit 75\n'


def hostile_job(rng):
    """A job whose every free text is hostile."""
    overrides = tuple((rng.choice(("seed", "data.path", "a.b_c")), text(rng)) for _ in range(rng.randint(1, 4)))
    return Job(
        name=rng.choice(("a", "try-1", "x" * 63)),
        config=text(rng),
        workdir="/" + text(rng),
        overrides=overrides,
        python=text(rng) + "/python",
        root="/" + text(rng, without=",:"),
    )


def for_slurm(job):
    """The job without what sbatch itself cannot carry: some characters of its log's path, and DOS line ends."""
    plain = {"workdir": "".join(letter for letter in job.workdir if letter not in "\\\n\r")}
    plain |= {field: getattr(job, field).replace("\r", "") or "x" for field in ("config", "python", "root")}
    return dataclasses.replace(
        job, **plain, overrides=tuple((key, value.replace("\r", "")) for key, value in job.overrides)
    )


def srun_words(script):
    """What bash makes of the srun line: it is between fixed lines, the last of their kind."""
    command = script[script.index("\nsrun ") + 1 : script.rindex('\ncode=$?\nif [ "$code"')]
    return shlex.split(command.replace(" \\\n  ", " ", 1))


@pytest.mark.parametrize("count", MANY)
def test_hostile_jobs_are_parsed_back_word_for_word(count):
    rng = random.Random(SEED)
    refused = 0
    for _ in range(count):
        job = hostile_job(rng)
        if "\\" in job.workdir or "\n" in job.workdir or "\r\n" in slurm.script(job, slurm.Slurm()):
            with pytest.raises(ConfigError, match="--workdir=|DOS line end"):
                slurm.plan(job, slurm.Slurm())
            refused += 1
        job = for_slurm(job)
        value = text(rng)
        plan = slurm.plan(job, slurm.Slurm(options=(("comment", value),)))
        words = srun_words(plan.files[0].text)
        assert words[words.index(job.python) :] == job.command()
        (argv,) = plan.commands
        assert argv[2] == f"--comment={value}" and argv[1].replace("%%", "").endswith("-%j.log")
        shown = plan.script()
        assert shlex.split(shown[shown.rindex("\nsbatch ") + 1 :]) == list(argv)
        started = tpu.start(job, tpu.Tpu(project="p", zone="z", type="v4-8"))
        assert shlex.split(started[started.index("\nexec ") + 1 :]) == ["exec", *job.command()]
        run = sky.task(job, sky.Sky(bucket="gs://b/c"))["run"]
        assert shlex.split(run[run.index("\nexec ") + 1 :]) == ["exec", *job.command()]
    assert 0 < refused < count


@pytest.mark.parametrize("count", IN_BASH)
def test_they_really_go_through_bash(count, tmp_path):
    rng = random.Random(SEED + 1)
    record = tmp_path / "record"
    for name in ("srun", "sbatch", "scontrol"):
        (tmp_path / name).write_text(RECORDER)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(record), "SLURM_JOB_ID": "7"}
    environment |= {"SLURM_JOB_NODELIST": "n", "SLURM_RESTART_COUNT": "20"}  # no restart left, so no scontrol
    for i in range(count):
        root = tmp_path / f"root{i}"
        root.mkdir()
        job = dataclasses.replace(hostile_job(rng), root=str(root))
        if i % 2:  # the batch script, as SLURM runs it
            ended = subprocess.run(
                ["bash", "-c", slurm.script(job, slurm.Slurm())], env=environment, capture_output=True
            )
            assert ended.returncode == 75
            expected = job.command()
        else:  # what is shown, pasted into a shell
            name = text(rng, without="\\\n\0/")[:60].lstrip(".") or "x"
            job = for_slurm(dataclasses.replace(job, workdir=str(tmp_path / name / str(i))))
            plan = slurm.plan(job, slurm.Slurm())
            subprocess.run(["bash", "-c", plan.script()], env=environment, capture_output=True)
            assert open(plan.files[0].path, newline="").read() == plan.files[0].text
            expected = plan.commands[0][1:]
        words = record.read_bytes().decode().split("\0")[:-1]
        assert words[-len(expected) :] == list(expected)
        assert not any(root.iterdir())  # nothing was touched
        record.unlink()


@pytest.mark.parametrize("count", IN_YAML)
def test_hostile_yaml_is_read_back(count):
    rng = random.Random(SEED + 2)
    for _ in range(count):
        job = hostile_job(rng)
        there = sky.Sky(bucket="gs://b/c", accelerators="H100:8")
        assert yaml.safe_load(sky.text(job, there)) == sky.task(job, there)
        assert json.loads(json.dumps(sky.task(job, there))) == sky.task(job, there)  # plain values only


@pytest.mark.parametrize("count", MANY)
def test_hostile_names_keys_and_variables_are_refused_in_one_line(count):
    rng = random.Random(SEED + 3)
    wrong = ["", "A", "1a", "a-", "-a", "a_b", "a.b", "a" * 64, "a\n", "é", "a b"]
    for name in wrong + [text(rng, without="ab0") + "\0" for _ in range(count)]:
        for fields in ({"name": name}, {"overrides": ((name + ";", "1"),)}, {"environment": (name + "-",)}):
            with pytest.raises(ConfigError) as caught:
                Job(**({"name": "x", "config": "c", "workdir": "/w"} | fields))
            message = str(caught.value)
            assert message.startswith("--") and len(message.splitlines()) == 1 and "must be" in message


@pytest.mark.parametrize("bad", ["a\0b", "a\udcffb"])
def test_what_no_command_line_can_carry_is_refused(bad):
    for fields in (
        {"config": bad},
        {"workdir": bad},
        {"overrides": (("seed", bad),)},
        {"container": bad},
        {"root": bad},
    ):
        with pytest.raises(ConfigError, match="NUL or bytes"):
            Job(**({"name": "x", "config": "c", "workdir": "/w"} | fields))
