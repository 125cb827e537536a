"""The protocol on an encoder of which it is known what it uses, and on one that is blind."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.evals import causal_layer, causal_states, causal_tables, subspaces
from cjepa_jax.evals.base import Inside, Model
from cjepa_jax.evaluate import _plain
from tests.evals import benches

CLASSES, PATCHES, WIDTH = 4, 4, 24
LEVELS = np.array([[60, 60], [60, 160], [160, 60], [160, 160]])  # red and green of a class
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
READ = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Colours:
    """Clips whose class is in red and green of all four patches. Blue is a nuisance, another one in each patch."""

    split: str = "train"
    count: int = 1
    label_names = ("blue", "unrelated")
    can_rerender = False

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        rng = np.random.default_rng([i, len(self.split)])
        return self._drawn(rng, int(rng.integers(CLASSES)))

    def twin(self, i, value):
        rng = np.random.default_rng([i, len(self.split)])
        rng.integers(CLASSES)
        return self._drawn(rng, value)["video"]

    def _drawn(self, rng, c):
        noise, blue = rng.normal(0, 25, (4, 2)), rng.uniform(0, 250, 4)
        level = np.concatenate([LEVELS[c] + noise, blue[:, None]], 1).reshape(2, 2, 3)
        level = level.repeat(8, 0).repeat(8, 1)
        video = np.clip(level + rng.normal(0, 6, (2, 16, 16, 3)), 0, 255).astype(np.uint8)
        labels = np.array([blue[0], rng.normal()], np.float32)
        return {"video": video, "masks": np.zeros((0, 2, 16, 16), bool), "labels": labels, "class": np.int64(c)}


def before(params, video, layer):
    """Each patch's colours in three numbers for that patch, 12 in all, and an inert copy. Layer 0 turns them."""
    b = video.shape[0]
    cells = video.astype(jnp.float32).reshape(b, 2, 2, 8, 2, 8, 3).mean((1, 3, 5)).reshape(b, 4, 3) / 100 - 1
    placed = (cells[:, :, None] * jnp.eye(PATCHES)[:, :, None]).reshape(b, 4, 12)
    tokens = jnp.concatenate([placed, placed], -1)
    return params * jnp.where(layer == 0, tokens @ TURN, tokens)


def after(params, tokens, layer, grid):
    """Reads the first 12 numbers."""
    tokens = jnp.where(layer == 0, tokens @ TURN.T, tokens)[..., :12]
    return jnp.tanh(tokens.reshape(*tokens.shape[:-1], 4, 3).sum(-2) @ READ)


def model(name="trained", sees=1.0, after=after):
    """sees = 0: the same tokens for all clips."""
    params = np.float32(sees)

    def states(video):
        return np.stack([np.asarray(before(params, video, np.int32(layer))) for layer in (0, 1)])

    def encode(video):
        return np.asarray(after(params, states(video)[1], 1, None))

    inside = Inside(1, states, None, None, params, before, after)
    return Model(name, encode, lambda hidden: None, inside=inside)


def bench(source=Colours, **options):
    made = benches.bench(lambda split, count: source(split, count), 16, 2, 120, 80, model(), **options)
    return dataclasses.replace(made, randoms=(model("random init 0", 0.0),), batch=64)


def make(**options):
    return causal_states.CausalStates(nuisances=("blue", "hue"), **options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def result(cache):
    return make(cache=cache).run(bench())


def value(result, metric, row="trained"):
    return benches.by_row(result, metric)[row]


@pytest.mark.parametrize("layer", [0, 1])
def test_what_is_used_is_found(result, layer):
    assert value(result, "readout") > 0.9 and value(result, f"probe/layer {layer}") > 0.9
    assert value(result, f"effect/means/layer {layer}") > 0.5 < value(result, f"effect/gradient/layer {layer}")
    assert value(result, f"ratio from/means/layer {layer}") > 1
    rows = benches.by_row(result, f"effect/means/layer {layer}")
    assert rows.keys() == {"trained", "random init", *causal_tables.FLOORS.values()}
    floors = [rows[row] for row in causal_tables.FLOORS.values()]
    assert value(result, f"ratio/means/layer {layer}") == pytest.approx(rows["trained"] / max(floors))
    swapped = benches.by_row(result, f"interchange/gradient/layer {layer}")
    assert swapped["all of the twin"] > 0.9 > 0.5 > swapped["random subspace"] and swapped["trained"] > 0.8
    steered = benches.by_row(result, f"steering, a = 1/layer {layer}")  # from mean to mean
    assert steered["trained"] > 0.9 > 0.5 > steered["shuffled labels"]
    retained = value(result, f"rce of halves/layer {layer}")
    assert 0.5 < retained < 1.5


def test_ratios_and_shares_have_no_floors(result):
    """A report would count a larger share of the variance as a success."""
    with_floors = {score.metric.split("/")[0] for score in result.scores if score.kind == "floor"}
    cca = "cca with a random init, held out"
    assert with_floors == {"readout", "effect", "probe", "interchange", "steering, a = 1", "steering, a = 3", cca}


def test_means_hold_the_inert_copy_and_the_gradient_does_not(result):
    """Layer 1 holds the class twice. The readout depends on one copy."""
    u = {name: value(result, f"effect/{name}/layer 1") for name in ("means", "gradient")}
    assert u["gradient"] > 0.5 and u["means"] > 0.5
    study = make().study(model(), make().clips(bench()), bench())
    layer = causal_layer.Layer(study, 1)
    bases = {name: layer.extract(name, study.clips.y) for name in u}
    copied = {name: np.square(basis[12:]).sum() / basis.shape[1] for name, basis in bases.items()}
    assert copied["means"] == pytest.approx(0.5, abs=0.02) and copied["gradient"] < 1e-6
    inert = np.eye(WIDTH)[:, 12:15]
    np.testing.assert_array_equal(layer.output(inert, layer.centre), layer.clean)  # to the bit
    np.testing.assert_array_equal(layer.output(np.zeros((WIDTH, 3)), layer.centre), layer.clean)


def test_a_blind_encoder_has_no_causal_state(result):
    for layer in (0, 1):
        assert value(result, f"effect/means/layer {layer}", "random init") == pytest.approx(0, abs=1e-6)
        assert value(result, f"ratio from/means/layer {layer}", "random init") <= 1
    alone = dataclasses.replace(bench(), model=model(sees=0.0), randoms=())
    found = make(extractors=("means",), layers=(1,)).run(alone)
    assert np.isnan(value(found, "rce of halves/layer 1")) and value(found, "ratio from/means/layer 1") <= 1
    assert any("rce of halves not defined" in note for note in found.notes)
    json.dumps(_plain(found), allow_nan=False)


def test_finished_layers_are_not_measured_again(result, cache, monkeypatch):
    monkeypatch.setattr(causal_layer.Study, "measure", None)
    again = make(cache=cache, layers=(1,)).run(bench())
    metrics = {score.metric for score in again.scores}
    assert "effect/means/layer 1" in metrics and "effect/means/layer 0" not in metrics
    for score in again.scores:
        assert score.value == pytest.approx(value(result, score.metric, score.row), nan_ok=True)
    with pytest.raises(TypeError):
        make(cache=cache, draws=13).run(bench())
    other = model(after=lambda params, *rest: after(params, *rest).astype(jnp.bfloat16).astype(jnp.float32))
    with pytest.raises(TypeError):  # equal parameters that compute otherwise
        make(cache=cache, layers=(1,)).run(dataclasses.replace(bench(), model=other))


@pytest.fixture(scope="module")
def layer():
    """Layer 1, with class_pca as the first controlled extractor."""
    protocol = make(extractors=("class_pca", "means"), controlled=("class_pca",))
    made = bench()
    return causal_layer.Layer(protocol.study(model(), protocol.clips(made), made), 1)


def test_controls_have_the_rank_and_the_share_of_their_subspace(layer):
    u = layer.extract("means", layer.clips.y)
    drawn = dict(layer.controls("means", u))
    assert drawn.keys() == causal_tables.FLOORS.keys() and u.shape == (WIDTH, CLASSES - 1)
    for bases in drawn.values():
        assert len(bases) == 12 and all(basis.shape == u.shape for basis in bases)
        np.testing.assert_allclose([basis.T @ basis for basis in bases], [np.eye(3)] * 12, atol=1e-9)
    share, *others = (subspaces.share_of_variance(v, layer.covariance) for v in (u, *drawn["variance"]))
    np.testing.assert_allclose(others, share, rtol=0.01)


def test_interchange_has_random_subspaces_of_each_extractors_rank(layer, monkeypatch):
    bases = {"class_pca": np.eye(WIDTH)[:, :5], "means": np.eye(WIDTH)[:, :2]}
    ranks, basis = [], subspaces.random_basis
    monkeypatch.setattr(subspaces, "random_basis", lambda *a: ranks.append(a[2]) or basis(*a))
    found = layer.interchanged(bases)
    assert ranks == [5] * 12 + [2] * 12
    assert found["swap.means.random"].shape == found["swap.class_pca.random"].shape == (12, 80)


def test_halves_are_of_the_first_controlled_extractor(layer):
    u = layer.extract("class_pca", layer.clips.y)
    assert len(layer.halves()["angles"]) == u.shape[1] > CLASSES - 1


def test_the_output_is_that_of_ablated_interchanged_and_shifted_tokens(layer):
    u = subspaces.random_basis(np.random.default_rng(0), WIDTH, 3).astype(np.float32)
    clips, layers = layer.clips, layer.study.layers
    x, twins = (np.asarray(before(np.float32(1), video, 1)) for video in (clips.other, clips.twins))
    shift = np.random.default_rng(1).normal(size=(len(x), WIDTH)).astype(np.float32)
    for aim, moved in (
        (layer.centre, x - (x - layer.centre) @ u @ u.T),
        (layers.tokens(clips.twins, 1), x + (twins - x) @ u @ u.T),
        (layers.shifted(layer.own, shift), x + (shift @ u @ u.T)[:, None]),
    ):
        expected = np.asarray(after(np.float32(1), moved.astype(np.float32), 1, None)).mean(1)
        np.testing.assert_allclose(layer.output(u, aim), expected, atol=1e-5)


def test_a_variable_is_not_its_own_nuisance():
    class Counted(Colours):
        label_names = ("kind", "blue")

        def __getitem__(self, i):
            scene = super().__getitem__(i)
            return scene | {"labels": np.array([scene["class"], scene["labels"][0]], np.float32)}

    for label in ("kind", 0):
        clips = causal_states.CausalStates(label=label, nuisances=("kind", "blue")).clips(bench(Counted))
        assert clips.named == ("blue",)


def test_a_source_without_twins_and_without_nuisances():
    class Bare(Colours):
        label_names = ()

        def __getitem__(self, i):
            return super().__getitem__(i) | {"labels": np.zeros(0, np.float32)}

    Bare.twin = property()  # hasattr is False
    bare = dataclasses.replace(bench(Bare), randoms=())
    found = make(extractors=("gradient",), controlled=("gradient",), layers=(1,), per_time=True).run(bare)
    metrics = {score.metric for score in found.scores}
    assert not any("interchange" in metric for metric in metrics)
    rows = benches.by_row(found, "effect/gradient/layer 1")
    assert rows.keys() == {"trained", *list(causal_tables.FLOORS.values())[:3]}
    assert sum("No interchange" in note or "No nuisance" in note for note in found.notes) == 2
    assert (
        value(found, "ratio to random subspace/gradient/layer 1")
        > 2
        < value(found, "ratio to same variance/gradient/layer 1")
    )
    # Here all that is read is one subspace, which gradients find under any labels.
    assert value(found, "ratio from/gradient/layer 1") == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"draws": 11}, "draws = 11: must be an integer from 12"),
        ({"extractors": ("pca",)}, r"extractors = \('pca',\): must be of"),
        (
            {"extractors": ("means",), "controlled": ("gradient",)},
            r"controlled = \('gradient',\): must be of \('means'",
        ),
        ({"layers": (-1,)}, r"layers = \(-1,\): must be integers from 0"),
        ({"strengths": ()}, r"strengths = \(\): must be numbers"),
        ({"strengths": (float("nan"),)}, r"strengths = \(nan,\): must be numbers"),
        ({"strengths": 3.0}, r"strengths = 3.0: must be a tuple, such as \(1.0,\)"),
        ({"layers": 3}, r"layers = 3: must be a tuple, such as \(2,\)"),
        ({"nuisances": "speed"}, r"nuisances = 'speed': must be a tuple, such as \('speed',\)"),
        ({"nuisances": (1,)}, r"nuisances = \(1,\): must be names of labels"),
        ({"extractors": "means"}, r"extractors = 'means': must be a tuple, such as \('means',\)"),
        ({"extractors": ([],)}, r"extractors = \(\[\],\): must be of"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(ConfigError, match=f"^evals.protocols: CausalStates.{text}"):
        causal_states.CausalStates(**options)


def test_what_cannot_be_asked():
    with pytest.raises(ConfigError, match=r"CausalStates.layers = \(2,\) needs layers up to 1"):
        make(layers=(2,)).run(bench())
    with pytest.raises(ConfigError, match="needs a model whose encoder is a Transformer"):
        make().run(dataclasses.replace(bench(), model=benches.colours()))
    with pytest.raises(ConfigError, match="CausalStates.label = 'shape' needs a label of that name"):
        make(label="shape").run(bench())
