"""The code that goes with an export against our own networks: the same numbers, and clear refusals."""

import copy

import jax
import numpy as np
import pytest

from cjepa_jax import api
from cjepa_jax.configuration import sizes
from cjepa_jax.models import predictor
from tests.export import pairs

pytestmark = pytest.mark.needs("torch")

CLOSE = 1e-5  # of the outputs' own spread
ROPE = {"positions": "rope", "position_grid": (1, 6, 6)}
TILE = {"positions": "rope_tile", "attention": "cross"}
TABLES = {"encoder": {"positions": "table", "position_grid": (4, 3, 6)}}
TABLES["predictor"] = {"positions": "table", "position_grid": (2, 4, 4)}
TANH = {part: options | {"gelu": "tanh"} for part, options in TABLES.items()}
BANDS = {"channels": 5, "scale": 10.0, "mean": (0.1, 0.2, 0.3, 0.4, 0.5), "std": (0.5, 1.0, 0.5, 1.0, 0.5)}
QUICK = {
    "images": {},
    "clips, tables, an anchor, tanh": {"frames": 4, "anchor": 1, **TANH, "batch": 4},
}
MORE = {
    "clips, rotations, across, packed": {"frames": 4, "encoder": ROPE, "predictor": TILE, "rows": (2, 64)},
    "across, masks that name nobody": {"predictor": {"attention": "cross"}, "names_objects": False},
    "a resized table for images, another epsilon, packed": {
        "encoder": {"positions": "table", "position_grid": (1, 6, 3), "epsilon": 1e-3},
        "rows": (2, 30),
        "batch": 4,
    },
    "V-JEPA 2's rotations": {"frames": 4, "encoder": {"positions": "rope_tile"}, "predictor": {"positions": "rope"}},
    "hidden tokens as zeros, no target": {"encoder_input": "zeroed", "target": False},
    "one frame to a token": {"frames": 3, "tubelet": 1},
    "five bands": {"frames": 4, "encoder": BANDS},
}


def holds(folder, case):
    case = dict(case)
    given = {name: case.pop(name) for name in ("rows", "batch") if name in case}
    found = pairs.compare(pairs.model(**case), folder, **given)
    assert max(found.values()) <= CLOSE, found


@pytest.mark.parametrize("case", QUICK)
def test_outputs_are_those_of_our_networks(case, tmp_path):
    holds(tmp_path, QUICK[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE)
def test_outputs_are_those_of_our_networks_in_every_form(case, tmp_path):
    holds(tmp_path, MORE[case])


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, frames", [("Mu", 1), ("Ti", 2), ("S", 1), ("B", 2), ("L", 1), ("H", 2), ("g", 1), ("g", 2)]
)
def test_outputs_are_those_of_our_networks_at_every_size(size, frames, tmp_path):
    case = {"variant": f"{size}/16", "size": 48, "frames": frames, "encoder": {"depth": 2}, "batch": 2}
    holds(tmp_path, case | {"predictor": {"width": 48, "heads": 4}})


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 2])
def test_outputs_are_those_of_our_networks_at_full_depth(frames, tmp_path):
    head = {"depth": 6, "width": 384, "heads": 8}
    holds(tmp_path, {"variant": "S/16", "size": 64, "frames": frames, "predictor": head})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return pairs.in_torch(pairs.model(frames=4), tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def given():
    import torch

    return tuple(map(torch.tensor, pairs.scenes(pairs.model(frames=4))))


def test_sizes_are_ours():
    from cjepa_jax.export import modeling_cjepa

    assert modeling_cjepa.SIZES == sizes.SIZES


def test_ranks_are_ours():
    import torch

    from cjepa_jax.export import modeling_cjepa

    rng = np.random.default_rng(0)
    patches = rng.random((300, 4, 6)) < rng.choice([0.2, 0.5, 0.8], (300, 1, 1))
    patches[:50, 1] = patches[:50, 0]  # objects of the same tokens
    removed = rng.random((300, 4)) < 0.7
    found = modeling_cjepa.ranks(torch.tensor(patches), torch.tensor(removed))
    np.testing.assert_array_equal(found, jax.jit(predictor.ranks)(patches, removed))


@pytest.mark.parametrize("tile, expected", [
    (True, [-1.272233, 2.119439, 2.974084, -3.53661, 4.118815, 6.032191]),
    (False, [-1.272233, -1.838865, 2.41577, 4.377677, 4.961116, 6.032191]),
])  # fmt: skip
def test_rotations_are_the_published_ones(tile, expected):
    """[1..6] at time 3: V-JEPA 2's and V-JEPA 2.1's, which differ, computed apart from any of these codes."""
    import torch

    from cjepa_jax.export import modeling_cjepa

    cosine, sine = modeling_cjepa.rotations((4, 1, 1), 18, tile, (), torch.device("cpu"))
    x = torch.arange(1.0, 7)
    turned = torch.stack([-x[1::2], x[::2]], -1).flatten()
    found = x * cosine[3, :6] + turned * sine[3, :6]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (cosine[3, 6:] == 1).all() and (sine[3, 6:] == 0).all()


def test_pixels_may_be_floats_and_other_sizes_and_objects_may_be_tokens(exported, given):
    import torch

    video, masks, removed = given
    assert torch.equal(exported.encode(video.float()), exported.encode(video))
    assert exported.encode(video[:, :2, :8, :12]).shape == (3, 1 * 2 * 3, 36)
    by_pixels = exported.intervene(video, masks, [0, 2])
    tokens = masks.reshape(3, 3, 2, 2, 4, 4, 4, 4).any(7).any(5).any(3).flatten(2)
    by_tokens = exported.intervene(video, tokens, torch.tensor([True, False, True]))
    assert torch.equal(by_pixels.readouts["both"], by_tokens.readouts["both"])
    assert torch.equal(by_pixels.hidden, (tokens[:, 0] | tokens[:, 2]))


def test_everything_has_a_gradient_and_no_scene_touches_another(exported, given):
    video, masks, removed = given
    pixels = video.float().requires_grad_()
    exported.intervene(pixels, masks, removed).readouts["both"][0].square().sum().backward()
    assert pixels.grad[0].abs().max() > 0 and not pixels.grad[1:].any() and pixels.grad.isfinite().all()
    trained = [*exported.encoder.parameters(), *exported.target.parameters(), *exported.predictor.parameters()]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
    exported.zero_grad()


def test_an_object_that_stays_says_nothing_at_hidden_tokens_that_it_touches(exported):
    import torch

    tokens, patches = torch.ones(1, 4, 36), torch.tensor([[[True, True, False, False], [True, False, True, False]]])
    hidden, removed = patches[:, 0], torch.tensor([[True, False]])
    prediction, _ = exported.predictor(tokens, (1, 2, 2), hidden, patches, removed)
    assert torch.equal(prediction, exported.predictor(tokens, (1, 2, 2), hidden, patches[:, :1], removed[:, :1])[0])


@pytest.mark.parametrize("name, close", [("float64", 1e-4), ("bfloat16", 0.2)])
def test_other_types_compute_about_the_same(name, close, exported, given):
    import torch

    other = copy.deepcopy(exported).to(getattr(torch, name))
    found, wanted = (model.intervene(*given).readouts["both"].detach() for model in (other, exported))
    assert found.dtype == getattr(torch, name) and pairs.apart(found.float(), wanted) < close


def test_where_nothing_would_stay_visible_nothing_is_hidden(exported, given):
    import torch

    video, masks, _ = given
    answer = exported.intervene(video, torch.ones_like(masks), [0])
    assert not answer.hidden.any() and not answer.readouts["masked"].any()
    assert torch.equal(answer.tokens, exported.encode(video))
    assert answer._fields[:3] == api.Intervention._fields[:3]  # whoever unpacks one unpacks the other


@pytest.mark.slow
def test_encode_is_one_graph_for_any_number_of_scenes(exported, given):
    import torch

    compiled = torch.compile(exported, backend="eager", fullgraph=True)
    assert torch.equal(compiled(given[0]), exported(given[0]))
    scenes = {"video": {0: torch.export.Dim("scenes")}}
    program = torch.export.export(exported, (given[0],), dynamic_shapes=scenes).module()
    more = torch.cat([given[0], given[0]])
    torch.testing.assert_close(program(more), exported(more), rtol=0, atol=1e-5)


def test_what_cannot_be_meant_is_refused_in_a_line_that_names_it(exported, given):
    import torch

    video, masks, _ = given
    for call, text in (
        (lambda: exported.encode(video.permute(0, 1, 4, 2, 3)), r"video \[3, 4, 3, 16, 16\]: must be .* channels last"),
        (lambda: exported.encode(video[0, 0]), "video .*: must be"),
        (lambda: exported.encode(video[:, :, :10]), "H = 10 is not a multiple of 4"),
        (lambda: exported.encode(video[:, :3]), "T = 3 is not a multiple of 2"),
        (lambda: exported.encode(video[:, 0]), "1 frames, the weights are of 2 at a time"),
        (lambda: exported.encode_context(video, torch.ones(3, 31, dtype=torch.bool)), r"must be bool \[3, 32\]"),
        (lambda: exported.intervene(video, masks[:, :, :2], [0]), r"masks .*: must be \[3, K, 4, 16, 16\]"),
        (lambda: exported.intervene(video, masks, [3]), r"remove = \[3\]: must be from 0 to 2"),
        (lambda: exported.intervene(video, masks.repeat(1, 2, 1, 1, 1), range(4)), "4 objects .* at most 3"),
        (lambda: exported.encode(video / 255), "pixels must be in 0..255"),
        (lambda: exported.encode(video / 250), "to 1.02: pixels must be in 0..255"),
        (lambda: exported.encode((video.float() - 128) / 50), "values from -2.56 to 2.*: pixels must be in 0..255"),
        (lambda: exported.encode(video.int() * 2), "pixels must be in 0..255"),
        (lambda: exported.encode(video.to(torch.uint16) * 16), "pixels must be in 0..255"),
        (lambda: exported.encode(video > 9), "dtype torch.bool"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


@pytest.mark.parametrize("remove", [2, [2], (2, 2), range(2, 3), np.array([2]), {2}, [False, False, True],
    [np.False_, np.False_, np.True_], np.array([False, False, True]), np.array([[False, False, True]] * 3),
    [[False, False, True]] * 3, iter([2]), np.int64(2)], ids=lambda remove: type(remove).__name__)  # fmt: skip
def test_objects_are_named_by_place_or_by_flags(remove):
    import torch

    from cjepa_jax.export import modeling_cjepa

    patches = torch.ones(3, 3, 4, dtype=torch.bool)
    assert modeling_cjepa._removed(remove, patches, 3).tolist() == [[False, False, True]] * 3


@pytest.mark.parametrize("remove", [[], iter([]), [[0], [1], [2]], [[0], [0, 1], [2]], True, [True], 3, -1, [0.0], "0",
    None, np.ones((2, 3), bool)], ids=lambda remove: type(remove).__name__)  # fmt: skip
def test_other_names_of_objects_are_refused_in_one_line(remove):
    import torch

    from cjepa_jax.export import modeling_cjepa

    with pytest.raises(ValueError, match=r"^remove = .*: must be from 0 to 2, .*, or bool \[B, K\]$"):
        modeling_cjepa._removed(remove, torch.ones(3, 3, 4, dtype=torch.bool), 3)


def test_arrays_of_numpy_and_no_scenes_at_all(exported, given):
    video, masks, _ = given
    assert exported.encode(video.numpy()).equal(exported.encode(video))
    assert exported.encode(video[:0].float()).shape == (0, 32, 36)
    answer = exported.intervene(video[:0].float(), masks[:0], [0])
    assert answer.prediction.shape == (0, 32, 36) and answer.readouts["both"].shape == (0, 72)


def test_an_encoder_alone_says_what_it_lacks(tmp_path, given):
    alone = pairs.in_torch(pairs.model(frames=4, predictor=False, target=False), tmp_path)
    with pytest.raises(ValueError, match="no predictor"):
        alone.intervene(*given)
    with pytest.raises(ValueError, match="no target"):
        alone.encode(given[0], target=True)
    assert alone.features(given[0]).shape == (3, 36)
