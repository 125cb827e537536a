"""python -m cjepa_jax.report --workdir=DIR: an alias of cjepa_jax.reports.training."""

from cjepa_jax.reports.training import main

if __name__ == "__main__":
    raise SystemExit(main())
