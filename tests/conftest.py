"""Settings that must stand before JAX is imported: eight CPU devices, and shapes checked at every call."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

from absl import flags
from jaxtyping import install_import_hook

flags.FLAGS.mark_as_parsed()
# Every function annotated with shapes checks its arguments and its result; in production they cost nothing.
install_import_hook(
    ["cjepa_jax.losses", "cjepa_jax.positions", "cjepa_jax.masks", "cjepa_jax.models"], "beartype.beartype"
)
