"""In a clone: its folder launch/ as cjepa_jax.launch. A wheel has that folder itself here, see setup.py."""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[2] / "launch")]
