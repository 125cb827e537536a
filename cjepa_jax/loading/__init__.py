"""From a path to a model in memory: runs, exports and published weights."""
