"""Causal terms on slots: the public code's numbers, what each graph says, and what each term compares."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from cjepa_jax import microbatch
from cjepa_jax.errors import ConfigError
from cjepa_jax.objectives import ctt, graphs
from cjepa_jax.objectives.ctt import Ctt
from tests.models.test_slot_predictor import golden, of, visible_of
from tests.objectives.test_slots import PREDICTOR, batch, params

CTT = Ctt(PREDICTOR, history=3, future=2, steps=10, start_epoch=0, consistency=0.3)


def test_the_published_graph_and_both_losses_are_those_of_the_public_code():
    numbers, model, weights, history, slots = of("predictor")
    wanted, x = golden("ctt"), numbers["x"]
    there = np.ones(x.shape[:3], bool)
    masked = visible_of(x, history, [1, 4])
    apply = jax.jit(lambda p, v: model.apply({"params": p}, x, v))
    graph = graphs.published(apply(weights, masked)[1]["attention"][-1], history, x.shape[1], slots)
    np.testing.assert_allclose(graph, wanted["adjacency"], atol=1e-6)
    np.testing.assert_allclose(graph.sum(-1), 1 / x.shape[1], atol=1e-6)
    mean = np.asarray(graph).mean(0)  # the public code's graph is the batch's mean
    j, k = int(wanted["slot_masked_for_invariance"]), int(wanted["slot_target_of_sufficiency"])
    others = np.stack([(mean[:, j] < limit) & ~np.isin(range(5), (j, 1, 4)) for limit in wanted["thresholds"]])
    apart = np.stack([(mean[k] < limit) & (np.arange(5) != k) for limit in wanted["thresholds"]])

    def both(p, others, apart):
        one = {slot: np.broadcast_to(np.arange(5) == slot, (3, 5)) for slot in (j, k)}
        clean = apply(p, masked)[0][:, history:]
        without = apply(p, graphs.ablated(masked, there, one[j], "mask")[0])[0][:, history:]
        first = ctt.invariance(without, clean, jnp.broadcast_to(others, (3, 5))).mean()
        alone = graphs.ablated(visible_of(x, history, []), there, jnp.broadcast_to(apart, (3, 5)), "mask")[0]
        second = ctt.sufficiency(apply(p, alone)[0][:, history:], x[:, history:], one[k]).mean()
        return jnp.stack([first, jnp.where(apart.any(), second, 0)])  # there it is 0 where all are neighbours

    both, slopes = jax.jit(both), jax.jit(jax.jacrev(both))
    for row in range(4):
        names = ("invariance", "sufficiency")
        np.testing.assert_allclose(both(weights, others[row], apart[row]), [wanted[n][row] for n in names], atol=1e-6)
        leaves = jax.tree.leaves(slopes(weights, others[row], apart[row]))
        norms = np.sqrt(sum(np.square(leaf).reshape(2, -1).sum(1) for leaf in leaves))
        np.testing.assert_allclose(norms, [wanted[f"grad_norm_{n}"][row] for n in names], rtol=1e-5)


def test_the_effect_of_masking_is_that_of_the_public_code_and_dropping_leaves_nothing_of_a_slot():
    numbers, model, weights, history, slots = of("predictor")
    x = numbers["x"]
    visible, there = visible_of(x, history, []), np.ones(x.shape[:3], bool)
    there[2, :, 3] = False
    predict = jax.jit(lambda v, p: model.apply({"params": weights}, x, v, p)[0])
    found = graphs.effects(predict, visible, jnp.ones_like(there), history=history, slots=slots, removal="mask")
    np.testing.assert_allclose(found, golden("ablation_graph")["effect"], atol=1e-6)
    dropped = np.asarray(graphs.effects(predict, visible, there, history=history, slots=slots, removal="drop"))
    assert np.abs(dropped[:2]).min() > 1e-6
    assert np.abs(dropped[2, [0, 1, 2, 4], 3]).max() < 1e-10  # an absent slot has no effect


def test_shares_of_attention_add_up_to_nothing_and_are_even_for_even_weights():
    rng = np.random.default_rng(0)
    there = np.array([[True] * 4, [True, True, False, True]])
    weights = rng.dirichlet(np.ones(20), (2, 20)).astype(np.float32)
    weights = np.where(np.tile(there, (1, 5))[:, None], weights, 0)
    found = np.asarray(graphs.attention(weights, there, 3, 5))
    np.testing.assert_allclose(found.sum(-1), 0, atol=1e-6)
    assert not found[1, 2].any() and not found[1, :, 2].any() and not np.diagonal(found, axis1=1, axis2=2).any()
    split = weights.reshape(2, 5, 4, 5, 4)[:, 3:].mean(1).sum(2)
    own = split[0, 1, [0, 2, 3]]
    np.testing.assert_allclose(found[0, 1, [0, 2, 3]], own / own.sum() - 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(graphs.attention(np.ones_like(weights), there, 3, 5), 0, atol=1e-6)


def test_objects_take_turns():
    among = np.array([[True, False, True, True], [False] * 4])
    seen = [np.flatnonzero(ctt.chosen(among, np.array([turn, turn]))[0]).tolist() for turn in range(4)]
    assert seen == [[0], [2], [3], [0]]
    assert not ctt.chosen(among, np.array([1, 1]))[1].any()


def given(graph):
    """The batch with what the graph needs."""
    contacts = np.zeros((8, 5, 5), bool)
    contacts[:, 0, 1] = contacts[:, 1, 0] = True
    other = batch().video.at[:, :, :, 1].add(0.1)  # slot 1 changes without the removed ones
    other = jnp.where(batch().removed[:, None, None, :4, None], 0, other)
    valid = jnp.ones(8, bool)
    return dataclasses.replace(batch(), graph=jnp.asarray(contacts), intervened=other, intervened_valid=valid)


@functools.cache
def step(graph):
    """(objective, its fresh state, loss and gradient of the whole batch)."""
    objective = dataclasses.replace(CTT, graph=graph)
    state = jax.jit(objective.init)(jax.random.key(0), given(graph))
    whole = jax.jit(functools.partial(microbatch.loss_and_grad(objective, 1, None), key=jax.random.key(0), step=0))
    return objective, state, whole


@pytest.mark.parametrize("graph", ["attention", "effects", "gates", "true", "intervened"])
def test_every_graph_gives_finite_terms_that_are_added_by_their_weights(graph):
    objective, state, whole = step(graph)
    (loss, (metrics, extra)), gradient = whole(*state, given(graph))
    parts = {name: float(metrics[f"loss/{name}"]) for name in ctt.TERMS if f"loss/{name}" in metrics}
    base = float(metrics["loss/history"] + metrics["loss/future"])
    weighted = sum(getattr(objective, name) * value for name, value in parts.items())
    np.testing.assert_allclose(loss, base + weighted, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)) and parts["consistency"] > 0
    if graph == "effects":  # its threshold is not known before the first step
        assert parts["invariance"] == 0 and extra["seen"] > 0 and extra["quantile"] > 0
        (_, (later, _)), _ = whole(*state[:2], extra, given(graph))
        assert later["loss/invariance"] > 0 and 0.1 < later["graph_density"] < 0.5  # the upper quarter
    elif graph == "gates":  # all are open at first, so every object is a neighbour
        assert metrics["graph_density"] == 1 and parts["sufficiency"] == 0 == parts["invariance"] <= parts["gates"]
    else:
        assert parts["sufficiency"] > 0 and 0 <= metrics["graph_density"] <= 1


def test_before_its_epoch_no_term_is_added():
    objective, state, _ = step("true")
    late = dataclasses.replace(objective, start_epoch=1)
    early = jax.jit(lambda p: late.loss(p, *state[1:], given("true"), jax.random.key(0), 0))(state[0])
    np.testing.assert_allclose(early[0], early[1][0]["loss/history"] + early[1][0]["loss/future"], rtol=1e-6)


def test_unlinked_pairs_are_those_of_different_groups_of_contacts():
    rng = np.random.default_rng(0)
    contacts = rng.random((40, 6, 6)) < 0.12
    contacts[0] = np.eye(6, k=1)  # a chain of all
    there = rng.random((40, 6)) < 0.8
    found = np.asarray(graphs.unlinked(jnp.asarray(contacts), jnp.asarray(there)))
    for b in range(40):
        groups = connected_components(contacts[b], directed=False)[1]
        wanted = (groups[:, None] != groups) & there[b][:, None] & there[b]
        np.testing.assert_array_equal(found[b], wanted)
    assert not found[0].any() and 0 < found.mean() < 1


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_planted_effects_are_found_by_the_quantile_of_pairs_that_cannot_interact_however_many_there_are(share):
    """Effects of unlinked pairs are noise, those of linked ones larger. All pairs' quantile finds a quarter."""
    rng, shape, edges = np.random.default_rng(1), (64, 6, 6), {}
    there = jnp.ones(shape[:2], bool)
    extra = {name: {"quantile": jnp.zeros(()), "seen": jnp.zeros(())} for name in ("all", "unlinked")}
    for _ in range(60):
        group = rng.random((64, 6)) < share  # whose members touch each other
        linked = group[:, :, None] & group[:, None] & ~np.eye(6, dtype=bool)
        effects = jnp.asarray(np.where(linked, rng.uniform(5, 50, shape), rng.exponential(1, shape)), jnp.float32)
        null = graphs.unlinked(jnp.asarray(linked), there)
        for name, where in (("all", graphs.pairs(there)), ("unlinked", null)):
            objective = dataclasses.replace(CTT, graph="effects", quantile_of=name)
            extra[name] = ctt._following(extra[name], effects, where, objective.limit)
            edges[name] = np.asarray(effects > extra[name]["quantile"] / extra[name]["seen"])
    off = ~np.eye(6, dtype=bool) & np.ones(shape, bool)
    np.testing.assert_allclose(edges["all"][off].mean(), 0.25, atol=0.05)
    assert edges["unlinked"][linked].mean() == 1
    np.testing.assert_allclose(edges["unlinked"][off & ~linked].mean(), 0.05, atol=0.03)


def test_the_threshold_of_unlinked_pairs_is_their_quantile_and_needs_a_graph():
    objective = dataclasses.replace(CTT, graph="effects", quantile_of="unlinked")
    state, scenes = jax.jit(objective.init)(jax.random.key(0), given("effects")), given("effects")

    @jax.jit
    def once(params, target, extra):
        after = objective.loss(params, target, extra, scenes, jax.random.key(0), 0)[1][1]
        found = objective._pass(params, scenes, jax.random.key(0))
        return after, objective._graph(target, extra, scenes, found)[0], found.present[:, 0, :4]

    extra, shown, there = jax.tree.map(np.asarray, once(*state))
    null = there[:, :, None] & there[:, None] & ~np.eye(4, dtype=bool)
    null[:, 0, 1] = null[:, 1, 0] = False  # the only contact
    quantile = extra["quantile"] / extra["seen"]
    np.testing.assert_allclose(quantile, np.quantile(shown[null], 0.95), rtol=1e-4)
    bare = dataclasses.replace(batch(), graph=None)
    with pytest.raises(ConfigError, match="^objective.quantile_of = 'unlinked': the scenes have no graph$"):
        objective.per_example_terms(state[0], state[1], state[2], bare, jax.random.key(0))


def test_slices_give_the_loss_and_the_gradient_of_the_whole_batch():
    objective, state, whole = step("true")
    sliced = functools.partial(microbatch.loss_and_grad(objective, 2, None), key=jax.random.key(0), step=0)
    (one, _), gradient = whole(*state, given("true"))
    (two, _), other = jax.jit(sliced)(*state, given("true"))
    np.testing.assert_allclose(one, two, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, other)


def test_slices_find_the_same_unlinked_pairs_as_the_whole_batch():
    objective = dataclasses.replace(CTT, graph="effects", quantile_of="unlinked")
    scenes, key = given("effects"), jax.random.key(0)
    state = jax.jit(objective.init)(key, scenes)
    contacts = np.random.default_rng(0).random(scenes.graph.shape) < 0.15  # other ones in each scene
    scenes = dataclasses.replace(scenes, graph=jnp.asarray(contacts))

    def extras(slices):
        loss = functools.partial(microbatch.loss_and_grad(objective, slices, None), key=key, step=0)
        return jax.tree.map(np.asarray, jax.jit(lambda *state: loss(*state, scenes)[0][1][1])(*state))

    one, two = extras(1), extras(2)
    assert one["quantile"] > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, two)


def test_invariance_is_over_objects_that_do_not_depend_on_the_other_and_the_true_graph_says_which():
    objective, state, whole = step("true")
    everything = dataclasses.replace(given("true"), graph=jnp.ones((8, 5, 5), bool))
    metrics = whole(*state, everything)[0][1][0]
    assert metrics["loss/invariance"] == 0 == metrics["loss/sufficiency"] and metrics["graph_density"] == 1
    nothing = dataclasses.replace(given("true"), graph=jnp.zeros((8, 5, 5), bool))
    alone = whole(*state, nothing)[0][1][0]
    assert alone["loss/invariance"] > 0 and alone["loss/sufficiency"] > 0 and alone["graph_density"] == 0


def test_what_the_simulation_changes_depends_on_what_was_removed():
    objective = dataclasses.replace(CTT, graph="intervened")
    scene = given("intervened")
    found = objective._pass(params(), scene, jax.random.key(0))
    graph = np.asarray(objective._graph({}, {}, scene, found)[0])
    removed = np.asarray(scene.removed)[:, :4]
    wanted = np.zeros((8, 4, 4), bool)
    wanted[:, 1] = removed & ~removed[:, 1:2]
    np.testing.assert_array_equal(graph.astype(bool), wanted)
    with pytest.raises(ConfigError, match=r"^objective.graph = 'intervened': must have data.intervened = 'rerender'$"):
        objective.per_example_terms(params(), {}, {}, batch(), jax.random.key(0))


def test_two_steps_that_agree_with_one_are_consistent():
    """A predictor that keeps every slot of the first frame that it sees composes with itself.

    So does one that moves it on in every frame.
    """

    class Still(Ctt):
        def _run(self, params, tokens, visible, present, key=None):
            walked = self.speed * jnp.arange(5.0)[:, None, None]
            return jnp.broadcast_to(tokens[:, :1], tokens.shape) + walked + self.drift, {}

        drift = speed = 0.0

    class Drifting(Still):
        drift = 1.0

    class Walking(Still):
        speed = 0.5

    for kind, wanted in ((Still, 0.0), (Drifting, 1.0), (Walking, 0.0)):
        objective = kind(PREDICTOR, history=3, future=2, steps=10)
        video = batch().video[:, :1] + objective.speed * jnp.arange(5.0)[:, None, None, None]
        found = objective._pass({}, dataclasses.replace(batch(), video=video), jax.random.key(0))
        there = found.present[:, 0, :4]
        # with a history of 3 frames and one step, the second window starts at a frame that was given, or was hidden
        moved = objective._consistency({}, found, found.prediction, there)
        hidden = (~found.visible[:, 1, :4] & there).sum(1) / there.sum(1)
        np.testing.assert_allclose(moved, wanted * hidden, atol=1e-6)
        assert 0 < hidden.mean() < 1
        long = dataclasses.replace(objective, history=1, future=4)
        found = found._replace(visible=found.visible & (jnp.arange(5) < 1)[:, None])
        np.testing.assert_allclose(long._consistency({}, found, found.prediction, there), wanted, atol=1e-5)


@pytest.mark.parametrize("auxiliary", [(), ("proprio", "action")])
def test_the_second_step_is_not_given_what_the_first_one_did_not_see(auxiliary):
    """Hidden tokens of the history, and predicted actions, which nothing trains, do not change the consistency."""
    history = 1 if auxiliary else 3  # with 1 the second step begins in the future
    objective = dataclasses.replace(CTT, auxiliary=auxiliary, history=history, future=5 - history)
    agent = jax.random.normal(jax.random.key(1), (8, 5, 2)) if auxiliary else None
    seen = batch().context & (jnp.arange(20) < 4 * history)
    scene = dataclasses.replace(batch(), actions=agent, proprio=agent, context=seen)
    weights = jax.jit(objective.init)(jax.random.key(0), scene)[0]

    @jax.jit
    def moved(tokens, action):
        found = objective._pass(weights, scene, jax.random.key(0))
        unseen = ~found.visible[..., None] & (jnp.arange(5) < history)[:, None, None]
        clean = found.prediction.at[:, history:, -1].add(action) if auxiliary else found.prediction
        found = found._replace(tokens=jnp.where(unseen, tokens, found.tokens))
        return unseen.sum(), objective._consistency(weights, found, clean, found.present[:, 0, :4])

    count, wanted = moved(0.0, 0.0)
    assert count > 0 or auxiliary
    np.testing.assert_array_equal(moved(99.0, 99.0)[1], wanted)


def test_taking_nothing_away_changes_nothing_with_gates_that_are_drawn():
    objective, state, _ = step("gates")

    @jax.jit
    def changes(params):
        found = objective._pass(params, given("gates"), jax.random.key(0))
        there, clean = found.present[:, 0, :4], objective._clean(params, found)
        nothing, edges = jnp.zeros_like(there), jnp.zeros((8, 4, 4), bool)
        terms = objective._terms(found._replace(prediction=clean), given("gates"))[0]
        stats = objective._causal((params, {}, {}), given("gates"), found)[1]
        drawn = jnp.square(found.prediction - clean).mean()
        return (
            objective._invariance(params, found, clean, edges, seen=there, j=nothing)[0],
            drawn,
            sum(terms.values()) - stats["open"],
        )

    invariance, drawn, loss = changes(state[0])
    np.testing.assert_array_equal(invariance, 0)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    assert drawn > 1e-6


def test_terms_are_added_in_one_order_in_every_process():
    objective, state, _ = step("gates")
    shapes = jax.eval_shape(objective.per_example_terms, *state, given("gates"), jax.random.key(0))
    terms, stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    backwards = dict(reversed(terms.items()))
    metrics = objective.reduce(backwards, stats, {}, jax.random.key(0), 0)[1][0]
    assert [name for name in metrics if name.removeprefix("loss/") in ctt.TERMS] == [f"loss/{n}" for n in ctt.TERMS]


@pytest.mark.parametrize(
    "options, text",
    [
        (
            {"graph": "x"},
            "objective.graph = 'x': must be one of published, attention, effects, gates, true, intervened",
        ),
        ({"invariance": -1}, "objective.invariance = -1: must be a number of at least 0"),
        ({"graph": "effects", "threshold": 1.5}, "objective.threshold = 1.5: must be in [0, 1), or -1"),
        ({"graph": "effects", "threshold": -0.5}, "objective.threshold = -0.5: must be in [0, 1), or -1"),
        ({"graph": "effects", "quantile_of": "x"}, "objective.quantile_of = 'x': must be all or unlinked"),
        (
            {"graph": "true", "quantile_of": "unlinked"},
            "objective.quantile_of = 'unlinked': is for objective.graph = 'effects', not 'true'",
        ),
        ({"start_epoch": 0.5}, "objective.start_epoch = 0.5: must be a whole number, at least 0"),
        ({"future": 1}, "objective.consistency = 0.3: must be 0 where objective.future = 1"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(CTT, **options)
    assert str(error.value) == text
