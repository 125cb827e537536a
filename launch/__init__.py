"""Puts a training run onto a cluster: SLURM, Cloud TPU, or a cloud that SkyPilot supports.

    python -m launch slurm --config=configs/tiny.py --workdir=/shared/runs/tiny            # shows what it would do
    python -m launch slurm --config=configs/tiny.py --workdir=/shared/runs/tiny --submit   # does it

`job.py` describes the job, `slurm.py`, `sweep.py`, `tpu.py` and `sky.py` render it into files and argv lists, `plan.py`
shows or does them. docs/LAUNCH.md is the guide.
"""
