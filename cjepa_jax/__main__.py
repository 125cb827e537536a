"""The command cjepa, and python -m cjepa_jax: see runtime/command.py."""

import sys

from cjepa_jax.runtime.command import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
