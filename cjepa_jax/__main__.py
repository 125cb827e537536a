"""python -m cjepa_jax is the command cjepa: see runtime/command.py."""

from cjepa_jax.runtime import command

if __name__ == "__main__":
    raise SystemExit(command.script())
