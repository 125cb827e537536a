"""Sources of scenes: readers of published data sets and of image folders."""
