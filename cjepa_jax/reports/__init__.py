"""Parts of the report: the run folder as data, curves, pictures, text and style."""
