"""The description of a job, the working tree, the secrets, and the command line around them."""

import os
import pathlib
import shlex
import subprocess

import pytest

from cjepa_jax.errors import ConfigError
from launch import __main__ as command_line
from launch import git, secrets, slurm, sweep
from launch.job import Job, LaunchError
from launch.plan import File, Plan, run_all

CONFIG = str(pathlib.Path(__file__).parents[2] / "configs/tiny.py")
FIELDS = {"name": "x", "config": "configs/tiny.py", "workdir": "/runs/x"}


@pytest.fixture
def repository(tmp_path):
    """A git repository with one commit of one file."""
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        (tmp_path / "a.txt").write_text("one\n")
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *author, *words], check=True)
    return tmp_path


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "Try"),
        ("time", "1h"),
        ("memory", "64 GB"),
        ("nodes", 0),
        ("cpus", 0),
        ("gpus", -1),
        ("restarts", -1),
        ("config", ""),
        ("workdir", ""),
        ("environment", ("WANDB_API_KEY",)),
        ("environment", ("NOT_SET_ANYWHERE",)),
    ],
)
def test_what_no_cluster_could_use_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"--{field}") as caught:
        Job(**FIELDS | {field: value})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name, value", [("PASSPHRASE", "x"), ("DB_AUTH", "x"), ("DATABASE_URL", "postgres://me:hunter2@host/db")]
)
def test_what_would_be_shown_is_no_secret(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"--environment={name}: would be shown"):
        Job(**FIELDS, environment=(name,))
    monkeypatch.setenv("DATABASE_URL", "postgres://host/db")
    assert Job(**FIELDS, environment=("DATABASE_URL",))


def test_processes_are_one_or_one_per_gpu():
    assert Job(**FIELDS, processes=8, gpus=8).processes == 8
    with pytest.raises(ConfigError, match="one for each GPU"):
        Job(**FIELDS, processes=4, gpus=8)


def test_a_tree_that_differs_from_its_commit_is_refused_unless_allowed(repository):
    clean = git.commit(str(repository), allow_dirty=False)
    assert len(clean) == 40
    (repository / "new.txt").write_text("two\n")
    with pytest.raises(ConfigError, match="1 files differ from the last commit, such as new.txt"):
        git.commit(str(repository), allow_dirty=False)
    assert git.commit(str(repository), allow_dirty=True) == clean + "+changes"


def test_the_archive_holds_changes_of_known_files_and_touches_nothing(repository):
    (repository / "a.txt").write_text("changed\n")
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    os.environ.update(identity)
    git.archive(str(repository), "code.tar.gz")
    text = subprocess.run(["tar", "-xzOf", repository / "code.tar.gz", "a.txt"], capture_output=True).stdout
    assert text == b"changed\n" and (repository / "a.txt").read_text() == "changed\n"
    assert not subprocess.run(["git", "-C", repository, "stash", "list"], capture_output=True).stdout


def test_no_repository_is_refused_unless_allowed(tmp_path):
    with pytest.raises(ConfigError, match="not a git repository"):
        git.commit(str(tmp_path), allow_dirty=False)
    assert git.commit(str(tmp_path), allow_dirty=True) == "unknown"


def test_secrets_are_read_as_they_are_and_only_from_a_file_of_ones_own(tmp_path):
    file = tmp_path / "s.env"
    file.write_text("# mine\nA=x=$(y) 'z'=\n\nB=\n")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="mode 640"):
        secrets.read(str(file))
    file.chmod(0o600)
    assert secrets.read(str(file)) == {"A": "x=$(y) 'z'=", "B": ""}
    lines = secrets.exporting(shlex.quote(str(file)))
    shown = subprocess.run(["bash", "-c", "\n".join([*lines, 'printf %s "$A"'])], capture_output=True, text=True)
    assert (shown.stdout, shown.stderr) == ("x=$(y) 'z'=", "")
    for text in ("A=1\nexport B=hidden\n", "A=1\nB=hidden\r\n"):
        file.write_text(text, newline="")
        with pytest.raises(ConfigError, match="line 2 is not NAME=value"):
            secrets.read(str(file))


def test_a_plan_pasted_into_a_shell_does_what_act_does(tmp_path):
    text = "END\n$HOME `x`\nEND_\n"
    for name in ("shown", "done"):
        (tmp_path / name).mkdir()
        plan = Plan(str(tmp_path / name), (File("a b/c'd", text, 0o600),), (("mkdir", "--", "-e $x"),))
        if name == "done":
            plan.act()
        else:
            subprocess.run(["bash", "-c", plan.script()], check=True)
        assert (tmp_path / name / "a b/c'd").read_text() == text
        assert (tmp_path / name / "a b/c'd").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / name / "-e $x").is_dir()


def test_a_command_that_fails_or_is_missing_is_one_line(tmp_path):
    with pytest.raises(LaunchError, match="false failed with exit code 1"):
        Plan(str(tmp_path), commands=(("false",),)).act()
    with pytest.raises(LaunchError, match="no-such-program: there is no such command"):
        Plan(str(tmp_path), commands=(("no-such-program",),)).act()
    assert run_all([("true",), ("false",)], str(tmp_path)) == [0, 1]


def test_sweeps_combine_values_each_in_a_folder_of_its_own():
    assert sweep.values("1e-3,1e-4") == ("0.001", "0.0001")
    assert sweep.values("(0.5, 1.0), (1.0,)") == ("(0.5, 1.0)", "(1.0,)")
    assert sweep.values("kl,epps_pulley") == ("kl", "epps_pulley")
    job = Job(**FIELDS, overrides=(("a", "b"),))
    members = sweep.members(job, sweep.Sweep(vary=(("seed", ("0", "1")), ("c.d", ("x", "y")))))
    assert [member.overrides[1:] for member in members] == [
        (("seed", seed), ("c.d", value)) for seed in "01" for value in "xy"
    ]
    assert [member.workdir for member in members][:2] == ["/runs/x/seed=0,c.d=x", "/runs/x/seed=0,c.d=y"]
    with pytest.raises(ConfigError, match="two of the runs"):
        sweep.members(job, sweep.Sweep(vary=(("seed", ("a b", "a_b")),)))
    with pytest.raises(ConfigError, match="--vary is missing"):
        sweep.Sweep()
    with pytest.raises(ConfigError, match="--vary=seed: has no values"):
        sweep.Sweep(vary=(("seed", sweep.values("")),))
    with pytest.raises(ConfigError, match="--vary=seed: is there twice"):
        sweep.Sweep(vary=(("seed", ("0", "1")), ("a", ("1",)), ("seed", ("2",))))


def line(*words):
    """The error of a command line."""
    with pytest.raises(ConfigError) as caught:
        command_line.main(list(words))
    return str(caught.value)


def test_wrong_command_lines_are_refused_before_anything_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(git, "commit", lambda root, allow_dirty: "0" * 40)
    here = [f"--config={CONFIG}", f"--workdir={tmp_path}/try"]
    assert line("ssh").startswith("ssh: must be one of")
    assert line("slurm", *here[:1]) == "--workdir is missing"
    assert line("slurm", *here[1:]) == "--config is missing"
    assert "the end of --workdir, is not a name" in line("slurm", here[0], f"--workdir={tmp_path}/A")
    assert "unrecognized arguments: --nodes=2" in line("tpu", *here, "--nodes=2")
    assert "exclude each other" in line("slurm", *here, "--submit", "--dry-run")
    assert line("slurm", *here, "--config.seed") == "--config.seed: write --config.key=value"
    assert line("slurm", *here, "--config.sed=1") == "--config.sed: unknown key; did you mean 'seed'?"
    assert "seed = -1" in line("sweep", *here, "--vary=seed=0,-1")
    assert "cannot be read" in line("slurm", *here, f"--secrets={tmp_path}/none")
    assert not list(tmp_path.iterdir())


def test_shown_by_default_and_nothing_is_touched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(git, "commit", lambda root, allow_dirty: "0" * 40)
    where = [f"--config={CONFIG}", f"--workdir={tmp_path}/try", "--config.seed=3", "--option=partition=all"]
    assert command_line.main(["slurm", *where]) == 0
    shown = capsys.readouterr()
    job = Job("try", "configs/tiny.py", f"{tmp_path}/try", (("seed", "3"),), commit="0" * 40)
    assert shown.out == slurm.plan(job, slurm.Slurm((("partition", "all"),))).script() + "\n"
    assert "--submit does it" in shown.err
    assert not list(tmp_path.iterdir())


def test_no_shell_is_given_a_string():
    for file in (pathlib.Path(CONFIG).parents[1] / "launch").glob("*.py"):
        text = file.read_text()
        assert not any(word in text for word in ("shell=", "os.system", "os.popen", "getoutput")), file
