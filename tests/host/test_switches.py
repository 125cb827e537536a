"""Variables that choose between ways of computing."""

import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.host import switches


def test_a_variable_is_auto_unless_it_is_set():
    assert switches.chosen("CJEPA_SVD", {}) == switches.chosen("CJEPA_SVD", {"CJEPA_SVD": ""}) == "auto"
    assert switches.chosen("CJEPA_PRODUCTS", {"CJEPA_PRODUCTS": "wide"}) == "wide"
    assert switches.given({"CJEPA_SVD": "auto", "CJEPA_PRODUCTS": "wide", "HOME": "/"}) == {"CJEPA_PRODUCTS": "wide"}


def test_another_value_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^CJEPA_SVD = 'gram': must be one of auto, default, qr, jacobi, polar$"):
        switches.chosen("CJEPA_SVD", {"CJEPA_SVD": "gram"})
