"""What the devices say to each other in a step, read from XLA's program: what the design expects and nothing else."""

import functools

import jax
import pytest

from cjepa_jax.bench import scaling
from tests import test_parity
from tests.bench.test_scaling import MODEL

BATCH = test_parity.BATCH
SMALL = 16 * 4 * MODEL.encoder.width  # bytes: sums over scenes behind the loss and the metrics, some per feature


@functools.cache
def program(many=BATCH, **how):
    """(collectives, bytes of the step's arguments on each device, the state before it)."""
    step, state, batch = test_parity.step_on(8, depth=2, **how)
    compiled = step.lower(state, batch).compile()
    return scaling.collectives(compiled.as_text()), compiled.memory_analysis().argument_size_in_bytes, state


@pytest.mark.slow
def test_scenes_divided():
    """Gradients are added up, pooled features and per-scene errors gathered. No scene and no parameter moves."""
    found, _, _ = program()
    assert found.keys() == {"all-reduce", "all-gather"}
    expected = scaling.payload(MODEL, BATCH, 1)
    assert found["all-gather"] == (2, expected["SIGReg"] + 4 * BATCH)
    assert 0 <= found["all-reduce"][1] - expected["gradients"] < SMALL


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [2, 8])
def test_parameters_divided(fsdp):
    """Besides, each block's kernels are gathered where they are used: once per pass, and never all at once."""
    found, _, _ = program(fsdp=fsdp)
    assert found.keys() == {"all-reduce", "all-gather"}
    expected = scaling.payload(MODEL, BATCH, fsdp)
    assert found["all-gather"][1] == expected["parameters"] + expected["SIGReg"] + 4 * BATCH
    # The CPU adds up along "fsdp" and cuts, where others reduce and scatter. Then the pieces along "data".
    pieces = 4 * sum(MODEL.kernels) // fsdp if fsdp < 8 else 0
    assert 0 <= found["all-reduce"][1] - expected["gradients"] - pieces < SMALL


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 8])
def test_scenes_taken_in_slices(fsdp, monkeypatch):
    """Each slice adds the gradients up for itself, and gathers the blocks' kernels. The features go twice."""
    monkeypatch.setattr(test_parity, "BATCH", 2 * BATCH)
    found, _, _ = program(accumulate=2, fsdp=fsdp)
    assert found.keys() == {"all-reduce", "all-gather"}
    expected = scaling.payload(MODEL, 2 * BATCH, fsdp, slices=2)
    assert expected["gradients"] == 2 * 4 * sum(MODEL.params)
    assert 0 <= found["all-reduce"][1] - expected["gradients"] < 2 * SMALL  # sums of the features in both passes
    assert 0 <= found["all-gather"][1] - expected["parameters"] - expected["SIGReg"] < SMALL


@pytest.mark.slow
@pytest.mark.parametrize("slices", [1, 2])
def test_features_that_each_device_reduces_first(slices, monkeypatch):
    """Triangles are gathered, once or twice, and not the features of many scenes. No feature changes its device."""
    many = 1024
    monkeypatch.setattr(test_parity, "BATCH", many)
    found, _, _ = program(accumulate=slices, many=many)
    assert found.keys() == {"all-reduce", "all-gather"}
    expected = scaling.payload(MODEL, many, 1, slices, chips=8)
    assert expected["SIGReg"] == slices * 4 * 8 * 96 * 96 < slices * 4 * many * 96
    assert 0 <= found["all-gather"][1] - expected["SIGReg"] <= 2 * 4 * many + SMALL
    assert 0 <= found["all-reduce"][1] - expected["gradients"] < slices * SMALL


@pytest.mark.slow
def test_a_device_holds_its_share_of_the_state():
    (_, whole, state), (_, divided, parts) = program(), program(fsdp=8)
    kernels, total = (sum(leaf.nbytes for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0] if wanted in
                      jax.tree_util.keystr(path)) for wanted in ("kernel", ""))  # fmt: skip
    on_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(parts))
    assert on_one == total - kernels + kernels / 8 and kernels > 0.95 * total
    assert whole - divided == total - on_one
