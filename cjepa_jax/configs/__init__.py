"""In a clone: its folder configs/ as cjepa_jax.configs. A wheel has that folder itself here, see setup.py."""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]
