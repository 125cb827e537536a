"""Products in a narrow type: their values, their gradients and what the hardware is asked to multiply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cjepa_jax.models.layers import Dense, Mlp
from cjepa_jax.models.matmul import narrow, product

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


@pytest.fixture
def products(monkeypatch):
    return lambda kind: monkeypatch.setenv("CJEPA_PRODUCTS", kind)


@pytest.mark.parametrize(("backend", "dtype", "asked", "expected"), [
    ("cpu", "bfloat16", "", False),
    ("gpu", "bfloat16", "", True),
    ("tpu", "bfloat16", "auto", True),
    ("gpu", "float32", "", False),
    ("gpu", "bfloat16", "wide", False),
    ("cpu", "bfloat16", "narrow", True),
    ("cpu", "float32", "narrow", False),
])  # fmt: skip
def test_layers_are_narrow_on_accelerators(monkeypatch, products, backend, dtype, asked, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    products(asked)
    assert narrow(dtype) == expected


def layer(rows=6, width=5, features=4, **options):
    """(its function of parameters and input, parameters with a bias, bfloat16 input)."""
    x = jax.random.normal(jax.random.key(0), (rows, width)).astype(jnp.bfloat16)
    module = Dense(features, "bfloat16", **options)
    params = module.init(jax.random.key(1), x)["params"]
    return lambda params, x: module.apply({"params": params}, x), params | {"bias": 1.0 + jnp.arange(features) / 7}, x


def test_on_a_cpu_a_layer_rounds_once(products):
    apply, params, x = layer()
    exact = np.asarray(x, np.float64) @ np.asarray(params["kernel"].astype(jnp.bfloat16), np.float64) + params["bias"]
    products("auto")
    np.testing.assert_array_equal(apply(params, x), jnp.asarray(exact, jnp.float32).astype(jnp.bfloat16))


def test_gradients_of_narrow_layers_parameters_are_float32_sums(products):
    products("narrow")
    apply, params, x = layer(rows=4097)
    gradient, of_x = jax.jit(jax.grad(lambda *args: apply(*args).astype(jnp.float32).sum(), (0, 1)))(params, x)
    assert (gradient["bias"] == 4097).all()  # a bfloat16 sum of ones stops at 256
    np.testing.assert_allclose(gradient["kernel"][:, 0], np.asarray(x, np.float64).sum(0), rtol=1e-5, atol=1e-3)
    assert {leaf.dtype.name for leaf in gradient.values()} == {"float32"} and of_x.dtype == jnp.bfloat16


def test_an_output_in_float32_is_never_rounded(products):
    apply, params, x = layer(result=jnp.float32)
    products("wide")
    wide = apply(params, x)
    products("narrow")
    np.testing.assert_array_equal(apply(params, x), wide)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_narrow_product_leaves_the_matrix_unit_narrow(products, platform):
    products("narrow")
    apply, params, x = layer()

    @jax.jit
    def both(params, x, slope):
        out, backward = jax.vjp(apply, params, x)
        return out, backward(slope)

    lines = export.export(both, platforms=[platform])(params, x, apply(params, x)).mlir_module().splitlines()
    made = [line.rpartition("-> ")[2].split(">")[0] for line in lines if "stablehlo.dot_general" in line]
    assert made == ["tensor<6x4xbf16", "tensor<6x5xbf16", "tensor<5x4xf32"]  # output, gradient of x, of the kernel
    assert not [line for line in lines if "stablehlo.convert" in line and "(tensor<6x4xf32>)" in line]


def test_narrow_products_add_little_to_the_error_of_bfloat16(products):
    """Against float32: relative errors of an MLP's output, and of all its gradients together."""
    x = jax.random.normal(jax.random.key(0), (36, 48))
    mlp = {dtype: Mlp(dtype=jnp.dtype(dtype)) for dtype in ("float32", "bfloat16")}
    params = mlp["float32"].init(jax.random.key(1), x)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)

    def found(kind, dtype):
        def loss(params):
            out = mlp[dtype].apply(params, x).astype(jnp.float32)
            return jnp.sin(out).sum(), out

        products(kind)
        (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return np.ravel(out), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])

    exact = found("wide", "float32")
    wide, narrowed = (
        [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found(kind, "bfloat16"), exact, strict=True)]
        for kind in ("wide", "narrow")
    )
    assert wide != narrowed and max(narrowed) < 0.02
    assert all(ours < 1.2 * theirs for ours, theirs in zip(narrowed, wide, strict=True))
