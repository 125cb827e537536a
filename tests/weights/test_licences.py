"""A licence in a model card comes back unchanged."""

import pytest

from cjepa_jax.weights import licences


@pytest.mark.parametrize(
    "name", [*licences.KNOWN, "unspecified", "unknown", "GPL-3.0", 'My "own": terms', "12", "Ünser"]
)
def test_what_is_written_comes_back(name):
    front = "\n".join(("---", *licences.write(name), "tags: [x]", "---", "license: mit"))
    assert licences.read(front) == name


@pytest.mark.parametrize("front, name", [
    ("license: mit", "MIT"),
    ("license: 'apache-2.0'", "Apache-2.0"),
    ("license: other\nlicense_name: sam-license", "sam-license"),
    ("license: [mit]", ""),
    ("tags: [x]", ""),
    (f"license_name: {'x' * 101}", "unknown"),
])  # fmt: skip
def test_cards_of_others(front, name):
    assert licences.read(f"---\n{front}\n---\n") == name
    assert not licences.read(front)
