"""Variables that choose between ways of computing."""

import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.host import switches


def test_a_variable_is_auto_unless_it_is_set():
    assert switches.chosen("CJEPA_SVD", {}) == switches.chosen("CJEPA_SVD", {"CJEPA_SVD": ""}) == "auto"
    assert switches.chosen("CJEPA_PRODUCTS", {"CJEPA_PRODUCTS": "wide"}) == "wide"
    assert switches.given({"CJEPA_SVD": "auto", "CJEPA_PRODUCTS": "wide", "HOME": "/"}) == {"CJEPA_PRODUCTS": "wide"}


def test_what_a_device_does_not_have_is_refused_before_a_run():
    switches.check("gpu", {"CJEPA_SVD": "polar"})
    switches.check("cpu", {"CJEPA_SVD": "qr"})
    with pytest.raises(ConfigError, match=r"^CJEPA_SVD = 'qr': must be auto or one of default on a tpu$"):
        switches.check("tpu", {"CJEPA_SVD": "qr"})
    with pytest.raises(ConfigError, match=r"^CJEPA_PRODUCTS = 'thin': must be one of auto, wide, narrow$"):
        switches.check("cpu", {"CJEPA_PRODUCTS": "thin"})


def test_another_value_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^CJEPA_SVD = 'gram': must be one of auto, default, qr, jacobi, polar$"):
        switches.chosen("CJEPA_SVD", {"CJEPA_SVD": "gram"})
