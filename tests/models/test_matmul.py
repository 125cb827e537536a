"""Products in a narrow type: their values, their gradients and what the hardware is asked to multiply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.models.matmul import product

SHAPES = {"mk,kn->mn": ((6, 5), (5, 4)), "bhtd,bhud->bhtu": ((2, 3, 4, 5), (2, 3, 6, 5))}


@pytest.mark.parametrize("spec", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_values_and_gradients_match_einsum(spec, dtype, tolerance):
    a, b = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(SHAPES[spec]))
    weight = jax.random.normal(jax.random.key(2), np.einsum(spec, a, b).shape)
    ours = jax.value_and_grad(lambda a, b: (product(spec, a, b, dtype) * weight).sum(), (0, 1))(a, b)
    wanted = jax.jit(jax.value_and_grad(lambda a, b: (jnp.einsum(spec, a, b) * weight).sum(), (0, 1)))(a, b)
    for have, want in zip(*(map(np.asarray, jax.tree.leaves(found)) for found in (ours, wanted)), strict=True):
        assert have.dtype == jnp.float32
        scale = np.abs(want).max()
        np.testing.assert_allclose(have / scale, want / scale, atol=tolerance)


def test_every_product_of_the_gradient_is_narrow():
    a, b = jnp.ones((6, 5)), jnp.ones((5, 4))
    gradient = jax.make_jaxpr(jax.grad(lambda a, b: product("mk,kn->mn", a, b, "bfloat16").sum(), (0, 1)))(a, b)
    types = []

    def collect(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                types.extend(str(v.aval.dtype) for v in equation.invars)
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    collect(inner)

    collect(gradient.jaxpr)
    assert set(types) == {"bfloat16"}


def test_weight_gradients_sum_over_the_last_axis_of_their_first_operand():
    # The form that XLA:CPU multiplies in bfloat16, and a fixed layout, which it cannot fold into the product again.
    a, b = jnp.ones((6, 5)), jnp.ones((5, 4))
    gradient = jax.jit(jax.grad(lambda b: product("mk,kn->mn", a, b, "bfloat16").sum()))
    lines = gradient.lower(b).as_text().splitlines()
    (last,) = [line for line in lines if "dot_general" in line and "tensor<5x4xf32>" in line.rpartition("->")[2]]
    assert "contracting_dims = [1] x [0]" in last
    assert sum("LayoutConstraint" in line for line in lines) == 3  # both operands and the result


@pytest.mark.parametrize("over", [None, (0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("turned", [False, True])
def test_compiled_it_is_the_product_whatever_is_transposed_or_mapped(over, turned):
    """Programs in which XLA:CPU read a result of fixed layout as if it were transposed, or could not multiply."""
    a, b = (np.asarray(jax.random.normal(jax.random.key(i), shape)) for i, shape in enumerate(((16, 24), (24, 16))))

    def gradients(multiply):
        def loss(a, b):
            out = multiply(a.T, b.T) if turned else multiply(a, b)
            return (jnp.tanh(out).T ** 2).sum()

        return jax.grad(loss, (0, 1))

    def reference(a, b):
        return jnp.matmul(a, b, precision="highest")

    mapped = [np.stack([x.T if turned else x, -x.T if turned else -x]) for x in (a, b)]
    args = [many if over and axis == 0 else many[0] for many, axis in zip(mapped, over or (None, None), strict=True)]
    ours, wanted = gradients(lambda a, b: product("mk,kn->mn", a, b, "bfloat16")), gradients(reference)
    if over:
        ours, wanted = jax.vmap(ours, over), jax.vmap(wanted, over)
    for have, want in zip(*(map(np.asarray, jax.jit(each)(*args)) for each in (ours, wanted)), strict=True):
        assert np.linalg.norm(have - want) < 0.03 * np.linalg.norm(want)


def test_what_is_transposed_afterwards_or_before_still_compiles():
    # XLA folds these transpositions into products, and then had none for the operands that came out.
    spec = "mk,kn->mn"
    a, b = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(SHAPES[spec]))

    def loss(a, b):
        flipped = product(spec, a.swapaxes(-1, -2), b.swapaxes(-1, -2), "bfloat16").swapaxes(-1, -2)
        return (flipped.astype(jnp.bfloat16) * flipped).sum()

    a, b = a.swapaxes(-1, -2), b.swapaxes(-1, -2)
    gradients = jax.jit(lambda a, b: [g.swapaxes(-1, -2) for g in jax.grad(loss, (0, 1))(a, b)])(a, b)
    for ours, wanted in zip(gradients, jax.grad(loss, (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(ours, wanted.swapaxes(-1, -2), rtol=0.05, atol=0.05)
