"""The fault campaign: real runs are killed, stopped, starved and fed with damage, and must end as if nothing had been.

python -m tests.faults --kills=200 --corruptions=2000 --scenes=2000 --peers=20 --signals=40 [--seed=0] [--jobs=2]
"""
