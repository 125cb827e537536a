"""Encoders under timm's and I-JEPA's names: keys, shapes, and the numbers of independent networks in plain PyTorch."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax import positions
from cjepa_jax.errors import ConfigError
from cjepa_jax.export import other_layouts
from cjepa_jax.models import position_encoding
from tests.export import pairs

NO_TARGET = {"target": False}
BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def named(prefix=""):
    """What timm's VisionTransformer(class_token=False, global_pool="avg", fc_norm=False, num_classes=0) has, at two
    blocks of width 36 with 56 units, 16 x 16 pixels in patches of 4. I-JEPA's encoder has the same."""
    layers = {"norm1": 36, "attn.qkv": (108, 36), "attn.proj": (36, 36), "norm2": 36}
    layers |= {"mlp.fc1": (56, 36), "mlp.fc2": (36, 56)}
    shapes = {"patch_embed.proj": (36, 3, 4, 4), "norm": 36}
    shapes |= {f"blocks.{i}.{name}": shape for i in (0, 1) for name, shape in layers.items()}
    shapes = {name: shape if isinstance(shape, tuple) else (shape,) for name, shape in shapes.items()}
    found = {f"{name}.weight": shape for name, shape in shapes.items()}
    found |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()} | {"pos_embed": (1, 16, 36)}
    return {prefix + name: shape for name, shape in found.items()}


def shapes(arrays):
    return {name: array.shape for name, array in arrays.items()}


def test_timm_gets_its_names_and_shapes_and_a_config(tmp_path):
    model = pairs.model()
    arrays, config = other_layouts.timm(model, "encoder")
    assert shapes(arrays) == named()
    np.testing.assert_array_equal(arrays["pos_embed"][0], positions.sincos((1, 4, 4), 36))
    arguments = {"img_size": 16, "patch_size": 4, "embed_dim": 36, "depth": 2, "num_heads": 3, "mlp_ratio": 56 / 36}
    arguments |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
    assert config["model_args"] == arguments and int(36 * arguments["mlp_ratio"]) == 56
    assert config["pretrained_cfg"]["mean"] == list(model.encoder["mean"]) and json.dumps(config)
    target = other_layouts.timm(model, "target")[0]
    assert not np.array_equal(target["norm.weight"], arrays["norm.weight"])
    assert "`--part=target`" in other_layouts.use(model, "timm", "DIR", "target", config)


@pytest.mark.parametrize("stored", [(2, 4, 4), (1, 2, 4)])
def test_a_table_of_another_grid_is_resized_as_the_network_does(stored):
    table = {"positions": "table", "position_grid": stored}
    model = pairs.model(names_objects=False, encoder=table, predictor={"heads": 3} | table)
    arrays, config = other_layouts.timm(model, "encoder")
    assert config["model_args"]["img_size"] == 16
    kept = model.params["encoder"]["tokenizer"]["positions"]
    wanted = position_encoding._resized(jnp.asarray(kept), stored, (1, 4, 4))
    np.testing.assert_allclose(arrays["pos_embed"][0], wanted, atol=1e-6)
    assert other_layouts.ijepa(model)["predictor.module.predictor_pos_embed"].shape == (1, 16, 24)


def test_mlp_ratios_give_the_published_sizes_their_units():
    """timm and I-JEPA compute int(width * mlp_ratio)."""
    from cjepa_jax.configuration.sizes import SIZES

    assert all(int(width * (hidden / width)) == hidden for width, _, _, hidden in SIZES.values())


def test_ijepa_gets_its_names_and_shapes_and_a_predictor_that_has_its_form():
    with_objects = other_layouts.ijepa(pairs.model())
    assert shapes(with_objects) == named("encoder.module.") | named("target_encoder.module.")
    model = pairs.model(names_objects=False, predictor={"heads": 3})
    arrays = other_layouts.ijepa(model)
    own = {
        name.removeprefix("predictor.module."): a.shape for name, a in arrays.items() if name.startswith("predictor")
    }
    assert own["mask_token"] == (1, 1, 24) and own["predictor_pos_embed"] == (1, 16, 24)
    assert own["predictor_embed.weight"] == (24, 36) and own["predictor_proj.weight"] == (36, 24)
    blocks = {f"predictor_blocks.{i}.{name}.{leaf}" for i in (0, 1) for name in BLOCK for leaf in ("weight", "bias")}
    rest = {f"predictor_{name}.{leaf}" for name in ("embed", "norm", "proj") for leaf in ("weight", "bias")}
    assert set(own) == blocks | rest | {"mask_token", "predictor_pos_embed"}
    assert "residual head" in other_layouts.use(model, "ijepa", "DIR", "", {})
    for case, text in (
        ({"names_objects": True}, "told which objects"),
        ({}, "has 2 heads, I-JEPA's as many as its encoder, 3"),
        ({"predictor": {"heads": 3, "attention": "cross"}}, "attention is cross"),
        ({"predictor": {"heads": 3, "positions": "rope"}}, "positions are rope"),
        ({"predictor": {"heads": 3, "gelu": "tanh"}}, "its GELU"),
        ({"predictor": False}, "these weights have none"),
    ):
        other = pairs.model(**{"names_objects": False} | case)
        assert text in other_layouts.other_predictor(other) and text in other_layouts.use(other, "ijepa", "DIR", "", {})
        assert not any(name.startswith("predictor") for name in other_layouts.ijepa(other))


@pytest.mark.parametrize("case, text", [
    ({"frames": 4}, "these weights take clips"),
    ({"encoder": {"positions": "rope"}}, "those of these weights are rope"),
    ({"encoder": {"epsilon": 1e-5}}, "epsilon 1e-6, here it is 1e-05"),
])  # fmt: skip
def test_what_they_cannot_hold_is_refused(case, text):
    model = pairs.model(**case)
    for export in (other_layouts.ijepa, lambda model: other_layouts.timm(model, "encoder")):
        with pytest.raises(ConfigError, match=text):
            export(model)
    with pytest.raises(ConfigError, match="--part=target: these weights have encoder"):
        other_layouts.timm(pairs.model(target=False, predictor=False), "target")


@pytest.mark.needs("torch")
@pytest.mark.parametrize("kind", [pytest.param("sincos", marks=pytest.mark.slow), "table"])
def test_plain_networks_with_these_names_give_the_same_numbers(kind):
    import torch

    from tests.weights import reference

    table = {} if kind == "sincos" else {"positions": "table", "position_grid": (1, 4, 4)}
    model = pairs.model(names_objects=False, encoder=table, predictor={"heads": 3})
    video, masks, _ = pairs.scenes(model)
    hidden = np.zeros((3, 16), bool)
    hidden[:, [2, 5, 6, 11]] = True
    wanted = pairs.in_jax(model, video, np.zeros((3, 1, 16), bool), np.zeros((3, 1), bool), hidden)
    pixels = (video[:, 0] / 255 - model.encoder["mean"]) / model.encoder["std"]
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    state = {name: torch.tensor(array) for name, array in other_layouts.ijepa(model).items()}

    def loaded(network, part):
        own = {name.removeprefix(part): array for name, array in state.items() if name.startswith(part)}
        network.load_state_dict(own, strict=True)
        return network.eval()

    with torch.no_grad():
        size = 36, 2, 3, 56, 4, np.zeros((16, 36))
        for part, name in (("encoder", "encode"), ("target_encoder", "target")):
            tokens = loaded(reference.Vit(*size), f"{part}.module.")(pixels)
            assert pairs.apart(tokens, wanted[name]) < 1e-5
        context, targets = (torch.tensor(np.flatnonzero(where)) for where in (~hidden[0], hidden[0]))
        network = loaded(reference.Predictor(36, 24, 2, 3, np.zeros((16, 24))), "predictor.module.")
        seen = torch.tensor(wanted["context"][:, context])
        assert pairs.apart(network(seen, context, targets), wanted["prediction"][:, targets]) < 1e-5
    timm = {name: torch.tensor(array) for name, array in other_layouts.timm(model, "encoder")[0].items()}
    reference.Vit(*size).load_state_dict(timm, strict=True)
