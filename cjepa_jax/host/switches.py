"""Environment variables that choose between ways of computing the same thing, which differ in speed and last digits.

docs/PERFORMANCE.md has them in one table. They are read when a step is traced, and checked before. No JAX.
"""

import os
from collections.abc import Mapping

from cjepa_jax.errors import ConfigError

SVD, PRODUCTS = "CJEPA_SVD", "CJEPA_PRODUCTS"
VALUES = {
    SVD: ("auto", "default", "qr", "jacobi", "polar"),  # see numerics.singular.choose
    PRODUCTS: ("auto", "wide", "narrow"),  # see models.matmul.narrow
}
SVD_ON = {"cpu": ("default", "qr"), "gpu": VALUES[SVD][1:]}  # of other devices: the default only


def chosen(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The value of a variable of VALUES, "auto" if it is not set. Raises ConfigError for a value that is not there."""
    value = environment.get(name) or "auto"
    if value not in VALUES[name]:
        raise ConfigError(f"{name} = {value!r}: must be one of {', '.join(VALUES[name])}")
    return value


def check(backend: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError for a variable whose value is unknown, or that a device of this kind does not have."""
    for name in VALUES:
        value = chosen(name, environment)
        have = SVD_ON.get(backend, ("default",))
        if name == SVD and value not in ("auto", *have):
            raise ConfigError(f"{SVD} = {value!r}: must be auto or one of {', '.join(have)} on a {backend}")


def given(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of VALUES that are set to something else than "auto"."""
    return {name: environment[name] for name in VALUES if environment.get(name, "auto") not in ("", "auto")}
