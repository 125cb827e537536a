"""Differences between a file's arrays and a model's, all listed at once."""

import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import diff

WANTED = {"blocks.0.attn.qkv.weight": (12, 4), "blocks.0.norm1.bias": (4,), "norm.bias": (4,)}


def refusal(found, wanted=WANTED, **options):
    with pytest.raises(CheckpointError) as caught:
        diff.compare(found, wanted, "file.pth", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_names_and_shapes_pass_in_any_order():
    diff.compare(dict(reversed(WANTED.items())), WANTED, "file.pth")
    diff.compare({name: list(shape) for name, shape in WANTED.items()}, WANTED, "file.pth")


def test_missing_extra_and_misshaped_come_in_one_line_with_the_closest_match():
    found = {"blocks.0.attention.qkv.weight": (12, 4), "norm.bias": (5,), "head": (1,)}
    assert refusal(found) == (
        "file.pth: is not this model: 2 missing: blocks.0.attn.qkv.weight (there is 'blocks.0.attention.qkv.weight'), "
        "blocks.0.norm1.bias; 1 of another shape: norm.bias is [5], must be [4]; "
        "2 not in the model: blocks.0.attention.qkv.weight, head"
    )


def test_extra_names_alone_are_allowed_unless_strict():
    found = WANTED | {"head": (1,)}
    diff.compare(found, WANTED, "file.pth", strict=False)
    assert refusal(found) == "file.pth: is not this model: 1 not in the model: head"
    assert "1 missing: norm.bias; 1 not in the model: head" in refusal(
        {name: shape for name, shape in found.items() if name != "norm.bias"}, strict=False
    )


def test_long_lists_and_strange_names_stay_one_bounded_line():
    found = {f"a\n{i}": (1,) for i in range(5000)}
    wanted = {f"blocks.{i}.norm": (1,) for i in range(5000)}
    text = refusal(found, wanted)
    assert "5000 missing: blocks.0.norm, " in text and "and 4980 more" in text and len(text) < 2000
    assert "a\\n0" in text
