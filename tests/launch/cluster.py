"""A SLURM of one node: Debian's slurmctld, slurmd and munged as children of the test, all their files in one folder."""

import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import time

PROGRAMS = ("sbatch", "srun", "scontrol", "scancel", "slurmctld", "slurmd", "munged")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1
ReturnToService=2
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> str:
    """Why there can be no SLURM here, or ""."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "starting slurmd needs root"


class Cluster:
    """While entered, `environment` is what SLURM's commands need to reach it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o711)
        key = self.folder / "munge/key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        with socket.socket() as one, socket.socket() as two:
            for taken in (one, two):
                taken.bind(("127.0.0.1", 0))
            ports = [taken.getsockname()[1] for taken in (one, two)]
        text = CONFIG.format(host=host, ports=ports, folder=self.folder, cpus=os.cpu_count())
        (self.folder / "slurm.conf").write_text(text)
        munge = {
            name: f"--{name}={self.folder}/munge/{name}" for name in ("socket", "pid-file", "log-file", "seed-file")
        }
        try:
            self._start("munged", "--foreground", "--force", f"--key-file={key}", "--num-threads=2", *munge.values())
            self._until(lambda: (self.folder / "munge/socket").exists(), "munged")
            self._start("slurmctld", "-D", "-i")
            self._start("slurmd", "-D")
            self._until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T", check=False), "slurmd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if len(self._daemons) > 1:
            # The daemons see to it that a job's processes are gone. Without them they would stay.
            self.run("scancel", "--user=root", check=False)
            self.run("scancel", "--user=root", "--signal=KILL", "--full", check=False)
            until = time.monotonic() + 60
            while time.monotonic() < until and self.run("squeue", "--noheader", check=False):
                time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def run(self, *argv: str, check: bool = True) -> str:
        """The command's output."""
        ended = subprocess.run(argv, env=os.environ | self.environment, capture_output=True, text=True)
        assert not check or ended.returncode == 0, f"{argv}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def job(self, number: int | str) -> dict[str, str]:
        """What SLURM says of a job: JobState, Restarts, ExitCode ..."""
        words = self.run("scontrol", "show", "job", str(number), "--oneliner").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: int | str, *states: str, seconds: float = 120.0) -> dict[str, str]:
        """What SLURM says of the job once it is in one of the states."""
        until = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < until, f"not {states} but {job}\n{self.logs()}"
            time.sleep(0.3)
        return job

    def release(self, number: int | str) -> None:
        """Starts a requeued job now: SLURM holds it for two minutes, from when the last of it is gone.

        A part of that wait is needed: within the second in which it was ended, slurmd holds the job's credential for
        revoked, and the job fails.
        """
        time.sleep(3)
        until = time.monotonic() + 90
        while (job := self.job(number))["JobState"] != "RUNNING":
            assert time.monotonic() < until, f"not started: {job}\n{self.logs()}"
            if job["Reason"] == "BeginTime":
                self.run("scontrol", "update", f"JobId={number}", "StartTime=now", check=False)
            time.sleep(0.5)

    def logs(self) -> str:
        """The daemons' own logs."""
        return "\n".join((self.folder / f"{name}.log").read_text() for name in ("slurmctld", "slurmd"))

    def _start(self, *argv: str) -> None:
        output = open(self.folder / f"{argv[0]}.out", "w")
        environment = os.environ | self.environment
        with output:
            self._daemons.append(subprocess.Popen(argv, env=environment, stdout=output, stderr=output))

    def _until(self, ready, what: str) -> None:
        until = time.monotonic() + 60
        while not ready():
            output = (self.folder / f"{what}.out").read_text()
            assert time.monotonic() < until and self._daemons[-1].poll() is None, f"{what} did not start\n{output}"
            time.sleep(0.2)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"
