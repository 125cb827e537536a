"""What keeps a run alive and accounts for it: run folder, checkpoints, processes, signals, metrics, time."""
