"""AdamW as optax has it, decay on matrices only, and the rules of the peak and the warm-up."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def test_decay_is_on_matrices_only():
    flat, _ = jax.tree_util.tree_flatten_with_path(optim.matrices(params()))
    for path, decayed in flat:
        assert decayed == (path[-1].key == "kernel"), path


def test_one_step_equals_optax_adamw(config):
    p, rate = params(), 3e-3
    gradient = jax.tree.map(lambda x: jnp.sin(7 * x), p)
    kernels = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", p)
    reference = optax.adamw(rate, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.05, mask=kernels)
    ours, state, reference_state = optim.make(config), optim.make(config).init(p), reference.init(p)
    for _ in range(2):
        updates, state = ours.update(gradient, state, p)
        expected, reference_state = reference.update(gradient, reference_state, p)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(-rate * a, b, rtol=1e-6), updates, expected)
        p = optax.apply_updates(p, expected)


def test_decay_shrinks_kernels_and_nothing_else(config):
    p = params()
    transform = optim.make(config)
    updates, _ = transform.update(jax.tree.map(jnp.zeros_like, p), transform.init(p), p)
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
        updates, _ = optim.make(c).update(gradient, optim.make(c).init(p), p)
        norms.append(float(optax.global_norm(updates)))
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
