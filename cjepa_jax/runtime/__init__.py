"""The runtime of a run: run folder, checkpoints, processes, signals, metrics, time."""
