"""AdamW as optax has it, decay on matrices only, and the rules of the peak and the warm-up."""

import jax
import numpy as np
import pytest

from cjepa_jax import optim
from configs import vitl


@pytest.fixture
def config():
    return vitl.get_config().optim.copy_and_resolve_references().unlock()


def params():
    """Shapes as the models have them: a scanned stack with its layer axis, a plain layer, norms, a learned vector."""
    rng = np.random.default_rng(0)
    shapes = {
        "stack": {
            "blocks": {
                "mlp": {"up": {"kernel": (3, 4, 8), "bias": (3, 8)}},
                "norm1": {"scale": (3, 4), "bias": (3, 4)},
            },
            "norm": {"scale": (4,), "bias": (4,)},
        },
        "embed": {"kernel": (4, 4), "bias": (4,)},
        "mask_token": (4,),
        "object_embedding": (3, 4),
        "positions": (6, 4),
    }
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def test_rates_fall_by_layers_towards_the_input(config):
    """By the table of BEiT: layer 0 is the embedding, block i is layer i + 1, what follows has the full rate."""
    tree = {"encoder": {**params(), "tokenizer": params()["embed"]}, "predictor": params()}
    config.layer_decay, config.weight_decay = 0.5, 0.3
    gradient = jax.tree.map(np.ones_like, tree)
    config_plain = config.copy_and_resolve_references()
    config_plain.layer_decay = 1.0

    def updated(c):
        optimizer = optim.make(c)
        return jax.device_get(jax.jit(optimizer.update)(gradient, optimizer.init(tree), tree)[0])

    scaled, plain = (updated(c) for c in (config, config_plain))
    ratio = jax.tree.map(lambda a, b: a / b, scaled, plain)
    for name in ("mask_token", "object_embedding"):
        np.testing.assert_allclose(ratio["encoder"][name], 0.5**4, rtol=1e-6)
    np.testing.assert_allclose(ratio["encoder"]["tokenizer"]["kernel"], 0.5**4, rtol=1e-6)
    for leaf in jax.tree.leaves(ratio["encoder"]["stack"]["blocks"]):
        for layer, value in enumerate((0.5**3, 0.5**2, 0.5)):
            np.testing.assert_allclose(leaf[layer], value, rtol=1e-6)
    for leaf in jax.tree.leaves((ratio["encoder"]["stack"]["norm"], ratio["predictor"])):
        np.testing.assert_allclose(leaf, 1.0, rtol=1e-6)
    config.freeze = ("predictor",)
    frozen = updated(config)
    np.testing.assert_allclose(frozen["encoder"]["tokenizer"]["kernel"], scaled["encoder"]["tokenizer"]["kernel"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen["predictor"]))


def test_the_cooldown_is_a_share_and_leaves_room_for_the_warm_up(config):
    config.warmup_share, config.cooldown = 0.3, 0.2
    assert (optim.warmup_steps(config, 1000, 10.0), optim.cooldown_steps(config, 1000)) == (300, 200)
    config.warmup_share = 0.9
    assert optim.warmup_steps(config, 1000, 10.0) == 800
    config.cooldown = 0.0
    assert optim.cooldown_steps(config, 1000) == 0


def test_decay_is_on_matrices_only():
    flat, _ = jax.tree_util.tree_flatten_with_path(optim.matrices(params()))
    for path, decayed in flat:
        assert decayed == (path[-1].key == "kernel"), path


def test_three_steps_are_adamw_as_published(config):
    """arXiv 1711.05101, algorithm 2, in float64 NumPy: every leaf, every step, with gradients that change."""
    tree, rate = params(), 3e-3
    flat = {jax.tree_util.keystr(path): np.asarray(x, np.float64) for path, x in jax.tree.leaves_with_path(tree)}
    mean, square = ({name: np.zeros_like(x) for name, x in flat.items()} for _ in range(2))
    ours = optim.make(config)
    state, update = ours.init(tree), jax.jit(ours.update)
    for step in (1, 2, 3):
        gradient = jax.tree.map(lambda x: np.sin(7 * step * x), tree)  # noqa: B023
        updates, state = jax.device_get(update(gradient, state, tree))
        for (path, g), u in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(updates), strict=True):
            name, g = jax.tree_util.keystr(path), np.asarray(g, np.float64)
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.95 * square[name] + 0.05 * g**2
            move = mean[name] / (1 - 0.9**step) / (np.sqrt(square[name] / (1 - 0.95**step)) + 1e-8)
            expected = move + 0.05 * flat[name] * name.endswith("['kernel']")
            np.testing.assert_allclose(u, expected, rtol=2e-5, atol=1e-6, err_msg=f"step {step}: {name}")
            flat[name] = flat[name] - rate * expected
        tree = jax.tree.map(lambda x, u: x - rate * u, tree, updates)


def test_decay_shrinks_kernels_and_nothing_else(config):
    p = params()
    transform = optim.make(config)
    updates, _ = jax.jit(transform.update)(jax.tree.map(np.zeros_like, p), transform.init(p), p)
    for (path, update), value in zip(jax.tree_util.tree_flatten_with_path(updates)[0], jax.tree.leaves(p), strict=True):
        np.testing.assert_allclose(update, 0.05 * value if path[-1].key == "kernel" else 0 * value, err_msg=str(path))


def test_clipping_is_global_and_optional(config):
    p = params()
    gradient = jax.tree.map(lambda x: 100 * x, p)
    config.b1 = config.b2 = 0.0
    config.eps, config.weight_decay = 1e3, 0.0  # so the update is nearly the gradient / eps
    clipped_config = config.copy_and_resolve_references()
    clipped_config.clip = 1.0
    norms = []
    for c in (config, clipped_config):
        updates, _ = jax.jit(optim.make(c).update)(gradient, optim.make(c).init(p), p)
        norms.append(np.sqrt(sum(np.square(update).sum() for update in jax.tree.leaves(updates))))
    assert norms[0] > 0.1 and norms[1] == pytest.approx(1e-3, rel=1e-2)


def test_peak_by_the_linear_scaling_rule(config):
    assert optim.peak_rate(config, 1024) == pytest.approx(6e-4)
    assert optim.peak_rate(config, 256) == pytest.approx(1.5e-4)
    assert optim.peak_rate(config, 32) == pytest.approx(1.875e-5)
    config.peak = 1e-3
    assert optim.peak_rate(config, 32) == 1e-3


def test_warmup_by_epochs_by_share_and_never_longer_than_the_run(config):
    assert optim.warmup_steps(config, 30_000, 97.65625) == round(40 * 97.65625)
    assert optim.warmup_steps(config, 100, 97.65625) == 100
    config.warmup_share = 0.06
    assert optim.warmup_steps(config, 1000, 97.65625) == 60
