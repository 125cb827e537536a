# %% [markdown]
# # Run on SLURM
#
# `python -m launch slurm` makes a batch job of a training command. By default it only shows the job. With `--submit` it
# submits it. The job saves before its time limit, goes back into the queue, and resumes in the same folder. This
# tutorial prepares a job and reads it. It needs no SLURM.

# %%
import argparse
import re
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description="Prepare a SLURM job and read it.")
parser.add_argument("--nodes", type=int, default=2, help="machines")
parser.add_argument("--gpus", type=int, default=8, help="GPUs of each machine")
parser.add_argument("--partition", default="gpu", help="SLURM's partition")
parser.add_argument("--workdir", default="runs/slurm-example", help="the run's folder, on a shared file system")
parser.add_argument("--submit", action="store_true", help="submit the job")
parser.add_argument("--smoke", action="store_true", help="also in a clone with uncommitted changes")
args = parser.parse_args([] if "ipykernel" in sys.modules else None)

# %% [markdown]
# ## Before you queue
#
# 1. The clone, its environment (`pip install -e .`, and `pip install 'jax[cuda12]'` for GPUs) and the run's folder lie
#    on a file system that all nodes share.
# 2. Changes are committed. The job records the commit, so a clone with uncommitted changes is refused unless you say
#    `--allow-dirty`.
# 3. The config is right. A wrong key or value is refused here, before anything is queued.

# %%
job = [
    *("--config=vitl", f"--workdir={Path(args.workdir).resolve()}"),
    *(f"--nodes={args.nodes}", f"--gpus={args.gpus}", "--cpus=64", "--memory=500G", "--time=24:00:00"),
    *(f"--option=partition={args.partition}", *(["--allow-dirty"] if args.smoke else [])),
]


def launch(*flags: str) -> str:
    """The output of `python -m launch slurm`. Stops if it fails."""
    done = subprocess.run([sys.executable, "-m", "launch", "slurm", *flags], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(1)
    return done.stdout


script = launch(*job)
print(script)

# %% [markdown]
# ## What the script does
#
# * `#SBATCH` lines ask for nodes, GPUs and time. `--signal` asks SLURM to warn the job 120 seconds before its limit.
# * On the warning the trainer saves and exits with code 75. The script then calls `scontrol requeue`, and on no other
#   code: a wrong config or broken data would only fail again.
# * One process runs on each node and uses all of its GPUs. JAX finds the other processes in SLURM's variables.

# %%
asked = re.findall(r"#SBATCH (\S+)", script)
print("\n".join(asked))
assert f"--nodes={args.nodes}" in asked and "--requeue" in asked
assert "scontrol requeue" in script and "75" in script

# %% [markdown]
# A mistake is found on the login node, in one line:

# %%
wrong = ["slurm", *job, "--config.train.batch=0"]
refused = subprocess.run([sys.executable, "-m", "launch", *wrong], stderr=subprocess.PIPE, text=True)
print(refused.stderr.splitlines()[-1])
assert refused.returncode == 2

# %% [markdown]
# ## Submit
#
#     python -m launch slurm ... --submit     prints the job's id
#     squeue --me                             PENDING, RUNNING; PENDING again after the limit
#     tail -f WORKDIR/slurm/NAME-JOBID.log    one log for all pieces of the run
#     python -m cjepa_jax.doctor WORKDIR      is it healthy, at which step
#     scancel JOBID                           saves once more and stops for good

# %%
if args.submit:
    print(launch(*job, "--submit"))

# %% [markdown]
# ## Next
#
# [Clusters](../LAUNCH.md) has job arrays for sweeps, containers, secrets, Cloud TPU and SkyPilot, and says what has
# been run and what has not. [Many chips](../SCALING.md) says how to divide a model.
