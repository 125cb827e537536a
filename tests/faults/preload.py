"""What a process that trainers are forked from has imported: everything but JAX's devices.

A start of the command is mostly imports, and a campaign starts it a thousand times.
"""

import sys

sys.modules["torch"] = None  # what writes TensorBoard's files would import it where it is installed. Runs do without

import cjepa_jax.train  # noqa: E402, F401
