"""Sources of scenes: readers of published data sets and of folders of one's own."""
