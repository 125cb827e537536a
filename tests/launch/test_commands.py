"""What is called, against programs that note it: sbatch, srun, scontrol, gcloud, sky."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from cjepa_jax.errors import ConfigError
from launch import __main__ as command_line
from launch import git, sky, slurm, sweep, tpu
from launch.job import Job, LaunchError
from tests.launch.fakes import Fakes

SECRET = "hunter2=="
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    made = Fakes(tmp_path / "bin", "sbatch", "srun", "scontrol", "gcloud", "sky")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return made


@pytest.fixture
def secrets(tmp_path):
    file = tmp_path / "s.env"
    file.write_text(f"WANDB_API_KEY={SECRET}\n")
    file.chmod(0o600)
    return str(file)


def batch(job, fakes, tmp_path, srun=0, where=None, **variables):
    """Runs the batch script as SLURM does, srun ending with a code: (exit code, calls of it, output)."""
    fakes.answer("srun", ("--wait=0", srun, ""))
    script = slurm.plan(job, where or slurm.Slurm()).files[0].text
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n"} | variables
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    return ended.returncode, fakes.calls, ended.stdout + ended.stderr


def test_sbatch_gets_the_script_and_a_log_in_the_runs_folder(fakes, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(git, "commit", lambda root, allow_dirty: "0" * 40)
    workdir = f"{tmp_path}/50%/try"
    words = ["slurm", f"--config={ROOT}/configs/tiny.py", f"--workdir={workdir}", "--submit", "--option=exclusive"]
    assert command_line.main(words) == 0
    ((name, argv, _),) = fakes.calls
    log = f"{tmp_path}/50%%/try/slurm/try-%j.log"
    assert (name, argv) == ("sbatch", [f"--output={log}", "--exclusive", f"{workdir}/slurm/try.sbatch"])
    text = pathlib.Path(workdir, "slurm/try.sbatch").read_text()
    wanted = ["requeue", "job-name=try", "signal=USR1@120", "open-mode=append", "time=24:00:00"]
    assert all(f"#SBATCH --{option}\n" in text for option in wanted)


@pytest.mark.parametrize("code", [0, 1, 2, 5, 70, 75, 130, 137])
def test_the_batch_script_requeues_on_75_only_and_ends_with_the_runs_code(code, fakes, tmp_path):
    job = Job("try", "c.py", str(tmp_path), root=str(tmp_path))
    ended, calls, _ = batch(job, fakes, tmp_path, srun=code)
    assert ended == code
    assert calls[0][:2] == ("srun", ["--kill-on-bad-exit=0", "--wait=0", "--cpus-per-task=4", *job.command()])
    assert [call[:2] for call in calls[1:]] == ([("scontrol", ["requeue", "7"])] if code == 75 else [])


def test_the_number_of_restarts_is_bounded(fakes, tmp_path):
    job = Job("try", "c.py", str(tmp_path), root=str(tmp_path), restarts=2)
    assert [name for name, *_ in batch(job, fakes, tmp_path, 75, SLURM_RESTART_COUNT="1")[1]] == ["srun", "scontrol"]
    code, calls, out = batch(job, fakes, tmp_path, 75, SLURM_RESTART_COUNT="2")
    assert (code, [name for name, *_ in calls]) == (75, ["srun", "scontrol", "srun"])
    assert "2 restarts were allowed" in out


def test_containers_see_the_checkout_and_the_run(fakes, tmp_path):
    job = Job("try", "c.py", str(tmp_path), root=str(tmp_path), container="my image", gpus=2, processes=2, python="p")
    argv = batch(job, fakes, tmp_path)[1][0][1]
    assert argv[argv.index("--label") + 1 :] == [
        "--container-image=my image",
        f"--container-mounts={tmp_path}:{tmp_path},{tmp_path}:{tmp_path}",
        f"--container-workdir={tmp_path}",
        "--container-name=try-7-0",
        *job.command(),
    ]
    argv = batch(job, fakes, tmp_path, where=slurm.Slurm(runtime="apptainer"))[1][-1][1]
    binds = [f"--bind={tmp_path}"] * 2
    assert argv[argv.index("apptainer") :] == [
        *("apptainer", "exec", "--nv", *binds, f"--pwd={tmp_path}", "my image"),
        *job.command(),
    ]
    with pytest.raises(ConfigError, match="cannot mount"):
        slurm.plan(Job("try", "c.py", "/a:b", container="i"), slurm.Slurm())


def test_secrets_reach_the_run_and_no_screen(fakes, secrets, tmp_path, capfd):
    job = Job("try", "c.py", "/mnt/runs/try", root=str(tmp_path), secrets=secrets)
    _, calls, out = batch(job, fakes, tmp_path)
    assert calls[0][2]["WANDB_API_KEY"] == SECRET and SECRET not in out
    there = tpu.Tpu(project="p", zone="z", type="v4-8")
    cloud = sky.Sky(bucket="gs://a/b", mount="/mnt/runs")
    for plan in (slurm.plan(job, slurm.Slurm()), tpu.plan(job, there), sky.plan(job, cloud)):
        assert SECRET not in plan.script() and "hunter" not in plan.script()
    sky.plan(job, cloud).act({"WANDB_API_KEY": SECRET})
    name, argv, environment = fakes.calls[-1]
    assert (name, environment["WANDB_API_KEY"]) == ("sky", SECRET)
    assert argv == ["jobs", "launch", "--yes", "--secret", "WANDB_API_KEY", "runs/launch/try/sky.yaml"]
    assert "hunter" not in "".join(capfd.readouterr())


def test_a_tpu_reads_the_copied_secrets_and_deletes_them(secrets, tmp_path):
    job = Job("try", "c.py", "/mnt/runs/try", secrets=secrets)
    script = tpu.start(job, tpu.Tpu(project="p", zone="z", type="v4-8"))
    loop = script[script.index("while ") : script.index("# Where the connection was lost")]
    there_too = tmp_path / tpu.SECRETS
    os.rename(secrets, there_too)
    shown = subprocess.run(
        ["bash", "-c", loop + 'printf %s "$WANDB_API_KEY"'], env={"HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert shown.stdout == SECRET and not there_too.exists()
    copies = tpu.Commands(job, tpu.Tpu(project="p", zone="z", type="v4-8")).copy("try")
    assert [argv[5:7] for argv in copies[1:]] == [(secrets, f"try:{tpu.SECRETS}")]  # no name overwrites the job's own


def test_a_trainer_that_lost_its_connection_is_ended_before_its_code_is(tmp_path):
    loop = "trap 'touch saved; exit 75' TERM; echo $$ > cjepa.pid; while :; do sleep 0.05; done"
    old = subprocess.Popen(["bash", "-c", loop, "cjepa_jax.train"], cwd=tmp_path)
    while not (tmp_path / "cjepa.pid").exists() or not (tmp_path / "cjepa.pid").read_text():
        assert old.poll() is None
    script = "\n".join((*tpu.END_THE_OLD, "exit 0"))
    subprocess.run(["bash", "-c", script], env=os.environ | {"HOME": str(tmp_path)}, check=True, timeout=20)
    assert old.wait(0.1) == 75 and (tmp_path / "saved").exists()
    assert int((tmp_path / "cjepa.pid").read_text()) != old.pid
    subprocess.run(["bash", "-c", script], env=os.environ | {"HOME": str(tmp_path)}, check=True, timeout=20)


def test_the_tpu_script_says_that_it_is_none_and_deletes_only_what_submit_would(tmp_path):
    job = Job("try", "c.py", "/mnt/runs/try", root=str(tmp_path))
    for delete in (False, True):
        shown = tpu.plan(job, there(autodelete=delete)).script()
        assert shown.startswith("# Not a script to paste") and (" delete try " in shown) == delete


def test_sky_recovers_on_75_from_mounted_storage(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=$b")
    job = Job(
        "try", "configs/tiny.py", "/runs/try", nodes=2, memory="512M", environment=("XLA_FLAGS",), container="i:1"
    )
    task = sky.task(job, sky.Sky(bucket="gs://a/b", accelerators="H100:8", infra="gcp", spot=True))
    assert task["resources"] == {
        "infra": "gcp",
        "accelerators": "H100:8",
        "cpus": "4+",
        "memory": "1+",
        "use_spot": True,
        "image_id": "docker:i:1",
        "job_recovery": {"strategy": "EAGER_NEXT_REGION", "recover_on_exit_codes": [75]},
    }
    assert task["file_mounts"] == {"/runs": {"source": "gs://a/b", "mode": "MOUNT_CACHED"}}
    assert task["envs"] == {"XLA_FLAGS": "--a=$b"} and task["num_nodes"] == 2
    for wrong in (
        {"workdir": "/elsewhere"},
        {"config": "/c.py"},
        {"workdir": "/runs/../etc"},
        {"processes": 2, "gpus": 2},
    ):
        with pytest.raises(ConfigError):
            sky.plan(
                Job(**{"name": "try", "config": "c.py", "workdir": "/runs/try"} | wrong), sky.Sky(bucket="gs://a/b")
            )


# ---------------------------------------------------------------- gcloud


def there(**fields):
    return tpu.Tpu(
        **{"project": "p", "zone": "z", "type": "v4-8", "share": "s:/r", "spot": True, "recreate": 2} | fields
    )


def state(name):
    return ("describe", 0, json.dumps({"state": {"state": name}}))


def submit(fakes, tmp_path, tpu_there, *answers):
    """(exit code, verbs that gcloud was called with, seconds slept) of a submission."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "a").write_text("a")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", tmp_path, "add", "a"], check=True)
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "-q", "-m", "a"], check=True)
    fakes.answer("gcloud", *answers)
    slept = []
    job = Job("try", "configs/tiny.py", "/mnt/runs/try", root=str(tmp_path), python=tpu.PYTHON)
    try:
        code = tpu.submit(job, tpu_there, slept.append)
    except LaunchError as error:
        code = str(error)
    verbs = {"create", "describe", "delete", "scp", "ssh"}
    return code, [next(word for word in argv if word in verbs) for _, argv, _ in fakes.calls], slept


def test_a_run_that_goes_well_waits_copies_starts_and_deletes(fakes, tmp_path):
    waits = ("describe", 1, ""), state("WAITING_FOR_RESOURCES"), state("PROVISIONING"), state("ACTIVE")
    code, verbs, slept = submit(fakes, tmp_path, there(autodelete=True), *waits)
    assert code == 0
    assert verbs == ["create", *["describe"] * 4, "scp", "ssh", "delete"]
    assert slept == [5.0, 7.5, 11.25]
    where = ["--project=p", "--zone=z"]
    resource = ["compute", "tpus", "queued-resources"]
    argvs = [argv for _, argv, _ in fakes.calls]
    assert argvs[0] == [
        *(*resource, "create", "try", *where, "--accelerator-type=v4-8", "--runtime-version=tpu-ubuntu2204-base"),
        *("--node-id=try", "--spot", "--metadata-from-file=startup-script=runs/launch/try/startup.sh", "--async"),
    ]
    machine, files = ["compute", "tpus", "tpu-vm"], [f"runs/launch/try/{name}" for name in ("start.sh", "code.tar.gz")]
    assert argvs[-3] == [*machine, "scp", *files, "try:", *where, "--worker=all"]
    assert argvs[-2] == [*machine, "ssh", "try", *where, "--worker=all", "--command=bash start.sh"]
    assert argvs[-1] == [*resource, "delete", "try", *where, "--force", "--quiet"]
    assert all((tmp_path / file).exists() for file in files)


def test_machines_that_are_taken_away_are_deleted_and_asked_for_again(fakes, tmp_path):
    lost = state("ACTIVE"), ("ssh", 255, ""), state("SUSPENDED")
    code, verbs, _ = submit(fakes, tmp_path, there(), state("FAILED"), *lost, state("ACTIVE"))
    again = ["create", "describe"]
    assert code == 0
    assert verbs == [*again, "delete", *again, "scp", "ssh", "describe", "delete", *again, "scp", "ssh"]


def test_asking_again_is_bounded_and_what_is_left_is_deleted(fakes, tmp_path):
    code, verbs, _ = submit(fakes, tmp_path, there(autodelete=True), *[state("SUSPENDED")] * 9)
    assert code == "try: given up after 3 attempts. The same command resumes"
    assert verbs == ["create", "describe", "delete"] * 3 + ["delete"]


def test_waiting_is_bounded(fakes, tmp_path):
    code, verbs, slept = submit(fakes, tmp_path, there(recreate=0, patience=0.1))
    assert "given up after 1 attempts" in code and verbs[-1] == "delete"
    assert 360 <= sum(slept) < 420 and max(slept) <= 60


def test_75_on_machines_that_stay_starts_again_and_any_other_code_ends_it(fakes, tmp_path):
    runs = state("ACTIVE"), ("ssh", 75, ""), state("ACTIVE"), state("ACTIVE"), ("ssh", 5, "")
    code, verbs, _ = submit(fakes, tmp_path, there(), *runs)
    assert code == 5
    assert verbs == ["create", "describe", "scp", "ssh", "describe", "describe", "scp", "ssh"]


def test_survivors_go_on_only_if_machines_were_taken_away(fakes, tmp_path):
    lost = state("ACTIVE"), ("ssh", 1, ""), state("SUSPENDED"), state("ACTIVE"), ("ssh", 70, ""), state("ACTIVE")
    code, verbs, _ = submit(fakes, tmp_path, there(), *lost)
    once = ["create", "describe", "scp", "ssh", "describe"]
    assert code == 70 and verbs == [*once, "delete", *once]


def test_slices_are_nodes_of_one_request_and_start_together(fakes, tmp_path):
    code, verbs, _ = submit(fakes, tmp_path, there(slices=3), state("ACTIVE"), ("try-1", 0, ""))
    argvs = [argv for _, argv, _ in fakes.calls]
    assert code == 0 and "--node-count=3" in argvs[0] and "--node-prefix=try" in argvs[0]
    assert {word for argv in argvs if "ssh" in argv for word in argv if word.startswith("try-")} == {
        f"try-{i}" for i in range(3)
    }


@pytest.mark.parametrize(
    "fields",
    [{"project": ""}, {"zone": "a b"}, {"type": "$x"}, {"slices": 0}, {"share": ""}, {"share": "a"}, {"recreate": -1}],
)
def test_impossible_tpus_are_refused(fields):
    with pytest.raises(ConfigError):
        there(**fields)


@pytest.mark.parametrize("fields", [{"config": "/c.py"}, {"workdir": "/runs"}, {"secrets": "a:b"}])
def test_what_a_tpu_would_not_have_is_refused(fields):
    with pytest.raises(ConfigError):
        tpu.plan(Job(**{"name": "try", "config": "c.py", "workdir": "/mnt/runs/try"} | fields), there())


@pytest.mark.slow
@pytest.mark.needs("submitit")
def test_a_sweep_is_one_array_of_pickled_trainings(fakes, tmp_path):
    from submitit.core import utils

    (tmp_path / "bin/sbatch").write_text("#!/bin/sh\necho Submitted batch job 7\n")
    words = ["--vary=seed=0,1", "--config.data.path=it's", "--option=partition=all", "--time=1-00:00:00", "--submit"]
    where = ["--allow-dirty", f"--config={ROOT}/configs/tiny.py", f"--workdir={tmp_path}/try"]
    # A separate process: submitit sets up logging again, and closes what pytest has put in stderr's place.
    argv = [sys.executable, "-m", "launch", "sweep", *where, *words]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.split()) == (0, ["7_0", "7_1"]), ended.stderr
    text = (tmp_path / "try/slurm/7_submission.sh").read_text()
    for option in ("array=0-1%2", "partition=all", "requeue", "signal=USR2@120", "time=1440", "job-name=try"):
        assert f"#SBATCH --{option}\n" in text
    assert f"\ncd {ROOT}\n" in text and "--kill-on-bad-exit=0 --wait=0" in text
    for seed in "01":
        delayed = utils.DelayedSubmission.load(tmp_path / f"try/slurm/7_{seed}_submitted.pkl")
        folder = f"--workdir={tmp_path}/try/seed={seed}"
        overrides = ("--config.data.path=it's", f"--config.seed={seed}")
        assert delayed.function == sweep.Train(("--config=configs/tiny.py", folder, *overrides), 20)


@pytest.mark.parametrize("answers", [[("requeue", 1, "")], None])
def test_a_scontrol_that_fails_or_is_missing_leaves_the_code_75(fakes, tmp_path, monkeypatch, capfd, answers):
    """In submitit's process, and in the batch script."""
    environment = types.SimpleNamespace(global_rank=0, job_id="7")
    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(JobEnvironment=lambda: environment))
    monkeypatch.setattr(sweep.cli, "run", lambda module: 75)
    fakes.answer("scontrol", *(answers or []))
    if answers is None:
        (fakes.folder / "scontrol").unlink()
        monkeypatch.setenv("PATH", str(fakes.folder))
    with pytest.raises(SystemExit) as ended:
        sweep.Train((), restarts=1)()
    assert ended.value.code == 75
    assert "error: not requeued" in capfd.readouterr().err
    if answers:
        fakes.answer("scontrol", *answers)
        job = Job("try", "c.py", str(tmp_path), root=str(tmp_path))
        code, _, out = batch(job, fakes, tmp_path, 75)
        assert code == 75 and "error: not requeued" in out
