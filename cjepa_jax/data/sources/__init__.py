"""Sources of scenes: readers of published data sets and of your own images and videos."""
