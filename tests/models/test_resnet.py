"""ResNet-50: its parameter count, its shapes, and the same outputs as torch modules with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.models.resnet import ResNet

SMALL = {"blocks": (1, 2), "width": 4, "zero_last": False}


def test_resnet_50_has_torchvisions_parameters():
    video = jax.ShapeDtypeStruct((2, 3, 64, 96, 3), jnp.uint8)
    out, variables = jax.eval_shape(lambda video: ResNet().init_with_output(jax.random.key(0), video), video)
    assert out.shape == (2, 3 * 2 * 3, 2048) and ResNet().patch == 32
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters + 2048 * 1000 + 1000 == 25_557_032
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    # Running means and variances of 53 norms, whose channels are half of the norms' learned parameters.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"])) == 53_120


def torch_twin(variables):
    """The small network of torch modules, with these weights: a function of [n, 3, H, W]."""
    import torch
    from torch import nn

    def put(module, **arrays):
        for name, array in arrays.items():
            getattr(module, name).data = torch.tensor(np.asarray(array))
        return module.eval()

    def conv(path, size=1, stride=1):
        kernel = at(variables["params"], path)["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
        module = nn.Conv2d(kernel.shape[1], kernel.shape[0], size, stride, size // 2, bias=False)
        return put(module, weight=kernel)

    def norm(path):
        own, stats = (at(variables[name], path)["BatchNorm_0"] for name in ("params", "batch_stats"))
        return put(
            nn.BatchNorm2d(len(own["scale"])), weight=own["scale"], bias=own["bias"],
            running_mean=stats["mean"], running_var=stats["var"],
        )  # fmt: skip

    def block(name, stride, x):
        out = norm([name, "bn1"])(conv([name, "conv1"])(x)).relu()
        out = norm([name, "bn2"])(conv([name, "conv2"], 3, stride)(out)).relu()
        out = norm([name, "bn3"])(conv([name, "conv3"])(out))
        if "downsample_0" in variables["params"][name]:
            x = norm([name, "downsample_1"])(conv([name, "downsample_0"], 1, stride)(x))
        return (x + out).relu()

    def run(x):
        x = norm(["bn1"])(conv(["conv1"], 7, 2)(torch.tensor(x))).relu()
        x = nn.MaxPool2d(3, 2, 1)(x)
        for name, stride in (("layer1_0", 1), ("layer2_0", 2), ("layer2_1", 1)):
            x = block(name, stride, x)
        return x.detach().numpy()

    return run


def at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


@pytest.mark.needs("torch")
def test_the_same_weights_give_the_outputs_of_torch():
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (2, 2, 32, 48, 3), np.uint8)
    model = ResNet(**SMALL)
    variables = jax.jit(model.init)(jax.random.key(0), video)
    variables = jax.tree.map(lambda x: np.abs(x + 0.1 * rng.normal(size=x.shape)).astype(np.float32), variables)
    variables["params"] = jax.tree.map(lambda x: (x - x.mean() / 2).astype(np.float32), variables["params"])
    frames = (video.reshape(4, 32, 48, 3) / 255 - np.array(model.mean)) / np.array(model.std)
    expected = torch_twin(variables)(frames.transpose(0, 3, 1, 2).astype(np.float32))
    expected = expected.transpose(0, 2, 3, 1).reshape(2, 2 * 4 * 6, 32)
    out = np.asarray(jax.jit(model.apply)(variables, video))
    assert model.patch == 8 and expected.std() > 0.1
    np.testing.assert_allclose(out, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_training_normalises_by_the_valid_clips_and_moves_the_running_statistics():
    model = ResNet(**SMALL)
    video = np.random.default_rng(1).integers(0, 256, (3, 1, 16, 16, 3), np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), video)
    run = jax.jit(lambda video, valid: model.apply(variables, video, valid, True, mutable=["batch_stats"]))
    spoilt = video.copy()
    spoilt[2] = 255 - spoilt[2]
    valid = np.array([True, True, False])
    (one, moved), (two, again) = run(video, valid), run(spoilt, valid)
    np.testing.assert_allclose(one[:2], two[:2], atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), moved, again)
    hidden = jax.lax.conv_general_dilated(
        (video[:2, 0] / 255 - np.array(model.mean)) / np.array(model.std),
        variables["params"]["conv1"]["Conv_0"]["kernel"].astype(jnp.float32),
        (2, 2), ((3, 3), (3, 3)), dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    mean = moved["batch_stats"]["bn1"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.1 * np.asarray(hidden).mean((0, 1, 2)), atol=1e-4)
