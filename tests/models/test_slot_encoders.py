"""Video slot encoders against numbers of the published code, and their weights both ways."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.models.slot_encoders import Savi, Transposed
from cjepa_jax.models.videosaur import VideoSaur, next_slots, similarity, slot_contrast
from cjepa_jax.objectives.savi import divergence
from cjepa_jax.weights import slot_encoders as weights
from cjepa_jax.weights import videosaur as saur_weights
from tests.models.test_slot_predictor import golden


@functools.cache
def savi():
    """(numbers, published state, weights, module, video)."""
    numbers = golden("stosavi")
    state = {name[2:]: array for name, array in numbers.items() if name.startswith("p/")}
    found = weights.savi(state)
    return numbers, state, found, Savi(**found.sizes, strides=(2, 1)), numbers["video"].transpose(0, 1, 3, 4, 2)


def test_savi_is_the_published_one_in_slots_pictures_losses_and_gradients():
    numbers, _, found, model, video = savi()

    def total(params):
        tokens = model.apply({"params": params}, video, method="tokens")
        slots, kernel = model.apply({"params": params}, tokens, numbers["noise"], method="encode")
        made = model.apply({"params": params}, slots, method="painted")
        painted, kl = jnp.square(made["video"] - video).mean(), divergence(kernel).mean()
        return painted + 1e-4 * kl, (tokens, slots, kernel, made, painted, kl)

    (_, (tokens, slots, kernel, made, painted, kl)), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(
        found.params
    )
    np.testing.assert_allclose(tokens, numbers["features"], atol=5e-6)
    np.testing.assert_allclose(slots, numbers["slots"], atol=5e-6)
    np.testing.assert_allclose(kernel, numbers["kernel"], atol=5e-6)
    np.testing.assert_allclose(made["video"].transpose(0, 1, 4, 2, 3), numbers["reconstruction"], atol=5e-6)
    np.testing.assert_allclose(made["masks"], numbers["masks"][:, :, :, 0], atol=5e-6)
    np.testing.assert_allclose(painted, numbers["loss_reconstruction"], atol=1e-6)
    np.testing.assert_allclose(kl, numbers["loss_kl"], rtol=1e-6)
    norms = weights.savi_state(weights.EncoderWeights(gradient, found.sizes, {}))
    assert {f"g/{name}" for name in norms} == {name for name in numbers if name.startswith("g/")} - UNUSED
    for name, array in norms.items():
        np.testing.assert_allclose(np.linalg.norm(array), numbers[f"g/{name}"], rtol=2e-5, atol=1e-7)
    calm = jax.jit(lambda p: model.apply({"params": p}, video))(found.params)
    np.testing.assert_allclose(calm["slots"], numbers["slots_without_noise"], atol=5e-6)


UNUSED = {name for name in golden("stosavi") if "prior_slot_layer" in name or "grid" in name}


def test_weights_come_back_to_the_bit_and_a_missing_or_foreign_array_is_named():
    _, state, found, _, _ = savi()
    back = weights.savi_state(found)
    assert back.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)
    without = {name: array for name, array in state.items() if name != "predictor.ln.bias"}
    with pytest.raises(CheckpointError, match=r"^state dict: has no predictor.ln.bias$"):
        weights.savi(without)
    with pytest.raises(CheckpointError, match=r"^state dict: 'encoder.x' is not an array of StoSAVi$"):
        weights.savi(state | {"encoder.x": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'init_latents' has shape \[3\]: must have 3 axes$"):
        weights.savi(state | {"init_latents": np.zeros(3)})
    with pytest.raises(CheckpointError, match=r"corrector/k has shape \[9, 8\]: must be \[10, 8\]$"):
        weights.savi(state | {"slot_attention.project_k.weight": np.zeros((8, 9))})


def test_the_published_size_has_the_published_number_of_parameters():
    shape = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.float32)
    tree = jax.eval_shape(Savi().init, jax.random.key(0), shape)["params"]
    unused = 2 * (128 * 128 + 128) + 2 * 128  # prior_slot_layer: its output is not used
    assert sum(leaf.size for leaf in jax.tree.leaves(tree)) + unused == 1_198_980


@functools.cache
def videosaur():
    """(numbers, public state, weights, module)."""
    numbers = golden("videosaur")
    state = {name[2:]: array for name, array in numbers.items() if name.startswith("p/")}
    found = saur_weights.read(state)
    return numbers, state, found, VideoSaur(**found.sizes, slots=3)


def test_videosaur_is_the_public_one_in_slots_features_losses_and_gradients():
    numbers, _, found, model = videosaur()
    features = numbers["features"]
    wanted = similarity(numbers["keys"], 0.15)

    def total(params):
        out = model.apply({"params": params}, features, numbers["noise"])
        error = jnp.square(out["features"] - features).mean()
        motion = -(wanted * jax.nn.log_softmax(out["logits"][:, :-1])).sum(-1).mean()
        return error + 0.3 * motion, (out, error, motion)

    (_, (out, error, motion)), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(found.params)
    np.testing.assert_allclose(wanted, numbers["similarity"], atol=1e-6)
    for name in ("embedded", "slots", "predicted", "attention", "masks"):
        np.testing.assert_allclose(out[name], numbers[name], atol=5e-6)
    both = np.concatenate([out["features"], out["logits"]], -1)
    np.testing.assert_allclose(both, numbers["reconstruction"], atol=5e-6)
    np.testing.assert_allclose(error, numbers["loss_features"], atol=1e-6)
    np.testing.assert_allclose(motion, numbers["loss_similarity"], atol=1e-6)
    norms = saur_weights.state_dict(weights.EncoderWeights(gradient, found.sizes, {}))
    assert {f"g/{name}" for name in norms} == {name for name in numbers if name.startswith("g/")}
    for name, array in norms.items():
        np.testing.assert_allclose(np.linalg.norm(array), numbers[f"g/{name}"], rtol=2e-5, atol=1e-7)


def test_videosaurs_weights_come_back_to_the_bit_with_and_without_learned_slots_and_an_image_encoder():
    _, state, found, _ = videosaur()
    assert found.sizes["units"] == (20, 20, 20) and found.sizes["similarity"] and not found.sizes["fixed"]
    other = {name: array for name, array in state.items() if not name.startswith("initializer.")}
    other |= {"initializer.slots": np.ones((1, 3, 8), np.float32), "encoder.module.backbone.x": np.ones(2, np.float32)}
    mlp = {"0.weight": (8,), "0.bias": (8,), "1.weight": (5, 8), "1.bias": (5,), "3.weight": (8, 5), "3.bias": (8,)}
    other |= {
        f"processor.module.corrector.mlp.layers.{name}": np.ones(shape, np.float32) for name, shape in mlp.items()
    }
    for arrays in (state, other):
        taken = saur_weights.read(arrays)
        back = saur_weights.state_dict(taken)
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
    assert taken.sizes["fixed"] and taken.sizes["slots"] == 3 and taken.sizes["hidden"] == 5
    tree = jax.eval_shape(
        VideoSaur(**taken.sizes).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2, 16, 12), jnp.float32)
    )["params"]
    assert jax.tree.map(np.shape, taken.params) == jax.tree.map(lambda leaf: leaf.shape, tree)
    with pytest.raises(CheckpointError, match=r"^state dict: 'decoder.x' is not an array of VideoSAUR or Slot"):
        saur_weights.read(state | {"decoder.x": np.zeros(1)})


def slotcontrast(width=8, features=12, places=16, units=(20, 24), slots=3, slot_mlp=5):
    """A state dict with SlotContrast's names: learned first slots and an MLP for each slot and place."""
    rng, state = np.random.default_rng(0), {}
    for name, array in videosaur()[1].items():
        if not name.startswith(("initializer.", "decoder.")):
            state[name] = array
    chain = (width, *units, features + 1)
    shapes = {"initializer.slots": (1, slots, width), "decoder.module.pos_emb": (1, 1, places, width)}
    for i, pair in enumerate(itertools.pairwise(chain)):
        shapes |= {f"decoder.module.mlp.layers.{2 * i}.weight": pair[::-1]}
        shapes |= {f"decoder.module.mlp.layers.{2 * i}.bias": pair[1:]}
    corrector = {"0.weight": (width,), "0.bias": (width,), "1.weight": (slot_mlp, width), "1.bias": (slot_mlp,)}
    corrector |= {"3.weight": (width, slot_mlp), "3.bias": (width,)}
    shapes |= {f"processor.module.corrector.mlp.layers.{name}": shape for name, shape in corrector.items()}
    return state | {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_slotcontrasts_weights_come_back_to_the_bit_and_are_the_modules():
    state = slotcontrast()
    found = saur_weights.read(state)
    assert found.sizes["decoder"] == "mlp" and found.sizes["units"] == (20, 24) and found.sizes["hidden"] == 5
    assert found.sizes["fixed"] and found.sizes["slots"] == 3 and not found.sizes["similarity"]
    back = saur_weights.state_dict(found)
    assert back.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)
    model, features = VideoSaur(**found.sizes), jax.ShapeDtypeStruct((1, 2, 16, 12), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), features)["params"]
    assert jax.tree.map(np.shape, found.params) == jax.tree.map(lambda leaf: leaf.shape, tree)
    with pytest.raises(CheckpointError, match=r"^state dict: has no decoder.module.mlp.layers.0.weight$"):
        saur_weights.read(
            {name: array for name, array in state.items() if name != "decoder.module.mlp.layers.0.weight"}
        )
    for name, message in (
        ("decoder.module.mlp.layers.4.bias", "mlp/output/bias has shape"),
        ("decoder.module.pos_emb", "'decoder.module.pos_emb' has shape .* the first two of length 1"),
    ):
        with pytest.raises(CheckpointError, match=message):
            saur_weights.read(state | {name: np.concatenate([state[name]] * 2)})


def test_slotcontrasts_decoder_is_a_softmax_over_slots_of_an_mlp_at_every_place():
    state = slotcontrast()
    found = saur_weights.read(state)
    features = np.random.default_rng(1).standard_normal((2, 3, 16, 12)).astype(np.float32)
    out = jax.jit(VideoSaur(**found.sizes).apply)({"params": found.params}, features)
    slots = np.asarray(out["slots"], np.float64)  # [B, T, K, S]
    x = slots[..., None, :] + state["decoder.module.pos_emb"][0, 0]
    for i in (0, 2, 4):
        weight, bias = (state[f"decoder.module.mlp.layers.{i}.{leaf}"] for leaf in ("weight", "bias"))
        x = np.maximum(x, 0) @ weight.T + bias if i else x @ weight.T + bias
    shares = np.exp(x[..., -1]) / np.exp(x[..., -1]).sum(2, keepdims=True)
    np.testing.assert_allclose(out["masks"], shares, atol=1e-5)
    np.testing.assert_allclose(out["features"], (shares[..., None] * x[..., :-1]).sum(2), atol=2e-4, rtol=1e-4)
    assert "logits" not in out


def test_slotcontrast_has_the_published_number_of_parameters_but_for_the_decoder():
    """MLPs of 1024, features of 384 at 196 places, 7 slots of 128 with an MLP of 4 x 128 in slot attention."""
    model = VideoSaur(fixed=True, hidden=512, similarity=False, decoder="mlp")
    tree = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2, 196, 384), jnp.float32))["params"]
    count = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in tree.items()}
    assert count["slots"] == 7 * 128 and count["predictor"] == 198_272
    assert sum(count[name] for name in ("norm_features", "up", "down")) == 394_880
    assert count["mlp"] == 196 * 128 + 129 * 1024 + 2 * 1025 * 1024 + 1025 * 385
    assert count["corrector"] == 148_736 + 256 + 129 * 512 + 513 * 128


@pytest.mark.parametrize("kind", ["savi", "videosaur"])
def test_arrays_of_a_wrong_shape_or_twice_are_named_and_unused_ones_keep_their_type(kind):
    state = {"savi": savi, "videosaur": videosaur}[kind]()[1]
    read = weights.savi if kind == "savi" else saur_weights.read
    unused = {"savi": "prior_slot_layer.0.bias", "videosaur": "encoder.module.backbone.x"}[kind]
    whole = np.arange(3)
    assert read(state | {unused: whole}).unused[unused].dtype == whole.dtype
    wrong, left = 0, read(state).unused
    for name, array in state.items():
        if name in left:
            continue
        for axis in range(array.ndim):
            longer = np.concatenate([array, array], axis)
            try:
                sizes = read(state | {name: longer}).sizes
            except CheckpointError as error:
                assert re.search(r"has shape \[.*\]: must (be|have) ", str(error)), error
                wrong += 1
            else:  # the number of slots is the array's own
                assert name == "init_latents" and axis == 1 and sizes["slots"] == 2 * array.shape[1]
    assert wrong > 60
    first = next(iter(state))
    with pytest.raises(CheckpointError, match=f"^state dict: has '{re.escape(first)}' twice"):
        read(state | {f"module.{first}": state[first]})


def test_slots_are_contrasted_with_those_of_the_frame_before():
    numbers = golden("slotcontrast")
    np.testing.assert_allclose(slot_contrast(numbers["slots"], 0.1).mean(), numbers["loss_batch"], atol=1e-6)
    one = slot_contrast(numbers["slots"], 0.1, across=False).mean()
    np.testing.assert_allclose(one, numbers["loss_per_video"], atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_a_transposed_convolution_is_that_of_an_image_with_zeros_between_its_pixels(stride):
    module = Transposed(6, stride)
    pixels = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 7, 3)), jnp.float32)
    params = module.init(jax.random.key(0), pixels)["params"]
    params["bias"] = jnp.arange(6.0)
    wide = np.zeros((2, 5 * stride, 7 * stride, 3), np.float32)
    wide[:, ::stride, ::stride] = pixels
    wide = np.pad(wide, [(0, 0), (2, 2), (2, 2), (0, 0)])
    wanted = np.zeros((2, 5 * stride, 7 * stride, 6))
    for y in range(5):
        for x in range(5):
            part = wide[:, y : y + 5 * stride, x : x + 7 * stride]
            wanted += part @ np.asarray(params["kernel"][y, x], np.float64)
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, pixels), wanted + np.arange(6), atol=1e-5)


def test_places_tell_slots_of_equal_features_where_they_are_frame_by_frame_too():
    sizes = dict(slots=3, width=8, fixed=True, embed=12, blocks=0, units=(10,), similarity=False, decoder="mlp")
    features = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2, 9, 5)), jnp.float32)
    for placed in (False, True):
        model = VideoSaur(**sizes, placed=placed)
        params = jax.jit(model.init)(jax.random.key(0), features)["params"]
        slots = jax.jit(model.apply)({"params": params}, features)["slots"]
        moved = jax.jit(model.apply)({"params": params}, features[:, :, ::-1])["slots"]
        assert (np.abs(slots - moved).max() < 1e-5) != placed
        start = params["slots"][None]
        for t, iterations in enumerate((model.first, model.iterations)):
            one, start = next_slots(model, params, features[:, t], start, iterations)
            np.testing.assert_allclose(one, slots[:, t], atol=1e-5)
    with pytest.raises(CheckpointError, match="^objective.videosaur.placed = True: must be False"):
        saur_weights.state_dict(weights.EncoderWeights(params, sizes | {"placed": True}, {}))
    with pytest.raises(ValueError, match="^8 patches: must be a square number for places"):
        jax.eval_shape(model.init, jax.random.key(0), features[:, :, :8])
